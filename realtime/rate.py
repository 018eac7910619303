"""How much to send, when to send a keyframe, and how often to repeat a packet. Pure: time is given.

`RateController` joins every viewer's bandwidth estimate (REMB) and loss reports into one target for
the encoder they share; `KeyframeLimiter` spaces keyframes; `RetransmissionLimit` stops a thin link
from filling with old packets. All times are `time.monotonic_ns()` values.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

SECOND = 1_000_000_000

ESTIMATE_SHARE = 0.8  # of a receiver's estimate: room for retransmission, headers and keyframes
HYSTERESIS = 0.04  # smaller moves of the target are not worth a reconfiguration
LOSS_HIGH, LOSS_LOW = 0.10, 0.02  # the thresholds of Google's congestion control (RFC draft, 6)
RECOVERY_PER_S = 1.08
CUT_SPACING_NS = 800_000_000  # receiver reports come about once a second; one cut for each
STARVED_NS = 5 * SECOND


@dataclass
class _Viewer:
    estimate: int | None = None  # bit/s, as the receiver says
    loss_limit: float | None = None  # bit/s; None: no loss to speak of
    cut_ns: int | None = None
    report_ns: int | None = None
    short_ns: int | None = None  # since when it takes less than the floor

    def limit(self) -> float | None:
        parts = []
        if self.estimate is not None:
            parts.append(self.estimate * ESTIMATE_SHARE)
        if self.loss_limit is not None:
            parts.append(self.loss_limit)
        return min(parts) if parts else None


class RateController:
    """One target for an encoder with several viewers: the slowest decides, within [floor, ceiling].

    A viewer that takes less than the floor for five seconds is `starved`. While others are not, it
    no longer holds them down; whoever owns the viewers serves it otherwise or lets it go.
    """

    def __init__(self, *, floor: int, ceiling: int) -> None:
        """Rates in bit/s. The target starts at the ceiling: what was configured."""
        if not 0 < floor <= ceiling:
            raise ValueError(
                f"floor {floor} and ceiling {ceiling} bit/s: need 0 < floor <= ceiling."
            )
        self.floor = floor
        self.ceiling = ceiling
        self.target = ceiling
        self._viewers: dict[Hashable, _Viewer] = {}

    def estimate(self, viewer: Hashable, bps: int, now_ns: int) -> int:
        """Note a receiver's bandwidth estimate. Returns the target."""
        self._viewers.setdefault(viewer, _Viewer()).estimate = max(0, bps)
        return self._update(now_ns)

    def loss(self, viewer: Hashable, fraction: float, now_ns: int) -> int:
        """Note a receiver report. Returns the target.

        An estimate sees delay, not loss, so loss is the sender's to answer: above 10 % the rate is
        cut by half of the fraction, below 2 % it recovers by 8 % a second.

        Args:
            fraction: Lost since the previous report, 0..1.
        """
        state = self._viewers.setdefault(viewer, _Viewer())
        since, state.report_ns = state.report_ns, now_ns
        if fraction > LOSS_HIGH:
            if state.cut_ns is None or now_ns - state.cut_ns >= CUT_SPACING_NS:
                state.cut_ns = now_ns
                base = self.target if state.loss_limit is None else state.loss_limit
                cut = min(base, self.target) * (1 - 0.5 * min(1.0, fraction))
                # It may fall below the floor, which marks the viewer as starved, but not without
                # end: recovery would take minutes.
                state.loss_limit = max(self.floor / 2, cut)
        elif fraction < LOSS_LOW and state.loss_limit is not None and since is not None:
            seconds = min(2.0, (now_ns - since) / SECOND)
            state.loss_limit *= RECOVERY_PER_S**seconds
            if state.loss_limit > self.ceiling:
                state.loss_limit = None
        return self._update(now_ns)

    def forget(self, viewer: Hashable, now_ns: int) -> int:
        """A viewer left: it must not hold the rate down. Returns the target."""
        self._viewers.pop(viewer, None)
        return self._update(now_ns)

    def limit_to(self, ceiling: int, now_ns: int) -> int:
        """Set a new ceiling in bit/s, not below the floor. Returns the target."""
        self.ceiling = max(self.floor, ceiling)
        return self._update(now_ns)

    @property
    def estimate_min(self) -> int | None:
        """The lowest estimate of any viewer, bit/s."""
        known = [v.estimate for v in self._viewers.values() if v.estimate is not None]
        return min(known) if known else None

    def starved(self, now_ns: int) -> list[Hashable]:
        """Viewers below the floor for five seconds and more."""
        return [name for name, v in self._viewers.items() if _is_starved(v, now_ns)]

    def _update(self, now_ns: int) -> int:
        fed: list[float] = []
        short = False
        for viewer in self._viewers.values():
            limit = viewer.limit()
            if limit is None or limit >= self.floor:
                viewer.short_ns = None
            elif viewer.short_ns is None:
                viewer.short_ns = now_ns
            if _is_starved(viewer, now_ns):
                short = True
            else:
                fed.append(self.ceiling if limit is None else limit)
        wanted = min(fed, default=self.floor if short else self.ceiling)
        wanted = int(max(self.floor, min(self.ceiling, wanted)))
        at_end = wanted in (self.floor, self.ceiling)
        if at_end or abs(wanted - self.target) > HYSTERESIS * self.target:
            self.target = wanted
        return self.target


