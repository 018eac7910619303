"""What a kit has to be, and that kits sit in the frame that hair and camera are made for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.errors import BadKit
from models.faces.state import EXPRESSION, EXPRESSIONS
from models.training.heads.kit import PART, PARTS, HeadKit

SKIN = (PART["face"], PART["head_neck"])

# Where landmarks of the left half lie, cm; 0.5 beside is still well.
FRAME = {
    16: (7.36, 3.68, 3.66),
    12: (5.72, -4.49, 6.13),
    8: (0, -7.57, 10.43),
    26: (5.82, 5.20, 7.91),
    24: (3.79, 6.26, 9.83),
    22: (1.17, 5.91, 10.73),
    27: (0, 3.74, 10.73),
    30: (0, 0.41, 13.07),
    35: (1.25, -1.14, 10.87),
    33: (0, -1.2, 11.57),
    45: (4.46, 3.43, 8.60),
    42: (1.84, 3.25, 9.20),
    44: (3.87, 3.87, 9.36),
    46: (3.86, 3.07, 9.23),
    54: (2.53, -3.52, 10.19),
    51: (0, -2.48, 11.84),
    57: (0, -4.38, 11.55),
    64: (2.21, -3.49, 10.13),
    62: (0, -3.32, 11.28),
    66: (0, -3.40, 11.25),
}
MIRROR = {
    16: 0,
    12: 4,
    26: 17,
    24: 19,
    22: 21,
    35: 31,
    45: 36,
    42: 39,
    44: 37,
    46: 41,
    54: 48,
    64: 60,
}


def moved(kit: HeadKit, **weights: float) -> np.ndarray:
    """The mean head with these expressions, on both sides where there are sides."""
    out = kit.neutral.copy()
    for name, weight in weights.items():
        for full in (name, f"{name}_L", f"{name}_R"):
            if full in EXPRESSION:
                out += weight * kit.expression[EXPRESSION[full]]
    return out


def opening(points: np.ndarray, kit: HeadKit, side: str) -> float:
    """Height of an eye's opening."""
    pairs = ((43, 47), (44, 46)) if side == "L" else ((37, 41), (38, 40))
    lm = points[kit.landmarks]
    return float(np.mean([lm[a, 1] - lm[b, 1] for a, b in pairs]))


def test_landmarks_lie_where_hair_and_camera_expect_them(kit):
    lm = kit.neutral[kit.landmarks]
    for left, place in FRAME.items():
        assert np.abs(lm[left] - place).max() < 0.5, left
        if left in MIRROR:
            assert np.abs(lm[MIRROR[left]] - np.array(place) * [-1, 1, 1]).max() < 0.5, left
    assert np.allclose(kit.neutral.min(0), [-12.4, -19.3, -9.2], atol=0.5)
    assert np.allclose(kit.neutral.max(0), [12.4, 14.5, 13.1], atol=0.5)


def test_eyeballs_are_spheres_behind_the_lids(kit):
    for side, x in (("l", 3.1), ("r", -3.1)):
        ball = kit.neutral[kit.vertex_part == PART[f"sclera_{side}"]].astype(float)
        system = np.concatenate([2 * ball, np.ones((len(ball), 1))], 1)
        centre = np.linalg.lstsq(system, (ball**2).sum(1), rcond=None)[0][:3]
        assert np.abs(centre - [x, 3.6, 8.0]).max() < 0.3
        assert np.abs(np.linalg.norm(ball - centre, axis=1) - 1.5).max() < 0.35  # cornea included
        lids = kit.neutral[kit.landmarks[42:48] if side == "l" else kit.landmarks[36:42]]
        assert (np.linalg.norm(lids - centre, axis=1) > 1.45).all()


def test_skin_is_a_surface_with_its_outside_outside(kit):
    skin = kit.triangles[np.isin(kit.tri_part, SKIN)]
    edges = np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]])
    _, count = np.unique(edges[:, 0] * len(kit.neutral) + edges[:, 1], return_counts=True)
    assert (count == 1).all()  # two triangles that share an edge run along it in both directions
    corners = kit.neutral[skin].astype(float)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    centre = corners.mean(1)
    skull = centre[:, 1] > 7.0
    assert ((normal * (centre - [0, 4.0, 0.5])).sum(1)[skull] > 0).all()
    assert (np.linalg.norm(normal, axis=1) > 0).mean() > 0.999


def test_every_mode_changes_the_face_and_none_breaks_it(kit):
    lm = kit.landmarks
    size = np.linalg.norm(kit.identity, axis=2)
    used = size.max(1) > 0
    assert used.sum() >= 24
    assert (size[used].max(1) < 4.0).all()
    assert (size[used].max(1) > 0.05).all()
    assert np.linalg.norm(kit.identity[:12, lm], axis=2).max(1).min() > 0.05


