"""One viewer's end of a shared encode: sent in the encoder's thread, or pulled by its sender."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import av
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from realtime.encoder import Coded

ROWS = 512  # stamps kept per viewer until somebody takes them; 4 s at 120 a second


class Source(Protocol):
    """What a track needs of whoever encodes for it."""

    codec: str

    def started(self) -> None:
        """A track's transport is up, or its pictures go another way from now on."""
        ...

    def request_keyframe(self) -> None:
        """A track cannot go on without one."""
        ...

    def leave(self, track: ViewerTrack) -> None:
        """A track has ended. Called once or more."""
        ...


class Wire(Protocol):
    """Sends whole pictures, from any thread; see `realtime.rtp_wire`."""

    def send(self, payloads: Sequence[bytes], timestamp: int, keyframe: bool) -> bool: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class FrameRow:
    """What became of one picture on its way to one viewer."""

    index: int  # the tick's
    timestamp: int  # 90 kHz; the viewer's own origin is added on the wire
    # Monotonic ns: "due", "sampled", "rendered", "encoded", "sent" (when sending began); with a
    # wire also "left": its last packet is in the hands of the system.
    stamps: dict[str, int]
    bytes: int
    keyframe: bool


class ViewerTrack(MediaStreamTrack):
    """One viewer's pictures.

    Its sender pulls them by `recv`, and at most `limit` wait for it; or, once a wire is attached,
    the encoder's thread sends them, and `recv` gives none.

    Nothing is kept for it before its first `recv`, since only then its transport is up; that call
    asks for a keyframe. After a picture that did not reach the viewer whole, none is sent before
    the next keyframe.
    """

    kind = "video"

    def __init__(self, source: Source, limit: int) -> None:
        super().__init__()
        self.codec = source.codec
        self.error = ""  # why it was ended from this side, a sentence for people
        self.dropped = 0  # pictures this viewer did not get
        self.overflows = 0
        self.sent = 0
        self.bytes = 0
        self._source = source
        self._limit = limit
        self._queue: deque[Coded] = deque()
        self._rows: deque[FrameRow] = deque(maxlen=ROWS)
        self._ready = asyncio.Event()
        self._started = False
        self._needs_keyframe = True
        self._wire: Wire | None = None
        self._after: Callable[[], None] = lambda: None

    @property
    def started(self) -> bool:
        """Its transport is up and it pulls."""
        return self._started

    @property
    def wired(self) -> bool:
        """Its pictures are sent in the encoder's thread."""
        return self._wire is not None

    @property
    def starving(self) -> bool:
        """It is shown nothing before the next keyframe."""
        return self._started and self._needs_keyframe

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def request_keyframe(self) -> None:
        """This viewer cannot go on without one. Requests of all viewers meet in one limiter."""
        self._source.request_keyframe()

    def take_rows(self) -> list[FrameRow]:
        """The rows of pictures sent since the last call; the oldest beyond `ROWS` are lost."""
        rows = []
        while self._rows:  # one by one: the encoder's thread may add one meanwhile
            rows.append(self._rows.popleft())
        return rows

    def attach(self, wire: Wire, after: Callable[[], None]) -> None:
        """Send pictures by `wire` from now on. Before the first `recv`. It is closed at the end.

        Args:
            after: Called on the loop after each picture.
        """
        if self.readyState == "live":
            self._wire, self._after = wire, after
        else:
            wire.close()

    def send(self, coded: Coded) -> None:
        """A picture for this viewer, in coding order; in the encoder's thread."""
        wire = self._wire
        if wire is None or (self._needs_keyframe and not coded.keyframe):
            self.dropped += 1
            return
        self._needs_keyframe = False
        begun_ns = time.monotonic_ns()
        if wire.send(coded.payloads, coded.timestamp, coded.keyframe):
            self._note(coded, begun_ns, time.monotonic_ns())
        else:
            self.overflows += 1
            self.dropped += 1
            self._needs_keyframe = True  # the sink asks for it, on the loop

    def push(self, coded: Coded) -> None:
        """A picture was coded; on the loop, in coding order. Without a wire it is to be pulled."""
        if self.wired:
            self._after()
            return
        if not self._started:
            return
        if self._needs_keyframe and not coded.keyframe:
            self.dropped += 1
            return
        if len(self._queue) >= self._limit:
            # Never single pictures: those after a missing one refer to it.
            self.overflows += 1
            self.dropped += len(self._queue)
            self._queue.clear()
            if not coded.keyframe:
                self.dropped += 1
                self._needs_keyframe = True
                self.request_keyframe()
                return
        self._needs_keyframe = False
        self._queue.append(coded)
        self._ready.set()

    async def recv(self) -> av.Packet:
        """The next picture; with a wire, none until the end. Cancelling loses nothing.

        Raises:
            MediaStreamError: the track was stopped.
        """
        if self.readyState == "live" and not self._started:
            self._started = True
            self._source.started()
            self.request_keyframe()
        while not self._queue:
            if self.readyState != "live":
                raise MediaStreamError
            self._ready.clear()
            await self._ready.wait()
        coded = self._queue.popleft()
        self._note(coded, time.monotonic_ns())
        return coded.packet

    def fail(self, why: str) -> None:
        """End it from this side. `why` is a sentence for whoever watches."""
        self.error = why
        self.stop()

    def stop(self) -> None:
        """Leave the sink. Idempotent."""
        super().stop()
        self._queue.clear()
        self._ready.set()  # a pending recv ends
        self._source.leave(self)
        if self._wire is not None:
            self._wire.close()

    def _note(self, coded: Coded, sent_ns: int, left_ns: int | None = None) -> None:
        stamps = {**coded.stamps, "sent": sent_ns}
        if left_ns is not None:
            stamps["left"] = left_ns
        self._rows.append(
            FrameRow(coded.index, coded.timestamp, stamps, coded.bytes, coded.keyframe)
        )
        self.sent += 1
        self.bytes += coded.bytes
