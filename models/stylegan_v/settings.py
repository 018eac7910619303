"""From a training run's tables to networks, and from a trained generator to a checkpoint.

The table `[generator]` holds the generator's constructor arguments in the names of checkpoints,
under the same rules (`models/checkpoint_config.py`); what the data says need not be said again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import checkpoint
from models.checkpoint_config import check_config
from models.errors import BadCheckpoint, BadConfig
from models.stylegan_v.networks import Discriminator, Generator
from models.training.config import TrainConfig
from models.training.contracts import DataInfo
from models.training.strict import build

FAMILY = "stylegan_v"
LEAST_DB = 50.0  # between pictures of weights as trained and as stored in half precision


def generator_arguments(config: TrainConfig, info: DataInfo) -> dict[str, Any]:
    """Constructor arguments of the run's generator.

    Raises:
        BadConfig: The table asks for something unknown or impossible.
    """
    given = {
        "img_resolution": info.resolution,
        "img_channels": 3,
        "c_dim": info.c_dim,
        "w_dim": 512,
        "mapping_kwargs": {"num_layers": 2},
        "cfg": {},
        **config.own.get("generator", {}),
    }
    given["cfg"] = {"fps": float(info.fps), **given["cfg"]}
    try:
        check_config(FAMILY, given)
    except BadCheckpoint as error:
        raise BadConfig(f"generator: {error}") from error
    if given["img_resolution"] < info.resolution:
        raise BadConfig(
            f"generator.img_resolution is {given['img_resolution']}, the data's {info.resolution}"
        )
    return given


@dataclass(frozen=True)
class DiscriminatorTable:
    """The table `[discriminator]`: sizes as of the generator, where the frames of a clip meet, and
    how many clips share a statistic.
    """

    channel_base: int = 32768
    channel_max: int = 512
    num_fp16_res: int = 4
    conv_clamp: float | None = 256
    concat_res: int = 16
    frames_div: int = 2
    mapping_layers: int = 2
    mbstd_group: int = 4
    max_num_frames: int = 1024


def discriminator_arguments(config: TrainConfig, info: DataInfo) -> dict[str, Any]:
    """Constructor arguments of the run's discriminator.

    Raises:
        BadConfig: The table asks for something unknown.
    """
    table = build(DiscriminatorTable, config.own.get("discriminator", {}), "discriminator")
    return {
        "c_dim": info.c_dim,
        "img_resolution": info.resolution,
        "img_channels": 3,
        "channel_base": table.channel_base,
        "channel_max": table.channel_max,
        "num_fp16_res": table.num_fp16_res,
        "conv_clamp": table.conv_clamp,
        "mapping_kwargs": {"num_layers": table.mapping_layers},
        "epilogue_kwargs": {"mbstd_group_size": table.mbstd_group},
        "cfg": {
            "sampling": {
                "num_frames_per_video": config.batch.frames,
                "max_num_frames": table.max_num_frames,
            },
            "concat_res": table.concat_res,
            "num_frames_div_factor": table.frames_div,
        },
    }


def fresh(network: type[Any], arguments: Mapping[str, Any], seed: int) -> Any:
    """A network whose first weights are a function of `seed`; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network(**arguments)


def new_generator(config: TrainConfig, info: DataInfo) -> tuple[Generator, dict[str, Any]]:
    """A run's generator and its constructor arguments."""
    arguments = generator_arguments(config, info)
    return fresh(Generator, arguments, config.seed), arguments


def new_discriminator(config: TrainConfig, info: DataInfo) -> Discriminator:
    """A run's discriminator; its weights are drawn from the seed after the generator's."""
    made = fresh(Discriminator, discriminator_arguments(config, info), config.seed + 1)
    assert isinstance(made, Discriminator)
    return made


def start_from(generator: Generator, path: str) -> None:
    """Copies a checkpoint's weights into a generator of the same arguments.

    Raises:
        BadCheckpoint: It cannot be read, or holds another network.
    """
    found = checkpoint.load(path)
    checkpoint.check_layout(generator.state_dict(), found.state)
    generator.load_state_dict(dict(found.state), strict=True)


def save_generator(
    path: Path,
    generator: Generator,
    arguments: Mapping[str, Any],
    meta: Mapping[str, Any],
) -> Path:
    """Writes a checkpoint, in half precision if a picture of it stays within `LEAST_DB`.

    Args:
        path: Folder and stem.
        arguments: Of its constructor.
    Returns:
        The JSON's path.
    """
    state = generator.state_dict()
    half = [name for name, _ in generator.named_parameters()] + ["mapping.w_avg"]
    if not _keeps_picture(generator, half):
        half = []
    return checkpoint.save(path, family=FAMILY, config=arguments, state=state, meta=meta, half=half)


@torch.no_grad()
def _keeps_picture(generator: Generator, names: list[str]) -> bool:
    """Whether rounding these weights to half precision leaves a picture as it is."""
    state = generator.state_dict()
    rounded = {**state, **{name: state[name].half().float() for name in names}}
    if not all(bool(rounded[name].isfinite().all()) for name in names):
        return False
    whole = _picture(generator, state)
    error = (_picture(generator, rounded) - whole).square().mean()
    span = (whole.max() - whole.min()).square()
    return bool(error * 10 ** (LEAST_DB / 10) <= span)


def _picture(generator: Generator, state: Mapping[str, Tensor]) -> Tensor:
    """One frame with these weights, the same codes every time."""
    random = torch.Generator().manual_seed(0)
    z = torch.randn(1, generator.z_dim, generator=random)
    v = torch.randn(1, generator.synthesis.motion_dim, generator=random)
    device = next(generator.parameters()).device
    c = torch.zeros(1, generator.c_dim, device=device)
    half = "mapping", "synthesis"
    split = {
        part: {k.removeprefix(f"{part}."): x for k, x in state.items() if k.startswith(f"{part}.")}
        for part in half
    }
    call = torch.func.functional_call
    ws = call(generator.mapping, split["mapping"], (z.to(device), c))
    frame: Tensor = call(generator.synthesis, split["synthesis"], (ws,), {"motion_v": v.to(device)})
    return frame