def test_expressions_do_what_their_names_say(kit):
    lm, rest = kit.landmarks, kit.neutral[kit.landmarks]
    up = lambda name, k: float((moved(kit, **{name: 1.0})[lm][k] - rest[k])[1])  # noqa: E731
    assert up("jawOpen", 66) < -1.5 and abs(up("jawOpen", 62)) < 0.4 and up("jawOpen", 8) < -1.5
    assert up("mouthSmile", 54) > 0.4 and up("mouthSmile", 48) > 0.4
    assert up("mouthFrown", 54) < -0.2
    assert up("browInnerUp", 22) > 0.3 and up("browOuterUp", 25) > 0.3 and up("browDown", 24) < -0.2
    assert up("mouthLowerDown", 56) < -0.2 and up("mouthUpperUp", 52) > 0.2
    forward = (moved(kit, mouthPucker=1.0)[lm] - rest)[[51, 57]]
    assert (forward[:, 2] > 0.3).all()
    assert (moved(kit, mouthLeft=1.0)[lm] - rest)[51, 0] > 0.5
    open_, closed = moved(kit, jawOpen=1.0)[lm], moved(kit, jawOpen=1.0, mouthClose=1.0)[lm]
    gaps = [np.linalg.norm(face[62] - face[66]) for face in (open_, closed)]
    assert gaps[0] > 1.5 and gaps[1] < 0.35 * gaps[0]


@pytest.mark.parametrize("side", ["L", "R"])
def test_a_blink_shuts_its_eye_and_leaves_the_other(kit, side):
    other = "R" if side == "L" else "L"
    shut = kit.neutral + kit.expression[EXPRESSION[f"eyeBlink_{side}"]]
    assert opening(shut, kit, side) < 0.3 * opening(kit.neutral, kit, side)
    assert opening(shut, kit, other) > 0.95 * opening(kit.neutral, kit, other)
    wide = kit.neutral + kit.expression[EXPRESSION[f"eyeWide_{side}"]]
    assert opening(wide, kit, side) > 1.1 * opening(kit.neutral, kit, side)


def test_the_two_sides_mirror_each_other(small):
    flip = np.array([-1, 1, 1])
    place = {tuple(p): k for k, p in enumerate(np.round(small.neutral, 3).tolist())}
    for name in EXPRESSIONS:
        if not name.endswith("_L"):
            continue
        left = small.expression[EXPRESSION[name]]
        right = small.expression[EXPRESSION[f"{name[:-2]}_R"]]
        for k in np.flatnonzero(np.abs(left).max(1) > 0.05)[::7]:
            twin = place.get(tuple(np.round(small.neutral[k] * flip, 3).tolist()))
            if twin is not None and abs(small.neutral[k, 0]) > 0.01:
                assert np.allclose(left[k] * flip, right[twin], atol=1e-4), name


def test_the_small_head_is_small_and_always_the_same(small):
    from models.training.heads import small_head

    again = small_head.make()
    for field in dataclasses.fields(HeadKit)[1:]:
        assert np.array_equal(getattr(small, field.name), getattr(again, field.name)), field.name
    assert len(small.neutral) < 8000


def test_a_mouth_has_teeth_above_and_below(kit):
    teeth = kit.neutral[kit.vertex_part == PART["teeth"]]
    assert teeth[:, 1].max() > -2.5 and teeth[:, 1].min() < -4.5
    assert kit.mouth_seen.any()
    assert set(np.unique(kit.tri_part[kit.mouth_seen])) <= {PART[p] for p in PARTS[6:]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda k: {"neutral": k.neutral.astype(np.float64)}, "neutral is float64"),
        (lambda k: {"identity": k.identity[:31]}, r"identity is float32 \[31"),
        (lambda k: {"landmarks": k.landmarks + np.int32(1 << 20)}, "landmarks spans"),
        (lambda k: {"triangles": -k.triangles}, "triangles spans -"),
        (lambda k: {"neutral": np.full_like(k.neutral, np.nan)}, "neutral holds nan"),
        (lambda k: {"expression": k.expression + np.float32(1e6)}, "expression holds 1e"),
        (lambda k: {"vertex_part": np.full_like(k.vertex_part, PART["face"])}, "no head_neck"),
        (lambda k: {"landmarks": np.full_like(k.landmarks, len(k.neutral) - 1)}, "a landmark is"),
        (lambda k: {"tri_uv": k.tri_uv[:, ::-1]}, "C-contiguous"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(small, changes, message):
    with pytest.raises(BadKit, match=message):
        dataclasses.replace(small, **changes(small))
