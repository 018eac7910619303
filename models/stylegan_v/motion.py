"""StyleGAN-V's motion as an endless stream: any time, any order, any rate, in bounded memory.

A frame at time t (frames of the training data) needs the noise codes L .. L + 2K - 1 only, with
L = floor(t / d). Noise comes from a generator keyed by (seed, code), so a segment of d frames is a
pure function of (seed, L): it is computed once, in float64, by one routine of fixed shapes, and
then each frame costs 2 n sines. Because the routine is the same for play, seek and reverse play,
they agree bit for bit.

Why float64: the phase is f q t + phi. In float32 it is visibly wrong after an hour and noise after
four days. Here it is reduced to one turn before it is ever rounded, exactly enough for 10^9 s.

The routine is cut into stages. While one segment plays, the next one's stages are worked off a
few per frame, so that no frame pays for a whole segment.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.contracts import MotionCode
from models.errors import BadConfig
from models.noise import Domain, normals
from models.stylegan_v.motion_encoder import EqLRConv1d, MotionEncoder

Floats = npt.NDArray[np.float64]
NoiseSource = Callable[[int, int], npt.NDArray[np.float32]]  # first code, how many -> [n, z_dim]

_KEPT_SEGMENTS = 3
_ROWS = 128  # of a weight matrix per stage: 1.4 M multiply-adds per code at the published size
_LSTM_MEMORY = 64  # codes of history an LSTM is run over
_LSTM_STRIDE = 4  # of them per stage
_LEAST_STEP = 1e-3  # training frames between two samples; slower play is not planned more finely
_TURN = 2 * math.pi

Stages = Generator[None, None, "Segment"]  # yields between stages, returns the segment


@dataclass(frozen=True, slots=True)
class Segment:
    """What v(t) needs within `distance` frames. Arrays are float64."""

    omega: Floats  # [n] radians per frame
    base: Floats  # [n] phase at the left end, reduced to one turn
    offset: Floats  # [2n] aligner minus waves at the left end
    slope: Floats  # [2n] what the offset changes by until the right end
    distance: float  # frames

    def at(self, tau: float) -> npt.NDArray[np.float32]:
        """v [1, 2n] at `tau` frames after the left end."""
        theta = self.base + self.omega * tau
        v = np.concatenate([np.sin(theta), np.cos(theta)])
        return (v + self.offset + (tau / self.distance) * self.slope).astype(np.float32)[None]


class SegmentEncoder:
    """A motion encoder's weights in float64, laid out for computing one segment at a time.

    Built once per generator and shared by all its streams; holds no state of a stream.

    Args:
        encoder: Trained or not; read once, later changes are not seen.
        label: [1, c_dim] or None for an unconditional encoder.
    """

    def __init__(self, encoder: MotionEncoder, label: Tensor | None = None) -> None:
        config = encoder.config
        self.config = config
        self._label = np.zeros((1, 0)) if encoder.c_dim == 0 else _float64(_required(label))
        time = encoder.time_encoder
        self._freqs = _float64(time.freqs)[0]
        self._scales = _float64(time.phase_scales)[0]
        v_gain = 1 / math.sqrt(config.v_dim)  # equalised learning rate of the three maps
        self._to_period = _float64(time.periods_predictor.weight) * v_gain
        self._to_phase = _float64(time.phase_predictor.weight) * v_gain
        self._to_aligner = _float64(time.aligners_predictor.weight) * v_gain
        if config.strategy == "conv":
            self._layers = [_ConvRows(layer) for layer in encoder.conv]  # type: ignore[arg-type]
            self.stages = sum(len(layer.blocks) for layer in self._layers) + 2
        else:
            self._lstm = [_float64(p) for p in encoder.rnn.all_weights[0]]
            self.stages = _LSTM_MEMORY // _LSTM_STRIDE + 2

    def run(self, index: int, noise: NoiseSource) -> Stages:
        """The stages of segment `index`; a pure function of `index` and the noise."""
        if self.config.strategy == "conv":
            left, right = yield from self._convolved(index, noise)
        else:
            left, right = yield from self._recurrent(index, noise)
        yield
        return self._constants(index, left, right)

    def _convolved(
        self, index: int, noise: NoiseSource
    ) -> Generator[None, None, tuple[Floats, Floats]]:
        x = self._labelled(noise(index, 2 * self.config.kernel_size))  # [2K, z + c]
        for layer in self._layers:  # [2K, z + c] -> [K + 1, z] -> [2, v]
            yield
            x = yield from layer.apply(x)
        return x[0], x[1]

    def _recurrent(
        self, index: int, noise: NoiseSource
    ) -> Generator[None, None, tuple[Floats, Floats]]:
        # The authors' LSTM starts at code 0 and never forgets for good; a stream has no code 0. So
        # each code is that of an LSTM started from zero `_LSTM_MEMORY` codes earlier. Two rows: the
        # left and the right code, each with its own history, so that the next segment's left code
        # is this one's right code.
        w_ih, w_hh, b_ih, b_hh = self._lstm
        x = self._labelled(noise(index - _LSTM_MEMORY + 1, _LSTM_MEMORY + 1))
        drive = x @ w_ih.T + (b_ih + b_hh)  # [memory + 1, 4z]
        hidden = np.zeros((2, w_hh.shape[1]))
        cell = np.zeros_like(hidden)
        for step in range(_LSTM_MEMORY):
            if step % _LSTM_STRIDE == 0:
                yield
            gates = drive[step : step + 2] + hidden @ w_hh.T
            enter, forget, new, out = np.split(gates, 4, axis=1)  # torch's order
            cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(new)
            hidden = _sigmoid(out) * np.tanh(cell)
        return hidden[0], hidden[1]

    def _labelled(self, codes: npt.NDArray[np.float32]) -> Floats:
        label = np.broadcast_to(self._label, (len(codes), self._label.shape[1]))
        return np.concatenate([codes.astype(np.float64), label], axis=1)

    def _constants(self, index: int, left: Floats, right: Floats) -> Segment:
        distance = self.config.distance
        omega = self._freqs * (1 + np.tanh(self._to_period @ left))
        phase = self._scales * (self._to_phase @ left)
        base = _TURN * _fraction(_turns(omega / _TURN, index * distance) + phase / _TURN)
        end = base + omega * distance
        offset = self._to_aligner @ left - np.concatenate([np.sin(base), np.cos(base)])
        offset_end = self._to_aligner @ right - np.concatenate([np.sin(end), np.cos(end)])
        return Segment(omega, base, offset, offset_end - offset, distance)


class StreamedMotion:
    """Motion source with codes `v` [1, 2 * frequencies].

    Args:
        encoder: The generator's weights for segments.
        fps: Frames per second of the training data.
        seed: 0 .. 2^64 - 1.
        noise: Given noise codes in place of keyed ones, e.g. `given_codes(motion_z)`.
    """

    def __init__(
        self,
        encoder: SegmentEncoder,
        *,
        fps: float,
        seed: int = 0,
        noise: NoiseSource | None = None,
    ) -> None:
        if not 0 <= seed < 1 << 64:
            raise BadConfig(f"seed is {seed}; it must be between 0 and 2^64 - 1")
        self.seed, self.fps = seed, float(fps)
        self._encoder = encoder
        self._distance = encoder.config.distance
        self._noise = noise or self._keyed
        self._endless = noise is None
        self._segments: OrderedDict[int, Segment] = OrderedDict()
        self._ahead: tuple[int, Stages] | None = None  # the segment being prepared
        self._stages_left = 0
        self._last: float | None = None  # frames

    def sample(self, t: float) -> MotionCode:
        """Motion code at time `t`.

        Args:
            t: Seconds, in any order, negative and fractional too.
        Returns:
            `v`: [1, 2 * frequencies] float32 on the CPU; it is small, and whoever draws moves it.
        Raises:
            BadConfig: `t` is not finite.
        Source: specification of StyleGAN-V, sections 11 and 12.
        """
        frames = float(t) * self.fps
        if not math.isfinite(frames):
            raise BadConfig(f"t is {t} s; it must be finite")
        whole, tau = divmod(frames, self._distance)
        if tau >= self._distance:  # a tiny negative time: its remainder rounds up to the divisor
            whole, tau = whole + 1, 0.0
        index = int(whole)
        v = self._segment(index).at(tau)
        self._prepare(index, tau, frames)
        return MotionCode({"v": torch.from_numpy(v)}, t)

    def _segment(self, index: int) -> Segment:
        segment = self._segments.get(index)
        if segment is not None:
            self._segments.move_to_end(index)
            return segment
        if self._ahead is not None and self._ahead[0] == index:
            stages = self._ahead[1]
            self._ahead = None
        else:
            stages = self._encoder.run(index, self._noise)
        while True:
            try:
                next(stages)
            except StopIteration as done:
                return self._keep(index, done.value)

    def _prepare(self, index: int, tau: float, frames: float) -> None:
        """Works off a share of the stages of the segment that play is heading for."""
        step = 0.0 if self._last is None else frames - self._last
        self._last = frames
        # Paused; or jumping, so that there is no next one; or given codes, which may end here.
        if step == 0.0 or abs(step) > self._distance or not self._endless:
            return
        target = index + (1 if step > 0 else -1)
        if target in self._segments:
            return
        if self._ahead is None or self._ahead[0] != target:
            self._ahead = (target, self._encoder.run(target, self._noise))
            self._stages_left = self._encoder.stages
        frames_left = (self._distance - tau if step > 0 else tau) / max(abs(step), _LEAST_STEP)
        for _ in range(math.ceil(self._stages_left / max(1, math.floor(frames_left)))):
            self._stages_left -= 1
            try:
                next(self._ahead[1])
            except StopIteration as done:
                self._ahead = None
                self._keep(target, done.value)
                return

    def _keep(self, index: int, segment: Segment) -> Segment:
        self._segments[index] = segment
        if len(self._segments) > _KEPT_SEGMENTS:
            self._segments.popitem(last=False)
        return segment

    def _keyed(self, first: int, count: int) -> npt.NDArray[np.float32]:
        size = self._encoder.config.z_dim
        return normals(self.seed, first, count, size, domain=Domain.STYLEGAN_V_MOTION)


def given_codes(motion_z: Tensor) -> NoiseSource:
    """Noise codes of a tensor [n, z_dim]: for parity tests, and for one clip's motion on another.

    The source raises `BadConfig` where a time needs a code that is not there.
    """
    codes = motion_z.detach().to("cpu", torch.float32).numpy()

    def source(first: int, count: int) -> npt.NDArray[np.float32]:
        if first < 0 or first + count > len(codes):
            raise BadConfig(
                f"codes {first} .. {first + count - 1} are needed, {len(codes)} were given;"
                " give more noise or ask for an earlier time"
            )
        return codes[first : first + count]

    return source


class _ConvRows:
    """One equalised convolution as matrix products, in blocks of output rows."""

    def __init__(self, layer: EqLRConv1d) -> None:
        out, _, self.kernel_size = layer.weight.shape
        weight = _float64(layer.weight.transpose(1, 2)) * layer.weight_gain  # [out, K, in]
        self.blocks = [
            np.ascontiguousarray(weight[row : row + _ROWS].reshape(min(_ROWS, out - row), -1))
            for row in range(0, out, _ROWS)
        ]
        self.bias = _float64(layer.bias) * layer.bias_gain

    def apply(self, x: Floats) -> Generator[None, None, Floats]:
        """[n, in] to [n - K + 1, out], a stage per block of rows."""
        columns = len(x) - self.kernel_size + 1
        windows = np.stack([x[j : j + self.kernel_size].ravel() for j in range(columns)])
        parts = []
        for number, block in enumerate(self.blocks):
            if number > 0:
                yield
            parts.append(windows @ block.T)
        y = np.concatenate(parts, axis=1) + self.bias
        return np.maximum(y, 0.2 * y)


def _turns(rate: Floats, time: float) -> Floats:
    """`rate * time` modulo 1, to 1e-9 for rates below 1/4 and times up to 2^46.

    The product alone would lose its fraction: at 10^10 frames it has 31 bits before the point. The
    time is split, and the rate of its upper part reduced first; scaling by 2^24 and taking the
    fraction are exact.
    """
    upper = math.floor(time / 2.0**24)
    lower = time - upper * 2.0**24
    return _fraction(_fraction(rate * 2.0**24) * upper) + rate * lower


def _fraction(x: Floats) -> Floats:
    return x - np.floor(x)


def _sigmoid(x: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(0.5 * x))  # overflows nowhere


def _float64(x: Tensor) -> Floats:
    return x.detach().to("cpu", torch.float64).numpy()


def _required(label: Tensor | None) -> Tensor:
    if label is None:
        raise BadConfig("a conditional motion encoder needs a label [1, c_dim]")
    return label
