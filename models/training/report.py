"""What a run tells: a line that moves, a line of figures per tick, log.jsonl, TensorBoard."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from models.training.config import TrainConfig
from models.training.run_dir import LOG, RunDir
from models.training.run_state import Progress as Done
from models.training.tensorboard import EventFile

_SMOOTHING = 0.05  # of the rate, per step: shown figures shall not dance
_SHOWN = 5  # figures in a terminal's line; the files have all


class Quiet:
    """Tells nobody: for the other processes of a run, and tests."""

    def say(self, line: str) -> None:
        """Nothing."""

    def advance(self, progress: Done) -> None:
        """Nothing."""

    def tick(self, progress: Done, figures: dict[str, float]) -> None:
        """Nothing."""


class Terminal:
    """Tells a person, and the files of the run.

    Args:
        config: Of the run.
        folder: Its files.
        console: Where lines go; the moving one is there only in a terminal.
    """

    def __init__(self, config: TrainConfig, folder: RunDir, console: Console) -> None:
        self._config = config
        self._folder = folder
        self._console = console
        self._events = EventFile(folder.path, f"{os.uname().nodename}.{os.getpid()}.v2")
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"))
        self._bar = Progress(*columns, console=console, transient=True)
        self._task: TaskID | None = None
        self._last: Done | None = None
        self._rate = 0.0  # frames per second

    @contextmanager
    def shown(self) -> Iterator[Terminal]:
        """The moving line is there while the block runs."""
        self._bar.disable = not self._console.is_terminal
        with self._bar:
            yield self

    def say(self, line: str) -> None:
        """One line that stays."""
        self._console.print(line, markup=False, highlight=False)

    def advance(self, progress: Done) -> None:
        """Moves the bar."""
        before, self._last = self._last, progress
        if before is not None and progress.seconds > before.seconds:
            now = (progress.images - before.images) / (progress.seconds - before.seconds)
            self._rate = self._rate + _SMOOTHING * (now - self._rate) if self._rate else now
        if self._bar.disable:
            return
        total = self._config.total_steps
        if self._task is None:
            self._task = self._bar.add_task("training", total=total, rate="")
        self._bar.update(
            self._task,
            completed=progress.step,
            description=f"step {progress.step}/{total}",
            rate=f"{self._rate:.1f} frames/s, {self._left(progress)} left",
        )

    def _left(self, progress: Done) -> str:
        left = (self._config.total_steps - progress.step) * self._config.images_per_step
        return duration(left / self._rate) if self._rate else "?"

    def tick(self, progress: Done, figures: dict[str, float]) -> None:
        """A line of figures, to the terminal and the files."""
        finite = {name: v for name, v in figures.items() if math.isfinite(v)}
        shown = [f"{n} {v:.4g}" for n, v in figures.items() if n not in _ASIDE][:_SHOWN]
        if figures.get("mended"):
            shown.append(f"{figures['mended']:g} gradients a step were no numbers")
        self.say(
            f"step {progress.step}  kimg {progress.images / 1000:.1f}  "
            f"{figures['frames_per_second']:.1f} frames/s  {self._left(progress)} left  "
            + "  ".join(shown)
        )
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "step": progress.step,
            "images": progress.images,
            "seconds": round(progress.seconds, 3),
            "figures": {name: finite.get(name) for name in figures},
        }
        self._folder.append_line(LOG, json.dumps(entry))
        with self._folder.soft("TensorBoard events"):
            self._events.add(progress.step, finite)


_ASIDE = ("mended", "frames_per_second")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, for a person."""
    if not math.isfinite(seconds):
        return "?"
    return str(timedelta(seconds=round(seconds)))
