"""What a training run is: TOML to frozen settings, strictly.

    system = "stylegan_v"                who is trained, see `models.registry.TRAINERS`
    [data] [batch] [optim] [run]         the same for every system, below
    [generator] [discriminator] [fit] [track]      the system's own; it checks them itself

A configuration is given by a path or by the name of one in `models/training/configs`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import BadConfig
from models.training.strict import build, plain, to_toml

CONFIGS = Path(__file__).with_name("configs")
OWN_TABLES = ("generator", "discriminator", "fit", "track")
MAX_BYTES = 1 << 20
# What a resumed run may do otherwise than it began: how long it goes on and what it writes when.
FREE = {
    "run": {"total_kimg", "tick_s", "tick_kimg", "snapshot_s", "keep_states", "threads", "device"},
    "data": {"workers"},
}


@dataclass(frozen=True)
class DataConfig:
    """Where clips come from.

    Args:
        source: A folder or zip of videos, or "heads:open", "heads:narrow", "heads:cast"; or a list
            of such with shares that sum to one: [["heads:cast", 0.7], ["heads:narrow", 0.3]].
        resolution: Side of the frames, a power of two.
        mirror: Exchange left and right of every other clip. Not for rendered heads.
        workers: Threads that decode, or processes that render; 0 is neither.
        fps: Frames per second of folders of frames; video files know theirs.
        window: Longest piece of a video that a clip is drawn from, frames.
        facekit: Geometry of the rendered heads; the small head without it.
        samples: Of a pixel's side, for rendered heads.
        heads: Whatever else is to be said of them, see `heads.clip_painter.Recipe`.
    """

    source: str | tuple[tuple[str, float], ...]
    resolution: int
    mirror: bool = False
    workers: int = 2
    fps: float = 25.0
    window: int = 1024
    facekit: str | None = None
    samples: int = 2
    heads: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        side = self.resolution
        if not (8 <= side <= 2048 and side & (side - 1) == 0):
            raise BadConfig(f"data.resolution is {side}; a power of two from 8 to 2048 is needed")
        if not 0 <= self.workers <= 256:
            raise BadConfig(f"data.workers is {self.workers}; 0 to 256 can be")
        if not 1 <= self.fps <= 1000:
            raise BadConfig(f"data.fps is {self.fps}; 1 to 1000 can be")
        if self.window < 3:
            raise BadConfig(f"data.window is {self.window}; 3 frames or more are needed")
        if not self.parts or any(share <= 0 for _, share in self.parts):
            raise BadConfig("data.source names nothing, or a share that is not above 0")
        if abs(sum(share for _, share in self.parts) - 1) > 1e-6:
            raise BadConfig("data.source: the shares must sum to 1")

    @property
    def parts(self) -> tuple[tuple[str, float], ...]:
        """Each source and its share."""
        return ((self.source, 1.0),) if isinstance(self.source, str) else self.source


@dataclass(frozen=True)
class BatchConfig:
    """What a step sees.

    Args:
        size: Clips of a step, over all processes.
        micro: Clips that a network sees at once: statistics over a batch are over these.
        frames: Of a clip.
    """

    size: int = 16
    micro: int = 8
    frames: int = 3

    def __post_init__(self) -> None:
        if not (1 <= self.micro <= self.size and self.size % self.micro == 0):
            raise BadConfig(f"batch.micro is {self.micro}; it must divide size, {self.size}")
        if not 1 <= self.frames <= 64:
            raise BadConfig(f"batch.frames is {self.frames}; 1 to 64 can be")

    @property
    def micros(self) -> int:
        """Micro-batches of a step."""
        return self.size // self.micro


@dataclass(frozen=True)
class OptimConfig:
    """Optimisation. "auto" is what was published for the system.

    Args:
        lr, lr_d: Learning rates of generator and discriminator, before lazy correction.
        lr_end: What `lr` ends at with schedule "cosine".
        warmup_steps: Steps over which the rates rise from 0.
        beta1, beta2: Of Adam, for both.
        r1_gamma, r1_interval: Weight of R1, and every how many steps it is taken.
        ema_half_life_clips: Of the averaged generator.
        augment: "bgc" (adaptive) or "none".
        ada_target, ada_kimg, ada_interval: Sign of D(real) aimed at; thousands of clips over which
            p can go from 0 to 1; steps between its moves.
        p_max: Ceiling of p; none was published. Near 1 and above, augmentations can leak.
    """

    lr: float = 0.0025
    lr_d: float = 0.0025
    schedule: str = "constant"
    lr_end: float = 1e-4
    warmup_steps: int = 0
    beta1: float = 0.0
    beta2: float = 0.99
    r1_gamma: float | str = "auto"
    r1_interval: int = 16
    ema_half_life_clips: float | str = "auto"
    augment: str = "bgc"
    ada_target: float = 0.6
    ada_kimg: float = 100.0
    ada_interval: int = 4
    p_max: float = 0.85

    def __post_init__(self) -> None:
        for key, known in (("schedule", ("constant", "cosine")), ("augment", ("bgc", "none"))):
            if getattr(self, key) not in known:
                raise BadConfig(
                    f"optim.{key} is {getattr(self, key)!r}; known are {' and '.join(known)}"
                )
        for key in ("r1_gamma", "ema_half_life_clips"):
            value = getattr(self, key)
            if value != "auto" and (isinstance(value, str) or value < 0):
                raise BadConfig(f'optim.{key} is {value!r}; a number or "auto" is needed')
        for key in ("lr", "lr_d", "lr_end", "ada_kimg"):
            if getattr(self, key) <= 0:
                raise BadConfig(f"optim.{key} is {getattr(self, key)}; it must be above 0")
        for key in ("beta1", "beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise BadConfig(
                    f"optim.{key} is {getattr(self, key)}; it must be from 0 to below 1"
                )
        if min(self.r1_interval, self.ada_interval) < 1 or self.warmup_steps < 0:
            raise BadConfig("optim: intervals are 1 or more, warmup_steps 0 or more")
        if self.p_max < 0:
            raise BadConfig(f"optim.p_max is {self.p_max}; it must not be negative")

    def rate(self, base: float, step: int, total_steps: int) -> float:
        """The rate of a step: `base`, warmed up, and let down where the schedule says so."""
        warm = min((step + 1) / self.warmup_steps, 1.0) if self.warmup_steps else 1.0
        if self.schedule == "constant":
            return base * warm
        done = min(max(step / max(total_steps, 1), 0.0), 1.0)
        end = self.lr_end / self.lr * base
        return warm * (end + (base - end) * (1 + math.cos(math.pi * done)) / 2)


@dataclass(frozen=True)
class RunConfig:
    """How long, how exactly, and what is written when.

    Args:
        total_kimg: Thousands of frames to see.
        tick_s, tick_kimg: A line of figures and a state this often, whichever comes first.
        snapshot_s: Sample pictures and a model this often.
        keep_states: How many of the newest states stay.
        precision: "fp32"; "bf16" (autocast); "fp16" (high resolutions, CUDA only).
        threads: Of torch; 0 leaves them as they are. Another number changes the last bits.
        device: "auto" is CUDA where there is one.
    """

    total_kimg: float
    tick_s: float = 60.0
    tick_kimg: float = math.inf
    snapshot_s: float = 600.0
    keep_states: int = 2
    precision: str = "fp32"
    threads: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise BadConfig(f"run.precision is {self.precision!r}; known are fp32, bf16 and fp16")
        if self.device not in ("auto", "cpu", "cuda"):
            raise BadConfig(f"run.device is {self.device!r}; known are auto, cpu and cuda")
        for key in ("total_kimg", "tick_s", "tick_kimg", "snapshot_s"):
            if getattr(self, key) <= 0:
                raise BadConfig(f"run.{key} is {getattr(self, key)}; it must be above 0")
        if self.keep_states < 2:
            raise BadConfig("run.keep_states is below 2: a state could be lost while it is written")
        if self.threads < 0:
            raise BadConfig(f"run.threads is {self.threads}; 0 or more can be")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. `own` are the system's tables, by name."""

    system: str
    data: DataConfig
    batch: BatchConfig
    optim: OptimConfig
    run: RunConfig
    seed: int = 0
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 63:
            raise BadConfig(f"seed is {self.seed}; 0 to 2^63 - 1 can be")

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> TrainConfig:
        """From the table of a TOML file.

        Raises:
            BadConfig: A key is unknown or missing, or a value impossible.
        """
        known = ("system", "seed", "data", "batch", "optim", "run", *OWN_TABLES)
        odd = sorted(set(table) - set(known))
        if odd:
            raise BadConfig(f"a training run has no {odd[0]!r}; known are {', '.join(known)}")
        parts = {key: value for key, value in table.items() if key not in OWN_TABLES}
        parts = {"batch": {}, "optim": {}, **parts}
        own = {key: table[key] for key in OWN_TABLES if key in table}
        for key, value in own.items():
            if not isinstance(value, Mapping):
                raise BadConfig(f"{key} is {value!r}, not a table")
        return dataclasses.replace(build(cls, parts, "config"), own=own)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, without what is None or infinite."""
        table: dict[str, Any] = plain(self)
        own = table.pop("own")
        if math.isinf(self.run.tick_kimg):
            del table["run"]["tick_kimg"]
        return {**table, **own}

    def to_toml(self) -> str:
        """As a file."""
        return to_toml(self.to_dict())

    @property
    def bound(self) -> dict[str, Any]:
        """All that a resumed run must agree in."""
        table = self.to_dict()
        for section, keys in FREE.items():
            table[section] = {k: v for k, v in table[section].items() if k not in keys}
        return table

    @property
    def sha(self) -> str:
        """Short name of `bound`."""
        return hashlib.sha256(json.dumps(self.bound, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def images_per_step(self) -> int:
        """Frames that a step sees."""
        return self.batch.size * self.batch.frames

    @property
    def total_steps(self) -> int:
        """How many steps a run has."""
        return max(math.ceil(self.run.total_kimg * 1000 / self.images_per_step - 1e-9), 1)


def shipped() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def load(name_or_path: str | Path, changes: Iterable[str] = ()) -> TrainConfig:
    """A configuration, from a file or a shipped name.

    Args:
        changes: `section.key=value` each, the value in TOML; what is no TOML is taken as a word.
    Raises:
        BadConfig: There is none, it is no TOML, or it asks for what cannot be.
    """
    path = Path(name_or_path)
    if not path.is_file():
        inside = CONFIGS / f"{name_or_path}.toml"
        if not inside.is_file():
            raise BadConfig(
                f"no file and no configuration {str(name_or_path)!r}; shipped are"
                f" {', '.join(shipped())}"
            )
        path = inside
    if path.stat().st_size > MAX_BYTES:
        raise BadConfig(f"{path.name} has {path.stat().st_size} bytes; a configuration has fewer")
    try:
        table = tomllib.loads(path.read_bytes().decode())
    except ValueError as error:  # TOML or UTF-8
        raise BadConfig(f"{path.name} is not TOML: {error}") from error
    for change in changes:
        _apply(table, change)
    return TrainConfig.from_dict(table)


def _apply(table: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    *sections, name = key.strip().split(".")
    if not equals or not name:
        raise BadConfig(f"--set {change!r} is not section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise BadConfig(f"--set {change!r}: {section} is not a table")
    table[name] = value
