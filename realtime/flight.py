"""Frames between being asked for and being finished."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from realtime import barcode
from realtime.backends import FrameBroken, Pending
from realtime.frame import Frame
from realtime.messages import RenderRequest

if TYPE_CHECKING:
    from realtime.painter import Viewpoint

# Whoever was given a frame begins before the event loop is woken for it: woken together, the loop
# would take the core and the interpreter's lock first, and it has a whole interval's time.
HEAD_START_S = 50e-6  # asked for; with the kernel's own slack it is about twice that
log = logging.getLogger(__name__)


@dataclass(eq=False)
class FrameJob:
    """One frame that somebody waits for.

    Args:
        frame: Drawn into; it belongs to whoever asked, also after a failure.
        view: What is remembered of the session.
        deliver: Gets the finished frame in the thread that finished it; then `future` is resolved.
        future: Resolved when the frame is finished. It can be cancelled until drawing begins.
    """

    request: RenderRequest
    frame: Frame
    view: Viewpoint
    deliver: Callable[[Frame], bool] | None = None
    future: Future[None] = field(default_factory=Future)
    taken: bool = field(default=False, init=False)  # by whoever it was delivered to

    @property
    def kind(self) -> tuple[str, int]:
        """Jobs of one kind may be drawn together."""
        return self.request.look.model, self.request.look.resolution

    def end(self, broken: FrameBroken | None) -> bool:
        """The pixels are in the slot, or are no picture.

        Returns:
            Whether all is well: then `future` is still to be resolved. If not, it has been.
        """
        if broken is not None:
            self.fail(broken)
            return False
        try:
            if self.request.barcode:
                barcode.stamp(self.frame.planes[0], self.request.tick.index)
            self.frame.stamps["rendered"] = time.monotonic_ns()
        except Exception as error:  # this frame's outer edge; its neighbours are fine
            log.exception("finishing a frame")
            fail_all([self], error)
            return False
        try:
            self.taken = self.deliver is not None and self.deliver(self.frame)
        except Exception as error:  # the receiver's, and whoever asked is to know
            self.future.set_exception(error)
            return False
        return True

    def fail(self, error: BaseException) -> None:
        self.future.set_exception(error)


@dataclass(frozen=True)
class Flight:
    """Frames that a renderer has taken on together.

    Args:
        asynchronous: Whether `finish` waits for a device: then it belongs in another thread.
    """

    jobs: Sequence[FrameJob]
    pending: Pending
    asynchronous: bool = False

    def finish(self, more: Callable[[], bool] = lambda: False) -> None:
        """Wait for the pixels and resolve every job, whatever happens: a broken picture is its own
        job's failure, an exception that of each job it keeps from being finished.

        Args:
            more: Whether other frames wait for this thread.
        """
        try:
            broken = self.pending.wait()
            ended = [job for job, why in zip(self.jobs, broken, strict=True) if job.end(why)]
            if any(job.taken for job in ended) and not more():
                time.sleep(HEAD_START_S)
            for job in ended:
                job.future.set_result(None)
        except Exception as error:  # the outer edge of these frames: a device may raise anything
            log.exception("waiting for frames")
            fail_all([job for job in self.jobs if not job.future.done()], error)


def fail_all(jobs: Sequence[FrameJob], error: Exception) -> None:
    """Drawing these together raised `error`: each has an exception of its own."""
    said = str(error)
    if not isinstance(error, FrameBroken):
        said = f"drawing failed ({type(error).__name__}: {error})."
    for job in jobs:
        broken = FrameBroken(said)
        broken.__cause__ = error
        job.fail(broken)
