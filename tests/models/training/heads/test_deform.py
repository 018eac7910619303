"""The kernels that move vertices, against plain float64 arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.training.heads import deform as d

RNG = np.random.default_rng(4)


def turned(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rodrigues' formula."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def test_signs_of_the_three_angles():
    ahead, up = np.array([0, 0, 1.0]), np.array([0, 1.0, 0])
    assert (d.rotation(30, 0, 0) @ ahead)[0] == pytest.approx(0.5)  # to the person's left
    assert (d.rotation(0, 30, 0) @ ahead)[1] == pytest.approx(0.5)  # up
    assert (d.rotation(0, 0, 30) @ up)[0] == pytest.approx(-0.5)  # to the person's right
    # Yaw about the world's y, roll about the head's own z: a turned head tilts in its own frame.
    both = d.rotation(90, 0, 30) @ up
    assert both == pytest.approx([0, math.cos(math.pi / 6), 0.5])


@pytest.mark.parametrize("pose", [(0, 0, 0), (60, 35, 30), (-60, -35, 12), (1e-5, 0, 0), (5, 1, 0)])
def test_axis_and_angle_make_the_rotation(pose):
    matrix = d.rotation(*pose)
    axis, angle = d.axis_angle(matrix)
    assert axis.dtype == np.float32
    assert turned(axis.astype(float), angle) == pytest.approx(matrix, abs=1e-6)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_expressions_add_up_and_stop_at_n():
    rest = RNG.normal(size=(20, 3)).astype(np.float32)
    dense = RNG.normal(size=(5, 20, 3)).astype(np.float32) * (RNG.random((5, 20, 1)) < 0.4)
    active = [np.flatnonzero(e.any(1)) for e in dense]
    index = np.concatenate(active).astype(np.int32)
    offset = np.concatenate([e[k] for e, k in zip(dense, active, strict=True)])
    begin = np.cumsum([0, *map(len, active)]).astype(np.int32)
    weight = np.array([0.5, 0.0, 1.0, 0.00005, -0.25], np.float32)
    out = np.full((20, 3), np.nan, np.float32)
    d.deform(rest, index, offset, begin, weight, 15, out)
    expected = rest + np.tensordot(weight[[0, 2, 4]], dense[[0, 2, 4]], 1)
    assert out[:15] == pytest.approx(expected[:15], abs=1e-5)
    assert np.isnan(out[15:]).all()


def test_a_neck_turns_by_shares_of_the_angle():
    """Against a turn by angle * share for each point: 32 steps are within a hundredth of that."""
    points = RNG.normal(0, 8, (200, 3)).astype(np.float32)
    share = RNG.random(200).astype(np.float32)
    share[:3], pose = (0, 1, 0.5), d.rotation(50, 20, -15)
    axis, angle = d.axis_angle(pose)
    torso = d.rotation(10, -3, 4)
    shift = np.array([0.5, -1.0, 2.0])
    out = np.zeros_like(points)
    d.bend(
        points,
        share,
        200,
        axis,
        angle,
        d.PIVOT,
        torso.astype(np.float32),
        shift.astype(np.float32),
        out,
    )
    for p, w, q in zip(points.astype(float), share, out, strict=True):
        turn = turned(axis.astype(float), angle * float(w))
        assert q == pytest.approx(torso @ (turn @ (p - d.PIVOT) + d.PIVOT) + shift, abs=6e-3)
    assert out[1] == pytest.approx(
        torso @ (pose @ (points[1] - d.PIVOT) + d.PIVOT) + shift, abs=1e-4
    )


def test_loose_hair_stays_where_it_was_and_the_rest_follows():
    rest = np.array([[0, 8, 0], [5, -14, 0], [0, 4, -13.5], [5, -6, 0]], np.float32)
    here, old = np.zeros((4, 3), np.float32), np.ones((4, 3), np.float32)
    d.follow(rest, 4, old, here)
    assert here[0] == pytest.approx(0)
    assert here[1] == pytest.approx(0.75) and here[2] == pytest.approx(0.75)
    assert 0.2 < here[3, 0] < 0.5


def test_normals_of_a_ball_point_outwards_and_loose_points_have_none():
    a, b = np.meshgrid(np.linspace(0.2, math.pi - 0.2, 24), np.arange(48) * math.pi / 24)
    p = np.stack([np.sin(a) * np.cos(b), np.sin(a) * np.sin(b), np.cos(a)], -1)
    at = np.arange(p.size // 3).reshape(a.shape)
    q, s = at, np.roll(at, -1, 0)
    tri = np.concatenate(
        [
            np.stack([q[:, :-1], q[:, 1:], s[:, 1:]], -1).reshape(-1, 3),
            np.stack([q[:, :-1], s[:, 1:], s[:, :-1]], -1).reshape(-1, 3),
        ]
    )
    points = np.concatenate([p.reshape(-1, 3), [[9, 9, 9]]]).astype(np.float32)
    out = np.full_like(points, np.nan)
    d.normals(tri.astype(np.int32), points, out)
    assert (np.einsum("ij,ij->i", out[:-1], points[:-1]) > 0.99).all()
    assert out[-1] == pytest.approx(0)


def test_smoothstep_rises_or_falls():
    assert d.smoothstep(1, 3, [0, 1, 2, 3, 4]) == pytest.approx([0, 0, 0.5, 1, 1])
    assert d.smoothstep(3, 1, [0, 1, 2, 3, 4]) == pytest.approx([1, 1, 0.5, 0, 0])


def test_the_chin_belongs_to_the_head_and_the_collar_does_not():
    points = np.array([[0, -7.5, 10.4], [0, 5, 0], [0, -15, 2], [0, -8, -6]], float)
    chin, skull, collar, nape = d.neck_weight(points)
    assert chin == skull == 1 and collar == 0 and 0 < nape < 1