def _is_starved(viewer: _Viewer, now_ns: int) -> bool:
    return viewer.short_ns is not None and now_ns - viewer.short_ns >= STARVED_NS


class KeyframeLimiter:
    """At most one keyframe per interval; a request inside it is kept, not dropped.

    Dropping it would leave a viewer that joined just then black until its next loss.
    `request` and `satisfied` belong to the event loop, the rest to the encoder thread, which may
    send before the loop knows of it: a request that came after a keyframe was coded may be about
    that very keyframe.
    """

    def __init__(self, interval_ns: int) -> None:
        self.interval_ns = interval_ns
        self.requests = 0
        self._pending = False
        self._last_ns: int | None = None
        self._answered = 0  # requests when the last keyframe was coded

    @property
    def pending(self) -> bool:
        return self._pending

    def request(self) -> None:
        """Somebody needs a keyframe."""
        self.requests += 1
        self._pending = True

    def due(self, now_ns: int) -> bool:
        """Whether the picture about to be coded must be a keyframe."""
        return self._pending and self.free(now_ns)

    def free(self, now_ns: int) -> bool:
        """Whether the last keyframe is an interval past, so that another one may go out."""
        return self._last_ns is None or now_ns - self._last_ns >= self.interval_ns

    def coded(self, now_ns: int) -> None:
        """A keyframe was coded, asked for or not; nobody has it yet."""
        self._last_ns = now_ns
        self._answered = self.requests

    def satisfied(self) -> None:
        """That keyframe went out to every viewer: the requests before it are answered."""
        self._pending = self.requests > self._answered


@dataclass
class _Asked:
    first_ns: int
    last_ns: int | None = None  # when it was last sent again
    times: int = 0


class RetransmissionLimit:
    """Which packet a receiver asks for again is sent again.

    Answering every request lets a thin link carry mostly old packets. Refusing alone is worse: a
    browser asks up to ten times and then waits three seconds before it asks for a keyframe. So
    whoever gives a packet up sends a keyframe, and requests older than that keyframe are ignored.
    """

    TRIES = 6
    SPACING_NS = 15_000_000
    LIFE_NS = 600_000_000
    KEYFRAME_SPACING_NS = 800_000_000  # keyframes are what fills a thin link
    FORGET_NS = 5 * SECOND  # the 16-bit sequence number has come round
    SHARE = 0.2  # of the media rate, on top of it
    BURST = 40.0  # packets
    PACKET_BITS = 1200 * 8
    TABLE = 1024

    def __init__(self) -> None:
        self.bitrate = 2_000_000  # bit/s of media, which the share refers to
        self.sent = self.ignored = self.over_budget = self.given_up = 0
        self._asked: dict[int, _Asked] = {}
        self._keyframe_ns: int | None = None
        self._tokens = self.BURST
        self._refilled_ns: int | None = None

    def keyframe(self, now_ns: int) -> None:
        """A keyframe goes out to this viewer."""
        self._keyframe_ns = now_ns

    def decide(self, sequence_number: int, now_ns: int) -> tuple[bool, bool]:
        """(send the packet again, ask for a keyframe instead)."""
        self._refill(now_ns)
        asked = self._entry(sequence_number, now_ns)
        # A keyframe since the first request has made the packet worthless.
        outdated = self._keyframe_ns is not None and asked.first_ns < self._keyframe_ns
        twice = asked.last_ns is not None and now_ns - asked.last_ns < self.SPACING_NS
        if outdated or twice:
            self.ignored += 1
            return False, False
        if asked.times >= self.TRIES or now_ns - asked.first_ns > self.LIFE_NS:
            self.given_up += 1
            asked.last_ns = now_ns
            recent = self._keyframe_ns
            return False, recent is None or now_ns - recent > self.KEYFRAME_SPACING_NS
        if self._tokens < 1:
            self.over_budget += 1
            return False, False
        self._tokens -= 1
        asked.times += 1
        asked.last_ns = now_ns
        self.sent += 1
        return True, False

    def _entry(self, sequence_number: int, now_ns: int) -> _Asked:
        asked = self._asked.get(sequence_number)
        if asked is None or now_ns - asked.first_ns > self.FORGET_NS:
            self._asked.pop(sequence_number, None)  # so that the new one is the youngest
            asked = self._asked[sequence_number] = _Asked(now_ns)
        while len(self._asked) > self.TABLE:
            del self._asked[next(iter(self._asked))]
        return asked

    def _refill(self, now_ns: int) -> None:
        if self._refilled_ns is not None:
            per_second = max(15.0, self.SHARE * self.bitrate / self.PACKET_BITS)
            elapsed = (now_ns - self._refilled_ns) / SECOND
            self._tokens = min(self.BURST, self._tokens + elapsed * per_second)
        self._refilled_ns = now_ns
