"""`stylewire record`: a clip rendered frame by frame at its exact times, as slowly as it takes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from realtime.clock import FrameClock
from realtime.config import ConfigError, RenderConfig
from realtime.controls import ControlError, Controls, Limits, LiveControls, parse_change
from realtime.engine import Engine
from realtime.frame import Frame
from realtime.loading import ModelInfo
from realtime.messages import RenderRequest
from realtime.sinks.video_file import VideoFile

MAX_SECONDS = 24 * 3600.0
_SESSION = "record"
_CHECKED = ("seed", "psi", "speed", "fps", "resolution", "bitrate")


@dataclass(frozen=True)
class RecordConfig:
    """What is recorded, and where to."""

    out: Path
    seconds: float = 10.0
    seed: int = 0
    psi: float = 0.7
    speed: float = 1.0
    fps: float = 30.0
    resolution: int = 256
    bitrate: int = 4_000_000
    render: RenderConfig = field(default_factory=RenderConfig)

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= MAX_SECONDS:
            raise ConfigError(f"seconds is {self.seconds}; it must lie in 0 to {MAX_SECONDS:g}.")
        values = {name: getattr(self, name) for name in _CHECKED}
        try:  # what a viewer may set live is what may be recorded
            parse_change(values, Limits(bitrate_floor=50_000))
        except ControlError as error:
            raise ConfigError(str(error)) from error

    @property
    def controls(self) -> Controls:
        return Controls(
            seed=self.seed,
            psi=self.psi,
            speed=self.speed,
            model=self.render.model,
            resolution=self.resolution,
            fps=self.fps,
        )


@dataclass(frozen=True)
class Recorded:
    """What has been written."""

    path: Path
    frames: int
    seconds: float  # of the clip
    bytes: int
    model: ModelInfo


async def record(
    config: RecordConfig,
    *,
    engine: Engine | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Recorded:
    """Render and write the clip.

    Resource handling: the file is ended whatever happens, also on cancellation, and plays.

    Args:
        engine: An open one to draw with; else one is made from `config.render`.
        progress: Called with (frames written, frames in all).
    Raises:
        ModelError: The model cannot be loaded.
        FrameBroken: It drew no picture: a recording has no frame to repeat.
        FileFailed: The file cannot be written; what was written before is kept.
    """
    if engine is None:
        async with Engine(config.render) as own:
            return await record(config, engine=own, progress=progress)
    info = await engine.load(config.render.model, config.resolution)
    await engine.open(_SESSION, config.resolution)
    try:
        clock = FrameClock(config.fps, 0)
        total = max(1, math.ceil(config.seconds * clock.fps))
        with VideoFile(
            config.out, config.resolution, config.resolution, clock.fps, config.bitrate
        ) as file:
            await _frames(config, engine, clock, file, total, progress)
    finally:
        await engine.close(_SESSION)
    return Recorded(
        file.path, file.frames, file.frames / float(clock.fps), file.path.stat().st_size, info
    )


async def _frames(
    config: RecordConfig,
    engine: Engine,
    clock: FrameClock,
    file: VideoFile,
    total: int,
    progress: Callable[[int, int], None],
) -> None:
    """Draw a frame while the one before it is coded; each is there before the next but one begins.

    The tick's deadlines are not kept: time stands at 0 for the clock, so that no tick is ever
    past.
    """
    live = LiveControls(config.controls)
    with ThreadPoolExecutor(1, "stylewire-write") as writer:  # waits for the write on its way
        writing: Future[None] | None = None
        for done in range(total):
            tick = clock.next_tick(0)
            look, motion_t = live.look_at(tick.t), live.motion_at(tick.t)
            frame = await engine.render(RenderRequest(_SESSION, tick, look, motion_t))
            job = writer.submit(_write, file, frame)
            if writing is not None:
                await asyncio.wrap_future(writing)
            writing = job
            progress(done, total)
        if writing is not None:
            await asyncio.wrap_future(writing)
    progress(total, total)


def _write(file: VideoFile, frame: Frame) -> None:
    try:
        file.write(frame)
    finally:
        frame.release()
