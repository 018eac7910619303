"""One segment of StyleGAN-V's motion: all that v(t) needs between two codes, in float64.

A pure function of the generator's weights, the segment's index and the noise, computed by one
routine of fixed shapes in one thread: so the same segment has the same bits whenever and however it
is reached. The routine is cut into stages, for a stream to work off a few per frame.

Why float64: the phase is f q t + phi. In float32 it is visibly wrong after an hour and noise after
four days. Here it is reduced to one turn before it is ever rounded, exactly enough for 10^9 s.

Source: Skorokhodov et al., StyleGAN-V (CVPR 2022), Sec. 3.1; which codes a time reads is the
behaviour of the published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.errors import BadConfig
from models.stylegan_v.motion_encoder import EqLRConv1d, MotionEncoder

Floats = npt.NDArray[np.float64]
NoiseSource = Callable[[int, int], npt.NDArray[np.float32]]  # first code, how many -> [n, z_dim]
Stages = Generator[None, None, "Segment"]  # yields between stages, returns the segment

_ROWS = 128  # of a weight matrix per stage: 0.7 M multiply-adds per code at the published size
_SERIAL = 1 << 18  # multiply-adds up to which OpenBLAS stays in the calling thread
_LSTM_MEMORY = 64  # codes of history an LSTM is run over
_LSTM_STRIDE = 4  # of them per stage
_TURN = 2 * math.pi


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

    Built once per generator and shared by all its streams, whatever their labels; holds no state
    of a stream.

    Args:
        encoder: Trained or not; read once, later changes are not seen.
    """

    def __init__(self, encoder: MotionEncoder) -> None:
        config = encoder.config
        self.config = config
        self.c_dim = encoder.c_dim
        time = encoder.time_encoder
        self._freqs = _float64(time.freqs)[0]
        self._scales = _float64(time.phase_scales)[0]
        maps = (time.periods_predictor, time.phase_predictor, time.aligners_predictor)
        weight = np.concatenate([_float64(layer.weight) * layer.weight_gain for layer in maps])
        self._maps = _Product(weight, rows=2)  # [4n, v_dim], of the left and the right code
        if config.strategy == "conv":
            first, second = (cast(EqLRConv1d, layer) for layer in encoder.conv)
            self._layers = [_Convolution(first, config.kernel_size + 1), _Convolution(second, 2)]
            self.stages = sum(layer.stages for layer in self._layers) + 2
        else:
            w_ih, w_hh, b_ih, b_hh = (_float64(p) for p in encoder.rnn.all_weights[0])
            self._lstm_in = _Product(w_ih, rows=_LSTM_MEMORY + 1)
            self._lstm_loop = _Product(w_hh, rows=2)
            self._lstm_bias = b_ih + b_hh
            self.stages = _LSTM_MEMORY // _LSTM_STRIDE + 2

    def label(self, label: Tensor | None) -> Floats:
        """A label as `run` takes it: float64 [1, c_dim]; without columns if unconditional.

        Raises:
            BadConfig: The encoder is conditional, and there is no label or it is misshapen.
        """
        if self.c_dim == 0:
            return np.zeros((1, 0))
        if label is None or label.shape != (1, self.c_dim):
            found = "none" if label is None else str(list(label.shape))
            raise BadConfig(
                f"a conditional motion encoder needs a label [1, {self.c_dim}]; given is {found}"
            )
        return _float64(label)

    def run(self, index: int, noise: NoiseSource, label: Floats) -> Stages:
        """The stages of segment `index`; a pure function of `index`, the noise and the label.

        Args:
            index: Of its left code; negative too.
            noise: Where its codes come from.
            label: [1, c_dim] from `label`, appended to every code.
        """
        if self.config.strategy == "conv":
            codes = yield from self._convolved(index, noise, label)
        else:
            codes = yield from self._recurrent(index, noise, label)
        yield
        return self._constants(index, codes)

    def _convolved(
        self, index: int, noise: NoiseSource, label: Floats
    ) -> Generator[None, None, Floats]:
        x = _labelled(noise(index, 2 * self.config.kernel_size), label)  # [2K, z + c]
        for layer in self._layers:  # [2K, z + c] -> [K + 1, z] -> [2, v]
            yield
            x = yield from layer.staged(x)
        return x

    def _recurrent(
        self, index: int, noise: NoiseSource, label: Floats
    ) -> Generator[None, None, Floats]:
        # The authors' LSTM starts at code 0 and never forgets for good; a stream has no code 0. So
        # each code is that of an LSTM started from zero `_LSTM_MEMORY` codes earlier. Two rows: the
        # left and the right code, each with its own history, so that the next segment's left code
        # is this one's right code.
        x = _labelled(noise(index - _LSTM_MEMORY + 1, _LSTM_MEMORY + 1), label)
        drive = self._lstm_in(x) + self._lstm_bias  # [memory + 1, 4z]
        hidden = np.zeros((2, self.config.z_dim))
        cell = np.zeros_like(hidden)
        for step in range(_LSTM_MEMORY):
            if step % _LSTM_STRIDE == 0:
                yield
            gates = drive[step : step + 2] + self._lstm_loop(hidden)
            enter, forget, new, out = np.split(gates, 4, axis=1)  # torch's order
            cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(new)
            hidden = _sigmoid(out) * np.tanh(cell)
        return hidden

    def _constants(self, index: int, codes: Floats) -> Segment:
        """From the smoothed codes [2, v_dim] at both ends."""
        distance, n = self.config.distance, self.config.frequencies
        left, right = self._maps(codes)  # each [4n]: frequency, phase, aligner
        omega = self._freqs * (1 + np.tanh(left[:n]))
        phase = self._scales * left[n : 2 * n]
        base = _TURN * _fraction(_turns(omega / _TURN, index * distance) + phase / _TURN)
        end = base + omega * distance
        offset = left[2 * n :] - np.concatenate([np.sin(base), np.cos(base)])
        offset_end = right[2 * n :] - np.concatenate([np.sin(end), np.cos(end)])
        return Segment(omega, base, offset, offset_end - offset, distance)


