"""The colour of an eye."""

from __future__ import annotations

import math

from models.training.heads.jit import inlined
from models.training.heads.shade.single import F, smooth


@inlined
def eye_albedo(x, y, z, iris, radius):
    """Red, green, blue and 1 on the cornea, 0 on the white.

    Args:
        x, y, z: Direction from the eye's centre in its own frame.
        iris: [rings, spokes, 3] of `eyes.iris_texture`; radius: the iris's over the eyeball's.
    """
    rho = math.sqrt(x * x + y * y) / radius
    if z < 0:
        rho = F(9.0)
    red = smooth(F(0.35), F(0.95), abs(x)) * F(0.55) + F(0.10)  # the white is pinker at the corners
    r, g, b = F(0.80) - F(0.06) * red, F(0.765) - F(0.25) * red, F(0.735) - F(0.26) * red
    white = smooth(F(0.90), F(1.10), rho)
    if white >= F(1.0):
        return r, g, b, F(0.0)
    rings, spokes = iris.shape[0], iris.shape[1]
    angle = (math.atan2(y, x) / F(6.2831853) + F(0.5)) * F(spokes)
    ring = min(rho, F(0.999)) * F(rings - 1)
    i, j = int(ring), int(angle)
    f, h = ring - F(i), angle - F(j)
    j = j % spokes
    i2, j2 = min(i + 1, rings - 1), (j + 1) % spokes
    a, c, d, e = (F(1) - f) * (F(1) - h), (F(1) - f) * h, f * (F(1) - h), f * h
    k = F(1.0) - white
    r = r * white + k * (
        iris[i, j, 0] * a + iris[i, j2, 0] * c + iris[i2, j, 0] * d + iris[i2, j2, 0] * e
    )
    g = g * white + k * (
        iris[i, j, 1] * a + iris[i, j2, 1] * c + iris[i2, j, 1] * d + iris[i2, j2, 1] * e
    )
    b = b * white + k * (
        iris[i, j, 2] * a + iris[i, j2, 2] * c + iris[i2, j, 2] * d + iris[i2, j2, 2] * e
    )
    return r, g, b, k
