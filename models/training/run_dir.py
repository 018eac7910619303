"""The folder of a run: whose it is, and how what is nice to have is written when the disk is full.

    config.toml  log.jsonl  events.out.tfevents.*  samples/  state-*  model-*  lock

States must be written; the rest is worth a message and no more. `RunDir.soft` holds the latter.
"""

from __future__ import annotations

import errno
import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import BadConfig, ModelError
from models.training.config import TrainConfig

try:
    import fcntl
except ImportError:  # no flock on this platform: two runs in one folder are then not noticed
    fcntl = None  # type: ignore[assignment]

CONFIG, LOG, LOCK, STATES = "config.toml", "log.jsonl", "lock", "state-*.json"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class RunDir:
    """The folder of one run, locked while it is open.

    Args:
        path: Made if it is not there.
        say: Takes a line for the person who watches.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self.path = path
        self.lost: dict[str, int] = {}  # kind of file -> how many could not be written
        self._say = say

    @contextmanager
    def opened(self, config: TrainConfig, *, resume: bool) -> Iterator[RunDir]:
        """Locks the folder and writes or compares its configuration.

        Raises:
            ModelError: Another process has it, or it holds a run and `resume` is not given.
            BadConfig: The run there was started with other settings.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / LOCK, "a") as lock:
            self._lock(lock.fileno())
            self._check(config, resume)
            # Written whole or not at all: a torn one would refuse to go on.
            part = self.path / f".{CONFIG}.part"
            part.write_text(config.to_toml())
            part.replace(self.path / CONFIG)
            yield self

    def _lock(self, handle: int) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ModelError(
                f"{self.path}: another process trains here; wait for it or give another --run-dir"
            ) from error

    def _check(self, config: TrainConfig, resume: bool) -> None:
        began = self.path / CONFIG
        if not began.exists() or not any(self.path.glob(STATES)):
            if resume:
                self._say(f"{self.path} holds no state to go on from; starting")
            return  # a run that ended before its first state: nothing is lost
        if not resume:
            raise ModelError(
                f"{self.path} holds a run; add --resume to go on, or give another --run-dir"
            )
        try:
            before = TrainConfig.from_dict(tomllib.loads(began.read_text())).bound
        except ValueError as error:
            raise BadConfig(f"{began} is not TOML: {error}; the run cannot be compared") from error
        now = config.bound
        for section in sorted(set(before) | set(now)):
            if before.get(section) != now.get(section):
                raise BadConfig(
                    f"{began} has another {section}: {_difference(before, now, section)}. A resumed"
                    " run keeps its settings but for how long it goes on and when it writes"
                )

    @contextmanager
    def soft(self, kind: str) -> Iterator[None]:
        """A block that writes something the run can do without: an error is counted and said."""
        try:
            yield
        except OSError as error:
            self.lost[kind] = count = self.lost.get(kind, 0) + 1
            if count == 1:
                self._say(f"warning: {kind} not written: {reason(error)}; training goes on")

    def append_line(self, name: str, text: str) -> None:
        """One line at a file's end, softly. A line that was cut off before is ended first."""
        with self.soft(name), open(self.path / name, "ab+") as file:
            if file.tell() and not _ends_a_line(file.fileno(), file.tell()):
                text = "\n" + text
            file.write(text.encode() + b"\n")


def _ends_a_line(handle: int, size: int) -> bool:
    return os.pread(handle, 1, size - 1) == b"\n"


def _difference(before: dict[str, object], now: dict[str, object], section: str) -> str:
    old, new = before.get(section), now.get(section)
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(k for k in sorted(set(old) | set(new)) if old.get(k) != new.get(k))
        return f"{key} was {old.get(key)!r} and is {new.get(key)!r} now"
    return f"it was {old!r} and is {new!r} now"


def reason(error: OSError) -> str:
    """What went wrong, with the file where it is known."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
