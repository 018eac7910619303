"""Configuration of StyleGAN-V's two networks, read from the nested dict that published files carry.

Published files hold one branch of a whole training configuration: besides what the networks read
there are keys of launchers, data sets and experiments, some of them dead. So `from_published`
takes what it knows, checks it, and leaves the rest alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.errors import BadConfig
from models.faces.prior import Prior
from models.faces.state import CODE_SIZE
from models.faces.traits import ANCHORS, COUNT, TRAITS_VERSION

DEFAULT_FPS = 25.0
PRIORS = tuple(prior.value for prior in Prior)


@dataclass(frozen=True)
class MotionConfig:
    """Motion codes and their time embedding. Sizes in entries, times in training frames."""

    z_dim: int = 512  # one noise code
    v_dim: int = 512  # one smoothed code
    distance: float = 16.0  # frames between consecutive codes
    # "conv": two unpadded convolutions; "autoregressive": an LSTM; "tracks": no noise, but the
    # numbers of a moving face (see tracks.py), and then only what follows `hidden` has a meaning
    strategy: str = "conv"
    kernel_size: int = 11  # of both convolutions, codes
    frequencies: int = 256  # of the time embedding, which has twice as many entries
    min_period: float = 16.0
    max_period: float = 1024.0
    max_num_frames: int = 1024  # longest training window
    hidden: int = 128  # "tracks": width of the layer between the face's numbers and the features
    tracks: Mapping[str, float] = field(default_factory=dict)  # "tracks": of `faces.TrackStyle`

    def __post_init__(self) -> None:
        for key in ("z_dim", "v_dim", "kernel_size", "frequencies", "max_num_frames", "hidden"):
            if getattr(self, key) < 1:
                raise BadConfig(f"motion: {key} is {getattr(self, key)}; it must be 1 or more")
        if not (math.isfinite(self.distance) and self.distance > 0):
            raise BadConfig(f"motion: distance is {self.distance} frames; it must be positive")
        if not 0 < self.min_period <= self.max_period < math.inf:
            raise BadConfig(
                f"motion: periods {self.min_period} .. {self.max_period} must be positive and rise"
            )
        if self.strategy not in ("conv", "autoregressive", "tracks"):
            raise BadConfig(
                f"motion: strategy is {self.strategy!r};"
                " known are 'conv', 'autoregressive' and 'tracks'"
            )
        if self.strategy == "tracks" and self.embedding_dim <= CODE_SIZE:
            raise BadConfig(
                f"motion: a code of {self.embedding_dim} entries (2 * time_enc.dim) has no room for"
                f" the {CODE_SIZE} numbers of a face and learned features"
            )
        if self.strategy == "autoregressive" and self.v_dim != self.z_dim:
            raise BadConfig(
                f"motion: an autoregressive encoder needs v_dim ({self.v_dim}) equal to z_dim"
                f" ({self.z_dim})"
            )

    @property
    def embedding_dim(self) -> int:
        """Entries of the motion code v(t)."""
        return 2 * self.frequencies

    @property
    def reach(self) -> int:
        """Noise codes that one smoothed code sees beyond its own: two unpadded convolutions."""
        return 2 * (self.kernel_size - 1) if self.strategy == "conv" else 0


@dataclass(frozen=True)
class GeneratorConfig:
    """What the generator reads besides its constructor's plain numbers."""

    z_dim: int = 512
    motion: MotionConfig = MotionConfig()
    condition: str = "concat_const"  # where v(t) enters: "concat_const", "concat_w", "sum_w"
    temporal_input: bool = True  # the 4x4 input is [const, v(t)], or const alone
    use_noise: bool = False  # per-pixel noise in every layer
    fps: float = DEFAULT_FPS  # frames per second of the training data: the unit of the times above
    content: str = "normal"  # what z is: "normal" noise, or "traits", the numbers of a person
    prior: str = "narrow"  # "traits": which people a seed stands for

    def __post_init__(self) -> None:
        self._check_content()
        if self.condition not in ("concat_const", "concat_w", "sum_w"):
            raise BadConfig(
                f"time_enc.cond_type is {self.condition!r};"
                " known are 'concat_const', 'concat_w' and 'sum_w'"
            )
        if self.temporal_input != (self.condition == "concat_const"):
            raise BadConfig(
                f"time_enc.cond_type {self.condition!r} does not fit input.type"
                f" {'temporal' if self.temporal_input else 'const'!r}: 'concat_const' needs"
                " 'temporal', the others 'const'"
            )
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise BadConfig(f"fps is {self.fps}; it must be positive")

    def _check_content(self) -> None:
        if self.content not in ("normal", "traits"):
            raise BadConfig(f"content.type is {self.content!r}; known are 'normal' and 'traits'")
        if self.content == "traits" and self.z_dim != COUNT + ANCHORS:
            raise BadConfig(
                f"z_dim is {self.z_dim}; content of type 'traits' has {COUNT + ANCHORS} numbers"
            )
        if self.prior not in PRIORS:
            raise BadConfig(f"content.prior is {self.prior!r}; known are {', '.join(PRIORS)}")

    @classmethod
    def from_published(cls, cfg: Mapping[str, Any]) -> GeneratorConfig:
        """From a generator's `cfg` in published key names; defaults are the published code's.

        Raises:
            BadConfig: A value is missing, of the wrong type, unresolved or impossible.
        """
        motion, time, sampling = (_branch(cfg, k) for k in ("motion", "time_enc", "sampling"))
        content, tracks = _branch(cfg, "content"), _branch(motion, "tracks")
        version = _whole(content, "version", TRAITS_VERSION)
        if version != TRAITS_VERSION:
            raise BadConfig(f"content.version is {version}; this program knows {TRAITS_VERSION}")
        if not motion.get("fourier", True):
            raise BadConfig("motion.fourier is false; only the Fourier time embedding ever worked")
        kind = _text(_branch(cfg, "input"), "type", "temporal")
        if kind not in ("temporal", "const"):
            raise BadConfig(f"input.type is {kind!r}; known are 'temporal' and 'const'")
        min_period = _number(time, "min_period_len", 16)
        return cls(
            z_dim=_whole(cfg, "z_dim", 512),
            motion=MotionConfig(
                z_dim=_whole(motion, "z_dim", 512),
                v_dim=_whole(motion, "v_dim", 512),
                distance=_number(motion, "motion_z_distance", min_period),
                strategy=_text(motion, "gen_strategy", "conv"),
                kernel_size=_whole(motion, "kernel_size", 11),
                frequencies=_whole(time, "dim", 256),
                min_period=min_period,
                max_period=_number(time, "max_period_len", 1024),
                max_num_frames=_whole(sampling, "max_num_frames", 1024),
                hidden=_whole(motion, "hidden", 128),
                tracks={name: _number(tracks, name, 0.0) for name in tracks},
            ),
            condition=_text(time, "cond_type", "concat_const"),
            temporal_input=kind == "temporal",
            use_noise=bool(cfg.get("use_noise", False)),
            fps=_number(cfg, "fps", _number(sampling, "fps", DEFAULT_FPS)),
            content=_text(content, "type", "normal"),
            prior=_text(content, "prior", "narrow"),
        )


