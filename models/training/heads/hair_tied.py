"""What tied hair ends in: a bun behind the crown, or a tail that falls from a knot."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.training.heads.hair_grow import POINTS, unit

F64 = npt.NDArray[np.float64]
_STRANDS = 1100


def tail_or_bun(style: str, rng: np.random.Generator, length: float, volume: float) -> F64 | None:
    """Further strands [n, POINTS, 3] on the mean head, if the style has any.

    Args:
        length: 0 .. 1, the tail's length or the bun's size; volume: about 1.
    """
    if style == "bun":
        return _bun(rng, (2.5 + 0.8 * length) * volume**0.5)
    if style == "ponytail":
        return _tail(rng, 11.5 + 8.0 * length, volume)
    return None


def _bun(rng: np.random.Generator, radius: float) -> F64:
    """Arcs wound about a ball."""
    axis = unit(np.array([0.1, 0.9, -0.35]) + rng.normal(0, 0.55, (_STRANDS, 3)))
    u = unit(np.cross(axis, rng.normal(0, 1, (_STRANDS, 3))))
    v = np.cross(axis, u)
    angle = rng.random((_STRANDS, 1, 1)) * 2 * np.pi
    angle = angle + np.linspace(0, 2.3, POINTS)[None, :, None]
    away = radius * rng.uniform(0.86, 1.03, (_STRANDS, 1, 1))
    arc = away * (u[:, None] * np.cos(angle) + v[:, None] * np.sin(angle))
    centre = np.array([0, 13.0 + radius, -6.2])
    return np.asarray(centre + arc * [1.0, 0.88, 0.88])


def _tail(rng: np.random.Generator, length: float, volume: float) -> F64:
    a = rng.normal(0, 0.38, (_STRANDS, 2)) * volume
    s = np.linspace(0, 1, POINTS)[None, :]
    wide = 1 + 2.2 * np.sin(np.pi * np.minimum(s * 1.05, 1)) ** 0.8
    reach = rng.uniform(0.8, 1.05, (_STRANDS, 1))
    x = a[:, :1] * wide + 0.5 * np.sin(s * 3 + 1) * s
    y = 5.6 - length * s * reach - a[:, 1:] * 0.6
    z = -10.2 - 2.3 * np.sin(s * 2.6) + a[:, 1:] * wide
    return np.stack([x, y, z], -1)
