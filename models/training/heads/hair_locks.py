"""What is done to strands that have grown: cut, gathered into locks, curled, kept off the crown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.training.heads.deform import smoothstep
from models.training.heads.hair_grow import unit

if TYPE_CHECKING:
    from models.training.heads.anatomy import Anatomy

F64 = npt.NDArray[np.float64]
Points = npt.NDArray[np.floating]


def _nearest(keys: Points, guides: Points) -> npt.NDArray[np.int_]:
    a, b = keys.astype(np.float32), guides.astype(np.float32)
    return np.argmin((b**2).sum(1)[None] - 2 * a @ b.T, 1)


def gather(
    strands: F64, rng: np.random.Generator, locks: int, strength: float
) -> tuple[F64, npt.NDArray[np.int_]]:
    """Pulls strands [n, points, 3] towards the nearest of some of them, most at the tips.

    This is what makes locks out of a fleece.

    Returns:
        The strands, and which one of them [n] each has been pulled to.
    """
    guide = rng.choice(len(strands), locks, replace=False)
    # By the middles too: a lock must not cross the parting through the skull.
    key = np.concatenate([strands[:, 0], 0.6 * strands[:, strands.shape[1] // 2]], 1)
    mine = guide[_nearest(key, key[guide])]
    along = np.linspace(0, 1, strands.shape[1])[None, :, None] ** 1.5
    beside = 0.25 * (strands[:, :1] - strands[mine][:, :1])
    return strands + (strands[mine] + beside - strands) * (along * strength), mine


def cut(strands: F64, height: Points) -> F64:
    """Shortens each strand [n, points, 3] to where it first sinks below its `height` [n]."""
    points, row = strands.shape[1], np.arange(len(strands))
    below = strands[:, :, 1] < height[:, None]
    first = np.where(below.any(1), np.argmax(below, 1), points - 1)
    i = np.maximum(first, 1)
    upper, lower = strands[row, i - 1, 1], strands[row, i, 1]
    crossing = i - 1 + np.clip((upper - height) / (upper - lower + 1e-6), 0, 1)
    end = np.where(below.any(1), np.maximum(crossing, 0.5), points - 1)
    return resample(strands, end)


def resample(strands: F64, end: Points) -> F64:
    """Strands [n, points, 3] from their roots to vertex number `end` [n], which may be broken."""
    points, row = strands.shape[1], np.arange(len(strands))[:, None]
    at = np.linspace(0, 1, points)[None] * np.asarray(end)[:, None]
    k = np.minimum(at.astype(int), points - 2)
    w = (at - k)[..., None]
    return strands[row, k] * (1 - w) + strands[row, k + 1] * w


def curl(strands: F64, rng: np.random.Generator, radius: float, turns: float, locks: int) -> F64:
    """Winds strands [n, points, 3] about themselves; those of one lock in step."""
    n, points, _ = strands.shape
    s = np.linspace(0, 1, points)[None, :, None]
    along = np.gradient(strands, axis=1)
    side = unit(np.cross(along, [0.3, 1.0, 0.2]))
    other = unit(np.cross(along, side))
    mates = rng.choice(n, locks, replace=False)
    phase = (rng.random(locks) * 2 * np.pi)[_nearest(strands[:, 0], strands[mates, 0])]
    angle = phase[:, None, None] + 2 * np.pi * turns * s + rng.normal(0, 0.35, (n, 1, 1))
    grown = radius * smoothstep(0, 0.25, s)
    return np.asarray(strands + grown * (side * np.cos(angle) + other * np.sin(angle)))


def press_down(anatomy: Anatomy, strands: F64, layer: Points, most: float) -> F64:
    """Brings the first half of strands that loop up at the crown back to `most` above their layer.

    Combing "down the head" at the crown points into the skull; nothing but its tangential part is
    left there, which is next to nothing, and strands stand up.
    """
    half = strands.shape[1] // 2
    first = strands[:, :half].reshape(-1, 3).astype(np.float32)
    sdf = anatomy.field.at(first)
    high = sdf[:, 0] - np.repeat(layer, half) - most
    high = np.maximum(high, 0) * smoothstep(10.5, 12.5, first[:, 1])
    moved = strands.copy()
    moved[:, :half] -= (unit(sdf[:, 1:]) * high[:, None]).reshape(-1, half, 3)
    return moved
