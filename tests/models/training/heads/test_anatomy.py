"""The drawn mesh, what is known about it, the shirt and the distance field."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.faces.prior import person
from models.training.heads import anatomy as a
from models.training.heads import field, lashes
from models.training.heads.deform import deform
from models.training.heads.kit import PART


def test_vertices_lie_in_their_order(anatomy):
    an = anatomy
    assert 0 < an.n_skin == an.eye0 < an.shirt0 < an.lash0 <= an.mouth0 < an.n == len(an.source)
    groups = {
        ("face", "head_neck"): slice(0, an.eye0),
        ("sclera_l", "sclera_r"): slice(an.eye0, an.shirt0),
        ("lashes_l", "lashes_r"): slice(an.lash0, an.mouth0),
        ("gums_tongue", "teeth", "mouth_socket"): slice(an.mouth0, an.n),
    }
    for parts, where in groups.items():
        assert set(np.unique(an.part[where])) <= {PART[p] for p in parts}
    side = an.part[an.eye0 : an.shirt0] == PART["sclera_r"]
    assert np.array_equal(an.eye_side, side) and not side[: an.n_left].any()
    assert np.array_equal(an.mean[: an.n_skin], an.kit.neutral[an.source[: an.n_skin]])
    assert np.array_equal(an.mean[an.landmarks], an.kit.neutral[an.kit.landmarks])
    assert (an.landmarks < an.n_skin).all()
    assert an.is_teeth.sum() > 0 and (np.flatnonzero(an.is_teeth) >= an.mouth0).all()


def test_a_shut_mouth_is_left_out_by_shortening(anatomy):
    an = anatomy
    assert an.tri.min() >= 0 and an.tri.max() < an.n
    assert an.tri[: an.tri_closed].max() < an.mouth0
    assert (an.mat[: an.tri_closed] <= a.SHIRT).all() and (an.mat[an.tri_closed :] >= a.GUMS).all()
    assert set(np.unique(an.mat)) == set(range(6))


def test_triangles_face_as_in_the_kit(anatomy):
    corners = anatomy.mean[anatomy.tri[anatomy.mat == a.SKIN]].astype(float)
    of_kit = anatomy.kit.triangles[np.isin(anatomy.kit.tri_part, [PART["face"], PART["head_neck"]])]
    assert np.array_equal(corners, anatomy.kit.neutral[of_kit])


def test_sparse_expressions_are_the_kits(anatomy):
    an, rng = anatomy, np.random.default_rng(1)
    weight = rng.random(53).astype(np.float32) * (rng.random(53) < 0.3)
    out = np.zeros((an.n, 3), np.float32)
    deform(an.mean, an.ex_idx, an.ex_val, an.ex_ptr, weight, an.n, out)
    dense = np.tensordot(weight, an.kit.expression[:, an.source], 1)
    dense[an.shirt0 : an.lash0] = 0  # a shirt does not smile
    # Each expression forgets what is below 0.01 mm.
    assert np.abs(out - an.mean - dense).max() < 1e-3 * (weight > 0).sum()
    moved = np.abs(out - an.mean)
    assert moved.max() > 0.1 and (moved[an.shirt0 : an.lash0] == 0).all()


def test_a_shirt_does_not_smile(small):
    """Also not where a kit's expressions reach down to the bust."""
    everywhere = small.expression + np.float32(0.1)
    an = a.Anatomy(dataclasses.replace(small, expression=everywhere))
    cloth = (an.ex_idx >= an.shirt0) & (an.ex_idx < an.lash0)
    assert not cloth.any() and len(an.ex_idx) > 50 * an.n_skin


def test_neighbours_are_mutual_and_are_the_mesh(anatomy):
    an = anatomy
    pairs = {(i, int(j)) for i in range(an.n_skin) for j in an.nb[an.nb_ptr[i] : an.nb_ptr[i + 1]]}
    assert all((j, i) in pairs for i, j in pairs)
    some = an.tri[an.mat == a.SKIN][::97]
    assert all((int(t[k]), int(t[(k + 1) % 3])) in pairs for t in some for k in range(3))
    assert an.nb_ptr[-1] == len(an.nb)


def test_softer_faces_have_smaller_jaws_and_larger_eyes(anatomy):
    an = anatomy
    assert np.linalg.norm(an.softness) == pytest.approx(2.0, rel=1e-4)
    soft = an.mean + np.tensordot(an.softness, an.identity, 1)
    width = lambda v: np.linalg.norm(v[an.landmarks[4]] - v[an.landmarks[12]])  # noqa: E731
    nose = lambda v: np.linalg.norm(v[an.landmarks[27]] - v[an.landmarks[33]])  # noqa: E731
    jaw = lambda v: width(v) / np.linalg.norm(v[an.landmarks[0]] - v[an.landmarks[16]])  # noqa: E731
    assert jaw(soft) < jaw(an.mean)
    assert nose(soft) < nose(an.mean)


