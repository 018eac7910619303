"""The one thread that draws, its queue, and the thread that waits for a device beside it.

All drawing happens in one thread, because a model's caches and a CUDA stream want one owner. Where
a device draws, that thread only hands work over; a second one waits for the pictures and copies
them, so that the next are begun meanwhile.

Nothing here grows: a frame in the queue holds a slot of its session's few, a cancelled one is taken
out, and a renderer's ring bounds what is on its way.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from realtime.errors import SessionClosed
from realtime.flight import Flight, FrameJob, fail_all

EXIT_GRACE_S = 1.5
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Call:
    """Something other than a frame to be done in the render thread."""

    function: Callable[[], Any]
    future: Future[Any]

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.function()
        except BaseException as error:  # it belongs to whoever asked
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class RenderThread:
    """Draws what is asked for, in order, and together what can be drawn together.

    Args:
        paint: Begins to draw jobs of one kind; in the render thread. It yields each flight as soon
            as a renderer has taken it on.
        most: How many jobs like this one may be drawn together; in the render thread.
        prepare: Called first in the render thread.
    """

    def __init__(
        self,
        paint: Callable[[Sequence[FrameJob]], Iterator[Flight]],
        most: Callable[[FrameJob], int],
        prepare: Callable[[], None],
    ) -> None:
        self._paint, self._most, self._prepare = paint, most, prepare
        self._jobs: deque[FrameJob | _Call] = deque()
        self._news = threading.Condition()
        self._closed = False
        self._last: _Call | None = None
        self._batches: Counter[int] = Counter()
        self._finisher = _Finisher()
        self._thread = threading.Thread(target=self._work, name="stylewire-render", daemon=True)
        self._thread.start()

    @property
    def batches(self) -> dict[int, int]:
        """How often how many frames were drawn together."""
        return dict(sorted(self._batches.copy().items()))

    def draw(self, job: FrameJob) -> None:
        """Have `job` drawn. Its future tells the outcome.

        Raises:
            SessionClosed: The thread was told to end.
        """
        self._put(job)

    def forget(self, job: FrameJob) -> None:
        """Take a cancelled job out of the queue, if it is still there."""
        with self._news:
            if job in self._jobs:
                self._jobs.remove(job)

    def call(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have something else done in the render thread, between frames.

        Raises:
            SessionClosed: The thread was told to end.
        """
        call = _Call(lambda: function(*arguments), Future())
        self._put(call)
        return call.future

    def _put(self, job: FrameJob | _Call) -> None:
        with self._news:
            if self._closed:
                raise SessionClosed("the engine is closed; nothing is drawn any more.")
            self._jobs.append(job)
            self._news.notify()

    def close(self, last: Callable[[], None]) -> Future[None]:
        """End after what was asked for until now, and after that do `last` in the thread.

        When that is done, `join`: a thread that is still about to end when the interpreter goes
        can take the process down with it.
        """
        future: Future[None] = Future()
        with self._news:
            self._closed = True
            self._last = _Call(last, future)
            self._news.notify()
        return future

    def join(self, timeout_s: float = EXIT_GRACE_S) -> None:
        """Wait until the thread is gone; the interpreter waits once more, if it is not."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            atexit.register(self._thread.join, EXIT_GRACE_S)

    # ---- in the render thread

    def _work(self) -> None:
        self._prepare()
        while taken := self._take():
            self._do(taken)
            taken = None  # or it would keep the last job's memory alive
        self._finisher.close()
        if self._last is not None:
            self._last.run()

    def _take(self) -> _Call | list[FrameJob] | None:
        """What to do next; frames like the first, if any wait now. None at the end."""
        with self._news:
            while not self._jobs:
                if self._closed:
                    return None
                self._news.wait()
            head = self._jobs.popleft()
            if isinstance(head, _Call):
                return head
            jobs = [head]
            most = self._most(head) if self._jobs else 1
            for job in list(self._jobs) if most > 1 else ():
                if len(jobs) < most and isinstance(job, FrameJob) and job.kind == head.kind:
                    self._jobs.remove(job)
                    jobs.append(job)
            return jobs

    def _do(self, taken: _Call | list[FrameJob]) -> None:
        if isinstance(taken, _Call):
            taken.run()
            return
        jobs = [job for job in taken if job.future.set_running_or_notify_cancel()]
        if not jobs:
            return
        try:
            for flight in self._paint(jobs):
                self._batches[len(flight.jobs)] += 1
                jobs = [job for job in jobs if job not in flight.jobs]
                if flight.asynchronous:
                    self._finisher.put(flight)
                else:
                    flight.finish(lambda: bool(self._jobs))
        except Exception as error:  # the thread's outer edge; what `paint` resolved stays so
            log.exception("drawing")
            fail_all([job for job in jobs if not job.future.done()], error)


class _Finisher:
    """The thread that waits for pictures on their way. It starts with the first that are."""

    def __init__(self) -> None:
        self._flights: SimpleQueue[Flight | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="stylewire-finish", daemon=True)

    def put(self, flight: Flight) -> None:
        self._flights.put(flight)
        if self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        """Finish what is on its way, and end."""
        self._flights.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        while flight := self._flights.get():
            flight.finish(lambda: not self._flights.empty())
            flight = None  # or it would keep a dropped model alive
