"""What a checkpoint's `config` may say, per family: the generator's constructor arguments, bounded.

The bounds are wider than anything published and narrow enough that constructing a network costs no
more than its tensors do. Unknown keys are refused: a misspelt argument must not become a default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.errors import BadCheckpoint


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`."""

    low: float
    high: float
    whole: bool = False  # an int: constructors take no 16.0, and Python says no more than TypeError
    optional: bool = False  # null is a value too
    odd: bool = False

    def check(self, value: object) -> bool:
        if value is None:
            return self.optional
        if type(value) is not int and (self.whole or type(value) is not float):
            return False
        assert isinstance(value, int | float)
        return self.low <= value <= self.high and not (self.odd and value % 2 == 0)

    def __str__(self) -> str:
        kind = "an odd number" if self.odd else "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low:g} to {self.high:g}{' or null' if self.optional else ''}"


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]

    def check(self, value: object) -> bool:
        return any(type(value) is type(known) and value == known for known in self.values)

    def __str__(self) -> str:
        return "one of " + ", ".join(repr(value) for value in self.values)


@dataclass(frozen=True)
class Taps:
    """A small list of numbers: the taps of a filter."""

    most: int

    def check(self, value: object) -> bool:
        return (
            isinstance(value, list | tuple)
            and 0 < len(value) <= self.most
            and all(Number(-1e6, 1e6).check(tap) for tap in value)
        )

    def __str__(self) -> str:
        return f"a list of up to {self.most} numbers"


Rule = Number | Choice | Taps
Schema = Mapping[str, Any]  # key -> Rule or a nested Schema

_YES_NO = Choice((False, True))
_ACTIVATION = Choice(
    ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")
)
_CLAMP = Number(1e-6, 1e9, optional=True)


def _count(high: int, low: int = 1, optional: bool = False) -> Number:
    return Number(low, high, whole=True, optional=optional)


_MAPPING: Schema = {
    "num_layers": _count(64),
    "embed_features": _count(16384, optional=True),
    "layer_features": _count(16384, optional=True),
    "activation": _ACTIVATION,
    "lr_multiplier": Number(1e-6, 1e3),
    "w_avg_beta": Number(0, 1, optional=True),
}
_SIZES: Schema = {
    "z_dim": _count(16384),
    "c_dim": _count(65536, low=0),
    "w_dim": _count(16384),
    "img_resolution": _count(4096, low=4),
    "img_channels": _count(64),
}
_CHANNELS: Schema = {
    "channel_base": _count(1 << 20),
    "channel_max": _count(8192),
    "num_fp16_res": _count(64, low=0),
    "conv_clamp": _CLAMP,
}
STYLEGAN2: Schema = {
    **_SIZES,
    **_CHANNELS,
    "mapping_kwargs": _MAPPING,
    "architecture": Choice(("skip", "resnet", "orig")),
    "resample_filter": Taps(32),
    "fp16_channels_last": _YES_NO,
    "fused_modconv_default": Choice((False, True, "inference_only")),
    # An even kernel, padded by half of it on both sides, would make each side one pixel longer.
    "kernel_size": Number(1, 15, whole=True, odd=True),
    "use_noise": _YES_NO,
    "activation": _ACTIVATION,
}
STYLEGAN3: Schema = {
    **_SIZES,
    **_CHANNELS,
    "mapping_kwargs": _MAPPING,
    "num_layers": _count(64),
    "num_critical": _count(64, low=0),
    "first_cutoff": Number(0.25, 64),
    "first_stopband": Number(0.25, 64),
    "last_stopband_rel": Number(1, 4),
    "margin_size": _count(256, low=0),
    "output_scale": Number(1e-6, 1e6),
    "conv_kernel": _count(15),
    "filter_size": _count(16),
    "lrelu_upsampling": _count(4),
    "use_radial_filters": _YES_NO,
    "magnitude_ema_beta": Number(0, 1),
}
_FRAMES = Number(1e-3, 1e9)
STYLEGAN_V: Schema = {
    **_SIZES,
    "mapping_kwargs": _MAPPING,
    "synthesis_kwargs": _CHANNELS,
    "cfg": {
        "z_dim": _count(16384),
        "use_noise": _YES_NO,
        "fps": Number(1e-3, 1e4),
        "mapping_net_n_layers": _count(64, optional=True),
        "channel_max": _count(8192, optional=True),
        "content": {
            "type": Choice(("normal", "traits")),
            "version": _count(1 << 16),
            "prior": Choice(("open", "narrow")),
        },
        "input": {"type": Choice(("temporal", "const"))},
        "motion": {
            "z_dim": _count(16384),
            "v_dim": _count(16384),
            "motion_z_distance": _FRAMES,
            "gen_strategy": Choice(("conv", "autoregressive", "tracks")),
            "kernel_size": _count(255),
            "fourier": Choice((True,)),
            "hidden": _count(16384),
            "tracks": {
                "yaw": Number(0, 60),
                "pitch": Number(0, 35),
                "roll": Number(0, 30),
                **{name: Number(0, 2) for name in ("energy", "speech", "gaze", "shift")},
            },
        },
        "time_enc": {
            "cond_type": Choice(("concat_const", "concat_w", "sum_w")),
            "dim": _count(16384),
            "min_period_len": _FRAMES,
            "max_period_len": _FRAMES,
        },
        "sampling": {"max_num_frames": _count(1 << 24), "fps": Number(1e-3, 1e4)},
    },
}
FAMILIES: dict[str, Schema] = {
    "stylegan2": STYLEGAN2,
    "stylegan3": STYLEGAN3,
    "stylegan_v": STYLEGAN_V,
}


