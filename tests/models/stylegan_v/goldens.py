"""Golden vectors of StyleGAN-V and the networks they were made with."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.stylegan_v.config import GeneratorConfig
from models.stylegan_v.motion_encoder import MotionEncoder
from models.stylegan_v.networks import Discriminator, Generator


class Golden:
    """One file: `meta`, and tensors by name."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.meta: dict[str, Any] = json.loads(bytes(self.arrays.pop("meta_json")))

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[key]))

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def state(self, prefix: str = "sd/") -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): self[key] for key in self.arrays if key.startswith(prefix)
        }


@functools.cache
def read(path: Path) -> Golden:
    return Golden(path)


def generator_settings(meta: dict[str, Any]) -> dict[str, Any]:
    """Constructor arguments, in the form of a published file's `init_kwargs`."""
    return {
        "c_dim": meta["c_dim"],
        "w_dim": meta["w_dim"],
        "img_resolution": meta.get("res", 32),
        "img_channels": 3,
        "mapping_kwargs": {"num_layers": meta.get("mapping_layers", 2)},
        "synthesis_kwargs": {
            "channel_base": meta.get("channel_base", 256),
            "channel_max": meta.get("channel_max", 8),
            "num_fp16_res": 4,
            "conv_clamp": meta.get("conv_clamp"),
        },
        "cfg": {
            "z_dim": meta["z_dim"],
            "motion": meta["motion"],
            "time_enc": meta["time_enc"],
            "input": {"type": meta["input"]},
            "sampling": {"max_num_frames": meta["max_num_frames"]},
            "use_noise": meta["use_noise"],
        },
    }


def discriminator_settings(meta: dict[str, Any]) -> dict[str, Any]:
    return {
        "c_dim": meta.get("c_dim", 0),
        "img_resolution": meta["res"],
        "img_channels": 3,
        "channel_base": meta["channel_base"],
        "channel_max": meta["channel_max"],
        "num_fp16_res": 4,
        "conv_clamp": meta["conv_clamp"],
        "epilogue_kwargs": {"mbstd_group_size": meta["mbstd_group_size"]},
        "cfg": {
            "sampling": {
                "type": meta.get("sampling", "random"),
                "num_frames_per_video": meta["k"],
                "max_num_frames": meta["max_num_frames"],
            },
            "concat_res": meta["concat_res"],
            "num_frames_div_factor": meta["num_frames_div_factor"],
            "dummy_c": meta.get("dummy_c", False),
        },
    }


def generator_of(found: Golden) -> Generator:
    generator = Generator(**generator_settings(found.meta))
    generator.load_state_dict(found.state(), strict=True)
    return generator.eval()


def discriminator_of(found: Golden) -> Discriminator:
    discriminator = Discriminator(**discriminator_settings(found.meta))
    discriminator.load_state_dict(found.state(), strict=True)
    return discriminator.eval()


def motion_encoder_of(found: Golden) -> MotionEncoder:
    config = GeneratorConfig.from_published(generator_settings(found.meta)["cfg"]).motion
    encoder = MotionEncoder(found.meta["c_dim"], config)
    encoder.load_state_dict(found.state(), strict=True)
    return encoder.eval()


def error(found: Tensor, expected: Tensor) -> float:
    """Greatest absolute difference; shapes must agree."""
    assert found.shape == expected.shape
    return float((found.detach().double() - expected.double()).abs().max())


def relative_l2(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference by the norm of what is expected."""
    assert found.shape == expected.shape
    difference = (found.detach().double() - expected.double()).norm()
    return float(difference / expected.double().norm())


TINY: dict[str, Any] = {
    "c_dim": 0,
    "w_dim": 16,
    "img_resolution": 16,
    "img_channels": 3,
    "synthesis_kwargs": {"channel_base": 128, "channel_max": 8},
    "cfg": {
        "z_dim": 12,
        "motion": {"z_dim": 6, "v_dim": 8, "motion_z_distance": 16, "kernel_size": 5},
        "time_enc": {"dim": 5, "min_period_len": 16, "max_period_len": 1024},
        "sampling": {"max_num_frames": 64, "fps": 30},
    },
}


def tiny(**changes: Any) -> Generator:
    """A small generator with weights from seed 0 and biases that are not zero."""
    settings = TINY | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = Generator(**settings)
        for name, parameter in generator.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, parameter.mean().item(), 0.1)
        generator.mapping.w_avg.normal_(std=0.1)
    return generator.eval().requires_grad_(False)
