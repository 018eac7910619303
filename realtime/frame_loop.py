"""The loop: at each tick draw the picture of that moment and offer it. Nothing is queued."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol

from realtime.backends import FrameBroken
from realtime.clock import FrameClock, exact_fps
from realtime.controls import LiveControls
from realtime.engine import NoFreeSlot
from realtime.errors import RealtimeError
from realtime.frame import Frame
from realtime.messages import RenderRequest

BROKEN_IN_A_ROW = 60  # after so many the model is beyond hope and the session ends with a sentence
_MS = 1_000_000
log = logging.getLogger(__name__)


class Renders(Protocol):
    """The part of `Engine` that the loop needs."""

    async def render(
        self, request: RenderRequest, deliver: Callable[[Frame], bool] | None = None
    ) -> Frame: ...


class Sink(Protocol):
    """Takes finished frames. A sink that keeps one beyond the call retains it."""

    def offer(self, frame: Frame) -> bool:
        """Never blocks. Called in the thread that has drawn the frame; whether it was taken."""
        ...

    async def aclose(self) -> None: ...


async def sleep_until(deadline_ns: int) -> None:
    """Sleep until the monotonic time `deadline_ns`; returns within microseconds after it.

    The event loop's timer counts whole milliseconds and rounds up, which alone makes frames 0 to
    2 ms late. So it sleeps the whole milliseconds, and for the rest (at most one) lets the other
    tasks run and looks at the clock: 0.8 % of a core at 30 frames/s.
    """
    left = deadline_ns - time.monotonic_ns()
    if left > _MS:
        await asyncio.sleep((left - _MS // 10) // _MS / 1000)
    while time.monotonic_ns() < deadline_ns:  # noqa: ASYNC110 (no event tells the time)
        await asyncio.sleep(0)


async def frame_loop(
    clock: FrameClock,
    live: LiveControls,
    engine: Renders,
    sink: Sink,
    *,
    session: str,
    barcode: bool = False,
    watched: asyncio.Event | None = None,
    now_ns: Callable[[], int] = time.monotonic_ns,
    sleep_until: Callable[[int], Awaitable[None]] = sleep_until,
) -> NoReturn:
    """Draw and offer frames until cancelled. `clock.counters` says what became of every tick.

    Args:
        watched: While it is not set nobody would see a frame, so none is drawn and no tick is due.
            Time goes on: the next picture is of its own moment, as after any gap.

    Cancellation: clean at each await; a frame on its way gives its slot back.

    Raises:
        RealtimeError: BROKEN_IN_A_ROW frames failed, or the session or model is gone.
    """
    broken = 0
    while True:
        if watched is not None and not watched.is_set():
            await watched.wait()
            clock.resume(now_ns())
        if exact_fps(live.fps) != clock.fps:
            clock.retime(live.fps, now_ns())
        tick = clock.next_tick(now_ns())
        await sleep_until(tick.deadline_ns)
        request = RenderRequest(
            session, tick, live.look_at(tick.t), live.motion_at(tick.t), barcode
        )
        try:
            frame = await engine.render(request, sink.offer)
        except NoFreeSlot:
            clock.counters.dropped += 1
            continue
        except FrameBroken as error:
            clock.counters.repeated += 1
            broken += 1
            if broken == 1:
                log.warning("session %s, tick %d: %s", session, tick.index, error)
            if broken >= BROKEN_IN_A_ROW:
                raise RealtimeError(
                    f"{broken} frames in a row failed; the last: {error}"
                ) from error
            continue
        broken = 0
        frame.release()
        clock.finished(tick, now_ns())