_TRACK = 67  # numbers of a face
_MAY_LACK = {("stylegan_v", "z_dim")}


def check_config(family: object, config: object) -> None:
    """Accepts a family and the constructor arguments of its generator.

    Raises:
        BadCheckpoint: CKPT_UNKNOWN_FAMILY; CKPT_BAD_CONFIG with the key and what it may be.
    """
    if not isinstance(family, str) or family not in FAMILIES:
        raise BadCheckpoint(
            "CKPT_UNKNOWN_FAMILY",
            f"family {_short(family)} is not known here; known are {', '.join(FAMILIES)}",
        )
    _check_table(config, FAMILIES[family], "config")
    assert isinstance(config, Mapping)
    # StyleGAN-V's z_dim is an entry of its cfg and may stand outside too.
    needed = [key for key in (*_SIZES, "cfg") if key in FAMILIES[family]]
    missing = [key for key in needed if key not in config and (family, key) not in _MAY_LACK]
    if missing:
        raise BadCheckpoint("CKPT_BAD_CONFIG", f"config lacks {', '.join(missing)}")
    base = config.get("synthesis_kwargs", config).get("channel_base", config["img_resolution"])
    if base < config["img_resolution"]:
        raise BadCheckpoint(
            "CKPT_BAD_CONFIG", f"channel_base is {base}: no channels at {config['img_resolution']}"
        )


def _check_table(table: object, schema: Schema, where: str) -> None:
    if not isinstance(table, Mapping):
        raise BadCheckpoint("CKPT_BAD_CONFIG", f"{where} is {_short(table)}, not a table")
    for key, value in table.items():
        rule = schema.get(key) if isinstance(key, str) else None
        if rule is None:
            raise BadCheckpoint(
                "CKPT_BAD_CONFIG",
                f"{where} has the unknown key {_short(key)}; known: {', '.join(sorted(schema))}",
            )
        if isinstance(rule, Mapping):
            _check_table(value, rule, f"{where}.{key}")
        elif not rule.check(value):
            raise BadCheckpoint("CKPT_BAD_CONFIG", f"{where}.{key} is {_short(value)}, not {rule}")


def _short(value: object) -> str:
    """At most 80 escaped characters of a hostile value."""
    if isinstance(value, str):
        return ascii(value[:60])
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return str(value) if math.isfinite(value) else "not finite"
    return f"a {type(value).__name__}"


def most_elements(family: str, config: Mapping[str, Any]) -> int:
    """An upper bound, cheap and within a small factor, on the numbers a generator allocates."""
    cfg = config.get("cfg", {})
    waves = 2 * cfg.get("time_enc", {}).get("dim", 256) if family == "stylegan_v" else 0
    total = _mapping_elements(config, cfg)
    if family == "stylegan3":
        return total + _stylegan3_elements(config)
    total += _block_elements(config, config.get("synthesis_kwargs", config), waves)
    if family == "stylegan_v":
        motion, c = cfg.get("motion", {}), config["c_dim"]
        if motion.get("gen_strategy") == "tracks":
            return int(total + (motion.get("hidden", 128) + 1) * (_TRACK + waves + 1))
        z, v = motion.get("z_dim", 512) + c, motion.get("v_dim", 512)
        total += max(z, v) * (z * max(8, 2 * motion.get("kernel_size", 11)) + 4) + 2 * waves * v
        total += waves * (config["w_dim"] + 8)
    return int(total)


def _mapping_elements(config: Mapping[str, Any], cfg: Mapping[str, Any]) -> int:
    mapping, w = config.get("mapping_kwargs", {}), config["w_dim"]
    z = max(config.get("z_dim") or 0, cfg.get("z_dim") or 0) or 512
    embed = (mapping.get("embed_features") or w) if config["c_dim"] else 0
    hidden = mapping.get("layer_features") or w
    depth = max(mapping.get("num_layers", 8), cfg.get("mapping_net_n_layers") or 0)
    edges = config["c_dim"] * embed + (z + embed) * max(hidden, w) + hidden * w
    return int(edges + max(0, depth - 2) * hidden**2 + depth * hidden + embed + 2 * w)


def _stylegan3_elements(config: Mapping[str, Any]) -> int:
    """As if every layer had the channels of the widest."""
    depth = config.get("num_layers", 14) + 1
    channels = max(config.get("channel_max", 512), config["img_channels"])
    layer = channels * (channels * config.get("conv_kernel", 3) ** 2 + config["w_dim"] + 8)
    filters = 2 * (16 * config.get("filter_size", 6)) ** 2
    return int((depth + 1) * (layer + filters))


def _block_elements(config: Mapping[str, Any], synthesis: Mapping[str, Any], waves: int) -> int:
    """Of the blocks of StyleGAN2 and StyleGAN-V; `waves` entries of motion enter anywhere."""
    base, most = synthesis.get("channel_base", 32768), synthesis.get("channel_max", 512)
    taps, w = synthesis.get("kernel_size", 3) ** 2, config["w_dim"] + waves
    total, side, before = 0, 4, 0
    while side <= config["img_resolution"]:
        channels = min(base // side, most)
        fed = before + channels + waves
        total += channels * (fed * taps + before + config["img_channels"] + 24)
        total += (fed + channels) * (w + 1) + 2 * side**2 + 4 * 32**2
        before, side = channels, 2 * side
    return int(total)
