"""A real StyleGAN3 of a few thousand parameters, as a System: what the fused backends can draw."""

from __future__ import annotations

import torch

from models.backbones import stylegan3
from models.contracts import Identity
from models.stylegan.system import System

SIDE = 32
BROKEN_SEED = 666  # whose picture is not a number


class TinyStyleGan(System):
    """Pictures of SIDE x SIDE; every seed looks different."""

    def __init__(self, name: str = "tiny", *, channels: int = 16) -> None:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(3)
            generator = stylegan3.Generator(
                z_dim=8,
                c_dim=0,
                w_dim=8,
                img_resolution=SIDE,
                img_channels=3,
                channel_base=SIDE * channels,
                channel_max=channels,
                num_layers=3,
                mapping_kwargs={"num_layers": 1},
            )
            for key, parameter in generator.named_parameters():
                if key.endswith("bias") and "affine" not in key:
                    parameter.copy_(torch.randn_like(parameter) * 0.3)
        super().__init__(name, generator, trained=False, walk_radius=0.5)

    def identity(self, *, seed: int, psi: float = 1.0) -> Identity:
        who = super().identity(seed=seed, psi=psi)
        if seed == BROKEN_SEED:
            return Identity({"w": who.tensors["w"] * float("nan")})
        return who
