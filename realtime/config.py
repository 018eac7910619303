"""Frozen configuration. Building one reads no file and touches no device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

RESOLUTIONS = (64, 128, 256, 512, 1024)
CODECS = ("H264", "VP8")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class ConfigError(ValueError):
    """A configuration value is unknown or out of range."""


class _Strict:
    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values; unknown keys are refused by name."""
        known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(
                f"{cls.__name__}: unknown {', '.join(unknown)}; known are {', '.join(known)}."
            )
        return cls(**values)


def _within(owner: object, name: str, low: float, high: float) -> None:
    value = getattr(owner, name)
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}; it must lie between {low:g} and {high:g}.")


@dataclass(frozen=True)
class RenderConfig(_Strict):
    """What is drawn, and with what."""

    model: str = "default"  # a shipped model's name, or the name that `path` is shown under
    path: str = ""  # a checkpoint in our format; empty for a shipped model
    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"  # of stored activations: fp16 on CUDA; bf16 on a CPU made for it
    threads: int = 0  # torch threads for synthesis; 0 leaves one core to the encoder
    slots: int = 4  # frame slots per session: one drawn, and one coded and one waiting per codec

    def __post_init__(self) -> None:
        _within(self, "threads", 0, 256)
        _within(self, "slots", 2, 8)
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is {self.precision!r}; choose one of {PRECISIONS}.")


@dataclass(frozen=True)
class StreamConfig(_Strict):
    """How it is sent."""

    fps: float = 30.0
    resolution: int = 256
    codecs: tuple[str, ...] = CODECS  # in order of preference
    bitrate: int = 2_000_000  # the most that is ever used, bit/s
    bitrate_floor: int = 150_000
    keyframe_interval_s: float = 0.3  # at most one requested keyframe in this time
    playout_delay: bool = True
    viewer_queue: int = 3  # coded frames waiting for one viewer; overflow clears them

    def __post_init__(self) -> None:
        _within(self, "fps", 1, 120)
        _within(self, "bitrate", 50_000, 50_000_000)
        _within(self, "bitrate_floor", 50_000, self.bitrate)
        if self.resolution not in RESOLUTIONS:
            raise ConfigError(f"resolution is {self.resolution}; choose one of {RESOLUTIONS}.")
        for codec in self.codecs:
            if codec not in CODECS:
                raise ConfigError(f"codec {codec!r} is unknown; choose from {CODECS}.")


@dataclass(frozen=True)
class ServerConfig(_Strict):
    """Who may come, and how long an absent one is waited for."""

    host: str = "127.0.0.1"
    port: int = 8080
    max_sessions: int = 8
    max_viewers: int = 64  # per session
    offers_per_s: float = 10.0  # from one address; beyond it, and the burst, 429
    offers_burst: int = 20
    offer_bytes: int = 32_768
    offer_sections: int = 4
    offer_candidates: int = 32
    connect_timeout_s: float = 10.0
    silence_timeout_s: float = 5.0
    linger_s: float = 2.0  # a session without viewers waits so long for one to come back
    render: RenderConfig = field(default_factory=RenderConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)

    def __post_init__(self) -> None:
        _within(self, "port", 0, 65535)
        _within(self, "max_sessions", 1, 1024)
        _within(self, "max_viewers", 1, 1024)
        _within(self, "offers_per_s", 0.01, 1e6)
        _within(self, "offers_burst", 1, 1_000_000)
