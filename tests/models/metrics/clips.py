"""Clips, a source and a system of known content, for metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.contracts import Identity, MotionCode, Synthesizer
from models.training.contracts import ClipBatch, ClipRequest, DataInfo

SIDE = 32


def disc(times: Sequence[float], seed: int, speed: float = 1.0, side: int = SIDE) -> Tensor:
    """A bright disc that swings over a gradient, uint8 [T, 3, side, side]; its path is `seed`'s."""
    random = np.random.default_rng(seed)
    phase, height, colour = random.uniform(0, 6.28), random.uniform(0.3, 0.7), random.random(3)
    y, x = np.mgrid[0:side, 0:side] / side
    frames = []
    for t in times:
        centre = 0.5 + 0.3 * np.sin(phase + 0.2 * speed * t)
        cover = (0.5 + (0.18 - np.hypot(x - centre, y - height)) * side).clip(0, 1)
        frames.append(255 * (0.3 * y + cover * (0.4 + 0.6 * colour[:, None, None])).clip(0, 1))
    return torch.from_numpy(np.stack(frames).astype(np.uint8))


class Discs:
    """A `ClipSource` of discs, of given lengths."""

    def __init__(self, lengths: Sequence[int], speed: float = 1.0) -> None:
        self._speed = speed
        self.info = DataInfo("discs", SIDE, 25.0, lengths=np.array(lengths, np.int64))
        self.asked: list[ClipRequest] = []

    def clips(self, requests: Sequence[ClipRequest]) -> ClipBatch:
        self.asked += requests
        frames = torch.stack([disc(r.times, r.video, self._speed) for r in requests])
        times = torch.tensor([r.times for r in requests], dtype=torch.float64)
        return ClipBatch(frames, times, torch.zeros(len(requests), 0))

    def close(self) -> None:
        pass


class _Painter(Synthesizer):
    def forward(self, identity: Identity, motion: MotionCode) -> Tensor:
        frames = []
        for seed, (t, speed) in zip(
            identity.tensors["seed"][:, 0].tolist(), motion.tensors["t"].tolist(), strict=True
        ):
            frames.append(disc([t * 25], int(seed), speed)[0])
        return torch.stack(frames) / 127.5 - 1


class _Motion:
    def __init__(self, speed: float) -> None:
        self._speed = speed

    def sample(self, t: float) -> MotionCode:
        return MotionCode({"t": torch.tensor([[t, self._speed]], dtype=torch.float64)}, t)


class DiscSystem:
    """A `System` that draws what `Discs` holds, at `speed`."""

    name, resolution, trained = "discs", SIDE, True

    def __init__(self, speed: float = 1.0) -> None:
        self.synthesizer: Synthesizer = _Painter()
        self._speed = speed

    def identity(self, *, seed: int, psi: float = 1.0) -> Identity:
        return Identity({"seed": torch.tensor([[float(seed)]])})

    def blend(self, a: Identity, b: Identity, amount: float) -> Identity:
        return a if amount < 0.5 else b

    def motion(self, *, seed: int, who: int | None = None) -> _Motion:
        return _Motion(self._speed)