def test_a_person_is_the_mean_head_and_its_numbers(anatomy):
    an, traits = anatomy, person(3)
    expected = an.identity.astype(float).transpose(1, 2, 0) @ (
        traits.vector[:32].astype(float) + traits["soft"] * an.softness.astype(float)
    )
    assert np.abs(an.displacement(traits) - expected).max() < 1e-4
    plain = traits.replace(**{f"shape_{k:02d}": 0.0 for k in range(32)}, soft=0.0)
    assert np.abs(an.displacement(plain)).max() == 0


def test_the_shirt_hangs_under_the_neck_and_reaches_beyond_the_picture(anatomy):
    cloth = anatomy.mean[anatomy.shirt0 : anatomy.lash0]
    assert cloth[:, 1].max() < -5.0  # never up to the chin
    assert cloth[:, 1].min() < -25.0 and np.abs(cloth[:, 0]).max() > 17.0
    assert (anatomy.weight[anatomy.shirt0 : anatomy.lash0] <= 0.9).all()
    edges = anatomy.shirt.triangles
    edges = np.concatenate([edges[:, [0, 1]], edges[:, [1, 2]], edges[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)  # one side is outside everywhere


def test_the_field_knows_inside_outside_and_the_way_out(anatomy):
    an = anatomy
    at = an.field.at(np.array([[0, 5, 0], [0, 5, 14], [0, 16, 0], [12, 5, 0]], np.float32))
    assert at[0, 0] < -4 and (at[1:, 0] > 1).all()
    assert at[1, 3] > 0.8 and at[2, 2] > 0.8 and at[3, 1] > 0.8
    surface = an.mean[: an.n_skin : 9]
    assert np.abs(an.field.at(surface)[:, 0]).mean() < 0.4
    assert np.array_equal(an.near, an.field.near) and an.sdf is an.field.sdf


def test_the_nearest_vertex_is_the_nearest(anatomy):
    nodes = np.random.default_rng(2).uniform(-15, 15, (40, 3)).astype(np.float32)
    points = np.ascontiguousarray(anatomy.mean[: anatomy.n_skin].T)
    found = np.zeros(40, np.int64)
    field.nearest(nodes, points, found)
    distance = np.linalg.norm(nodes[:, None] - points.T[None], axis=2)
    assert distance[np.arange(40), found] == pytest.approx(distance.min(1), rel=1e-5)


def test_what_was_made_on_the_mean_head_goes_where_the_person_is(anatomy):
    an = anatomy
    everywhere = np.full((an.n, 3), (0.5, -1.0, 0.25), np.float32)
    points = an.mean[: an.n_skin : 50].reshape(-1, 1, 3)
    carried = an.field.carry(points, an.field.warp(everywhere))
    assert carried.shape == points.shape
    assert np.abs(carried - points - [0.5, -1.0, 0.25]).max() < 1e-5
    traits = person(5)
    moved = an.displacement(traits)
    skull = np.flatnonzero(an.mean[: an.n_skin, 1] > 8)
    carried = an.field.carry(an.mean[skull], an.field.warp(moved))
    assert np.abs(carried - an.mean[skull] - moved[skull]).mean() < 0.1


def test_lashes_grow_from_the_lids(anatomy):
    an = anatomy
    assert len(an.lash_paths) == len(an.lash_upper) and 0 < an.lash_upper.sum() < len(an.lash_upper)
    full = lashes.strands(an.mean, an.lash_paths, np.ones(len(an.lash_paths), np.float32))
    half = lashes.strands(an.mean, an.lash_paths, np.full(len(an.lash_paths), 0.5, np.float32))
    hairs, short = full.reshape(-1, 3, 3), half.reshape(-1, 3, 3)
    assert np.array_equal(hairs[:, 0], short[:, 0])
    reach = np.linalg.norm(hairs[:, 2] - hairs[:, 0], axis=1)
    assert np.linalg.norm(short[:, 2] - short[:, 0], axis=1) == pytest.approx(reach / 2, rel=1e-4)
    lids = an.mean[an.landmarks[36:48]]
    assert np.linalg.norm(hairs[:, None, 0] - lids[None], axis=2).min(1).max() < 1.2
    assert (hairs[:, 2, 2] > hairs[:, 0, 2]).mean() > 0.9  # away from the ball
    up = hairs[:, 2, 1] - hairs[:, 0, 1]
    assert up[an.lash_upper].mean() > up[~an.lash_upper].mean() + 0.1
