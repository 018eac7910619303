"""A real small problem for the loop: learn what a moving blob looks like at time t.

Two networks, three phases of different intervals, random times, noise, a moving average, and a
statistic with a memory: everything a resumed run could get wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.training import ema
from models.training.config import TrainConfig
from models.training.contracts import ClipBatch, ClipRequest, DataInfo, Phase, SampleSheet
from models.training.draws import Draws, visited

SIDE, VIDEOS, LENGTH = 8, 5, 20


def config(**run: Any) -> TrainConfig:
    table = {
        "system": "tiny",
        "seed": 3,
        "data": {"source": "blobs", "resolution": SIDE, "workers": 0},
        "batch": {"size": 8, "micro": 2, "frames": 2},
        "optim": {"lr": 0.02, "beta1": 0.9},
        "run": {"total_kimg": 0.016 * 20, "tick_s": 1e9, **run},
    }
    return TrainConfig.from_dict(table)


class Blobs:
    """Videos of a bright spot on its circle, one start and colour each."""

    def __init__(self) -> None:
        lengths = np.full(VIDEOS, LENGTH, np.int64)
        self.info = DataInfo("blobs", SIDE, 25.0, 0, lengths, np.zeros((VIDEOS, 0), np.float32))
        self.closed = False

    def clips(self, requests: Sequence[ClipRequest]) -> ClipBatch:
        frames = np.stack([[self.frame(r.video, t) for t in r.times] for r in requests])
        times = torch.tensor([r.times for r in requests], dtype=torch.float64)
        return ClipBatch(torch.from_numpy(frames), times, torch.zeros(len(requests), 0))

    @staticmethod
    def frame(video: int, t: float) -> np.ndarray:
        y, x = np.mgrid[:SIDE, :SIDE]
        angle = 2 * np.pi * (t / LENGTH + video / VIDEOS)
        centre = SIDE / 2 + 2 * np.array([np.sin(angle), np.cos(angle)])
        spot = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 3)
        colour = np.array([1, video / VIDEOS, 0.5])[:, None, None]
        return (255 * spot * colour).astype(np.uint8)

    def close(self) -> None:
        self.closed = True


def features(video: Tensor, t: Tensor) -> Tensor:
    angle = 2 * torch.pi * (t / LENGTH + video / VIDEOS)
    waves = [torch.sin(angle), torch.cos(angle), torch.sin(2 * angle), torch.cos(2 * angle)]
    return torch.stack([*waves, video / VIDEOS], -1).float()


class Painting:
    """The trainer: `paint` draws frames, `judge` tells their mean brightness."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            make = lambda: nn.Sequential(  # noqa: E731
                nn.Linear(5, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Linear(32, 3 * SIDE * SIDE)
            )
            paint = make()
            average = make().requires_grad_(False)
            average.load_state_dict(paint.state_dict())
            judge = nn.Sequential(nn.Linear(3 * SIDE * SIDE, 8), nn.Tanh(), nn.Linear(8, 1))
        optim = config.optim
        self.networks: Mapping[str, nn.Module] = {"paint": paint, "judge": judge}
        self.averages: Mapping[str, nn.Module] = {"paint": average}
        self.optimizers: Mapping[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(net.parameters(), lr=1, betas=(optim.beta1, optim.beta2))
            for name, net in self.networks.items()
        }
        self.phases = (
            Phase("paint", "paint"),
            Phase("judge", "judge"),
            Phase("smooth", "judge", interval=4, gain=4.0),
        )
        self.p = torch.zeros((), dtype=torch.float64)

    def requests(self, draws: Draws) -> list[ClipRequest]:
        batch = self.config.batch
        first = (draws.step * batch.micros + draws.micro) * batch.micro
        videos = visited(draws.seed, first, batch.micro, VIDEOS)
        rng = draws.numpy("data")
        times = np.sort(rng.integers(0, LENGTH, (batch.micro, batch.frames)), axis=1)
        return [
            ClipRequest(int(v), tuple(map(float, t))) for v, t in zip(videos, times, strict=True)
        ]

    def accumulate(
        self, phase: Phase, batch: ClipBatch, draws: Draws, share: float
    ) -> Mapping[str, Tensor]:
        real = batch.frames.flatten(0, 1).flatten(1).float() / 255
        noise = torch.randn(real.shape, generator=draws.torch(phase.name))
        noisy = (real + 0.05 * noise).requires_grad_(phase.name == "smooth")
        if phase.name == "paint":
            # The judge is moved by nobody here, and yet gradients pass through it.
            drawn = self.paint(batch)
            loss = (drawn - real).square().mean() + 1e-3 * self.networks["judge"](drawn).var()
        elif phase.name == "judge":
            loss = (self.networks["judge"](noisy)[:, 0] - real.mean(1)).square().mean()
        else:
            (gradient,) = torch.autograd.grad(
                self.networks["judge"](noisy).sum(), noisy, create_graph=True
            )
            loss = gradient.square().sum(1).mean() * phase.gain
        (loss * share).backward()
        sign = (real.mean() - 0.02).sign()
        return {"loss": loss.detach(), "signs": sign[None].detach()}

    def paint(self, batch: ClipBatch, average: bool = False) -> Tensor:
        # Which video it is can be read from the colour in the truth; here the brightest green.
        green = batch.frames[:, :, 1].flatten(2).amax(-1).double() / 255
        red = batch.frames[:, :, 0].flatten(2).amax(-1).double().clamp(min=1) / 255
        seen = features(green / red * VIDEOS, batch.t).flatten(0, 1)
        return (self.averages if average else self.networks)["paint"](seen)

    def learning_rate(self, network: str, step: int) -> float:
        base = self.config.optim.lr if network == "paint" else self.config.optim.lr_d
        return self.config.optim.rate(base, step, self.config.total_steps)

    def after_step(self, step: int, sums: Mapping[str, Tensor]) -> None:
        ema.update(self.averages["paint"], self.networks["paint"], 0.9)
        self.p = (self.p + 0.01 * sums["paint/signs"][0]).clamp(0, 1)

    def aux_state(self) -> dict[str, Tensor]:
        return {"p": self.p}

    def load_aux_state(self, state: Mapping[str, Tensor]) -> None:
        self.p = state["p"].clone()

    def export(self, path: Path, meta: Mapping[str, Any]) -> Path:
        path.with_suffix(".json").write_text("{}")
        return path.with_suffix(".json")

    def samples(self) -> SampleSheet:
        return SampleSheet()
