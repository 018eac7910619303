"""The thread that builds models, and that nobody has to wait for at the end.

A model under construction cannot be interrupted: it may be seconds deep in one call. So the thread
is a daemon, which an executor's is not, and the end of the process waits EXIT_GRACE_S for it.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, TypeVar

from realtime.errors import SessionClosed

THREAD = "stylewire-load"
EXIT_GRACE_S = 1.5

T = TypeVar("T")


class Loader(Generic[T]):
    """Builds one thing after the other; what is asked for twice meanwhile is built once.

    Bounded by the keys: at most one job of each waits.

    Args:
        prepare: Called first in the thread, which starts with the first job.
    """

    def __init__(self, prepare: Callable[[], None]) -> None:
        self._prepare = prepare
        self._jobs: SimpleQueue[tuple[str, Callable[[], T]] | None] = SimpleQueue()
        self._pending: dict[str, Future[T]] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)
        self._closed = False

    def submit(self, key: str, job: Callable[[], T]) -> Future[T]:
        """The result of `job`, or of the one that is on its way for `key`.

        The future is shared: whoever does not want it any more must not cancel it.

        Raises:
            SessionClosed: The loader is closed.
        """
        with self._lock:
            if self._closed:
                raise SessionClosed("the engine was closed; no model is loaded any more.")
            future = self._pending.get(key)
            if future is None:
                future = self._pending[key] = Future()
                self._jobs.put((key, job))
                if self._thread.ident is None:
                    self._thread.start()
            return future

    def close(self) -> None:
        """End the thread after the job it is at. Whoever waits gets SessionClosed, now."""
        with self._lock:
            self._closed = True
            pending, self._pending = self._pending, {}
        for future in pending.values():
            future.set_exception(SessionClosed("the engine was closed while a model was loading."))
        self._jobs.put(None)
        if self._thread.is_alive():
            # A thread that is still in native code when the interpreter goes can take the process
            # down with it: leave it a moment.
            atexit.register(self._thread.join, EXIT_GRACE_S)

    def _work(self) -> None:
        self._prepare()
        while (item := self._jobs.get()) is not None and not self._closed:
            self._do(*item)
            del item  # or it would keep the last job's model alive

    def _do(self, key: str, job: Callable[[], T]) -> None:
        try:
            result = job()
        except BaseException as error:  # the thread's outer edge: it belongs to whoever asked
            future = self._finished(key)
            if future is not None:
                future.set_exception(error)
        else:
            future = self._finished(key)
            if future is not None:
                future.set_result(result)

    def _finished(self, key: str) -> Future[T] | None:
        """Out of `pending` before the result is told: who asks after that begins anew."""
        with self._lock:
            return self._pending.pop(key, None)


def busy_after_grace() -> bool:
    """Whether a loader of a closed engine still builds, EXIT_GRACE_S from now at the latest."""
    busy = [thread for thread in threading.enumerate() if thread.name == THREAD]
    for thread in busy:
        thread.join(EXIT_GRACE_S / len(busy))
    return any(thread.is_alive() for thread in busy)
