"""The training loop: steps until the end, a tick now and then, a stop when somebody asks for it.

Time decides only when something is written, never what is computed, so that a run that was
interrupted is bit for bit the run that was not.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from models.errors import BadConfig, Unavailable
from models.training import run_state
from models.training.config import TrainConfig
from models.training.contracts import ClipSource, Trainer
from models.training.data.prefetch import Prefetch
from models.training.distributed import Ranks
from models.training.run_dir import RunDir, reason
from models.training.run_state import Progress
from models.training.snapshots import Snapshots
from models.training.step import Means, Stepper

MOST_FAILED_SAVES = 3


class DiskFull(Unavailable):
    """States cannot be written any more; the run stopped and its last state is kept."""


class Reporter(Protocol):
    """Who shows how a run is doing. Only the first process has one that does something."""

    def say(self, line: str) -> None: ...

    def advance(self, progress: Progress) -> None:
        """After every step."""
        ...

    def tick(self, progress: Progress, figures: dict[str, float]) -> None:
        """Now and then: means since the last tick."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a sitting ended: at `progress`, because it was done or `interrupted`."""

    progress: Progress
    interrupted: bool


class Loop:
    """One sitting of a run.

    Args:
        config: Of the run.
        trainer: Fresh, made from that configuration.
        source: Of real clips.
        folder: Where the run lives; opened, if this process is the first.
        reporter: Told about it.
        ranks: This process among the others.
    """

    def __init__(
        self,
        config: TrainConfig,
        trainer: Trainer,
        source: ClipSource,
        folder: RunDir,
        reporter: Reporter,
        ranks: Ranks | None = None,
    ) -> None:
        self._config = config
        self._trainer = trainer
        self._source = source
        self._folder = folder
        self._report = reporter
        self._ranks = ranks or Ranks()
        self._snapshots = Snapshots(config, trainer, folder)
        self._progress = Progress()
        self._failed_saves = 0
        self._ticked_at = 0  # frames seen at the last tick
        if config.batch.micros % self._ranks.world:
            raise BadConfig(
                f"{config.batch.micros} micro-batches a step do not spread over"
                f" {self._ranks.world} processes; change batch.size or batch.micro"
            )

    def run(self) -> Outcome:
        """Trains from the newest state, or from the start, to the end.

        Raises:
            DiskFull: The state could not be written three times in a row, or at the end.
            BadCheckpoint: No state is whole, or the run diverged (CKPT_NONFINITE).
        """
        self._resume()
        trainer, ranks = self._trainer, self._ranks
        ranks.agree({**trainer.networks, **{f"ema {n}": a for n, a in trainer.averages.items()}})
        micros, seed = self._config.batch.micros, self._config.seed
        todo = range(self._progress.step, self._config.total_steps)
        own = range(ranks.rank, micros, ranks.world)
        with (
            Prefetch(self._source, trainer.requests, seed, todo, own) as fetch,
            _stop_signals(self._report.say) as stopped,
        ):
            stepper = Stepper(trainer, fetch, seed, micros, ranks)
            interrupted = self._steps(stepper, todo, stopped)
        if ranks.first and todo:
            self._save(last=True)
            # Whoever interrupts wants to leave: pictures can take minutes.
            self._snapshots.take(self._progress, pictures=not interrupted)
        return Outcome(self._progress, interrupted)

    def _steps(self, stepper: Stepper, todo: range, stopped: threading.Event) -> bool:
        """All of them, or those until a signal; whether there was one."""
        run, images = self._config.run, self._config.images_per_step
        means = Means()
        before = self._progress
        start = tick = snapshot = time.monotonic()
        for step in todo:
            means.add(stepper.take(step))
            now = time.monotonic()
            done = Progress(step + 1, (step + 1) * images, before.seconds + now - start)
            self._progress = done
            self._report.advance(done)
            if self._ranks.any(stopped.is_set()):
                self._tick(means, now - tick)
                return True
            since = done.images - self._ticked_at
            if now - tick >= run.tick_s or since >= run.tick_kimg * 1000 or step == todo[-1]:
                self._tick(means, now - tick)
                tick = time.monotonic()
                if self._ranks.first and step != todo[-1]:
                    self._save()
                    if now - snapshot >= run.snapshot_s:
                        self._snapshots.take(done)
                        snapshot = time.monotonic()
        return False

    def _tick(self, means: Means, seconds: float) -> None:
        figures = means.take()
        images = self._progress.images - self._ticked_at
        self._ticked_at = self._progress.images
        figures["frames_per_second"] = images / max(seconds, 1e-9)
        self._report.tick(self._progress, figures)

    def _resume(self) -> None:
        """Takes up the newest state, if there is one."""
        found = run_state.load(self._folder.path)
        if found is None:
            return
        self._progress, about, tensors = found
        run_state.restore(self._trainer, tensors)
        self._snapshots.best = about.get("best")
        self._ticked_at = self._progress.images
        self._report.say(f"going on from step {self._progress.step}")
        for key, now in self._about().items():
            if key in ("torch", "threads", "world") and about.get(key) != now:
                self._report.say(
                    f"warning: {key} was {about.get(key)} and is {now}; the run goes on well, but"
                    " its last bits may differ from an uninterrupted one's"
                )

    def _about(self) -> dict[str, Any]:
        return {
            "config": self._config.to_dict(),
            "config_sha": self._config.sha,
            "best": self._snapshots.best,
            "torch": torch.__version__,
            "python": sys.version.split()[0],
            "threads": torch.get_num_threads(),
            "world": self._ranks.world,
        }

    def _save(self, *, last: bool = False) -> None:
        folder, keep = self._folder.path, self._config.run.keep_states
        try:
            run_state.save(folder, self._trainer, self._progress, self._about(), keep=keep)
            self._failed_saves = 0
        except OSError as error:
            self._failed_saves += 1
            needed = sum(t.nbytes for t in run_state.collect(self._trainer).values()) // 10**6 + 1
            advice = f"free {needed} MB in {folder} and run the same command with --resume"
            over = last or self._failed_saves >= MOST_FAILED_SAVES
            self._report.say(
                f"the state at step {self._progress.step} was NOT saved: {reason(error)}"
                + ("" if over else "; training goes on and tries again at the next tick")
            )
            if over:
                raise DiskFull(f"no state can be written; {advice}") from error


@contextmanager
def _stop_signals(say: Callable[[str], None]) -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second one ends the process as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, before[signal.Signals(number)])
        say(f"{signal.Signals(number).name}: finishing this step, then saving; again to stop now")

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
