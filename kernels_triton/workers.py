"""Threads for the CPU kernels: they sleep while there is nothing to do, and never spin."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import torch


class _Worker:
    """A thread that waits for work. One caller at a time.

    A queue each way wakes the other side in about half the time that an executor's futures take.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="stylewire-kernel", daemon=True).start()

    def begin(self, work: Callable[[], Any]) -> None:
        self._work.put(work)

    def end(self) -> BaseException | None:
        """Wait; what the work raised."""
        return self._ends.get()

    def _serve(self) -> None:
        while True:
            self._ends.put(_outcome(self._work.get()))


def _outcome(work: Callable[[], Any]) -> BaseException | None:
    """Run it; what it raised. Keeps no reference to it while the thread waits for more."""
    try:
        work()
    except BaseException as error:  # the caller's to handle, whatever it is
        return error
    return None


# Workers that nobody uses; callers on several threads take different ones. Appending and popping
# are atomic. Threads do not survive a fork.
_idle: list[_Worker] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)


def shared(kernel: Callable[..., Any], tasks: int, *arguments: Any) -> None:
    """`kernel(*arguments, begin, end)` over [0, tasks), by as many threads as torch has.

    Args:
        kernel: Compiled, gives up the interpreter lock.
    Raises:
        BaseException: What a part has raised, after all have ended; the caller's own part first.
    """
    threads = min(torch.get_num_threads(), tasks)
    if threads <= 1:
        kernel(*arguments, 0, tasks)
        return
    edges = [tasks * k // threads for k in range(threads + 1)]
    workers = [_take() for _ in range(threads - 1)]
    for worker, begin, end in zip(workers, edges[1:], edges[2:], strict=False):
        worker.begin(functools.partial(kernel, *arguments, begin, end))
    raised: list[BaseException] = []
    try:
        kernel(*arguments, edges[0], edges[1])
    finally:  # nobody may write into the caller's memory once this returns
        for worker in workers:
            error = worker.end()
            _idle.append(worker)
            if error is not None:
                raised.append(error)
    if raised:
        raise raised[0]


def _take() -> _Worker:
    try:
        return _idle.pop()
    except IndexError:
        return _Worker()
