"""How a face moves, as a function of continuous time: pose, blinks, gaze, speech, brows, breath.

A track has no past: `state(t)` is a pure function of (seed, style, t), for any t and in any order,
so playing and seeking agree bit for bit. Everything is made of two ingredients, smooth noise
through keyed knots and eased steps at keyed moments; their numbers are Philox words, see `_words`.
**The mapping from seeds to motion is part of the session format.**
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import BadConfig
from models.faces.state import CODE_SIZE, EXPRESSION, EXPRESSIONS, FaceState
from models.noise import Domain, philox4x32

BLINK_SLOT_S = 5.0  # in each of these there is one blink, in its first 3 s: gaps are 2 .. 8 s
BLINK_S = 0.29  # 80 ms to shut, 30 shut, 180 to open
LAG_S = 0.1  # loose hair is where the head was so long ago

_BLINK_WINDOW_S = 3.0
_FARTHEST_S = 1e12  # beyond, float64 has no tenths of a millisecond left
_BLOCK = 64  # knots drawn at once
_BLOCKS_KEPT = 160  # about four of each channel

# Streams of a seed. Numbers are frozen; new ones may be added.
_YAW, _YAW_FAST, _PITCH, _PITCH_FAST, _ROLL, _ROLL_FAST, _CONTACT = range(7)
_SMILE, _LOPSIDED, _TALK, _JAW, _JAW_SLOW, _ROUND, _WIDE, _PUCKER, _LOWER, _PRESS = range(10, 20)
_BROW, _BROW_OUTER = 20, 21
_SHIFT_X, _SHIFT_Y, _SHIFT_Z, _TORSO = range(30, 34)
_BLINK, _SACCADE, _LOOK_SIDE, _LOOK_UP, _BREATH = 50, 60, 61, 62, 70

# Seconds between the knots of each.
_KNOT_S = {
    _YAW: 1.9,
    _YAW_FAST: 0.7,
    _PITCH: 1.6,
    _PITCH_FAST: 0.6,
    _ROLL: 2.1,
    _ROLL_FAST: 0.8,
    _CONTACT: 2.7,
    _SMILE: 2.4,
    _LOPSIDED: 3.0,
    _TALK: 1.7,
    _JAW: 0.13,
    _JAW_SLOW: 0.31,
    _ROUND: 0.24,
    _WIDE: 0.21,
    _PUCKER: 0.27,
    _LOWER: 0.19,
    _PRESS: 0.23,
    _BROW: 1.3,
    _BROW_OUTER: 1.5,
    _SHIFT_X: 2.5,
    _SHIFT_Y: 2.2,
    _SHIFT_Z: 2.6,
    _TORSO: 3.1,
    _BLINK: BLINK_SLOT_S,
    _SACCADE: 1.1,
    _LOOK_SIDE: 1.1,
    _LOOK_UP: 1.1,
}


def _sides(name: str) -> tuple[int, ...]:
    return tuple(EXPRESSION[n] for n in (name, f"{name}_L", f"{name}_R") if n in EXPRESSION)


# Shape -> its index, or those of both sides.
_AT = {
    name: _sides(name) for name in {e.removesuffix("_L").removesuffix("_R") for e in EXPRESSIONS}
}


@dataclass(frozen=True)
class TrackStyle:
    """How far and how lively a face moves.

    Args:
        yaw, pitch, roll: Degrees that the head stays within, either way; 60, 35, 30 at most.
        energy: 0 .. 1; share of that range which is used.
        speech, gaze, shift: Strength of talking, of glances, and of the body's moving about; 1 is
            lively, 0 none.
    Raises:
        BadConfig: A number is out of range.
    """

    yaw: float = 34.0
    pitch: float = 16.0
    roll: float = 12.0
    energy: float = 1.0
    speech: float = 1.0
    gaze: float = 1.0
    shift: float = 1.0

    def __post_init__(self) -> None:
        highest = {"yaw": 60.0, "pitch": 35.0, "roll": 30.0, "energy": 1.0, "speech": 1.5}
        for name, value in vars(self).items():
            high = highest.get(name, 2.0)
            if not 0.0 <= value <= high:
                raise BadConfig(f"a track's {name} is {value}; it must be in 0 .. {high:g}")


class Track:
    """One face's motion.

    Args:
        seed: 0 .. 2^64 - 1.
    Raises:
        BadConfig: The seed does not fit 64 bits.
    """

    def __init__(self, seed: int, style: TrackStyle | None = None) -> None:
        if not 0 <= seed < 1 << 64:
            raise BadConfig(f"seed is {seed}; it must be between 0 and 2^64 - 1")
        self.seed, self.style = seed, style or TrackStyle()
        self._blocks: dict[tuple[int, int], list[float]] = {}  # (channel, block)
        self._knots: dict[int, tuple[int, float, float, float, float]] = {}
        self._now = 0.0  # only tells what will be asked for next

    def state(self, t: float) -> FaceState:
        """The face at t seconds; negative times are as good as others.

        Raises:
            BadConfig: t is not finite or beyond 10^12 s.
        """
        if not abs(t) <= _FARTHEST_S:
            raise BadConfig(f"time is {t} s; it must be within +-{_FARTHEST_S:g}")
        self._now, style = t, self.style
        pose = self._pose(t)
        before = self._pose(t - LAG_S)
        breath = math.sin(2.0 * math.pi * (0.24 * t + self._uniform(_BREATH, 0)))
        shift = (
            style.shift * 0.5 * self._wander(_SHIFT_X, t),
            style.shift * (0.1 * breath + 0.3 * self._wander(_SHIFT_Y, t)),
            style.shift * 0.6 * self._wander(_SHIFT_Z, t),
        )
        sway = 3.0 * style.shift * self._wander(_TORSO, t)
        return FaceState(
            pose=pose,
            gaze=self._gaze(t, pose),
            shift=shift,
            torso=(0.22 * pose[0] + sway, 0.8 * breath, 0.15 * pose[2]),
            lag=(before[0] - pose[0], before[1] - pose[1], before[2] - pose[2]),
            expression=self._expression(t),
        )

    def codes(self, times: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """[n] seconds -> [n, 67]: `state(t).code()` of each."""
        moments = np.asarray(times, np.float64).reshape(-1).tolist()
        out = np.empty((len(moments), CODE_SIZE), np.float32)
        for row, t in enumerate(moments):
            out[row] = self.state(t).code()
        return out

    def blink_start(self, slot: int) -> float:
        """When the blink of the slot from `slot * BLINK_SLOT_S` on begins; it takes BLINK_S."""
        return slot * BLINK_SLOT_S + _BLINK_WINDOW_S * self._uniform(_BLINK, slot)

    def _pose(self, t: float) -> tuple[float, float, float]:
        style = self.style
        yaw = 0.75 * self._wander(_YAW, t) + 0.35 * self._wander(_YAW_FAST, t)
        pitch = 0.7 * self._wander(_PITCH, t) + 0.3 * self._wander(_PITCH_FAST, t)
        roll = 0.8 * self._wander(_ROLL, t) + 0.2 * self._wander(_ROLL_FAST, t)
        return (
            style.energy * style.yaw * math.tanh(1.3 * yaw),
            style.energy * style.pitch * math.tanh(1.3 * pitch),
            style.energy * style.roll * math.tanh(1.3 * roll),
        )

    def _gaze(self, t: float, pose: tuple[float, float, float]) -> tuple[float, float]:
        """The eyes hold the camera against the head's turns, more or less, and glance about."""
        contact = 0.55 + 0.35 * self._wander(_CONTACT, t)
        side, up = (self.style.gaze * self._glance(c, t) for c in (_LOOK_SIDE, _LOOK_UP))
        yaw = -0.8 * contact * pose[0] + 11.0 * side
        pitch = -0.7 * contact * pose[1] + 8.0 * up
        return min(max(yaw, -28.0), 28.0), min(max(pitch, -18.0), 14.0)

    def _expression(self, t: float) -> npt.NDArray[np.float32]:
        weight = [0.0] * len(EXPRESSIONS)

        def add(name: str, value: float) -> None:
            for k in _AT[name]:
                weight[k] += value

        leap = abs(self._glance(_LOOK_SIDE, t) - self._glance(_LOOK_SIDE, t - 0.12)) - 0.9
        lids = 0.6 * min(max(leap * self.style.gaze, 0.0), 1.0)  # a wide glance takes them along
        add("eyeBlink", min(self._blink(t) + lids, 1.0))
        joy = self._smile(t, weight)
        add("cheekSquint", 0.42 * joy)
        add("eyeSquint", 0.10 + 0.38 * joy)
        add("noseSneer", 0.15 * joy)
        brow = self._wander(_BROW, t)
        add("browInnerUp", 0.42 * max(brow, 0.0))
        add("browOuterUp", 0.38 * max(self._wander(_BROW_OUTER, t), 0.0))
        add("browDown", 0.40 * max(-brow - 0.2, 0.0))

        talk = self.style.speech * _ease(0.35 + 1.1 * self._wander(_TALK, t))
        open_ = 0.12 + 0.24 * self._wander(_JAW, t) + 0.10 * self._wander(_JAW_SLOW, t)
        jaw = talk * max(0.0, open_)
        wide = talk * max(0.0, self._wander(_WIDE, t))
        add("jawOpen", jaw + 0.10 * joy * max(1.0 - talk, 0.0))
        add("mouthFunnel", 0.45 * talk * max(0.0, self._wander(_ROUND, t)))
        add("mouthPucker", 0.35 * talk * max(0.0, self._wander(_PUCKER, t)))
        add("mouthStretch", 0.22 * wide)
        add("mouthUpperUp", 0.28 * wide + 0.22 * joy)
        add("mouthLowerDown", 0.40 * talk * max(0.0, self._wander(_LOWER, t)) + 0.12 * joy)
        shut = max(0.0, 1.0 - jaw / 0.06)
        add("mouthPress", 0.25 * talk * shut * max(0.0, self._wander(_PRESS, t)))
        return np.array([min(max(w, 0.0), 1.0) for w in weight], np.float32)

    def _smile(self, t: float, weight: list[float]) -> float:
        """Adds the smile, which is never quite even; returns how far it is a laugh."""
        smile = _ease(0.45 + 0.75 * self._wander(_SMILE, t))
        tilt = 0.12 * self._wander(_LOPSIDED, t)
        left, right = _AT["mouthSmile"]
        weight[left] += 0.22 + 0.46 * smile + tilt
        weight[right] += 0.22 + 0.46 * smile - tilt
        return max(smile - 0.55, 0.0) / 0.45

    def _blink(self, t: float) -> float:
        """How far the lids are shut, 0 .. 1."""
        slot = math.floor(t / BLINK_SLOT_S)
        since = t - self.blink_start(slot)
        if since < 0.0 or since >= BLINK_S:
            return 0.0
        return _ease(since / 0.08) if since < 0.11 else 1.0 - _ease((since - 0.11) / 0.18)

    def _glance(self, channel: int, t: float) -> float:
        """Saccades: a new target about every 1.1 s, reached in 50 ms; -1 .. 1, most are small."""
        k = math.floor(t / _KNOT_S[_SACCADE])
        since = t - (k * _KNOT_S[_SACCADE] + 0.7 * self._uniform(_SACCADE, k))
        old, new = (2.0 * self._uniform(channel, j) - 1.0 for j in (k - 1, k))
        return old**3 + (new**3 - old**3) * _ease(since / 0.05)

    def _wander(self, channel: int, t: float) -> float:
        """Smooth noise in about -1 .. 1: Catmull-Rom through the channel's knots."""
        u = t / _KNOT_S[channel]
        k = math.floor(u)
        f = u - k
        held = self._knots.get(channel)
        if held is None or held[0] != k:
            a, b, c, d = (2.0 * self._uniform(channel, k + j) - 1.0 for j in (-1, 0, 1, 2))
            held = self._knots[channel] = (k, a, b, c, d)
        _, a, b, c, d = held
        square = (2.0 * a - 5.0 * b + 4.0 * c - d) * f
        cube = (3.0 * b - a - 3.0 * c + d) * f * f
        return 0.5 * (2.0 * b + (c - a + square + cube) * f)

    def _uniform(self, channel: int, k: int) -> float:
        """The k-th number of a channel, in 0 .. 1."""
        values = self._blocks.get((channel, k // _BLOCK))
        if values is None:
            values = self._drawn(channel, k // _BLOCK)
        return values[k % _BLOCK]

    def _drawn(self, channel: int, block: int) -> list[float]:
        """A block that was missing, drawn along with all others that this moment will ask for."""
        missing = {(channel, block): None}  # ordered
        for other, knot_s in _KNOT_S.items():
            k = math.floor(self._now / knot_s)
            for near in ((k - 2) // _BLOCK, (k + 2) // _BLOCK):
                if (other, near) not in self._blocks:
                    missing[other, near] = None
        while self._blocks and len(self._blocks) + len(missing) > _BLOCKS_KEPT:
            del self._blocks[next(iter(self._blocks))]  # the oldest
        for key, values in zip(missing, _words(self.seed, list(missing)), strict=True):
            self._blocks[key] = values
        return self._blocks[channel, block]


def _words(seed: int, blocks: Sequence[tuple[int, int]]) -> list[list[float]]:
    """Numbers `64 b .. 64 b + 63` of a channel, for each (channel, b).

    Number k is word k mod 4 of the Philox block

        counter = (channel, k // 4 low 32 bits, its high 32 bits, domain), key = the seed's halves,

    taken to (0, 1) as (word + 1/2) / 2^32.
    """
    each = _BLOCK // 4
    index = [(b * each + j) & (1 << 64) - 1 for _, b in blocks for j in range(each)]
    channel = np.repeat(np.array([c for c, _ in blocks], np.uint64), each)
    low = np.array([i & 0xFFFFFFFF for i in index], np.uint64)
    high = np.array([i >> 32 for i in index], np.uint64)
    words = philox4x32(
        (channel, low, high, int(Domain.FACE_TRACK)), (seed & 0xFFFFFFFF, seed >> 32)
    )
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-32
    return uniform.reshape(len(blocks), _BLOCK).tolist()


def _ease(x: float) -> float:
    x = min(max(x, 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x)
