"""The systems that benchmarks draw: shipped, seeded here at known sizes, or a checkpoint's path."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.presets import CPU_DEFAULT


@dataclass(frozen=True)
class Seeded:
    """A family at some size, its weights to be drawn from a seed."""

    family: str
    config: Mapping[str, Any]


def _config(size: int, latent: int, base: int, most: int, **more: Any) -> dict[str, Any]:
    sizes = {"z_dim": latent, "c_dim": 0, "w_dim": latent, "img_resolution": size}
    return {**sizes, "img_channels": 3, "channel_base": base, "channel_max": most, **more}


def _video(size: int, latent: int, base: int, most: int) -> dict[str, Any]:
    config = _config(size, latent, base, most)
    channels = {key: config.pop(key) for key in ("channel_base", "channel_max")}
    return {**config, "synthesis_kwargs": channels, "cfg": {"z_dim": latent}}


RADIAL = {"conv_kernel": 1, "use_radial_filters": True}

SPREAD = 0.4  # standard deviation of a picture that uses [-1, 1] well
CPU_CASE = "stylegan3-t-256-cpu"  # the configuration recommended for machines without a GPU

# Small enough for two cores.
CPU_SIZES = {
    CPU_CASE: Seeded("stylegan3", CPU_DEFAULT),
    "stylegan2-128": Seeded("stylegan2", _config(128, 64, 2048, 64)),
    "stylegan3-t-128": Seeded("stylegan3", _config(128, 64, 2048, 64, num_layers=8)),
    "stylegan3-r-128": Seeded("stylegan3", _config(128, 64, 2048, 64, num_layers=8, **RADIAL)),
    "stylegan-v-128": Seeded("stylegan_v", _video(128, 64, 2048, 64)),
}

# What the papers published.
GPU_SIZES = {
    **{f"stylegan2-{n}": Seeded("stylegan2", _config(n, 512, 32768, 512)) for n in (256, 1024)},
    **{
        f"stylegan3-t-{n}": Seeded("stylegan3", _config(n, 512, 32768, 512))
        for n in (256, 512, 1024)
    },
    **{
        f"stylegan3-r-{n}": Seeded("stylegan3", _config(n, 512, 65536, 1024, **RADIAL))
        for n in (256, 512, 1024)
    },
    "stylegan-v-256": Seeded("stylegan_v", _video(256, 512, 32768, 512)),
}

SEEDED = {**CPU_SIZES, **GPU_SIZES}


def seeded_sizes(device: str) -> dict[str, Seeded]:
    """What the families are measured at on this device."""
    import torch

    on_gpu = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    return GPU_SIZES if on_gpu else CPU_SIZES


def load(name: str, device: str = "cpu") -> Any:
    """A system: seeded here, shipped, or a checkpoint's path.

    Args:
        device: Where seeded weights are settled; the synthesizer stays there.
    Raises:
        ModelError: There is none of that name, or it is damaged.
    """
    from models import registry

    recipe = SEEDED.get(name)
    if recipe is None:
        return registry.load_model(name)
    import torch

    from models.checkpoint import GENERATORS, Checkpoint

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = importlib.import_module(GENERATORS[recipe.family])
        state = module.Generator(**recipe.config).state_dict()
    made = Checkpoint(recipe.family, recipe.config, state, {"trained": False})
    system = registry.build(made, name=name)
    settle(system, device)
    return system


def settle(system: Any, device: str = "cpu") -> None:
    """Leave random weights as training would leave them: every layer of StyleGAN3 knows the size of
    its input, and pictures fill the range. Errors of storage types then mean what they do there.
    """
    import torch

    from bench.fidelity import placed
    from kernels_triton import implementation

    network = system.synthesizer.synthesis
    hooks = [
        module.register_forward_pre_hook(_remember_magnitude)
        for module in network.modules()
        if hasattr(module, "magnitude_ema")
    ]
    place = torch.device(device)
    system.synthesizer.to(place)
    codes = [system.identity(seed=0), system.motion(seed=0).sample(0.0)]
    # Plain torch: no kernel has to be compiled for one picture.
    with torch.inference_mode(), implementation("torch"):
        image = system.synthesizer(*(placed(code, place) for code in codes))
        for hook in hooks:
            hook.remove()
        factor = SPREAD / image.std()
        layers = [block.torgb for block in network.blocks()] if hasattr(network, "blocks") else []
        for layer in layers or network.layers()[-1:]:
            layer.weight.mul_(factor)


def _remember_magnitude(module: Any, given: tuple[Any, ...]) -> None:
    module.magnitude_ema.copy_(given[0].square().mean())
