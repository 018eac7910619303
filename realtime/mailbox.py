"""One slot; the newest item wins. Live video never waits in a queue.

An item that will not be delivered is returned to whoever put it (or closed the box), because it
may hold a frame slot that must be given back.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Generic, TypeVar

T = TypeVar("T")
_EMPTY = object()


class MailboxClosed(Exception):
    """The box was closed and nothing will come any more."""


class Mailbox(Generic[T]):
    """For one event loop: both ends run on it."""

    def __init__(self) -> None:
        self.overwritten = 0  # items replaced before anybody took them
        self._item: object = _EMPTY
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return int(self._item is not _EMPTY)

    def put(self, item: T) -> T | None:
        """Leave `item`; returns the one it replaced, if any. Never waits."""
        old, self._item = self._item, item
        self._filled.set()
        if old is _EMPTY:
            return None
        self.overwritten += 1
        return old  # type: ignore[return-value]

    def get_nowait(self) -> T | None:
        """Take the item, or None if there is none."""
        item, self._item = self._item, _EMPTY
        self._filled.clear()
        return None if item is _EMPTY else item  # type: ignore[return-value]

    async def get(self) -> T:
        """Wait for an item and take it. Cancelling loses nothing: the item stays in the box."""
        while self._item is _EMPTY:
            await self._filled.wait()
        item, self._item = self._item, _EMPTY
        self._filled.clear()
        return item  # type: ignore[return-value]


class ThreadMailbox(Generic[T]):
    """The same between threads; `close` ends the reader.

    A lock that is free while there is something to read wakes the reader: a `Condition` does the
    same in some hundred steps of Python on either side, which the newest frame would wait for.
    """

    def __init__(self) -> None:
        self.overwritten = 0
        self._item: object = _EMPTY
        self._closed = False
        self._guard = threading.Lock()  # of all that is here; held for a moment
        self._filled = threading.Lock()  # free: an item lies here, or the box is closed
        self._filled.acquire()

    @property
    def closed(self) -> bool:
        return self._closed

    def __len__(self) -> int:
        return int(self._item is not _EMPTY)

    def put(self, item: T) -> T | None:
        """Leave `item`; returns the one it replaced, or `item` itself if the box is closed."""
        with self._guard:
            if self._closed:
                return item
            old, self._item = self._item, item
            if old is _EMPTY:
                self._filled.release()
                return None
            self.overwritten += 1
            return old  # type: ignore[return-value]

    def get(self) -> T:
        """Wait for an item and take it.

        Raises:
            MailboxClosed: The box is closed.
        """
        self._filled.acquire()
        with self._guard:
            if self._closed:
                self._filled.release()  # for the next reader
                raise MailboxClosed
            item, self._item = self._item, _EMPTY
            return item  # type: ignore[return-value]

    def close(self) -> T | None:
        """End it: readers get MailboxClosed. Returns the item nobody took, if any."""
        with self._guard:
            item, self._item = self._item, _EMPTY
            if item is _EMPTY and not self._closed:
                self._filled.release()
            self._closed = True
            return None if item is _EMPTY else item  # type: ignore[return-value]
