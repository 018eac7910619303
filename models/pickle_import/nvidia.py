"""Constructor arguments of StyleGAN2 and StyleGAN3 generators out of NVIDIA's files.

Defaults belong to the code that wrote a file: stylegan2-ada-pytorch means no clamp and no half
precision where later code means 256 and 4. So what a layer stored about itself is preferred to the
recorded arguments, and those to a default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from models.errors import BadCheckpoint
from models.pickle_import.inert import Record
from models.pickle_import.limits import Limits, corrupt, quote
from models.pickle_import.networks import attribute, plain
from models.pickle_import.storages import Tensor

MOST_RATE = 1e9  # samples per picture side, factors, taps; 4096 and 24 occur
SIZES = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")


class Facts:
    """What one network of a file says about itself.

    Args:
        modules: Every layer by its dotted name.
        tensors: Every tensor by its dotted name.
    """

    def __init__(
        self, modules: Mapping[str, Record], tensors: Mapping[str, Tensor], limits: Limits
    ) -> None:
        self.modules, self.tensors, self.limits = modules, tensors, limits

    def module(self, name: str) -> Record:
        if name not in self.modules:
            raise BadCheckpoint("CKPT_ARCH_MISMATCH", f"the network has no part {quote(name)}")
        return self.modules[name]

    def arguments(self, name: str) -> dict[str, Any]:
        """The recorded keyword arguments of a layer, as they are in the file."""
        given = attribute(self.module(name), "_init_kwargs", {})
        if type(given) is not dict or len(given) > self.limits.entries:
            raise corrupt(f"_init_kwargs of {quote(name)} is {quote(given)} and no small table")
        return {key: value for key, value in given.items() if type(key) is str}

    def nested(self, table: Mapping[str, Any], key: str) -> dict[str, Any]:
        """A table inside recorded arguments; empty where there is none."""
        inner = table.get(key)
        if inner is None:
            return {}
        if type(inner) is not dict or len(inner) > self.limits.entries:
            raise corrupt(f"{key} is {quote(inner)} and no small table")
        return {name: value for name, value in inner.items() if type(name) is str}

    def take(self, into: dict[str, Any], name: str, keys: tuple[str, ...]) -> None:
        """Stored attributes of a layer, where it has them, in place of what `into` says."""
        state = self.module(name).state
        assert type(state) is dict
        for key in keys:
            if key in state:
                into[key] = plain(state[key])
                if into[key] is None and state[key] is not None:
                    raise corrupt(f"{quote(name)} has {quote(state[key])} as its {key}")

    def size(self, name: str, axis: int) -> int | None:
        """One size of a tensor, None where there is no such tensor or axis."""
        tensor = self.tensors.get(name)
        return (
            tensor.size[axis] if tensor and -len(tensor.size) <= axis < len(tensor.size) else None
        )


def mapping_arguments(facts: Facts, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the mapping network."""
    into = {key: plain(value) for key, value in given.items()}
    facts.take(into, "mapping", ("num_layers", "w_avg_beta"))
    first = facts.module("mapping.fc0")
    into["activation"] = plain(attribute(first, "activation", "lrelu"))
    into["lr_multiplier"] = plain(attribute(first, "bias_gain", 0.01))
    if "mapping.fc1" in facts.modules:
        into["layer_features"] = facts.size("mapping.fc0.weight", 0)
    if "mapping.embed.weight" in facts.tensors:
        into["embed_features"] = facts.size("mapping.embed.weight", 0)
    return into


def stylegan2_arguments(facts: Facts) -> dict[str, Any]:
    """Arguments of the StyleGAN2 generator, of either repository."""
    config = _common(facts)
    resolutions = [
        int(name[11:])
        for name in facts.modules
        if name.startswith("synthesis.b") and name[11:].isdecimal() and len(name) < 18
    ]
    blocks = [f"synthesis.b{resolution}" for resolution in sorted(resolutions)]
    if not blocks:
        raise BadCheckpoint("CKPT_ARCH_MISMATCH", "the synthesis network has no blocks")
    facts.take(config, blocks[-1], ("architecture", "fused_modconv_default"))
    convolution = f"{blocks[-1]}.conv1"
    facts.take(config, convolution, ("use_noise", "activation", "conv_clamp"))
    config["kernel_size"] = facts.size(f"{convolution}.weight", 3)
    half = [block for block in blocks if plain(attribute(facts.module(block), "use_fp16")) is True]
    config.setdefault("num_fp16_res", len(half))
    if half:
        last = plain(attribute(facts.module(half[-1]), "channels_last", False))
        config.setdefault("fp16_channels_last", last)
    return config


def stylegan3_arguments(facts: Facts) -> dict[str, Any]:
    """Arguments of the StyleGAN3 generator, T, R or custom."""
    config = _common(facts)
    facts.take(config, "synthesis", ("num_layers", "num_critical", "margin_size", "output_scale"))
    names = [name for name in facts.modules if name.startswith("synthesis.L")]
    layers = [name for name in names if name.count(".") == 1]
    first = next((name for name in layers if name.startswith("synthesis.L0_")), None)
    if first is None:
        raise BadCheckpoint("CKPT_ARCH_MISMATCH", "the synthesis network has no layer L0")
    facts.take(config, first, ("conv_kernel", "conv_clamp", "magnitude_ema_beta"))
    stored: dict[str, Any] = {}
    facts.take(
        stored,
        first,
        ("up_factor", "up_taps", "tmp_sampling_rate", "in_sampling_rate", "out_sampling_rate"),
    )
    for key, value in stored.items():
        # Refuses NaN as well, and numbers whose quotients leave the range of a float.
        if type(value) not in (int, float) or not 0 < value <= MOST_RATE:
            raise corrupt(f"{quote(first)} has {str(value)[:40]!r} as its {key}")
    rate = max(stored.get("in_sampling_rate", 0), stored.get("out_sampling_rate", 0))
    if rate and "tmp_sampling_rate" in stored:
        config["lrelu_upsampling"] = _whole(stored["tmp_sampling_rate"] / rate)
    if stored.get("up_factor", 1) > 1 and "up_taps" in stored:
        config["filter_size"] = _whole(stored["up_taps"] / stored["up_factor"])
    radial = [plain(attribute(facts.module(name), "down_radial")) for name in layers]
    if any(value is not None for value in radial):
        config["use_radial_filters"] = True in radial
    return config


def _whole(value: float) -> float | int:
    """An int where it is one: constructors take no 2.0 for a 2."""
    return int(value) if math.isfinite(value) and value == int(value) else value


def _common(facts: Facts) -> dict[str, Any]:
    """Sizes, mapping arguments and recorded synthesis arguments, flat."""
    given = facts.arguments("")
    # stylegan2-ada-pytorch nests what later code passes flat.
    synthesis = facts.nested(given, "synthesis_kwargs")
    mapping = facts.nested(given, "mapping_kwargs")
    flat = {**given, **synthesis}
    config = {
        key: plain(value)
        for key, value in flat.items()
        if key not in ("synthesis_kwargs", "mapping_kwargs")
    }
    facts.take(config, "", SIZES)
    facts.take(config, "synthesis", ("num_fp16_res",))
    config["mapping_kwargs"] = mapping_arguments(facts, mapping)
    return config
