"""From numbers to vertices in the world: signs, lids, eyes, and what is not to move."""

from __future__ import annotations

import numpy as np
import pytest

from models.faces.state import EXPRESSION, FaceState
from models.training.heads.camera import CENTRE
from models.training.heads.deform import rotation
from models.training.heads.posing import (
    OPEN_CM,
    Posing,
    eye_centres,
    eye_directions,
    shown_expression,
    turn_of,
)

AWAKE = -0.35  # a person who is not soft


def weights(**named: float) -> np.ndarray:
    out = np.zeros(53, np.float32)
    for name, value in named.items():
        for full in (name, f"{name}_L", f"{name}_R"):
            if full in EXPRESSION:
                out[EXPRESSION[full]] = value
    return out


@pytest.fixture(scope="module")
def move(anatomy):
    posing, centres = Posing(anatomy), eye_centres(anatomy, anatomy.mean)

    def moved(state: FaceState, soft: float = 0.95):
        return posing.move(anatomy.mean, centres, soft, state)

    return moved


def landmarks(anatomy, posed) -> np.ndarray:
    return posed.world[anatomy.landmarks].copy()


def test_a_head_at_rest_stands_in_the_middle_of_the_picture(anatomy, move):
    posed = move(FaceState())
    assert (
        np.abs(posed.world[: anatomy.n_skin] - (anatomy.mean[: anatomy.n_skin] - CENTRE)).max()
        < 1e-3
    )


def test_the_head_turns_as_a_whole_and_the_shoulders_stay(anatomy, move):
    still, turned = move(FaceState()).world.copy(), move(FaceState(pose=(40.0, 10.0, -12.0))).world
    head = np.flatnonzero(anatomy.weight[: anatomy.n_skin] == 1)
    bust = np.flatnonzero(anatomy.weight[: anatomy.n_skin] == 0)
    # A rigid motion of the head: distances within it hold; its rotation is the pose's.
    a, b = still[head] - still[head].mean(0), turned[head] - turned[head].mean(0)
    assert np.abs(a @ rotation(40, 10, -12).T - b).max() < 2e-3
    assert np.abs(still[bust] - turned[bust]).max() < 1e-4
    assert len(head) > 1000 and len(bust) > 100


@pytest.mark.parametrize(
    ("state", "axis", "sign"),
    [
        (FaceState(pose=(30.0, 0.0, 0.0)), 0, 1),
        (FaceState(pose=(0.0, 20.0, 0.0)), 1, 1),
        (FaceState(shift=(1.0, 0.0, 0.0)), 0, 1),
        (FaceState(torso=(20.0, 0.0, 0.0), pose=(20.0, 0.0, 0.0)), 0, 1),
    ],
)
def test_where_the_nose_goes(anatomy, move, state, axis, sign):
    before = landmarks(anatomy, move(FaceState()))[30]
    after = landmarks(anatomy, move(state))[30]
    assert sign * (after - before)[axis] > 0.5


def test_the_torso_turns_the_shoulders_and_the_pose_is_the_worlds(anatomy, move):
    alone = landmarks(anatomy, move(FaceState(pose=(30.0, 0.0, 0.0))))
    with_torso = landmarks(anatomy, move(FaceState(pose=(30.0, 0.0, 0.0), torso=(20.0, 0, 0))))
    direction = [lm[30] - lm[[0, 16]].mean(0) for lm in (alone, with_torso)]
    angles = [np.degrees(np.arctan2(v[0], v[2])) for v in direction]
    assert angles[0] == pytest.approx(angles[1], abs=0.1)


def test_eyes_turn_about_their_centres_and_keep_their_shape(anatomy, move):
    an = anatomy
    before = move(FaceState()).face[an.eye0 : an.shirt0].copy()
    after = move(FaceState(gaze=(20.0, 10.0))).face[an.eye0 : an.shirt0]
    for side in (0, 1):
        mine = an.eye_side == side
        front = before[mine, 2].argmax()
        step = after[mine][front] - before[mine][front]
        assert step[0] > 0.3 and step[1] > 0.15  # to the person's left, and up
        gaps = [np.linalg.norm(p[mine] - p[mine][0], axis=1) for p in (before, after)]
        assert gaps[0] == pytest.approx(gaps[1], abs=1e-4)


