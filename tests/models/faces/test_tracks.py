"""Motion: frozen, without a past, smooth, within its style, and lively enough."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.errors import BadConfig
from models.faces.state import EXPRESSION, FaceState, part
from models.faces.tracks import BLINK_S, BLINK_SLOT_S, LAG_S, Track, TrackStyle
from models.noise import Domain, philox4x32

FPS = 25.0
BLINK, JAW = EXPRESSION["eyeBlink_L"], EXPRESSION["jawOpen"]
POSE, GAZE, SHIFT, TORSO, LAG = (part(n) for n in ("pose", "gaze", "shift", "torso", "lag"))
WEIGHTS = part("expression")

# (seed, time) -> the code's first 14 numbers and the weights that are not 0, by index in the code.
# They are the session format: never re-record them.
FROZEN = {
    (0, 0.0): (
        [-0.19642872, -0.12270754, -0.12235277, 0.084776536, 0.046135746, -0.016227255]
        + [-0.044222001, 0.16674875, -0.082948603, -0.017405439, -0.036705833, -0.11918775]
        + [-0.010738022, 0.024540462],
        {16: 0.38977152, 18: 0.10600806, 22: 0.19252734, 34: 0.27419141, 40: 0.045839842}
        | {49: 0.055007808, 59: 0.44869888, 60: 0.68707806, 63: 0.10084765, 65: 0.068759762},
    ),
    (2**64 - 1, -1e6 + 0.3): (
        [0.43913379, 0.14149179, -0.0017243322, -0.59971398, -0.16559957, -0.14990224]
        + [-0.022725238, 0.15891576, 0.18585129, 0.025878292, -0.00051729969, -0.026594199]
        + [-0.044019923, -0.1094415],
        {16: 0.18341583, 18: 0.22296695, 34: 0.1, 47: 0.14563118, 51: 0.17916051, 53: 0.17353302}
        | {59: 0.26048148, 60: 0.20250067, 61: 0.027804356, 63: 0.035387363},
    ),
}


@pytest.fixture(scope="module")
def minutes() -> np.ndarray:
    """[8, 1500, 67]: a minute of eight seeds."""
    return np.stack([Track(seed).codes(np.arange(1500) / FPS) for seed in range(8)])


@pytest.mark.parametrize("where", FROZEN)
def test_the_mapping_is_frozen(where):
    seed, t = where
    first, weights = FROZEN[where]
    code = Track(seed).codes([t])[0]
    assert code[:14] == pytest.approx(first, rel=2e-6, abs=1e-7)
    for k, value in weights.items():
        assert code[k] == pytest.approx(value, rel=2e-6)


def test_channels_are_philox_words_as_documented():
    """The first pose by hand, from words."""
    seed, t = (5 << 32) + 9, -3.3

    def value(channel: int, k: int) -> float:
        block = (k // 4) % 2**64
        counter = (channel, block % 2**32, block >> 32, int(Domain.FACE_TRACK))
        word = philox4x32(counter, (seed % 2**32, seed >> 32))[k % 4]
        return 2 * ((float(word) + 0.5) / 2**32) - 1

    def wander(channel: int, knot_s: float) -> float:
        k = math.floor(t / knot_s)
        f = t / knot_s - k
        a, b, c, d = (value(channel, k + j) for j in (-1, 0, 1, 2))
        return b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))

    style = TrackStyle(yaw=50.0)
    yaw = 50.0 * math.tanh(1.3 * (0.75 * wander(0, 1.9) + 0.35 * wander(1, 0.7)))
    assert Track(seed, style).state(t).pose[0] == pytest.approx(yaw, abs=1e-9)


def test_there_is_no_past():
    times = [0.0, 12.34, -7.7, 1e9 + 0.125, 59.99, 12.34, 0.04]
    played = Track(3).codes(times)
    for t, code in zip(reversed(times), played[::-1], strict=True):
        assert np.array_equal(Track(3).state(t).code(), code)
    track = Track(3)
    track.codes(np.arange(-40, 400) / FPS)
    assert np.array_equal(track.codes(times), played)


def test_an_hour_later_little_is_kept():
    track = Track(1)
    for t in range(0, 4000, 13):
        track.state(float(t))
    assert len(track._blocks) <= 160  # the bounded cache
    assert len(track._knots) < 40


def test_seeds_are_different_people_in_motion(minutes):
    flat = minutes[:, :, POSE].reshape(8, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(8)).max() < 0.35


def test_motion_is_smooth(minutes):
    """Between frames 40 ms apart; eyes and lids may jump."""
    step = np.abs(np.diff(minutes, axis=1)).max((0, 1))
    assert (step[POSE] * 60 < 6).all() and (step[SHIFT] * 3 < 0.2).all()
    assert (step[TORSO] * 30 < 2).all()
    weights = np.delete(step[WEIGHTS], [BLINK, BLINK + 1])
    assert weights.max() < 0.35
    fine = Track(2).codes(np.arange(20000) / 20000)
    assert np.abs(np.diff(fine, axis=0)).max() < 4e-3  # no jumps at all in continuous time


@pytest.mark.parametrize(("seed", "t"), [(1, 10.16), (2, 10.2), (0, 2.12)])
def test_lips_part_and_press_without_a_jump(seed, t):
    """Where the jaw opens while the lips are pressed."""
    codes = Track(seed).codes(t + np.arange(160) / 4000)[:, WEIGHTS]
    press = codes[:, EXPRESSION["mouthPress_L"]]
    assert press.max() > 0.05 and np.abs(np.diff(press)).max() < 0.01


@pytest.mark.parametrize("style", [TrackStyle(), TrackStyle(60, 35, 30), TrackStyle(10, 5, 2)])
def test_poses_stay_within_their_style_and_use_it(style):
    poses = np.concatenate(
        [Track(s, style).codes(np.arange(0, 120, 0.2))[:, POSE] for s in range(6)]
    )
    limit = np.array([style.yaw, style.pitch, style.roll])
    largest = np.abs(poses * 60).max(0)
    assert (largest <= limit).all() and (largest > 0.75 * limit).all()


def test_the_default_turns_beyond_25_degrees_both_ways(minutes):
    low, high = np.percentile(minutes[:, :, 0] * 60, [1, 99])
    assert low < -25 and high > 25


def test_there_is_one_blink_every_two_to_eight_seconds():
    track = Track(4)
    starts = [track.blink_start(k) for k in range(-50, 150)]
    gaps = np.diff(starts)
    assert gaps.min() >= 2.0 and gaps.max() <= 8.0
    assert gaps.min() < 3.0 and gaps.max() > 7.0
    assert all(
        k * BLINK_SLOT_S <= s < (k + 1) * BLINK_SLOT_S
        for k, s in zip(range(-50, 150), starts, strict=True)
    )
    for s in starts[::20]:
        shut = track.state(s + 0.095).expression
        assert shut[BLINK] == shut[BLINK + 1] == 1.0
        assert track.state(s - 0.03).expression[BLINK] < 0.65
        assert track.state(s + BLINK_S + 0.01).expression[BLINK] < 0.65


def test_blinks_show_at_25_frames_a_second(minutes):
    shut = (minutes[:, :, WEIGHTS][:, :, BLINK] > 0.5).sum(1)
    assert (shut >= 12).all() and (shut <= 12 * 9).all()


def test_the_mouth_speaks_and_rests(minutes):
    jaw = minutes[:, :, WEIGHTS][:, :, JAW]
    assert jaw.max() > 0.3 and (jaw > 0.1).mean() > 0.1 and (jaw < 0.03).mean() > 0.2
    silent = Track(0, TrackStyle(speech=0.0)).codes(np.arange(0, 30, 0.1))[:, WEIGHTS]
    assert silent[:, JAW].max() <= 0.1001


def test_weights_and_gaze_stay_in_range(minutes):
    weights = minutes[:, :, WEIGHTS]
    assert weights.min() >= 0 and weights.max() <= 1
    gaze = minutes[:, :, GAZE] * 30
    assert np.abs(gaze[..., 0]).max() <= 28.001 and -18.001 <= gaze[..., 1].min()
    assert gaze[..., 1].max() <= 14.001 and gaze[..., 0].std() > 4


def test_eyes_hold_the_camera_against_the_heads_turns(minutes):
    yaw, look = minutes[:, :, 0].ravel() * 60, minutes[:, :, 3].ravel() * 30
    assert np.corrcoef(yaw, look)[0, 1] < -0.5


def test_lag_is_where_the_head_was():
    track = Track(9)
    for t in (0.0, 3.21, -8.0):
        now, before = track.state(t), track.state(t - LAG_S)
        assert np.add(now.pose, now.lag) == pytest.approx(before.pose, abs=1e-9)


def test_shoulders_follow_the_head_a_little(minutes):
    yaw, torso = minutes[:, :, 0].ravel() * 60, minutes[:, :, TORSO].reshape(-1, 3)[:, 0] * 30
    assert np.corrcoef(yaw, torso)[0, 1] > 0.8
    assert np.abs(torso).max() < 14


def test_codes_are_the_states_codes():
    track, times = Track(6), [0.5, -2.0]
    codes = track.codes(times)
    assert codes.shape == (2, 67) and codes.dtype == np.float32
    assert isinstance(track.state(0.5), FaceState)
    assert np.array_equal(codes[1], track.state(-2.0).code())
    assert track.codes([]).shape == (0, 67)


@pytest.mark.parametrize("t", [math.nan, math.inf, -math.inf, 1e13])
def test_impossible_times_are_refused(t):
    with pytest.raises(BadConfig, match="time is"):
        Track(0).state(t)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_that_do_not_fit_are_refused(seed):
    with pytest.raises(BadConfig, match=str(seed)):
        Track(seed)


@pytest.mark.parametrize(
    "numbers", [{"yaw": 61.0}, {"pitch": -1.0}, {"energy": 1.1}, {"gaze": math.nan}]
)
def test_impossible_styles_are_refused(numbers):
    with pytest.raises(BadConfig, match=next(iter(numbers))):
        TrackStyle(**numbers)
