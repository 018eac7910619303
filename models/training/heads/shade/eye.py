"""The colour of an eye."""

from __future__ import annotations

import math

from models.training.heads import deform
from models.training.heads.deform import smooth
from models.training.heads.jit import inlined

USES = (deform,)


@inlined
def eye_albedo(x, y, z, iris, radius):
    """Red, green, blue and 1 on the cornea, 0 on the white.

    Args:
        x, y, z: Direction from the eye's centre in its own frame.
        iris: [rings, spokes, 3] of `eyes.iris_texture`; radius: the iris's over the eyeball's.
    """
    rho = math.sqrt(x * x + y * y) / radius
    if z < 0:
        rho = 9.0
    red = smooth(0.35, 0.95, abs(x)) * 0.55 + 0.10  # the white is pinker at the corners
    r, g, b = 0.80 - 0.06 * red, 0.765 - 0.25 * red, 0.735 - 0.26 * red
    white = smooth(0.90, 1.10, rho)
    if white >= 1.0:
        return r, g, b, 0.0
    rings, spokes = iris.shape[0], iris.shape[1]
    angle = (math.atan2(y, x) / 6.2831853 + 0.5) * spokes
    ring = min(rho, 0.999) * (rings - 1)
    i, j = int(ring), int(angle)
    f, h = ring - i, angle - j
    j = j % spokes
    i2, j2 = min(i + 1, rings - 1), (j + 1) % spokes
    a, c, d, e = (1 - f) * (1 - h), (1 - f) * h, f * (1 - h), f * h
    k = 1.0 - white
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