def test_lids_follow_the_gaze_and_the_label_says_so():
    down, left = (
        shown_expression(FaceState(gaze=(0, -16.0)), 0.95),
        shown_expression(FaceState(gaze=(20.0, 0)), 0.95),
    )
    assert down[EXPRESSION["eyeLookDown_L"]] == down[EXPRESSION["eyeLookDown_R"]] == 0.5
    assert left[EXPRESSION["eyeLookOut_L"]] == left[EXPRESSION["eyeLookIn_R"]] == 0.5
    assert down.sum() == pytest.approx(1.0) and left.sum() == pytest.approx(1.0)


def test_hanging_lids_are_lifted_but_not_in_a_blink():
    wide = EXPRESSION["eyeWide_L"]
    assert shown_expression(FaceState(), AWAKE)[wide] == pytest.approx(0.15)
    assert shown_expression(FaceState(), 0.95)[wide] == 0
    assert 0 < shown_expression(FaceState(), 0.3)[wide] < 0.15
    shut = FaceState(expression=weights(eyeBlink=1.0))
    assert shown_expression(shut, AWAKE)[wide] == 0
    assert shut.expression[wide] == 0  # what was given is not changed


def test_a_shut_eye_sinks_behind_its_lid(anatomy, move):
    an = anatomy
    posed = move(FaceState(expression=weights(eyeBlink=1.0)))
    ball = posed.face[an.eye0 : an.shirt0][an.eye_side == 0]
    lid = posed.face[an.landmarks[[43, 44, 46, 47]]]
    for p in lid:  # in front of the ball where the margins meet
        near = ball[np.linalg.norm(ball[:, :2] - p[:2], axis=1) < 0.35]
        assert p[2] > near[:, 2].max() - 0.15


def test_only_the_shut_eye_steps_back(anatomy, move):
    an = anatomy
    open_ = move(FaceState()).face[an.eye0 : an.shirt0].copy()
    one = FaceState(expression=weights(eyeBlink_L=1.0))
    step = move(one).face[an.eye0 : an.shirt0] - open_
    assert step[an.eye_side == 0] == pytest.approx(
        np.broadcast_to([0, 0, -0.2], (an.n_left, 3)), abs=1e-5
    )
    assert np.abs(step[an.eye_side == 1]).max() < 1e-6


def test_an_open_mouth_brings_the_inner_mouth(anatomy, move):
    pressed = move(FaceState(expression=weights(mouthClose=0.03, mouthPress=0.2)))
    wide = move(FaceState(expression=weights(jawOpen=0.7)))
    assert wide.open_mouth and wide.n == anatomy.n and len(wide.triangles) == len(anatomy.tri)
    assert wide.gap > 1.0
    if not pressed.open_mouth:
        assert pressed.n == anatomy.mouth0 and len(pressed.triangles) == anatomy.tri_closed
    assert pressed.open_mouth == (pressed.gap > OPEN_CM)


def test_lag_is_the_pose_of_a_moment_ago():
    state = FaceState(pose=(10.0, 5.0, 0.0), lag=(-4.0, 1.0, 2.0))
    assert turn_of(state, lagging=True).head == pytest.approx(rotation(6, 6, 2), abs=1e-6)
    assert turn_of(state).head == pytest.approx(rotation(10, 5, 0), abs=1e-6)


def test_eye_directions_are_those_of_a_ball(anatomy):
    centres = eye_centres(anatomy, anatomy.mean)
    assert np.abs(centres - [[3.1, 3.6, 8.0], [-3.1, 3.6, 8.0]]).max() < 0.3
    away = eye_directions(anatomy, anatomy.mean, centres)
    assert np.linalg.norm(away, axis=1) == pytest.approx(1, abs=1e-5)
    for side in (0, 1):
        mine = anatomy.eye_side == side
        front = away[mine][anatomy.mean[anatomy.eye0 : anatomy.shirt0][mine, 2].argmax()]
        assert front[2] > 0.97


def test_moving_again_gives_the_same_bits(anatomy, move):
    state = FaceState(pose=(20.0, -5.0, 3.0), expression=weights(jawOpen=0.4, mouthSmile=0.5))
    first = move(state).world.copy()
    move(FaceState(pose=(-50.0, 10.0, 0.0), expression=weights(eyeBlink=1.0)))
    again = move(state)
    assert np.array_equal(again.world[: again.n], first[: again.n])
