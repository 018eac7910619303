"""Clips of the steps to come, read while this one is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from models.training.contracts import ClipBatch, ClipRequest, ClipSource
from models.training.draws import Draws


class Prefetch:
    """Reads ahead in a thread of its own; called with (step, micro-batch) in the run's order.

    What is read depends on the draws alone, so a run that begins in the middle reads what it would
    have read.

    Args:
        source: Only this object's thread calls it meanwhile. It is not closed here.
        requests: Of a micro-batch, e.g. `Trainer.requests`.
        seed: Of the run.
        steps, micros: The order: micro-batches of this process, within each step.
        ahead: How many micro-batches are held at most.
    """

    def __init__(
        self,
        source: ClipSource,
        requests: Callable[[Draws], Sequence[ClipRequest]],
        seed: int,
        steps: Iterable[int],
        micros: Sequence[int],
        *,
        ahead: int = 3,
    ) -> None:
        self._source = source
        self._requests = requests
        self._seed = seed
        self._order: Iterator[tuple[int, int]] = ((s, m) for s in steps for m in micros)
        self._ahead = ahead
        self._pending: deque[tuple[tuple[int, int], Future[ClipBatch]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clips")

    def __enter__(self) -> Prefetch:
        self._fill()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()

    def __call__(self, step: int, micro: int) -> ClipBatch:
        """The clips of a micro-batch; whatever reading them raised is raised here."""
        place, future = self._pending.popleft()
        assert place == (step, micro), f"asked for {(step, micro)}, in turn is {place}"
        self._fill()
        return future.result()

    def _fill(self) -> None:
        while len(self._pending) < self._ahead:
            place = next(self._order, None)
            if place is None:
                return
            wanted = self._requests(Draws(self._seed, *place))
            self._pending.append((place, self._thread.submit(self._source.clips, wanted)))
