"""Hair as strands: where they root on the mean head, and how one grows along a flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.training.heads import deform, field
from models.training.heads.deform import smooth, smoothstep
from models.training.heads.field import trilinear
from models.training.heads.jit import kernel

if TYPE_CHECKING:
    from models.training.heads.anatomy import Anatomy

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Points = npt.NDArray[np.floating]

POINTS = 12  # vertices of a strand
# Height of the hairline on the mean head (cm) over the angle from the face's middle (degrees), and
# how far it rises where it recedes by 1.
_ANGLE = (0, 15, 30, 46, 58, 70, 76, 100, 108, 118, 140, 160, 180)
_LINE = (10.9, 10.9, 10.3, 8.2, 4.6, 3.2, 4.4, 4.3, 1.2, -1.6, -4.2, -4.6, -4.6)
_RISE = (1.0, 1.2, 1.9, 1.2, 0.4, 0, 0, 0, 0, 0, 0, 0, 0)


def above_hairline(p: Points, recede: float) -> F64:
    """How far points [n, 3] of the mean head lie above the hairline, cm."""
    angle = np.degrees(np.arctan2(np.abs(p[:, 0]), p[:, 2]))
    line = np.interp(angle, _ANGLE, _LINE) + np.interp(angle, _ANGLE, _RISE) * recede
    return np.asarray(p[:, 1] - line, np.float64)


def is_ear(p: Points) -> npt.NDArray[np.bool_]:
    """Which points [n, 3] of the mean head belong to an ear, where no hair roots."""
    return (np.abs(p[:, 0]) > 7.75) & (p[:, 1] < 4.2) & (p[:, 2] > -3.6)


def on_scalp(p: Points, recede: float, soft: float = 0.45) -> F64:
    """1 on the scalp, 0 on the face, `soft` cm about the hairline between."""
    return smoothstep(-soft, soft, above_hairline(p, recede)) * ~is_ear(p)


def unit(v: Points) -> F64:
    """Vectors [..., 3] of length 1."""
    return np.asarray(v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-6), np.float64)


def scatter(
    anatomy: Anatomy, density: Callable[[Points], Points], count: int, rng: np.random.Generator
) -> tuple[F64, F64, npt.NDArray[np.int32]]:
    """Points on the mean head's skin, as dense as `density` of positions says.

    Returns:
        Positions and normals [count, 3], and a vertex [count] near each.
    """
    t = anatomy.tri[anatomy.mat == 0]
    a, b, c = (anatomy.mean[t[:, k]].astype(np.float64) for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) * density((a + b + c) / 3)
    k = rng.choice(len(t), count, p=area / area.sum())
    u, v = rng.random((2, count, 1))
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    p = a[k] * (1 - u - v) + b[k] * u + c[k] * v
    return p, unit(anatomy.mean_normal[t[k]].mean(1)), t[k, 0]


@kernel(deform, field)
def grow(
    root,
    normal,
    first,
    comb,
    fall,
    length,
    layer,
    stick,
    stiff,
    target,
    pull,
    grid,
    origin,
    step,
    out,
):
    """One polyline per root, in equal steps.

    Args:
        root, normal, first: [n, 3] where it begins and in which direction.
        comb: [n, 3] direction wanted; fall: [n] gravity, felt more towards the tip.
        length: [n] cm; layer: [n] distance kept from the skin, reached at a third of the length.
        stick: [n] how much it clings to that distance; stiff: [n] how much it keeps its direction.
        target, pull: [n, 3], [n] a point that it runs to, and how eagerly; 0: none.
        grid, origin, step: The skull's distance field and its gradient.
        out: [n, points, 3].
    """
    points = out.shape[1]
    near = np.zeros((1, 4))
    at = np.zeros((1, 3))
    for m in range(root.shape[0]):
        p = root[m] + normal[m] * 0.03
        d = first[m] / math.sqrt((first[m] ** 2).sum() + 1e-9)
        out[m, 0] = p
        h = length[m] / (points - 1)
        for k in range(1, points):
            f = k / (points - 1)
            # Below the ears hair just falls; if it clung there, it would hug the neck like a hood.
            hold = stick[m] * (1.0 if pull[m] > 0 else smooth(-2.0, 4.0, p[1]))
            want = 0.05 + layer[m] * min(1.0, f / 0.35)
            at[0] = p
            trilinear(grid, origin, step, at, near)
            g = near[0, 1:4] / (math.sqrt((near[0, 1:4] ** 2).sum()) + 1e-6)
            v = comb[m] * max(0.0, 1.0 - 0.8 * f * fall[m])
            if pull[m] > 0:
                to = target[m] - p
                v = v * (1.0 - pull[m]) + to / (math.sqrt((to**2).sum()) + 1e-6) * pull[m]
            v[1] -= fall[m] * f
            out_of = (v * g).sum()
            if near[0, 0] < want + 0.7 and out_of < 0:
                v = v - g * out_of
            elif out_of > 0:
                v = v - g * (out_of * hold)
            w = stiff[m] * (1.0 - 0.3 * f)
            d = d * w + v * (1.0 - w)
            d = d / (math.sqrt((d**2).sum()) + 1e-6)
            t = p + d * h
            at[0] = t
            trilinear(grid, origin, step, at, near)
            g = near[0, 1:4] / (math.sqrt((near[0, 1:4] ** 2).sum()) + 1e-6)
            if near[0, 0] < want:
                t = t + g * (want - near[0, 0])
            else:
                t = t - g * ((near[0, 0] - want) * 0.5 * hold)
            d = t - p
            d = d / (math.sqrt((d**2).sum()) + 1e-6)
            p = t
            out[m, k] = p
