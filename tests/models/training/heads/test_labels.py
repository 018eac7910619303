"""Labels against the geometry they are about, computed here in another way.

Projection in float64 from `FaceState` and `Camera` alone, with formulas of its own; visibility by
rays through the mesh; and the picture's own depth under each landmark.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.faces.prior import Prior, person
from models.faces.state import FaceState
from models.faces.tracks import Track, TrackStyle
from models.training.heads.anatomy import SKIN
from models.training.heads.camera import Camera
from models.training.heads.labels import Samples, labels_of
from models.training.heads.person import make_person
from models.training.heads.raster.triangles import STRAND
from models.training.heads.renderer import HeadRenderer
from models.training.heads.shade.pixel import HAIR as hair_class
from models.training.heads.shade.pixel import SKIN as skin_class

SIZE = 128
WIDEST = TrackStyle(60, 35, 30)
CASES = [
    (FaceState(), Camera()),
    (Track(1, WIDEST).state(2.0), Camera()),
    (Track(2, WIDEST).state(-3.3), Camera(20.0)),
    (Track(3, WIDEST).state(14.5), Camera(60.0)),
    (Track(4, WIDEST).state(0.7), Camera(28.0, 1.6)),
    (
        FaceState(pose=(58.0, 10.0, -20.0), torso=(15.0, 2.0, -3.0), shift=(1.0, -0.5, 0.8)),
        Camera(),
    ),
    (FaceState(pose=(-55.0, -25.0, 25.0), gaze=(20.0, -12.0)), Camera(45.0)),
]


@pytest.fixture(scope="module")
def bald(anatomy):
    """Somebody without hair, beard and glasses, so that only the mesh can cover a landmark."""
    traits = person(12, Prior.NARROW)
    bare = {f"hair_{traits.chosen('hair')}": 0.0} | {"hair_bald": 1.0, "beard": 0.0, "stubble": 0.0}
    return make_person(anatomy, traits.replace(**bare), texture=256)


@pytest.fixture(scope="module")
def renderer(anatomy):
    return HeadRenderer(anatomy, SIZE, 2)


@pytest.fixture(scope="module", params=range(len(CASES)))
def frame(request, renderer, bald):
    state, camera = CASES[request.param]
    return state, camera, renderer.render(bald, state, camera)


def turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Intrinsic: yaw about the vertical, then pitch, then roll, by quaternions."""

    def quaternion(axis: int, degrees: float) -> np.ndarray:
        q = np.zeros(4)
        q[0], q[1 + axis] = math.cos(math.radians(degrees) / 2), math.sin(math.radians(degrees) / 2)
        return q

    def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.array(
            [a[0] * b[0] - a[1:] @ b[1:], *(a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:]))]
        )

    w, x, y, z = times(times(quaternion(1, yaw), quaternion(0, -pitch)), quaternion(2, roll))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def share_of(rotation: np.ndarray, share: float) -> np.ndarray:
    """The same turn by a share of its angle: a power of the matrix, by its eigenvectors."""
    values, vectors = np.linalg.eig(rotation)
    powers = np.exp(1j * np.angle(values) * share)
    return (vectors @ np.diag(powers) @ np.linalg.inv(vectors)).real


def world_landmarks(anatomy, bald, state: FaceState, expression: np.ndarray) -> np.ndarray:
    """[68, 3] from the person's rest and the state alone, float64, dense expressions."""
    at = anatomy.landmarks
    dense = anatomy.kit.expression[:, anatomy.source[at]].astype(np.float64)
    p = bald.rest[at].astype(np.float64) + np.tensordot(expression.astype(np.float64), dense, 1)
    torso, head = turn(*state.torso), turn(*state.pose)
    neck, bust, middle = np.array([0, -4.0, -1]), np.array([0, -14.0, -2]), np.array([0, 1.7, 0])
    out = np.zeros((68, 3))
    for k, (q, w) in enumerate(zip(p, anatomy.weight[at].astype(np.float64), strict=True)):
        bent = share_of(torso.T @ head, w) @ (q - neck) + neck
        out[k] = torso @ (bent - bust) + bust + np.array(state.shift) - middle
    return out


