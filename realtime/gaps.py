"""Where the gaps between frames are: when something else may use the render thread."""

from __future__ import annotations

import math
from dataclasses import dataclass

from realtime.messages import Tick

NS = 1_000_000_000
PATIENCE_S = 0.4  # after so long a thumbnail may cost a frame, at most one so often
IDLE_S = 0.25  # a frame overdue for so long: nobody is waiting for the next one


@dataclass
class _Pace:
    index: int
    due_ns: int
    interval_ns: int = 0

    @property
    def next_ns(self) -> int:
        return self.due_ns + self.interval_ns


class Gaps:
    """Pure: told of every session's frames, and of the time by whoever asks."""

    def __init__(self) -> None:
        self._paces: dict[str, _Pace] = {}
        self._in_flight = 0
        self._last_costly_ns: float = -math.inf

    @property
    def in_flight(self) -> int:
        """Frames asked for and not drawn yet."""
        return self._in_flight

    def begun(self) -> None:
        """A frame was handed to the render thread."""
        self._in_flight += 1

    def ended(self, session: str, tick: Tick) -> None:
        """It came back, drawn or not. What its session's next one is due at follows from it."""
        self._in_flight -= 1
        last = self._paces.get(session)
        pace = self._paces[session] = _Pace(tick.index, tick.deadline_ns)
        if last is not None and tick.index > last.index:
            elapsed = max(0, tick.deadline_ns - last.due_ns)
            pace.interval_ns = elapsed // (tick.index - last.index)

    def forget(self, session: str) -> None:
        self._paces.pop(session, None)

    def until_next_ns(self, now_ns: int) -> float:
        """Time to the earliest due frame of all sessions; 0 or less if one is drawn or overdue."""
        if self._in_flight:
            return 0
        dues = (pace.next_ns for pace in self._paces.values())
        return min((due for due in dues if now_ns - due < IDLE_S * NS), default=math.inf) - now_ns

    def room(self, cost_ns: float, asked_ns: int, now_ns: int) -> bool:
        """Whether `cost_ns` fit before the next frame, or who asks has waited long enough."""
        if cost_ns < self.until_next_ns(now_ns):
            return True
        if now_ns - max(asked_ns, self._last_costly_ns) > PATIENCE_S * NS:
            self._last_costly_ns = now_ns
            return True
        return False
