"""Brows, painted hair by hair along the landmarks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.faces.traits import Traits
from models.training.heads.deform import smoothstep
from models.training.heads.noise import Use, draws
from models.training.heads.strokes import blur, paint_strokes, spline

F32 = npt.NDArray[np.float32]
_STROKES = 560  # of one brow; how many are drawn is a trait
_SIDES = ((range(21, 16, -1), -1.0), (range(22, 27), 1.0))  # landmarks, inner end first; sign
_ALONG = (0.0, 0.06, 0.18, 0.36, 0.6, 0.82, 1.0)
_WIDTH = (0.5, 0.85, 1.05, 1.05, 0.8, 0.48, 0.16)  # full at the inner third, a fine tail


def paint_brows(landmarks: npt.NDArray[np.floating], size: int, traits: Traits) -> tuple[F32, F32]:
    """Masks [size, size] of the hairs and of the shade under them.

    Args:
        landmarks: [68, 2] in texels.
    """
    mask = np.zeros((size, size), np.float32)
    for side, (ids, sign) in enumerate(_SIDES):
        spine = spline(landmarks[list(ids)] + [0.0, 4.0 * size / 512], 200, False)
        _paint(mask, spine, sign, side, size / 512, traits)
    shade = blur(mask, max(1, round(3 * size / 512)))
    return mask, np.clip(shade * 1.6, 0, 1)


def _paint(
    mask: F32,
    spine: npt.NDArray[np.float64],
    sign: float,
    side: int,
    scale: float,
    traits: Traits,
) -> None:
    rng, n = draws(Use.BROWS, side), _STROKES
    t = np.abs(rng.random(n) ** 0.9 - 0.03 * rng.random(n))
    off = rng.normal(0, 0.42, n).clip(-1, 1)
    lean = np.interp(t, [0, 0.25, 0.6, 1], [1.0, 0.65, 0.3, 0.08]) + rng.normal(0, 0.10, n)
    length = rng.uniform(6.5, 11.0, n) * scale * np.interp(t, [0, 0.3, 1], [0.85, 1, 0.75])
    bend = 0.12 * sign * rng.normal(1, 0.5, n)
    width = rng.uniform(0.5, 0.85, n) * scale
    strength = rng.uniform(0.5, 1.0, n) * np.interp(t, [0, 0.12, 1], [0.6, 1, 1])
    # Thinner brows lose hairs one after the other, each fading, so that no number makes a jump.
    keep = smoothstep(-0.04, 0.04, traits["brow_density"] - rng.random(n))

    breadth = traits["brow_width"] * scale * 7.6 * np.interp(t, _ALONG, _WIDTH)
    at = (t * 199).astype(int)
    along = spine[np.minimum(at + 12, 199)] - spine[np.maximum(at - 12, 0)]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    heading = along + np.array([0.0, -1.0]) * (lean - 0.25 * off)[:, None]
    heading *= (length / np.linalg.norm(heading, axis=1))[:, None]
    x, y = spine[at, 0], spine[at, 1] + off * breadth
    paint_strokes(mask, x, y, *heading.T.copy(), bend, width, strength * keep)