@dataclass(frozen=True)
class DiscriminatorConfig:
    """What the discriminator reads besides its constructor's plain numbers."""

    frames: int = 3  # k, of a clip
    max_num_frames: int = 1024  # rows of the table of time differences
    uniform: bool = False  # equally spaced frames: only the first difference is encoded
    concat_res: int = 16  # resolution at which the frames of a clip meet
    frames_div: int = 2  # the features of one frame shrink by this where they meet
    dummy_c: bool = False  # ablation: condition on zeros

    def __post_init__(self) -> None:
        for key in ("frames", "max_num_frames", "frames_div"):
            if getattr(self, key) < 1:
                raise BadConfig(
                    f"discriminator: {key} is {getattr(self, key)}; 1 or more is needed"
                )

    @property
    def differences(self) -> int:
        """How many time differences of a clip are encoded."""
        return min(self.frames - 1, 1) if self.uniform else self.frames - 1

    @classmethod
    def from_published(cls, cfg: Mapping[str, Any]) -> DiscriminatorConfig:
        """From a discriminator's `cfg` in published key names.

        Raises:
            BadConfig: A value is missing, of the wrong type, unresolved or impossible.
        """
        sampling = _branch(cfg, "sampling")
        kind = _text(sampling, "type", "random")
        if kind not in ("random", "uniform"):
            raise BadConfig(f"sampling.type is {kind!r}; known are 'random' and 'uniform'")
        return cls(
            frames=_whole(sampling, "num_frames_per_video", 3),
            max_num_frames=_whole(sampling, "max_num_frames", 1024),
            uniform=kind == "uniform",
            concat_res=_whole(cfg, "concat_res", 16),
            frames_div=_whole(cfg, "num_frames_div_factor", 2),
            dummy_c=bool(cfg.get("dummy_c", False)),
        )


def _branch(cfg: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = cfg.get(key) or {}
    if not isinstance(value, Mapping):
        raise BadConfig(f"{key} is {value!r}, not a table{_hint(value)}")
    return value


def _number(cfg: Mapping[str, Any], key: str, default: float) -> float:
    value = cfg.get(key)
    if value is None:
        return float(default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadConfig(f"{key} is {value!r}, not a number{_hint(value)}")
    return float(value)


def _whole(cfg: Mapping[str, Any], key: str, default: int) -> int:
    value = _number(cfg, key, default)
    if not value.is_integer():
        raise BadConfig(f"{key} is {value}, not a whole number")
    return int(value)


def _text(cfg: Mapping[str, Any], key: str, default: str) -> str:
    value = cfg.get(key, default)
    if not isinstance(value, str):
        raise BadConfig(f"{key} is {value!r}, not a word")
    return value


def _hint(value: object) -> str:
    # The configuration of a published file is a branch of a larger one, with references into it.
    if isinstance(value, str) and "${" in value:
        return "; a reference into a configuration that is not here: resolve it on conversion"
    return ""