class _Product:
    """`x @ weight.T` in float64, in fixed pieces that the matrix library works off serially.

    Above 2^18 multiply-adds OpenBLAS wakes a thread per core, and they spin for each other: on two
    busy cores one segment of the published size then took up to 4 s in place of 5 ms. One thread
    also makes the bits independent of how many there are.

    Args:
        weight: [out, in].
        rows: Of every x.
    """

    def __init__(self, weight: Floats, rows: int) -> None:
        fan_out, fan_in = weight.shape
        depth = max(1, _SERIAL // (rows * min(_ROWS, fan_out)))
        self._cuts = [slice(k, k + depth) for k in range(0, fan_in, depth)]
        self._blocks = [
            [np.ascontiguousarray(weight[row : row + _ROWS, cut]) for cut in self._cuts]
            for row in range(0, fan_out, _ROWS)
        ]
        self.stages = len(self._blocks)

    def staged(self, x: Floats) -> Generator[None, None, Floats]:
        """[rows, in] to [rows, out], yielding between blocks of outputs."""
        parts = []
        for number, block in enumerate(self._blocks):
            if number > 0:
                yield
            part = x[:, self._cuts[0]] @ block[0].T
            for cut, piece in zip(self._cuts[1:], block[1:], strict=True):
                part += x[:, cut] @ piece.T
            parts.append(part)
        return np.concatenate(parts, axis=1)

    def __call__(self, x: Floats) -> Floats:
        """The same at once."""
        stages = self.staged(x)
        while True:
            try:
                next(stages)
            except StopIteration as done:
                return done.value


class _Convolution:
    """One equalised convolution and its leaky ReLU, as a matrix product over windows."""

    def __init__(self, layer: EqLRConv1d, outputs: int) -> None:
        weight = _float64(layer.weight.transpose(1, 2)) * layer.weight_gain  # [out, K, in]
        self._kernel_size = weight.shape[1]
        self._product = _Product(weight.reshape(len(weight), -1), outputs)
        self._bias = _float64(layer.bias) * layer.bias_gain
        self._outputs = outputs
        self.stages = self._product.stages

    def staged(self, x: Floats) -> Generator[None, None, Floats]:
        """[outputs + K - 1, in] to [outputs, out]."""
        windows = np.stack([x[j : j + self._kernel_size].ravel() for j in range(self._outputs)])
        y = yield from self._product.staged(windows)
        y += self._bias
        return np.maximum(y, 0.2 * y)


def _labelled(codes: npt.NDArray[np.float32], label: Floats) -> Floats:
    """Codes [n, z] and the label [1, c] to [n, z + c]."""
    repeated = np.broadcast_to(label, (len(codes), label.shape[1]))
    return np.concatenate([codes.astype(np.float64), repeated], axis=1)


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
