"""The models that ship with the project: small generators whose weights come from a seed.

They are not trained and every place that shows them says so. They exist so that the whole engine
runs at once on a laptop: real architectures, real motion, pictures that are pleasant to look at.
Weights are drawn from a seed, then calibrated the way training would leave them: every layer's
input has the mean square that `magnitude_ema` says, the last layer speaks a small palette, and the
pictures fill [-1, 1].

`python -m models.seeded` writes `models/weights/` again.
"""

from __future__ import annotations

import argparse
import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from models import checkpoint
from models.contracts import System
from models.presets import CPU_DEFAULT

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT = "aurora"
CALIBRATION_SEEDS = 48
RIM = 24  # pixels along the border that colours are not chosen by: zero padding shows there
WALK_SPREAD = 0.2  # how much wider than W alone the pictures seen in a session spread

Palette = tuple[tuple[float, float, float], ...]  # RGB directions, strongest first


@dataclass(frozen=True)
class Recipe:
    """How one shipped model is made."""

    family: str
    config: Mapping[str, Any]  # constructor arguments of the generator
    seed: int  # of the weights
    palette: Palette
    base: tuple[float, float, float]  # colour of the middle grey of the last layer, in [-1, 1]
    bias: float = 0.4  # spread of the convolution biases: more of it, more edges
    style: float = 1.0  # spread of the style affines: more of it, more difference between seeds
    drift: float = 0.2  # StyleGAN3: how far the style turns and shifts the whole picture
    contrast: float = 0.55  # standard deviation of a picture over all seeds
    meta: Mapping[str, Any] = field(default_factory=dict)


_SMALL: dict[str, Any] = {
    "z_dim": 64,
    "c_dim": 0,
    "w_dim": 64,
    "img_resolution": 256,
    "img_channels": 3,
    "mapping_kwargs": {"num_layers": 2},
}

RECIPES: dict[str, Recipe] = {
    "aurora": Recipe(
        family="stylegan3",
        config=CPU_DEFAULT,
        seed=8,
        palette=((0.80, 0.72, 0.62), (-0.62, 0.05, 0.50), (0.40, -0.30, 0.10)),
        base=(-0.36, -0.28, -0.06),
        style=0.45,
        bias=0.25,
        contrast=0.27,
        meta={"walk_speed": 0.4, "walk_radius": 0.6},
    ),
    "tide": Recipe(
        family="stylegan_v",
        config={
            **{key: _SMALL[key] for key in ("c_dim", "w_dim", "img_resolution", "img_channels")},
            "mapping_kwargs": {"num_layers": 2},
            "synthesis_kwargs": {"channel_base": 2048, "channel_max": 32},
            "cfg": {
                "z_dim": 64,
                "motion": {"z_dim": 32, "v_dim": 32},
                "time_enc": {"dim": 16, "min_period_len": 48, "max_period_len": 1024},
            },
        },
        seed=9,
        palette=((0.62, 0.85, 0.95), (0.75, 0.20, -0.50), (-0.10, 0.30, 0.25)),
        base=(-0.25, -0.05, 0.05),
        style=0.4,
        bias=0.25,
        contrast=0.4,
        meta={"fps": 25.0},
    ),
    "ember": Recipe(
        family="stylegan2",
        config={**_SMALL, "channel_base": 2048, "channel_max": 32},
        seed=5,
        palette=((0.85, 0.68, 0.50), (0.45, -0.05, -0.45), (-0.15, 0.25, -0.10)),
        base=(0.05, -0.10, -0.20),
        style=0.4,
        bias=0.25,
        contrast=0.4,
        meta={"walk_speed": 0.35, "walk_radius": 0.8},
    ),
}


def make(recipe: Recipe) -> nn.Module:
    """The recipe's generator, initialised and calibrated. Takes a few seconds.

    Returns:
        A generator in evaluation mode, on the CPU, whose pictures over many seeds have mean `base`
        and standard deviation `contrast`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        module = importlib.import_module(checkpoint.GENERATORS[recipe.family])
        generator = module.Generator(**recipe.config)
    generator.eval().requires_grad_(False)
    random = torch.Generator().manual_seed(recipe.seed)
    for name, parameter in sorted(generator.named_parameters()):
        _draw(name, parameter, recipe, random)
    z = torch.randn(CALIBRATION_SEEDS, generator.z_dim, generator=random)
    with torch.inference_mode():
        ws = _mapped(generator, z)
        generator.mapping.w_avg.copy_(ws[:, 0].mean(0))
        ws = ws.lerp(generator.mapping.w_avg, -WALK_SPREAD)  # identity and walk together
        _settle_magnitudes(generator, ws[::4])
        _paint(generator, ws, recipe)
    return generator


def _mapped(generator: Any, z: Tensor) -> Tensor:
    ws: Tensor = generator.mapping(z, torch.zeros(len(z), 0))  # [N, num_ws, w_dim]
    return ws


def _draw(name: str, parameter: Tensor, recipe: Recipe, random: torch.Generator) -> None:
    """Give the parameters that a fresh network leaves at zero or one something to say."""
    if name.startswith("mapping."):
        return
    noise = torch.randn(parameter.shape, generator=random)
    if name.endswith("input.affine.weight"):  # rotation and translation of the whole picture
        parameter.copy_(noise * recipe.drift)
    elif name.endswith("affine.weight"):
        parameter.copy_(noise * recipe.style)
    elif name.endswith(".bias") and "affine" not in name and "torgb" not in name:
        parameter.copy_(noise * recipe.bias)


def _settle_magnitudes(generator: Any, ws: Tensor) -> None:
    """StyleGAN3 only: let `magnitude_ema` see every layer's input, first layer first."""
    layers = getattr(generator.synthesis, "layers", None)
    if layers is None:
        return
    for layer in layers():
        seen: list[Tensor] = []
        hook = layer.register_forward_pre_hook(
            lambda _, given, seen=seen: seen.append(given[0].square().mean())
        )
        for row in ws.split(1):
            generator.synthesis(row)
        hook.remove()
        layer.magnitude_ema.copy_(torch.stack(seen).mean())


