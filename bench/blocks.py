"""Subjects timed in turn: blocks A B C, A B C, ..., so that a ratio compares neighbours in time.

A block is so many frames of each subject. What the machine does beside the benchmark hits a block
of all subjects alike, so a ratio is taken within a block and then the median of the blocks; the
quartiles say how far they agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.harness import percentile, quiet_collector, summarize

BLOCKS = 5  # the fewest: fewer have no quartiles
FEWEST = 3  # frames of a subject in a block
SLOW_MS = 500.0  # but one will do of what takes so long; another comes before it, untimed
MOST = 2000


@dataclass(frozen=True)
class Timed:
    """Milliseconds of each frame, block after block."""

    blocks: tuple[tuple[float, ...], ...]

    @property
    def samples(self) -> list[float]:
        return [ms for block in self.blocks for ms in block]

    @property
    def best_fps(self) -> float:
        """Frames per second of the fastest block, all its frames counted."""
        return max(1000 * len(block) / sum(block) for block in self.blocks)

    def medians(self) -> list[float]:
        """One per block."""
        return [percentile(block, 50) for block in self.blocks]


@dataclass(frozen=True)
class Ratio:
    """How many times faster one subject is than another, over the blocks."""

    median: float
    low: float  # first quartile
    high: float  # third quartile

    def as_dict(self) -> dict[str, float]:
        return {
            "median": round(self.median, 3),
            "q1": round(self.low, 3),
            "q3": round(self.high, 3),
        }


def ratio(slow: Timed, fast: Timed) -> Ratio:
    """Of the medians, block by block."""
    each = [a / b for a, b in zip(slow.medians(), fast.medians(), strict=True)]
    return Ratio(percentile(each, 50), percentile(each, 25), percentile(each, 75))


Call = Callable[[], object]


def once_ms(call: Call, sync: Call | None, before: Call | None = None) -> float:
    """One call, the device's work included, what goes before it not."""
    if before is not None:
        before()
    if sync is not None:
        sync()
    begin = time.monotonic_ns()
    call()
    if sync is not None:
        sync()
    return (time.monotonic_ns() - begin) / 1e6


def frames_per_block(
    call: Call, seconds: float, sync: Call | None = None, before: Call | None = None
) -> int:
    """How many frames fill `seconds`; the subject is warm afterwards.

    The first calls compile, plan and fill caches: a subject is called until it does not get faster
    by a fifth, three times at least.
    """
    best = min(once_ms(call, sync, before) for _ in range(2))
    for _ in range(8):
        now = once_ms(call, sync, before)
        settled, best = now > 0.8 * best, min(best, now)
        if settled:
            break
    least = FEWEST if best < SLOW_MS else 1
    return max(least, min(MOST, round(seconds * 1000 / max(best, 1e-3))))


def interleave(
    calls: Mapping[str, Call],
    *,
    frames: Mapping[str, int],
    blocks: int = BLOCKS,
    sync: Call | None = None,
    before: Call | None = None,
    deadline_ns: int | None = None,
) -> dict[str, Timed]:
    """Time every subject in every block.

    Args:
        calls: One frame of each subject, warm.
        frames: Per block.
        blocks: How many.
        sync: Waits for the device, on both sides of each frame.
        before: Called ahead of each frame, outside its time.
        deadline_ns: No block begins after this monotonic time, once one is there.
    """
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in calls}
    with quiet_collector():
        for number in range(blocks):
            if number and deadline_ns is not None and time.monotonic_ns() > deadline_ns:
                break
            for name, call in calls.items():
                once_ms(call, sync, before)  # the caches are another subject's
                times = [once_ms(call, sync, before) for _ in range(frames[name])]
                found[name].append(tuple(times))
    return {name: Timed(tuple(series)) for name, series in found.items()}


def figures(timed: Timed) -> dict[str, Any]:
    """What a row says about a subject's time."""
    s = summarize(timed.samples)
    return {
        "frames": s.count,
        "blocks": len(timed.blocks),
        "min_ms": round(s.min, 4),
        "p50_ms": round(s.p50, 4),
        "p95_ms": round(s.p95, 4),
        "p99_ms": round(s.p99, 4),
        "max_ms": round(s.max, 4),
        "fps": round(1000 / s.mean, 2),
        "fps_best_block": round(timed.best_fps, 2),
    }


class Budget:
    """Time for several pieces of work. The first is always begun; another only if the longest so
    far would still fit.
    """

    def __init__(self, seconds: float, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self.end_ns = clock() + int(seconds * 1e9)
        self._longest_ns = 0
        self._begun_ns: int | None = None

    def begin(self) -> bool:
        """Whether there is room for another; if so, it begins now."""
        now = self._clock()
        if self._begun_ns is not None:
            self._longest_ns = max(self._longest_ns, now - self._begun_ns)
            if now + self._longest_ns >= self.end_ns:
                return False
        self._begun_ns = now
        return True


@dataclass(frozen=True)
class Goal:
    """One figure against what it should be."""

    case: str
    what: str
    value: float
    goal: float
    above: bool  # the value must be at least the goal; else at most

    @property
    def passed(self) -> bool:
        return self.value >= self.goal if self.above else self.value <= self.goal

    def as_dict(self) -> dict[str, Any]:
        plain = {"case": self.case, "what": self.what, "value": float(self.value)}
        return {**plain, "goal": self.goal, "above": self.above, "passed": bool(self.passed)}

    def line(self) -> str:
        """`PASS  case: what 12.3 (at least 8)`."""
        word, side = ("PASS" if self.passed else "FAIL"), ("at least" if self.above else "at most")
        return f"{word}  {self.case}: {self.what} {self.value:.3g} ({side} {self.goal:g})"


def goals_text(goals: Sequence[Goal]) -> str:
    """Every goal on a line, then how many were reached."""
    reached = sum(goal.passed for goal in goals)
    return "\n".join([*(g.line() for g in goals), f"{reached} of {len(goals)} goals reached"])
