"""Triangles and strands in the buffer of samples, against slow and obvious forms."""

from __future__ import annotations

import numpy as np
import pytest

from models.training.heads.noise import Use, draws, hash_table, noise
from models.training.heads.raster.project import frame_of, project, project_parallel
from models.training.heads.raster.strands import strands, strands_depth
from models.training.heads.raster.triangles import EMPTY, STRAND, triangles

SIDE = 40


def naive(tri, x, y, z):
    depth = np.zeros((SIDE, SIDE))
    ids = np.full((SIDE, SIDE), EMPTY)
    for t, (a, b, c) in enumerate(tri):
        area = (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])
        if area >= 0:
            continue
        for j in range(SIDE):
            for i in range(SIDE):
                p, q = i + 0.5, j + 0.5
                wa = ((x[b] - p) * (y[c] - q) - (y[b] - q) * (x[c] - p)) / area
                wb = ((x[c] - p) * (y[a] - q) - (y[c] - q) * (x[a] - p)) / area
                wc = 1 - wa - wb
                if min(wa, wb, wc) >= 0:
                    deep = wa * z[a] + wb * z[b] + wc * z[c]
                    if deep > depth[j, i]:
                        depth[j, i], ids[j, i] = deep, t
    return depth, ids


def test_triangles_are_those_of_a_slow_rasteriser():
    rng = np.random.default_rng(5)
    corners = 3 * 40
    x, y = (rng.uniform(-8, SIDE + 8, corners).astype(np.float32) for _ in range(2))
    z = rng.uniform(0.1, 1, corners).astype(np.float32)
    tri = np.arange(corners, dtype=np.int32).reshape(-1, 3)
    depth = np.zeros((SIDE, SIDE), np.float32)
    ids = np.full((SIDE, SIDE), EMPTY, np.int32)
    triangles(tri, x, y, z, depth, ids, True)
    expected, who = naive(tri, *(v.astype(float) for v in (x, y, z)))
    assert (ids == who).mean() > 0.995  # samples on an edge may fall to either side
    same = ids == who
    np.testing.assert_allclose(depth[same], expected[same], atol=2e-3)


def test_neighbours_leave_no_gap():
    """A fan of slivers covers every sample of its outline."""
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    x = np.concatenate([[20.3], 20.3 + 15 * np.cos(angle)]).astype(np.float32)
    y = np.concatenate([[19.7], 19.7 + 15 * np.sin(angle)]).astype(np.float32)
    k = np.arange(120)
    tri = np.stack([0 * k, (k + 1) % 120 + 1, k + 1], 1).astype(np.int32)
    depth = np.zeros((SIDE, SIDE), np.float32)
    ids = np.full((SIDE, SIDE), EMPTY, np.int32)
    triangles(tri, x, y, np.ones(121, np.float32), depth, ids, True)
    row, column = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    inside = np.hypot(column - 20.3, row - 19.7) < 14.9
    assert (ids[inside] >= 0).all()


@pytest.mark.parametrize("steep", [False, True])
@pytest.mark.parametrize(("width", "alpha", "expected"), [(3.0, 1.0, 3), (1.0, 1.0, 1)])
def test_a_strand_is_as_wide_as_it_says(steep, width, alpha, expected):
    along = np.linspace(4, 36, 4).astype(np.float32)
    across = np.full(4, 20.5, np.float32)
    x, y = (across, along) if steep else (along, across)
    buffers = _empty()
    flags = np.ones(4, np.bool_)
    wide = np.full(4, width, np.float32)
    strands(
        4,
        x,
        y,
        np.ones(4, np.float32),
        np.full((4, 3), 0.5, np.float32),
        flags,
        wide,
        np.float32(alpha),
        5,
        *buffers,
    )
    drawn = buffers[1] == STRAND
    assert (drawn[20] if steep else drawn[:, 20]).sum() == expected
    assert (buffers[3][drawn] == 5).all()
    np.testing.assert_allclose(buffers[2][drawn], 0.5)


def test_what_is_behind_or_hidden_is_not_drawn():
    x, y = np.array([5, 35], np.float32), np.array([20, 20], np.float32)
    for near, seen in ((0.2, True), (1.0, False)):
        buffers = _empty()
        buffers[0][:] = 0.5
        flags = np.full(2, seen, np.bool_)
        strands(
            2,
            x,
            y,
            np.full(2, near, np.float32),
            np.ones((2, 3), np.float32),
            flags,
            np.full(2, 2.0, np.float32),
            np.float32(1),
            5,
            *buffers,
        )
        assert (buffers[1] == EMPTY).all()


def test_depth_of_strands_is_the_nearest():
    depth = np.full((SIDE, SIDE), -1e3, np.float32)
    x = np.array([5, 35, 5, 35], np.float32)
    y = np.full(4, 10.2, np.float32)
    strands_depth(2, x, y, np.array([1, 1, 2, 3], np.float32), depth, 1)
    assert depth[10, 6] == pytest.approx(2, abs=0.1) and depth[10, 34] == pytest.approx(3, abs=0.1)


def test_projections_agree_with_their_formulas():
    rng = np.random.default_rng(1)
    v = rng.normal(0, 5, (30, 3)).astype(np.float32)
    x, y, z = (np.zeros(30, np.float32) for _ in range(3))
    project(v, np.float32(64), np.float32(64), np.float32(200), np.float32(60), x, y, z)
    np.testing.assert_allclose(x, 64 + 200 * v[:, 0] / (60 - v[:, 2]), rtol=1e-5)
    np.testing.assert_allclose(y, 64 - 200 * v[:, 1] / (60 - v[:, 2]), rtol=1e-5)
    right, up, forward = frame_of([0.3, 0.4, 0.8])
    frame = np.stack([right, up, forward])
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-6)
    centre = np.zeros(3, np.float32)
    project_parallel(v, right, up, forward, centre, np.float32(3), np.float32(100), x, y, z)
    np.testing.assert_allclose(z, v @ forward, atol=1e-5)
    np.testing.assert_allclose(x, 50 + 3 * v @ right, atol=1e-4)


def test_noise_is_the_same_for_everybody():
    p = np.random.default_rng(0).normal(0, 5, (200, 3))
    np.testing.assert_array_equal(noise(p, 1.4, 3, Use.SKIN), noise(p, 1.4, 3, Use.SKIN))
    assert (noise(p, 1.4, 3, Use.SKIN) != noise(p, 1.4, 3, Use.CLOTH)).any()
    assert draws(Use.IRIS).random() == draws(Use.IRIS).random()
    many = noise(np.random.default_rng(2).uniform(-50, 50, (20000, 3)), 1.0, 2, Use.SKIN)
    assert abs(many.mean()) < 0.1 and 0.15 < many.std() < 0.6
    assert hash_table(Use.SKIN).shape == (4096,)


def _empty():
    return (
        np.zeros((SIDE, SIDE), np.float32),
        np.full((SIDE, SIDE), EMPTY, np.int32),
        np.zeros((SIDE, SIDE, 3), np.float32),
        np.zeros((SIDE, SIDE), np.uint8),
    )
