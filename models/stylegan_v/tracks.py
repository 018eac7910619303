"""Motion of a face: its own numbers as the motion code, and features learned from them.

StyleGAN-V's motion code comes from noise, so nothing in it has a name. Here v(t) is made of the 67
numbers that say how a face is held and what it does (`models/faces/state.py`), each scaled to unit
spread, followed by learned features of them. So the first entries are pose, gaze and expression by
construction, a track of motion of any length gives v at any time, and a rendered frame of the same
numbers is the truth that a generator can be fitted to.

`TrackEncoder` is what is trained, `TrackMotion` plays it in float64 for ever.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.backbones.layers import FullyConnectedLayer
from models.contracts import MotionCode
from models.errors import BadConfig
from models.faces.state import CODE_SIZE
from models.faces.tracks import TrackStyle
from models.stylegan_v.config import MotionConfig

_SLOPE, _GAIN = 0.2, math.sqrt(2)  # of the leaky ReLU
MOST_GAIN = 8.0  # what hardly moves is not blown up to noise


class TrackEncoder(nn.Module):
    """The numbers of a face to motion codes.

    Args:
        config: Its `hidden` and `frequencies` are read.
    """

    gain: Tensor

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("gain", torch.ones(CODE_SIZE))
        features = config.embedding_dim - CODE_SIZE
        self.hidden = FullyConnectedLayer(CODE_SIZE, config.hidden, activation="lrelu")
        self.features = FullyConnectedLayer(config.hidden, features)

    def calibrate(self, codes: npt.NDArray[np.float32]) -> None:
        """Sets `gain` so that the numbers of `codes` [n, 67] get about unit spread. Once, before
        training: it is part of what the weights mean.
        """
        spread = np.maximum(codes.std(0), 1 / MOST_GAIN)
        moves = codes.std(0) > 1e-6  # what never moves keeps its scale
        self.gain.copy_(torch.from_numpy(np.where(moves, 1 / spread, 1.0)))

    def forward(self, code: Tensor) -> Tensor:
        """[N, 67] to [N, 2 * frequencies]: the numbers times `gain`, then the features."""
        scaled = code * self.gain
        return torch.cat([scaled, self.features(self.hidden(scaled))], dim=1)


class TrackWeights:
    """An encoder's weights in float64, for streams. They are read once."""

    def __init__(self, encoder: TrackEncoder) -> None:
        self.gain = _double(encoder.gain)
        self.hidden, self.hidden_bias = _affine(encoder.hidden)
        self.features, self.features_bias = _affine(encoder.features)

    def codes(self, numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """[n, 67] to [n, 2 * frequencies], row by row the same however many there are."""
        return np.stack([self._code(row) for row in numbers.astype(np.float64) * self.gain])

    def _code(self, scaled: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        inner = self.hidden @ scaled + self.hidden_bias
        inner = np.where(inner < 0, inner * _SLOPE, inner) * _GAIN
        features = self.features @ inner + self.features_bias
        return np.concatenate([scaled, features]).astype(np.float32)


class Numbers(Protocol):
    """Anything that knows the numbers of a face at any time, above all `models.faces.Track`."""

    def codes(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Times [n] in seconds to [n, 67]."""
        ...


class TrackMotion:
    """Motion source with codes `v` [1, 2 * frequencies]. Remembers nothing but its track's caches,
    so play, seek and reverse play agree bit for bit.

    Args:
        weights: Of the generator's encoder.
        track: What the face does.
    """

    def __init__(self, weights: TrackWeights, track: Numbers) -> None:
        self._weights = weights
        self._track = track

    def sample(self, t: float) -> MotionCode:
        """Motion code at time `t`.

        Args:
            t: Seconds, in any order, negative and fractional too.
        Returns:
            `v`: [1, 2 * frequencies] float32 on the CPU.
        Raises:
            BadConfig: `t` is not finite.
        """
        if not math.isfinite(t):
            raise BadConfig(f"t is {t} s; it must be finite")
        numbers = self._track.codes(np.array([t], np.float64))
        return MotionCode({"v": torch.from_numpy(self._weights.codes(numbers))}, t)


def track_style(config: MotionConfig) -> TrackStyle:
    """How far and how lively the tracks move that a generator was trained on.

    Raises:
        BadConfig: `config.tracks` names what a track has not, or an impossible value.
    """
    known = [item.name for item in fields(TrackStyle)]
    for name in config.tracks:
        if name not in known:
            raise BadConfig(f"motion.tracks has no {name!r}; known are {', '.join(known)}")
    return TrackStyle(**config.tracks)


def _double(tensor: Tensor) -> npt.NDArray[np.float64]:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _affine(
    layer: FullyConnectedLayer,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Matrix and offset of a layer, without its activation."""
    assert layer.bias is not None
    return _double(layer.weight) * layer.weight_gain, _double(layer.bias) * layer.bias_gain