def _paint(generator: Any, ws: Tensor, recipe: Recipe) -> None:
    """Let the last layer alone make colours, and make the palette's.

    Of all mixtures of the last features, the ones used are those that vary most inside a picture
    for how much they vary between pictures (Fisher's criterion): a picture then never fades to one
    flat colour. The strongest takes the palette's first direction, and so on.
    """
    random = torch.Generator().manual_seed(recipe.seed + 1)
    *others, painter = _painters(generator)
    for other in others:
        other.weight.zero_()
        other.bias.zero_()
    painter.affine.weight.zero_()  # the same colours for every style
    painter.bias.zero_()
    features: list[Tensor] = []
    hook = painter.register_forward_pre_hook(lambda _, given: features.append(given[0]))
    for row in ws.split(1):
        _picture(generator, row, random)
    hook.remove()
    inner = torch.cat(features)[:, :, RIM:-RIM, RIM:-RIM]
    x = inner.flatten(2).double()  # [N, C, pixels]
    mean = x.mean(2, keepdim=True)
    inside = torch.einsum("ncp,ndp->cd", x - mean, x - mean) / (x.shape[0] * x.shape[2])
    between = torch.cov(mean[:, :, 0].t(), correction=0)
    balance = between + 0.15 * between.diagonal().mean() * torch.eye(len(between))
    lower = torch.linalg.inv(torch.linalg.cholesky(balance))
    _, vectors = torch.linalg.eigh(lower @ inside @ lower.t())
    mixing = (lower.t() @ vectors).flip(1)[:, : len(recipe.palette)]  # [C, colours]
    mixing /= (mixing.t() @ inside @ mixing).diagonal().sqrt()
    directions = torch.tensor(recipe.palette).t()  # [3, colours]
    painter.weight.copy_((directions.double() @ mixing.t())[:, :, None, None])
    pictures = torch.cat([_picture(generator, row, random) for row in ws.split(1)])
    scale = recipe.contrast / pictures.std(dim=(2, 3)).mean()
    centre = pictures.mean(dim=(0, 2, 3)) * scale
    painter.weight.mul_(scale)
    output_scale = float(getattr(generator.synthesis, "output_scale", 1.0))
    painter.bias.copy_((torch.tensor(recipe.base) - centre) / output_scale)


def _painters(generator: Any) -> list[Any]:
    """The layers that make colours: one in StyleGAN3, one per resolution in StyleGAN2."""
    synthesis = generator.synthesis
    if hasattr(synthesis, "layers"):
        return [synthesis.layers()[-1]]
    return [block.torgb for block in synthesis.blocks()]


def _picture(generator: Any, ws: Tensor, random: torch.Generator) -> Tensor:
    """One picture [1, 3, R, R] of `ws`, at a random moment where the family has motion."""
    synthesis = generator.synthesis
    if not hasattr(synthesis, "motion_encoder"):
        return cast(Tensor, synthesis(ws))
    v = torch.randn(1, synthesis.motion_dim, generator=random) * 0.6
    return cast(Tensor, synthesis(ws, motion_v=v))


def write(folder: Path = WEIGHTS) -> list[Path]:
    """Makes every shipped model and writes its checkpoint into `folder`."""
    written = []
    for name, recipe in RECIPES.items():
        about = {"name": name, "trained": False, "licence": "Apache-2.0", **recipe.meta}
        about["note"] = "seeded random weights, calibrated; not trained"
        state = make(recipe).state_dict()
        path = folder / name
        written.append(
            checkpoint.save(
                path, family=recipe.family, config=recipe.config, state=state, meta=about
            )
        )
    return written


def load(name: str) -> System:
    """A shipped model, from its checkpoint in `models/weights`.

    Raises:
        BadCheckpoint: The installation's file is damaged.
    """
    from models import registry  # it imports this module to know the shipped names

    return registry.build(checkpoint.load(WEIGHTS / name), name=name)


MODELS: Mapping[str, Callable[[], System]] = {
    name: functools.partial(load, name) for name in RECIPES
}


def main() -> None:
    """Write the weights again and say where."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    for path in write():
        print(path)


if __name__ == "__main__":
    main()
