"""A frame slot: I420 planes in memory allocated once per session and handed round by count.

I420 here is planar YUV 4:2:0, uint8, matrix BT.601, limited range (luma 16..235, chroma 16..240).
Whoever encodes it signals exactly that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from realtime.errors import SessionClosed
from realtime.i420 import planes_of
from realtime.messages import Tick

NO_TICK = Tick(index=0, t=0.0, pts=0, deadline_ns=0)


@dataclass(eq=False)
class Frame:
    """One picture on its way from the engine to the sinks. The pixels belong to a pool's slot.

    The holder who got the frame owns one count. Whoever keeps it beyond the call that handed it
    over takes another with `retain` and gives it back with `release`; at zero the slot returns to
    its pool and the pixels must not be read any more.

    Args:
        tick: The tick it was drawn for.
        width: Pixels, even.
        height: Pixels, even.
        i420: [height * 3 // 2, width] uint8, contiguous; Y, then U, then V.
        stamps: `time.monotonic_ns()` per stage: "due", "sampled" (render began, motion sampled),
            "rendered" (I420 complete); later stages add their own.
        model: Name of the model drawn.
        trained: False if its weights are seeded random ones.
    """

    tick: Tick
    width: int
    height: int
    i420: np.ndarray
    stamps: dict[str, int] = field(default_factory=dict)
    model: str = ""
    trained: bool = False
    give_back: Callable[[np.ndarray], None] | None = field(default=None, repr=False)
    _count: int = field(default=1, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @property
    def planes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Views Y [H, W], U [H/2, W/2], V [H/2, W/2] of the slot's memory.

        Raises:
            SessionClosed: The frame was released: the slot may already hold another picture.
        """
        if self._count == 0:
            raise SessionClosed("the frame was released; take planes before, or retain it first.")
        return planes_of(self.i420)

    @property
    def released(self) -> bool:
        return self._count == 0

    def retain(self) -> Self:
        """Take one more count. Returns the frame itself.

        Raises:
            SessionClosed: The frame was already released for good.
        """
        with self._lock:
            if self._count == 0:
                raise SessionClosed("the frame was released; it cannot be retained again.")
            self._count += 1
        return self

    def release(self) -> None:
        """Give one count back; the last returns the slot. Does nothing once that has happened."""
        with self._lock:
            if self._count == 0:
                return
            self._count -= 1
            if self._count:
                return
        if self.give_back is not None:
            self.give_back(self.i420)


class FramePool:
    """A fixed number of slots of one size. Nothing is allocated for pixels after construction.

    A pool belongs to one session and slots never move between pools, so no session can receive
    memory that another one drew into. Thread-safe: encoder threads release what the render thread
    acquires.
    """

    def __init__(self, width: int, height: int, slots: int) -> None:
        if width % 2 or height % 2 or width <= 0 or height <= 0:
            raise ValueError(f"I420 needs even sides, not {width}x{height}.")
        if slots < 1:
            raise ValueError(f"a pool needs at least one slot, not {slots}.")
        self.width = width
        self.height = height
        self.slots = slots
        self._lock = threading.Lock()
        self._closed = False
        # Neutral grey, so that a slot shown too early is visibly wrong and not somebody's old
        # memory.
        self._free = [np.full((height * 3 // 2, width), 128, np.uint8) for _ in range(slots)]

    @property
    def free(self) -> int:
        return len(self._free)

    def acquire(self, tick: Tick = NO_TICK) -> Frame | None:
        """A frame over a free slot, or None. Never waits or allocates."""
        with self._lock:
            if self._closed:
                raise SessionClosed("the frame pool is closed.")
            if not self._free:
                return None
            i420 = self._free.pop()
        return Frame(tick, self.width, self.height, i420, give_back=self._take_back)

    def close(self) -> None:
        """Frees the slots; those still held are freed when their frames are released."""
        with self._lock:
            self._closed = True
            self._free.clear()

    def _take_back(self, i420: np.ndarray) -> None:
        with self._lock:
            if not self._closed:
                self._free.append(i420)
