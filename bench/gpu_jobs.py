"""The processes of bench/gpu.py: what each stage consists of, and how long each part may take.

A job is a process of its own, in a session of its own: what it started ends with it, whether its
time is up or the whole run is interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench import harness
from bench.gpu_goals import CASES

LIMIT_S = 540.0  # of a run, which as a whole may take ten minutes
# Seconds that each stage may take, the most important first: they run in this order, and the last
# do not fit where there is less time. Together no more than LIMIT_S.
BOX_S = {
    "warm": 110.0,
    "frames": 180.0,
    "tests": 100.0,
    "replays": 50.0,
    "batch": 50.0,
    "kernels": 50.0,
}
STAGES = tuple(BOX_S)
ENOUGH = 0.5  # of its box: a job that cannot have that is not begun


@dataclass(frozen=True)
class Job:
    """One process of a stage.

    Args:
        box_s: How long it may take; more where what comes after it leaves more.
        arguments: After `--child STAGE`.
    """

    stage: str
    case: str
    box_s: float
    arguments: tuple[str, ...] = ()


def in_parallel(stage: str) -> int:
    """How many processes of a stage run at once: compiling wants cores, timing wants silence."""
    return max(1, min(8, harness.usable_cores() - 1)) if stage == "warm" else 1


def rounds(stage: str, count: int) -> int:
    """How many of a stage's jobs run one after the other."""
    return -(-count // in_parallel(stage))


def jobs(stage: str, against: str | None) -> list[Job]:
    """What a stage consists of, in order; they share its box."""
    named = ("--against", against) if against else ()
    cases: dict[str, tuple[str, ...]] = {"": ()}
    if stage == "warm":
        cases = dict.fromkeys(CASES, ())
        if against:  # the longest: it begins first
            cases = {"published extensions": named, **cases}
    elif stage == "frames":
        cases = dict.fromkeys(CASES, named)
    elif stage in ("replays", "batch"):
        size = {"replays": 256, "batch": 512}[stage]
        cases = dict.fromkeys((f"stylegan3-t-{size}", f"stylegan3-r-{size}"), ())
    box = BOX_S[stage] / rounds(stage, len(cases))
    return [Job(stage, case, box, arguments) for case, arguments in cases.items()]


class Interrupted(Exception):
    """The run is over: nothing more is begun."""


class Children:
    """The processes that run now. None outlives `end`, and none begins after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def begin(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """Raises Interrupted after `end`."""
        with self._lock:
            if self._over:
                raise Interrupted
            process = subprocess.Popen(
                command,
                cwd=harness.ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            self._running.add(process)
            return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        """With all that it started: pytest, compilers."""
        with self._lock:
            _kill(process)

    def finished(self, process: subprocess.Popen[str]) -> None:
        """It was waited for."""
        with self._lock:
            self._running.discard(process)

    def end(self) -> None:
        """Kill all that run."""
        with self._lock:
            self._over = True
            for process in self._running:
                _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    # Of a process that was waited for, the number may be another's by now.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):  # just waited for, by another thread
            os.killpg(process.pid, signal.SIGKILL)


def run_job(job: Job, seconds: float, children: Children) -> dict[str, Any]:
    """A job in a process of its own, for so long at most. Returns what became of it, its rows
    among it.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, str(harness.ROOT / "bench" / "gpu.py"), "--child", job.stage]
        command += ["--case", job.case, "--out", str(out), "--box", str(seconds), *job.arguments]
        process = children.begin(command)
        try:
            said, _ = process.communicate(timeout=seconds)
            error = "" if process.returncode == 0 else _last_words(said, process.returncode)
        except subprocess.TimeoutExpired:
            children.kill(process)
            process.communicate()
            error = f"not over after {seconds:.0f} s"
        finally:
            children.finished(process)
        rows = json.loads(out.read_text()) if out.exists() else []
    return _outcome(job, error, time.monotonic() - begun, rows)


def _outcome(job: Job, error: str, seconds: float = 0.0, rows: Sequence[Any] = ()) -> dict:
    about = {"stage": job.stage, "case": job.case, "ok": not error, "error": error}
    return {**about, "seconds": round(seconds, 1), "rows": list(rows)}


def _last_words(said: str, code: int) -> str:
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return f"exit {code}: {lines[-1][:300]}" if lines else f"exit {code}"


def seconds_for(job: Job, left_s: float, later_s: float) -> float | None:
    """How long a job may take: its box, or more where those after it leave more.

    Args:
        left_s: Of the run.
        later_s: Boxes of all that comes after it.
    Returns:
        None where half of its box is not left: it is not begun.
    """
    seconds = max(min(job.box_s, left_s), left_s - later_s)
    return seconds if seconds >= ENOUGH * job.box_s else None


def run_all(
    stages: Sequence[str],
    against: str | None,
    limit_s: float,
    told: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Every stage in order, within `limit_s`; after each, `told` is given what became of its jobs.

    However it ends, no child is left behind.
    """
    deadline = time.monotonic() + limit_s
    with Children() as children:
        for number, stage in enumerate(stages):
            later = sum(BOX_S[name] for name in stages[number + 1 :])
            todo = jobs(stage, against)
            print(
                f"{stage}: {', '.join(job.case for job in todo if job.case) or '...'}", flush=True
            )
            told(run_stage(todo, deadline, later, children))


def run_stage(
    todo: Sequence[Job], deadline: float, later_s: float, children: Children
) -> list[dict[str, Any]]:
    """What became of its jobs; so many run at once as `in_parallel` says.

    Args:
        deadline: Of the run, by time.monotonic().
        later_s: Boxes of the stages after this one.
    """
    stage, outcomes = todo[0].stage, []

    def run(number: int) -> dict[str, Any]:
        job = todo[number]
        after = rounds(stage, len(todo)) - 1 - number // in_parallel(stage)
        left = deadline - time.monotonic()
        seconds = seconds_for(job, left, later_s + after * job.box_s)
        if seconds is None:
            return _outcome(job, f"did not fit: {max(left, 0):.0f} s left, {job.box_s:.0f} wanted")
        return run_job(job, seconds, children)

    with ThreadPoolExecutor(in_parallel(stage)) as pool:
        try:
            for outcome in pool.map(run, range(len(todo))):
                state = "done" if outcome["ok"] else f"FAILED: {outcome['error']}"
                print(f"  {outcome['case'] or stage}: {state} ({outcome['seconds']} s)", flush=True)
                outcomes.append(outcome)
        except BaseException:  # Ctrl-C: the pool would wait for what its threads wait for
            children.end()
            raise
    return outcomes
