"""The smallest system of your own: rings without a network, recorded by the real engine.

A system says who is seen and how they move at time t, and turns both to pixels.
"""

import argparse
import asyncio
import sys
from pathlib import Path

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from models.contracts import Identity, MotionCode, Synthesizer
from realtime.config import RenderConfig
from realtime.engine import Engine
from realtime.record import RecordConfig, record


class Painter(Synthesizer):
    def forward(self, identity, motion):
        x = torch.linspace(-1, 1, 256, device=motion.tensors["phase"].device)
        radius = (x[:, None] ** 2 + x[None, :] ** 2).sqrt()
        wave = torch.sin(24 * radius - motion.tensors["phase"])
        return wave * identity.tensors["colour"]  # [1, 3, 256, 256] in [-1, 1]


class Rings:
    name, resolution, trained = "rings", 256, False
    synthesizer = Painter()

    def identity(self, *, seed, psi=1.0):
        colour = torch.rand(1, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
        return Identity({"colour": 0.5 + psi * (colour - 0.5)})

    def blend(self, a, b, amount):
        return Identity({"colour": torch.lerp(a.tensors["colour"], b.tensors["colour"], amount)})

    def motion(self, *, seed, who=None):
        return self

    def sample(self, t):
        return MotionCode({"phase": torch.tensor(6.0 * t)}, t)  # any t, in any order


async def main(out: Path, seconds: float) -> None:
    config = RenderConfig(model="rings", backend="eager")  # the plain forward: nothing fuses it
    async with Engine(config, load=lambda name: Rings(), names=[]) as engine:
        done = await record(RecordConfig(out, seconds, render=config), engine=engine)
        print(f"{done.path}: {done.frames} frames")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("rings.mp4"))
    parser.add_argument("--seconds", type=float, default=3.0)
    asyncio.run(main(**vars(parser.parse_args())))