def pixels(world: np.ndarray, camera: Camera, fit: float) -> np.ndarray:
    """Similar triangles: what is 29.5 cm tall at z = 5 fills the picture."""
    half = math.tan(math.radians(camera.fov_deg) / 2)
    eye = 5.0 + 29.5 / (2 * half * camera.zoom * fit)
    ndc = world[:, :2] / ((eye - world[:, 2:]) * half)
    return (np.array([1, -1]) * ndc + 1) * SIZE / 2


def test_landmarks_are_where_the_geometry_projects(anatomy, bald, frame):
    state, camera, out = frame
    world = world_landmarks(anatomy, bald, state, out.labels.expression)
    error = np.linalg.norm(out.labels.landmarks - pixels(world, camera, bald.fit), axis=1)
    # Sparse expressions forget 0.01 mm, the neck turns in 32 steps, vertices are float32.
    assert error.max() < 0.05  # of 0.5 px that are promised
    assert out.labels.landmarks.dtype == np.float32


def depths_at(points: np.ndarray, at: np.ndarray, z: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Depth of the nearest triangle over each pixel position, inf where there is none.

    Args:
        points: [R, 2] pixels. at: [T, 3, 2] triangles' corners in pixels; z: [T, 3] their depths.
        near: [T]; which triangles face the camera.
    """
    low, high = at.min(1), at.max(1)
    out = np.full(len(points), np.inf)
    for r, p in enumerate(points):
        k = np.flatnonzero(near & ((low <= p) & (p <= high)).all(1))
        a, b, c = at[k, 0], at[k, 1], at[k, 2]
        cross = lambda u, v: u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]  # noqa: E731
        area = cross(b - a, c - a)
        share = np.stack([cross(b - p, c - p), cross(c - p, a - p), cross(a - p, b - p)], 1)
        share = share / area[:, None]
        met = (share >= -1e-9).all(1)
        # 1 / depth is linear over the picture.
        out[r] = (1 / (share[met] / z[k[met]]).sum(1)).min(initial=np.inf)
    return out


@pytest.fixture
def scene(anatomy, bald, renderer, frame):
    """The mesh of the frame in pixels and depth, float64."""
    state, camera, _ = frame
    posed = renderer._posing.move(bald.rest, bald.eye_centre, bald.traits["soft"], state)
    world = posed.world[: anatomy.mouth0].astype(np.float64)
    tri = anatomy.tri[: anatomy.tri_closed]
    half = math.tan(math.radians(camera.fov_deg) / 2)
    depth = 5.0 + 29.5 / (2 * half * camera.zoom * bald.fit) - world[:, 2]
    at = pixels(world, camera, bald.fit)[tri]
    u, v = at[:, 1] - at[:, 0], at[:, 2] - at[:, 0]
    facing = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0] < 0
    return at, depth[tri], facing, depth[anatomy.landmarks]


def test_visible_is_what_can_be_seen_between_a_sample_to_every_side(anatomy, bald, frame, scene):
    """On an edge it is a matter of where the sample lies; everywhere else labels must agree."""
    _, _, out = frame
    at, z, facing, own = scene
    marks = out.labels.landmarks.astype(np.float64)
    inside = ((marks >= 1) & (marks < SIZE - 1)).all(1)
    covered = []
    for dx in (-0.5, 0.0, 0.5):  # pixels; a sample is half a pixel
        for dy in (-0.5, 0.0, 0.5):
            covered.append(own - depths_at(marks + [dx, dy], at, z, facing) >= 0.6)
    always, never = inside & np.all(covered, 0), inside & ~np.any(covered, 0)
    visible = out.labels.visible
    assert visible[never].all()
    assert not visible[always].any()
    assert never.sum() + always.sum() > 30
    assert not visible[((marks < 0) | (marks >= SIZE)).any(1)].any()


def test_visible_is_decided_at_the_landmarks_own_sample(frame, scene):
    _, _, out = frame
    at, z, facing, own = scene
    marks = out.labels.landmarks.astype(np.float64)
    centres = (np.floor(marks * 2) + 0.5) / 2
    behind = own - depths_at(centres, at, z, facing)
    clear = ((marks >= 0) & (marks < SIZE)).all(1) & (np.abs(behind - 0.6) > 0.05)
    assert np.array_equal(out.labels.visible[clear], behind[clear] < 0.6)
    assert clear.sum() > 30


def test_lashes_and_beard_cover_nothing_but_hair_does(anatomy, bald, renderer):
    state, camera = CASES[1]
    plain = renderer.render(bald, state, camera).labels.visible
    posed = renderer._posing.move(bald.rest, bald.eye_centre, bald.traits["soft"], state)
    near = np.full_like(renderer._depth, 1.0)  # 1 cm before the camera
    ids = np.full_like(renderer._ids, STRAND)
    for tag, expected in ((skin_class, plain), (hair_class, np.zeros(68, bool))):
        tags = np.full_like(renderer._tags, tag)
        drawn = Samples(near, renderer._mesh_depth, ids, tags, 2)
        labels = labels_of(anatomy, bald, state, posed, camera, drawn)
        assert np.array_equal(labels.visible, expected)


def test_the_surface_under_a_visible_landmark_is_its_own(anatomy, bald, renderer, frame, scene):
    """The picture's depth there is the mesh's, and the triangle is of the landmark or near it."""
    _, _, out = frame
    at, z, facing, own = scene
    visible = np.flatnonzero(out.labels.visible)
    sample = (out.labels.landmarks[visible] * 2).astype(int)
    renderer.render(bald, *frame[:2])  # fixtures of other frames may have drawn since
    found = renderer._ids[sample[:, 1], sample[:, 0]]
    stored = renderer._depth[sample[:, 1], sample[:, 0]].astype(np.float64)
    skin = (found >= 0) & (anatomy.mat[np.maximum(found, 0)] == SKIN)
    assert skin.sum() > 15
    centres = (sample[skin] + 0.5) / 2
    assert np.abs(centres - out.labels.landmarks[visible[skin]]).max() <= 0.25 + 1e-3
    assert 1 / stored[skin] == pytest.approx(depths_at(centres, at, z, facing), abs=0.02)
    mine = 0
    for k, t in zip(visible[skin], found[skin], strict=True):
        ring = {int(anatomy.landmarks[k])}
        for _ in range(3):
            ring |= {
                int(j) for i in ring for j in anatomy.nb[anatomy.nb_ptr[i] : anatomy.nb_ptr[i + 1]]
            }
        mine += bool(ring & set(anatomy.tri[t].tolist()))
    # Elsewhere something up to 0.6 cm in front of it covers the sample: the other lid or lip.
    assert mine > 0.85 * skin.sum()


def test_labels_repeat_what_was_asked_for(bald, frame):
    state, camera, out = frame
    labels = out.labels
    assert np.array_equal(labels.traits, bald.traits.vector)
    assert labels.pose == pytest.approx(state.pose) and labels.gaze == pytest.approx(state.gaze)
    assert labels.camera == pytest.approx([camera.fov_deg, camera.zoom])
    assert labels.light.shape == (39,) and labels.visible.shape == (68,)
    # The state's expression, and how the lids follow the gaze.
    assert (labels.expression >= state.expression - 1e-6).all()
    assert labels.expression.shape == (53,)


def test_hair_covers_landmarks_and_lashes_do_not(anatomy):
    """The same head with and without hair over temple and jaw; lashes are drawn in both."""
    renderer, state = HeadRenderer(anatomy, 2 * SIZE, 2), FaceState(pose=(35.0, -5.0, 5.0))
    traits = person(12, Prior.NARROW)
    names = {f"hair_{s}": 0.0 for s in ("buzz", "short", "side_part", "bob", "long", "bald")}
    seen = {}
    for style in ("bald", "bob"):
        who = make_person(anatomy, traits.replace(**(names | {f"hair_{style}": 1.0})), texture=256)
        seen[style] = renderer.render(who, state).labels.visible
    assert seen["bald"][:9].all() and seen["bald"][36:42].all()
    assert not seen["bob"][:4].any() and seen["bob"][36:42].all()


def test_turned_away_landmarks_are_hidden(bald, renderer):
    labels = renderer.render(bald, FaceState(pose=(55.0, 0.0, 0.0))).labels
    # The head looks to the person's left, which is the picture's right: its left side is hidden.
    assert labels.visible[[0, 1, 2, 36, 48]].all()
    assert not labels.visible[[14, 15, 16]].any()
