"""Glasses: their frame as polylines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.faces.traits import Traits

if TYPE_CHECKING:
    from models.training.heads.anatomy import Anatomy

F32 = npt.NDArray[np.float32]
POINTS = 40  # vertices of a line
# Half width, half height, how square the rims are (1 round), thickness in cm.
_KINDS = {
    "round": (2.35, 2.2, 1.0, 0.20),
    "square": (2.6, 1.9, 0.55, 0.30),
    "narrow": (2.7, 1.6, 0.75, 0.18),
}
_APART = 3.35  # of a lens's middle from the nose


def thickness(traits: Traits) -> float:
    """Of the frame, cm; 0 without glasses."""
    kind = traits.chosen("glasses")
    return _KINDS[kind][3] if kind else 0.0


def glasses_of(anatomy: Anatomy, traits: Traits, rest: F32) -> F32:
    """Lines [M, POINTS, 3] on a person's head at rest [n, 3]; M = 0 without glasses."""
    kind = traits.chosen("glasses")
    if kind is None:
        return np.zeros((0, POINTS, 3), np.float32)
    lines = _on_mean_head(*_KINDS[kind][:3])
    bridge = anatomy.landmarks[[27, 28]]
    lines += (rest[bridge] - anatomy.mean[bridge]).mean(0) * [0, 1, 1] + [0, 0, 0.15]
    ear = anatomy.landmarks[16]
    lines *= [0.35 + 0.65 * rest[ear, 0] / anatomy.mean[ear, 0], 1, 1]
    return lines.astype(np.float32)


def _on_mean_head(wide: float, high: float, square: float) -> npt.NDArray[np.float64]:
    angle, u = np.linspace(0, 2 * np.pi, POINTS), np.linspace(0, 1, POINTS)

    def bent(v: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.sign(v) * np.abs(v) ** square

    lines = []
    for side in (-1, 1):
        x = side * _APART + wide * bent(np.cos(angle))
        y = 3.25 + high * bent(np.sin(angle))
        z = 11.05 - 0.055 * (np.abs(x) - 1) ** 2 + 0.06 * (y - 3)
        lines.append(np.stack([x, y, z], 1))
        temple = [side * (6.0 + 2.0 * u**0.5), 3.9 - 0.5 * u**2, 9.75 - 9.6 * u]
        lines.append(np.stack(temple, 1))
    v = np.linspace(-1, 1, POINTS)
    bridge = [v * 1.02, 3.75 + 0.35 * (1 - v * v), 11.15 + 0.45 * (1 - v * v)]
    lines.append(np.stack(bridge, 1))
    return np.array(lines)
