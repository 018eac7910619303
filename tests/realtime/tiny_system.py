"""A real System of a few parameters: its colour says whose picture it is."""

from __future__ import annotations

import threading
import time

import torch
from torch import Tensor

from models.contracts import Identity, MotionCode, Synthesizer


class TinySynthesizer(Synthesizer):
    """w gives the colour, dw shifts the luma of the left half; shapes as a StyleGAN's."""

    def __init__(self, resolution: int = 32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.resolution = resolution
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.delay_s = 0.0
        self.calls: list[str] = []
        self.fail_next: BaseException | None = None
        self.break_next = 0

    def forward(self, identity: Identity, motion: MotionCode) -> Tensor:
        self.calls.append(threading.current_thread().name)
        if self.delay_s:
            time.sleep(self.delay_s)
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        colour = identity.tensors["w"][0, 0, :3] * self.scale
        image = colour[:, None, None].expand(3, self.resolution, self.resolution).clone()
        image[:, :, : self.resolution // 2] += motion.tensors["dw"][0, 0]
        if self.break_next:
            self.break_next -= 1
            image[0, 3, 5] = float("nan")
        return image[None]


class TinyMotion:
    """dw(t) = t / 100, exactly."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def sample(self, t: float) -> MotionCode:
        self.asked.append(t)
        return MotionCode({"dw": torch.tensor([[t / 100]])}, t)


class TinySystem:
    """See `models.contracts.System`."""

    trained = False

    def __init__(self, name: str = "tiny", resolution: int = 32) -> None:
        self.name = name
        self.resolution = resolution
        self.synthesizer = TinySynthesizer(resolution)
        self.identities = 0
        self.sources: list[TinyMotion] = []

    def identity(self, *, seed: int, psi: float = 1.0) -> Identity:
        self.identities += 1
        generator = torch.Generator().manual_seed(seed)
        return Identity({"w": psi * (torch.rand(1, 1, 3, generator=generator) * 1.6 - 0.8)})

    def blend(self, a: Identity, b: Identity, amount: float) -> Identity:
        return Identity({"w": torch.lerp(a.tensors["w"], b.tensors["w"], amount)})

    def motion(self, *, seed: int, who: int | None = None) -> TinyMotion:
        self.sources.append(TinyMotion())
        return self.sources[-1]
