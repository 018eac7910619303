"""torch's own CPU streams and events, with a log; copies end when they are told to."""

from __future__ import annotations

import threading
from typing import Any

import torch

PATIENCE_S = 20


class SlowDevice:
    """Stands where `torch.cuda` does. Work is done at once, as on a CPU; only the waiting for an
    event takes as long as `hold` says.
    """

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.waiting = threading.Semaphore(0)  # released by each that begins to wait for a copy
        self._through = threading.Semaphore(0)
        self._held = False
        device = self

        class Stream(torch.cpu.Stream):
            def wait_event(self, event: Any) -> None:
                device.log.append(("wait", self, event))

        class Event(torch.cpu.Event):
            def record(self, stream: Any = None) -> None:
                device.log.append(("record", stream, self))

            def synchronize(self) -> None:
                device.log.append(("synchronize", threading.current_thread().name, self))
                device.waiting.release()
                if device._held:
                    assert device._through.acquire(timeout=PATIENCE_S)

        self.Stream, self.Event = Stream, Event
        self.stream = torch.cpu.stream
        self.synchronize = torch.cpu.synchronize

    def hold(self) -> None:
        """From now on copies end one by one, when `let` is called."""
        self._held = True

    def let(self, count: int = 1) -> None:
        self._through.release(count)
