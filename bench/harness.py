"""What every benchmark shares: the machine, warm-up, percentiles, warnings, and the JSON.

Times are `time.monotonic_ns()` differences given in milliseconds. A result is never a mean alone,
and always travels with the machine and the commit it came from (`envelope`).
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import (  # noqa: F401 - read as `harness.machine` and so on
    ROOT,
    before_torch,
    busy,
    commit,
    describe,
    machine,
    usable_cores,
)

FORMAT = 1  # of the JSON envelope
KEEP_MEMORY = "spare the official order the page faults of glibc's allocator; see bench/heap.py"

MIN_SAMPLES = 20  # below it, p95 is one sample
# Ratios of percentiles rather than pyperf's deviation and maximum: among thousands of samples on a
# desktop one is always preempted, and a warning that is always there says nothing.
MAX_SPREAD = 1.25  # p95 over p50
MAX_TAIL = 2.0  # p99 over p50
MAX_DRIFT = 0.05  # median of the second half against the first


def percentile(samples: Sequence[float], q: float) -> float:
    """The `q`-th percentile (0 to 100), linear between ranks.

    Raises:
        ValueError: no samples, or `q` outside 0..100.
    """
    if not samples:
        raise ValueError("percentile of no samples: measure at least one.")
    if not 0 <= q <= 100:
        raise ValueError(f"percentile {q} is outside 0..100.")
    ordered = sorted(samples)
    rank = (len(ordered) - 1) * q / 100
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


@dataclass(frozen=True)
class Summary:
    """Percentiles of one series, in the unit of its samples."""

    count: int
    min: float
    p50: float
    p95: float
    p99: float
    max: float
    mean: float
    stdev: float

    def as_dict(self, digits: int = 4) -> dict[str, float | int]:
        """Plain values, rounded to so many significant digits beyond the point."""
        return {k: v if k == "count" else round(v, digits) for k, v in asdict(self).items()}


def summarize(samples: Sequence[float]) -> Summary:
    """Percentiles and spread of `samples`; raises ValueError where there are none."""
    return Summary(
        count=len(samples),
        min=percentile(samples, 0),
        p50=percentile(samples, 50),
        p95=percentile(samples, 95),
        p99=percentile(samples, 99),
        max=percentile(samples, 100),
        mean=statistics.fmean(samples),
        stdev=statistics.stdev(samples) if len(samples) > 1 else 0.0,
    )


def instabilities(samples: Sequence[float]) -> list[str]:
    """Why these samples, in the order taken, should not be trusted; empty: nothing says so."""
    s = summarize(samples)
    found = []
    if s.count < MIN_SAMPLES:
        found.append(f"only {s.count} samples, {MIN_SAMPLES} are the least for a p95")
    if s.p95 > MAX_SPREAD * s.p50:
        found.append(f"spread: p95 is {s.p95 / max(s.p50, 1e-9):.1f} times the median")
    if s.p99 > MAX_TAIL * s.p50:
        found.append(f"tail: p99 is {s.p99 / max(s.p50, 1e-9):.1f} times the median")
    if s.count >= MIN_SAMPLES:
        half = s.count // 2
        first, second = percentile(samples[:half], 50), percentile(samples[half:], 50)
        if first > 0 and abs(second / first - 1) > MAX_DRIFT:
            found.append(
                f"drift: the second half's median is {second / first - 1:+.0%} of the first's"
            )
    return found


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """No garbage collection inside, so that its pauses are not billed to what is timed."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def warm_up(call: Callable[[], object], *, seconds: float, least: int = 3) -> int:
    """Call until both `seconds` and `least` calls are over; returns how many calls that were."""
    end = time.monotonic_ns() + int(seconds * 1e9)
    calls = 0
    while calls < least or time.monotonic_ns() < end:
        call()
        calls += 1
    return calls


def measure(
    call: Callable[[], object],
    *,
    seconds: float,
    warmup_s: float = 0.5,
    least: int = MIN_SAMPLES,
    most: int = 20_000,
    sync: Callable[[], object] | None = None,
    before: Callable[[], object] | None = None,
    clock: Callable[[], int] = time.monotonic_ns,
) -> list[float]:
    """Milliseconds of each call, back to back, after a warm-up.

    Args:
        call: What is timed.
        seconds: Stop after so long, once `least` samples are there; never more than `most`.
        warmup_s: Calls before that are thrown away.
        sync: Waits for the device; called on both sides of each sample, inside the time.
        before: Called ahead of each sample, outside the time: puts back what a call uses up.
        clock: Nanoseconds, for tests.
    """
    if before is None:
        warm_up(call, seconds=warmup_s)
    else:
        warm_up(lambda: (before(), call()), seconds=warmup_s)
    samples: list[float] = []
    with quiet_collector():
        end = clock() + int(seconds * 1e9)
        while len(samples) < most and (len(samples) < least or clock() < end):
            if before is not None:
                before()
            if sync is not None:
                sync()
            start = clock()
            call()
            if sync is not None:
                sync()
            samples.append((clock() - start) / 1e6)
    return samples


def error_text(error: float, unit: str | None) -> str:
    """An error and what it is counted in.

    Args:
        unit: "relative" (to the largest value), "levels" (of a byte), or None, which a results file
            has that was written before units were stored.
    """
    if unit == "levels":
        return f"{error:.0f} level{'' if round(error) == 1 else 's'}"
    return f"{error:.1e} {unit or ''}".rstrip()


def command_line(argv: Sequence[str] | None = None) -> str:
    """The command as a reader would type it: paths relative to the checkout, or their last part."""
    words = [_shown(word) for word in (sys.argv if argv is None else argv)]
    return shlex.join(["python", *words])


def _shown(word: str) -> str:
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    path = Path(value)
    if path.is_absolute():
        value = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    return f"{flag}{equals}{value}"


def envelope(
    benchmark: str,
    results: Sequence[Mapping[str, Any]],
    *,
    about: Mapping[str, Any],
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    argv: Sequence[str] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """What every benchmark writes.

    Args:
        benchmark: `fps`, `kernels`, `latency`, ...: which table the results belong to.
        results: One row each, plain values; a row may carry its own `warnings`.
        about: `machine()` from before the run: its load average is then not the run's own.
        notes: Sentences a reader needs beside the figures.
        warnings: What speaks against the whole run.
        extra: Further plain values of this benchmark.
    """
    return {
        "format": FORMAT,
        "benchmark": benchmark,
        "command": command_line(argv),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": dict(about),
        "notes": list(notes),
        "warnings": list(warnings),
        **extra,
        "results": [dict(row) for row in results],
    }


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write whole or not at all; folders are made."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(target.name + ".part")
    unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    unfinished.replace(target)


def read_json(path: str | Path) -> dict[str, Any]:
    """An envelope, checked; raises ValueError with the file's name where it is not one."""
    name = Path(path).name
    try:
        content = json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON ({error}); write it again with --json.") from error
    keys = ("format", "benchmark", "command", "commit", "machine", "results")
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{name} has no {', '.join(missing)}; write it again with --json.")
    if content["format"] != FORMAT:
        raise ValueError(f"{name} has format {content['format']}, not {FORMAT}; measure again.")
    return content


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns for a terminal: the first left, the others right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for row in (head, *rows):
        first, *others = [f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([f"{row[0]:<{len(first)}}", *others]).rstrip())
    return "\n".join(lines)
