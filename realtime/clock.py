"""When frames are due. Pure: takes `now`, asks no clock; integers throughout, so nothing drifts.

The presentation time of tick `i` is `anchor + (i - anchor_index) / fps` seconds, exactly; `Tick.t`
is that rational rounded once to float64, `Tick.pts` its floor on the 90 kHz clock and
`Tick.deadline_ns` the origin plus its floor in nanoseconds. Nothing is ever summed frame by frame.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction

from realtime.messages import Tick

NS = 1_000_000_000
PTS_HZ = 90_000  # the RTP clock of every video codec (RFC 6184, RFC 7741)


@dataclass
class FrameCounters:
    """What became of the ticks. Four different things: `due == shown + dropped + repeated`.

    due: Ticks whose turn has come, including those that were skipped.
    late: Shown, but finished after the next tick's deadline (after its own interval). A part of
        shown.
    dropped: Never drawn: already more than one interval past when its turn came, or no slot was
        free. Where there is an encoder behind the clock, `Reports.counters` adds the frames that it
        never took.
    repeated: Drawn but refused (a broken picture), so that the previous one was shown again.
    """

    due: int = 0
    late: int = 0
    dropped: int = 0
    repeated: int = 0

    @property
    def shown(self) -> int:
        return self.due - self.dropped - self.repeated

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def exact_fps(fps: float | Fraction) -> Fraction:
    """The rational meant by `fps`: 30000/1001 for 29.97002997, 25 for 25.0.

    Raises:
        ValueError: Not between 1 and 120.
    """
    if not 1 <= fps <= 120:
        raise ValueError(f"fps is {fps}; it must lie between 1 and 120.")
    return Fraction(fps).limit_denominator(1001)


class FrameClock:
    """A fixed schedule of ticks.

    Args:
        fps: Ticks per second, 1..120.
        origin_ns: `time.monotonic_ns()` at which presentation time is 0.
        first_index: Number of the first tick, which is due at the origin.
    """

    def __init__(self, fps: float | Fraction, origin_ns: int, *, first_index: int = 0) -> None:
        self._fps = exact_fps(fps)
        self._origin_ns = origin_ns
        self._anchor_index = first_index
        self._anchor_ns = 0  # presentation time of the anchor, whole nanoseconds
        self._next = first_index
        self.counters = FrameCounters()

    @property
    def fps(self) -> Fraction:
        return self._fps

    @property
    def origin_ns(self) -> int:
        return self._origin_ns

    @property
    def interval_ns(self) -> int:
        return NS * self._fps.denominator // self._fps.numerator

    def time_at(self, now_ns: int) -> float:
        """Presentation time, in seconds, at the monotonic time `now_ns`."""
        return (now_ns - self._origin_ns) / NS

    def next_tick(self, now_ns: int) -> Tick:
        """The first tick at most one interval past at `now_ns`; those before it are dropped.

        So a stall is skipped and counted, never caught up with: the next picture is of now.
        """
        self._skip(now_ns)
        tick = self._tick(self._next)
        self._next += 1
        self.counters.due += 1
        return tick

    def finished(self, tick: Tick, now_ns: int) -> bool:
        """Count `tick` as late if it was finished after its own interval; says whether it was."""
        late = now_ns > tick.deadline_ns + self.interval_ns
        self.counters.late += late
        return late

    def resume(self, now_ns: int) -> None:
        """Go on after a pause in which nobody asked for ticks: those until `now_ns` were not due.

        They are counted as nothing. Presentation time has gone on meanwhile, so `t` and `pts` of
        the next tick follow the last ones at their distance in real time.
        """
        self._next = max(self._next, self._first_from(now_ns))

    def retime(self, fps: float | Fraction, now_ns: int) -> None:
        """Change the rate, if it differs; the next tick comes one new interval after the last.

        Ticks that a stall has already put more than one interval past are dropped at the old rate.
        The anchor is the last tick's deadline, a whole number of nanoseconds, because exact
        fractions of ever new rates would grow without bound.
        """
        fps = exact_fps(fps)
        if fps == self._fps:
            return
        self._skip(now_ns)
        if self._next > self._anchor_index:
            last = self._next - 1
            self._anchor_ns = self._tick(last).deadline_ns - self._origin_ns
            self._anchor_index = last
        self._fps = fps

    def _skip(self, now_ns: int) -> None:
        """Drop the ticks whose successor's deadline is before `now_ns`."""
        skipped = self._first_from(now_ns) - 1 - self._next
        if skipped > 0:
            self._next += skipped
            self.counters.due += skipped
            self.counters.dropped += skipped

    def _first_from(self, now_ns: int) -> int:
        """Index of the first tick whose deadline is not before `now_ns`."""
        since = now_ns - self._origin_ns - self._anchor_ns
        p, q = self._fps.numerator, self._fps.denominator
        return self._anchor_index - (-since * p // (NS * q))

    def _tick(self, index: int) -> Tick:
        p, q = self._fps.numerator, self._fps.denominator
        above = self._anchor_ns * p + (index - self._anchor_index) * q * NS
        below = NS * p
        return Tick(
            index=index,
            t=above / below,  # int / int rounds once, correctly
            pts=above * PTS_HZ // below,
            deadline_ns=self._origin_ns + above // p,
        )
