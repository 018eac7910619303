"""What happened lately: percentiles per stage over a fixed window, and the bottleneck in words.

Memory is fixed at construction. Times are milliseconds here, because that is what people read.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

STAGES = ("wait", "render", "encode", "send", "total")  # see StageTimes
WINDOW = 600  # samples: 20 s at 30 fps


class Window:
    """The last `size` samples of one quantity, in a ring."""

    def __init__(self, size: int = WINDOW) -> None:
        if size < 1:
            raise ValueError(f"a window holds at least one sample, not {size}.")
        self._ring = np.zeros(size, np.float64)
        self.count = 0  # samples ever added

    def __len__(self) -> int:
        return min(self.count, len(self._ring))

    def add(self, value: float) -> None:
        self._ring[self.count % len(self._ring)] = value
        self.count += 1

    def clear(self) -> None:
        """Forget the samples: what is measured has changed, e.g. the model or the frame rate."""
        self.count = 0

    def percentile(self, q: float) -> float | None:
        """The `q`-th percentile, 0..100, or None while there is no sample."""
        return float(np.percentile(self._ring[: len(self)], q)) if self.count else None

    def summary(self, digits: int = 2) -> dict[str, float | int | None]:
        """{"p50", "p95", "p99", "max", "n"}; values None while there is no sample."""
        if not self.count:
            return {"p50": None, "p95": None, "p99": None, "max": None, "n": 0}
        held = self._ring[: len(self)]
        p50, p95, p99 = np.percentile(held, (50, 95, 99))
        values = {"p50": p50, "p95": p95, "p99": p99, "max": held.max()}
        return {**{name: round(float(v), digits) for name, v in values.items()}, "n": len(self)}


class StageTimes:
    """How long each stage of a frame took.

    wait: due to the start of rendering; the loop or another session held it up.
    render: motion sampled to I420 complete.
    encode: I420 complete to coded, the hand-over to the encoder's thread included.
    send: coded to handed to the transport of the first viewer.
    total: due to handed to the transport.
    """

    def __init__(self, size: int = WINDOW) -> None:
        self.stages = {name: Window(size) for name in STAGES}

    def add(self, stamps: dict[str, int]) -> None:
        """Take one frame's stamps, monotonic ns; stages whose stamps are missing are left out."""
        for name, begin, end in (
            ("wait", "due", "sampled"),
            ("render", "sampled", "rendered"),
            ("encode", "rendered", "encoded"),
            ("send", "encoded", "sent"),
            ("total", "due", "sent"),
        ):
            if begin in stamps and end in stamps:
                self.stages[name].add((stamps[end] - stamps[begin]) / 1e6)

    def __getitem__(self, name: str) -> Window:
        return self.stages[name]

    def clear(self) -> None:
        for window in self.stages.values():
            window.clear()

    def as_dict(self) -> dict[str, dict[str, float | int | None]]:
        return {name: window.summary() for name, window in self.stages.items()}


class Recent:
    """Differences of rising counters over the last few snapshots: a rate of now, not of ever."""

    def __init__(self, depth: int = 3) -> None:
        self._depth = depth
        self._snapshots: list[tuple[int, dict[str, int]]] = []

    def push(self, now_ns: int, counters: dict[str, int]) -> None:
        self._snapshots = [*self._snapshots[-self._depth :], (now_ns, dict(counters))]

    def since(self) -> tuple[float, dict[str, int]]:
        """(seconds, differences) between the oldest and the newest snapshot held."""
        if len(self._snapshots) < 2:
            return 0.0, {}
        (then, old), (now, new) = self._snapshots[0], self._snapshots[-1]
        return (now - then) / 1e9, {name: new[name] - old.get(name, 0) for name in new}


def on_time_ratio(counters: dict[str, int]) -> float:
    """Share of due frames that were drawn within their own interval; 1 when none was due."""
    due = counters.get("due", 0)
    missed = sum(counters.get(name, 0) for name in ("late", "dropped", "repeated"))
    return max(0.0, 1.0 - missed / due) if due > 0 else 1.0


