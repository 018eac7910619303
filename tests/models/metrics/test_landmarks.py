"""Figures from landmarks: they may not depend on where, how large and how tilted a face is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.metrics.landmarks import eye_opening, face_width, mouth_gap, off_by

# x, y in cm, y up, of the mean head; those that the figures look at, the others between them.
POINTS = {
    0: (-7.36, 3.68), 16: (7.36, 3.68), 8: (0, -7.57), 27: (0, 3.74), 30: (0, 0.41),
    36: (-4.46, 3.43), 39: (-1.84, 3.25), 42: (1.84, 3.25), 45: (4.46, 3.43),
    37: (-3.87, 3.87), 38: (-2.6, 3.9), 40: (-2.6, 3.05), 41: (-3.86, 3.07),
    43: (2.6, 3.9), 44: (3.87, 3.87), 46: (3.86, 3.07), 47: (2.6, 3.05),
    62: (0, -3.32), 66: (0, -3.40), 48: (-2.53, -3.52), 54: (2.53, -3.52),
}  # fmt: skip


def face() -> Tensor:
    """[1, 68, 2], shares of the picture, y down."""
    random = torch.Generator().manual_seed(0)
    marks = torch.rand(68, 2, generator=random) * 6 - 3
    for k, (x, y) in POINTS.items():
        marks[k] = torch.tensor([x, y])
    return (0.5 + marks * torch.tensor([1.0, -1.0]) / 29.5)[None]


def turned(marks: Tensor, degrees: float, scale: float, shift: tuple[float, float]) -> Tensor:
    a = math.radians(degrees)
    turn = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) * scale
    return marks @ turn.T + torch.tensor(shift)


ALL = torch.ones(1, 68, dtype=torch.bool)


def test_figures_do_not_depend_on_place_size_and_tilt() -> None:
    moved = turned(face(), 25, 0.6, (0.1, -0.2))
    assert float(off_by(moved, face(), ALL)) == pytest.approx(0, abs=1e-5)
    for figure in (eye_opening, mouth_gap):
        assert float(figure(moved)) == pytest.approx(float(figure(face())), rel=1e-4)
    assert float(face_width(moved)) == pytest.approx(0.6 * float(face_width(face())), rel=1e-4)


def test_width_is_from_ear_to_ear_and_survives_a_profile() -> None:
    assert float(face_width(face())) == pytest.approx(14.72 / 29.5, rel=1e-4)
    profile = (face() - 0.5) * torch.tensor([0.3, 1.0]) + 0.5
    assert float(face_width(profile)) > 0.95 * float(face_width(face()))


def test_noise_is_measured_in_widths_and_a_mirror_is_no_similarity() -> None:
    random = torch.Generator().manual_seed(1)
    noisy = face() + 0.004 * torch.randn(40, 68, 2, generator=random)
    # Mean length of a normal vector of deviation s is s sqrt(pi / 2).
    expected = 0.004 * math.sqrt(math.pi / 2) / float(face_width(face()))
    found = off_by(noisy, face().expand(40, -1, -1), ALL.expand(40, -1))
    assert float(found.mean()) == pytest.approx(expected, rel=0.05)
    mirrored = face() * torch.tensor([-1.0, 1.0])
    assert float(off_by(mirrored, face(), ALL)) > 0.06


def test_hidden_landmarks_do_not_count() -> None:
    wrong, seen = face(), ALL.clone()
    wrong[0, :20] += 0.4
    assert float(off_by(wrong, face(), seen)) > 0.06
    seen[0, :20] = False
    assert float(off_by(wrong, face(), seen)) == pytest.approx(0, abs=1e-5)
    assert torch.isfinite(off_by(wrong, face(), torch.zeros_like(seen))).all()


def test_lids_and_lips_are_seen_to_shut() -> None:
    shut = face()
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        shut[0, upper] = shut[0, lower]
    assert float(eye_opening(shut)) == 0
    assert float(eye_opening(face())) == pytest.approx(0.82 / 2.62, rel=0.03)
    wide = face()
    wide[0, 66, 1] += 1.47 / 29.5
    assert float(mouth_gap(wide)) == pytest.approx((0.08 + 1.47) / 14.72, rel=0.01)