@dataclass(frozen=True)
class Load:
    """What `bottleneck` looks at; times in ms, rates in bit/s."""

    interval: float  # what a frame has
    on_time: float = 1.0  # of the last seconds
    wait_p95: float | None = None
    render_p50: float | None = None
    render_p95: float | None = None
    encode_p50: float | None = None
    encode_p95: float | None = None
    sessions: int = 1  # that draw at present, this one included
    ceiling: int = 0  # the bitrate that is asked for
    target: int = 0  # the bitrate in use
    loss: float = 0.0  # worst viewer's lost fraction of packets
    overflows: int = 0  # times lately that a viewer's queue was cleared
    starved: bool = False  # the connection takes less than the least that is sent


def bottleneck(load: Load) -> str:
    """One sentence: what keeps the picture from being better, and what to do about it.

    Synthesis and encoding run side by side, so each alone has the whole interval.
    """
    missed = load.on_time < 0.97
    for work, p50, p95, remedy in (
        ("Synthesis", load.render_p50, load.render_p95, "a lower frame rate or a lighter model"),
        ("Encoding", load.encode_p50, load.encode_p95, "a lower resolution or frame rate"),
    ):
        if p50 is not None and p50 > load.interval:
            return (
                f"{work} takes {p50:.0f} ms of the {load.interval:.0f} ms a frame has: "
                f"choose {remedy}."
            )
        if missed and p95 is not None and p95 > load.interval:
            return (
                f"{work} takes {p50:.0f} ms mostly but {p95:.0f} ms at times, and a frame has "
                f"{load.interval:.0f} ms: choose {remedy}, or stop what else runs on this machine."
            )
    if missed and _others_draw(load):
        others = "another session draws"
        if load.sessions > 2:
            others = f"{load.sessions - 1} other sessions draw"
        return (
            f"Frames wait up to {load.wait_p95:.0f} ms while {others}: "
            "end one, or choose a lower resolution or frame rate."
        )
    if missed:
        wait = f", frames start up to {load.wait_p95:.0f} ms late" if load.wait_p95 else ""
        return (
            f"{(1 - load.on_time) * 100:.0f} % of the frames are late{wait}: "
            "the machine is busy with something else."
        )
    if load.starved:
        return "The connection takes less than the least that is sent: use a faster network."
    if load.overflows:
        return "The connection does not keep up: frames are left out until it recovers."
    if load.loss > 0.05:
        return f"The network loses {load.loss * 100:.0f} % of the packets: lower the bitrate."
    if load.target and load.target < 0.8 * load.ceiling:
        return f"The network estimate limits the picture to {bitrate_words(load.target)}."
    if load.on_time < 1:
        return f"Nothing limits it: {math.floor(load.on_time * 100)} % of frames are on time."
    return "Nothing: every frame is on time."


def _others_draw(load: Load) -> bool:
    """Whether frames wait for the render thread longer than one of their own takes in it."""
    if load.sessions < 2 or load.wait_p95 is None or load.render_p50 is None:
        return False
    return load.wait_p95 > load.render_p50


def bitrate_words(bps: float) -> str:
    """400000 -> "400 kbit/s", 2500000 -> "2.5 Mbit/s"."""
    return f"{bps / 1e6:.3g} Mbit/s" if bps >= 999_500 else f"{bps / 1e3:.0f} kbit/s"


def process_numbers() -> dict[str, int | None]:
    """{"fds", "threads", "tasks", "rss_bytes"} of this process; None where unknown."""
    fds: int | None = None
    rss: int | None = None
    try:
        fds = len(os.listdir("/proc/self/fd"))
        pages = Path("/proc/self/statm").read_text().split()[1]
        rss = int(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: these two stay unknown
        pass
    return {
        "fds": fds,
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "rss_bytes": rss,
    }
