"""Encode once, send to many: frames in, finished pictures to every viewer's track.

Threads: `offer`, tracks and all settings live on the event loop. Each codec in use has one encoder
thread, fed by a mailbox of one (the newest frame wins), which hands pictures back to the loop.
Nothing here waits in a queue: a viewer that does not keep up loses whole groups of pictures and
gets a keyframe, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import av
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from realtime.config import StreamConfig
from realtime.encoder import Coded, Encoder, open_encoder
from realtime.errors import EncoderFailed, SessionClosed
from realtime.frame import Frame
from realtime.mailbox import MailboxClosed, ThreadMailbox
from realtime.rate import KeyframeLimiter, RateController

_log = logging.getLogger(__name__)

ROWS = 512  # stamps kept per viewer until somebody takes them; 4 s at 120 a second
REOPEN_SPACING_NS = 10_000_000_000  # an encoder that fails again so soon will not recover
JOIN_S = 5.0  # far longer than any picture takes to encode


@dataclass(frozen=True)
class FrameRow:
    """What became of one picture on its way to one viewer."""

    index: int  # the tick's
    timestamp: int  # 90 kHz; the viewer's own origin is added on the wire
    stamps: dict[str, int]  # monotonic ns: "due", "sampled", "rendered", "encoded", "sent"
    bytes: int
    keyframe: bool


class ViewerTrack(MediaStreamTrack):
    """What one viewer's sender pulls. Holds at most `limit` pictures.

    Nothing is kept for it before its first `recv`, since only then its transport is up; that call
    asks for a keyframe.
    """

    kind = "video"

    def __init__(self, lane: _Lane, limit: int) -> None:
        super().__init__()
        self.codec = lane.codec
        self.dropped = 0  # pictures this viewer did not get
        self.overflows = 0
        self.sent = 0
        self.bytes = 0
        self._lane = lane
        self._limit = limit
        self._queue: deque[Coded] = deque()
        self._rows: deque[FrameRow] = deque(maxlen=ROWS)
        self._ready = asyncio.Event()
        self._started = False
        self._needs_keyframe = True

    @property
    def started(self) -> bool:
        """Its transport is up and it pulls."""
        return self._started

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def request_keyframe(self) -> None:
        """This viewer cannot go on without one. Requests of all viewers meet in one limiter."""
        self._lane.limiter.request()

    def take_rows(self) -> list[FrameRow]:
        """The rows of pictures sent since the last call; the oldest beyond `ROWS` are lost."""
        rows = list(self._rows)
        self._rows.clear()
        return rows

    def push(self, coded: Coded) -> None:
        """A picture for this viewer, in coding order."""
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
        """The next picture. Cancelling loses nothing.

        Raises:
            MediaStreamError: the track was stopped.
        """
        if self.readyState == "live" and not self._started:
            self._started = True
            self._lane.started()
            self.request_keyframe()
        while not self._queue:
            if self.readyState != "live":
                raise MediaStreamError
            self._ready.clear()
            await self._ready.wait()
        coded = self._queue.popleft()
        stamps = {**coded.stamps, "sent": time.monotonic_ns()}
        self._rows.append(
            FrameRow(coded.index, coded.timestamp, stamps, coded.bytes, coded.keyframe)
        )
        self.sent += 1
        self.bytes += coded.bytes
        return coded.packet

    def stop(self) -> None:
        """Leave the sink. Idempotent."""
        super().stop()
        self._queue.clear()
        self._ready.set()  # a pending recv ends
        self._lane.leave(self)


@dataclass
class _Wanted:
    """Settings that the loop leaves for an encoder thread; each is replaced whole."""

    fps: float
    bitrate: int
    ceiling: int


class _Lane:
    """One codec: its viewers and rate on the loop, its encoder in a thread."""

    def __init__(
        self,
        codec: str,
        stream: StreamConfig,
        wanted: _Wanted,
        publish: Callable[[_Lane, Coded], None],
        fail: Callable[[EncoderFailed], None],
    ) -> None:
        self.codec = codec
        self.detail = ""
        self.tracks: set[ViewerTrack] = set()
        self.watching = False  # somebody's transport is up
        self.rate = RateController(
            floor=min(stream.bitrate_floor, wanted.ceiling), ceiling=wanted.ceiling
        )
        self.limiter = KeyframeLimiter(int(stream.keyframe_interval_s * 1e9))
        self.encoded = self.keyframes = self.reopened = 0
        self.wanted = wanted
        self._size = stream.resolution
        self._publish, self._fail = publish, fail
        self._loop = asyncio.get_running_loop()
        self._mailbox: ThreadMailbox[Frame] = ThreadMailbox()
        self._ended = asyncio.Event()
        self._failed_ns: int | None = None
        self._thread = threading.Thread(target=self._run, name=f"encode {codec}", daemon=True)
        self._thread.start()

    # On the event loop.

    @property
    def overwritten(self) -> int:
        return self._mailbox.overwritten

    def started(self) -> None:
        self.watching = True

    def leave(self, track: ViewerTrack) -> None:
        self.tracks.discard(track)
        self.watching = any(other.started for other in self.tracks)
        self.apply(self.rate.forget(track, time.monotonic_ns()))

    def apply(self, bitrate: int) -> None:
        self.wanted.bitrate = bitrate

    def offer(self, frame: Frame) -> None:
        replaced = self._mailbox.put(frame.retain())
        if replaced is not None:
            replaced.release()

    def close(self) -> None:
        """Stop the tracks and let the thread end after the picture it is at."""
        for track in list(self.tracks):
            track.stop()
        left = self._mailbox.close()
        if left is not None:
            left.release()

    async def joined(self) -> None:
        """Wait for the thread's end. Cancelled, it ends all the same."""
        try:
            async with asyncio.timeout(JOIN_S):
                await self._ended.wait()
        except TimeoutError:
            _log.error("the %s encoder did not finish its picture in %g s", self.codec, JOIN_S)
        else:
            self._thread.join()  # it has nothing left to do

    # In the encoder thread.

    def _run(self) -> None:
        encoder: Encoder | None = None
        try:
            encoder = self._open()
            while True:
                frame = self._mailbox.get()
                try:
                    coded = self._encode(encoder, frame)
                finally:
                    frame.release()
                self._hand_over(self._publish, self, coded)
        except MailboxClosed:
            pass
        except EncoderFailed as error:
            _log.error("%s stops: %s", self.codec, error)
            self._hand_over(self._fail, error)
        except Exception as error:
            _log.exception("the %s encoder thread failed", self.codec)
            self._hand_over(self._fail, EncoderFailed(f"{self.codec}: {error!r}"))
        finally:
            left = self._mailbox.close()  # what comes from now on is refused, not kept
            if left is not None:
                left.release()
            if encoder is not None:
                encoder.close()
            self._hand_over(self._ended.set)

    def _open(self) -> Encoder:
        wanted = self.wanted
        encoder = open_encoder(
            self.codec,
            self._size,
            self._size,
            wanted.fps,
            wanted.bitrate,
            ceiling=wanted.ceiling,
            floor=self.rate.floor,
        )
        self.detail = encoder.detail
        return encoder

    def _encode(self, encoder: Encoder, frame: Frame) -> Coded:
        """One picture; after a failure once more with an encoder opened anew."""
        try:
            return self._attempt(encoder, frame)
        except EncoderFailed as error:
            now_ns = time.monotonic_ns()
            if self._failed_ns is not None and now_ns - self._failed_ns < REOPEN_SPACING_NS:
                raise
            self._failed_ns = now_ns
            self.reopened += 1
            _log.warning("%s is opened anew: %s", self.codec, error)
            encoder.reopen()
            return self._attempt(encoder, frame)

    def _attempt(self, encoder: Encoder, frame: Frame) -> Coded:
        self._settle(encoder)
        keyframe = self.limiter.due(time.monotonic_ns())
        coded = encoder.encode(
            frame.i420, frame.tick.pts, keyframe, index=frame.tick.index, stamps=frame.stamps
        )
        self.encoded += 1
        if coded.keyframe:
            self.keyframes += 1
            self.limiter.coded(time.monotonic_ns())
        return coded

    def _settle(self, encoder: Encoder) -> None:
        wanted = self.wanted
        if encoder.ceiling != wanted.ceiling:
            encoder.ceiling = wanted.ceiling
        if encoder.fps != wanted.fps:
            encoder.fps = wanted.fps
        if encoder.bitrate != wanted.bitrate:
            encoder.bitrate = wanted.bitrate

    def _hand_over(self, call: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop was closed while this picture was being coded
            self._mailbox.close()


@dataclass(frozen=True)
class LaneStats:
    """One codec's figures."""

    codec: str
    encoder: str  # which library does the work
    viewers: int
    encoded: int
    keyframes: int
    overwritten: int  # frames replaced in the mailbox before the encoder took them
    reopened: int
    target_bitrate: int  # what the encoder was told, bit/s
    estimate: int | None  # lowest bandwidth estimate of a viewer, bit/s


class WebRtcSink:
    """One session's way to its viewers.

    Args:
        stream: Rates, sizes and limits.
        on_stats: Called on the loop with (codec, picture) after each picture was published.
        on_error: Called on the loop once if an encoder has failed for good. Without it, `offer`
            raises that error.
    """

    def __init__(
        self,
        stream: StreamConfig,
        *,
        on_stats: Callable[[str, Coded], None] | None = None,
        on_error: Callable[[EncoderFailed], None] | None = None,
    ) -> None:
        self._stream = stream
        self._on_stats, self._on_error = on_stats, on_error
        self._fps = stream.fps
        self._ceiling = stream.bitrate
        self._lanes: dict[str, _Lane] = {}
        self._closed = False
        self.error: EncoderFailed | None = None

    def subscribe(self, codec: str) -> ViewerTrack:
        """A track for one more viewer; `track.stop()` ends it. The first of a codec opens it.

        Raises:
            SessionClosed: the sink is closed.
        """
        if self._closed:
            raise SessionClosed("the sink is closed; begin a new session.")
        lane = self._lanes.get(codec)
        if lane is None:
            wanted = _Wanted(self._fps, self._ceiling, self._ceiling)
            lane = _Lane(codec, self._stream, wanted, self._publish, self._fail)
            self._lanes[codec] = lane
        track = ViewerTrack(lane, self._stream.viewer_queue)
        lane.tracks.add(track)
        return track

    def offer(self, frame: Frame) -> None:
        """Hand a frame to every codec that somebody watches. Never blocks; retains what it keeps.

        Raises:
            EncoderFailed: an encoder has failed for good and nobody else was told.
        """
        if self.error is not None and self._on_error is None:
            raise self.error
        if self._closed:
            return
        for lane in self._lanes.values():
            if lane.watching:
                lane.offer(frame)

    async def aclose(self) -> None:
        """Stop all tracks, end all threads, give back all frames. Idempotent."""
        self._closed = True
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():  # all of them first: a cancellation may come while one ends
            lane.close()
        for lane in lanes.values():
            await lane.joined()

    def set_rate(self, bitrate: int) -> None:
        """The most that is sent to one viewer from now on, bit/s."""
        self._ceiling = max(bitrate, self._stream.bitrate_floor)
        now_ns = time.monotonic_ns()
        for lane in self._lanes.values():
            lane.wanted.ceiling = self._ceiling
            lane.apply(lane.rate.limit_to(self._ceiling, now_ns))

    def set_fps(self, fps: float) -> None:
        """The rate at which frames are offered from now on; rate control depends on it."""
        self._fps = fps
        for lane in self._lanes.values():
            lane.wanted.fps = fps

    def bitrate_from(self, viewer: ViewerTrack, bps: int) -> None:
        """A viewer's bandwidth estimate, bit/s."""
        lane = self._lane_of(viewer)
        if lane is not None:
            lane.apply(lane.rate.estimate(viewer, bps, time.monotonic_ns()))

    def loss_from(self, viewer: ViewerTrack, fraction: float) -> None:
        """A viewer's receiver report: the fraction 0..1 of packets lost. Call once for each."""
        lane = self._lane_of(viewer)
        if lane is not None:
            lane.apply(lane.rate.loss(viewer, fraction, time.monotonic_ns()))

    def starved(self) -> list[ViewerTrack]:
        """Viewers that have taken less than the floor for seconds, while it is sent to them."""
        now_ns = time.monotonic_ns()
        return [
            track
            for lane in self._lanes.values()
            for track in lane.rate.starved(now_ns)
            if isinstance(track, ViewerTrack)
        ]

    def target_bitrate(self, codec: str) -> int | None:
        """What the encoder of `codec` was told, bit/s; None if nobody uses that codec."""
        lane = self._lanes.get(codec)
        return None if lane is None else lane.wanted.bitrate

    def stats(self) -> list[LaneStats]:
        """Figures of each codec in use."""
        return [
            LaneStats(
                codec=lane.codec,
                encoder=lane.detail,
                viewers=len(lane.tracks),
                encoded=lane.encoded,
                keyframes=lane.keyframes,
                overwritten=lane.overwritten,
                reopened=lane.reopened,
                target_bitrate=lane.wanted.bitrate,
                estimate=lane.rate.estimate_min,
            )
            for lane in self._lanes.values()
        ]

    def _lane_of(self, viewer: ViewerTrack) -> _Lane | None:
        """None once the viewer has left: late feedback must not bring it back."""
        lane = self._lanes.get(viewer.codec)
        return lane if lane is not None and viewer in lane.tracks else None

    def _publish(self, lane: _Lane, coded: Coded) -> None:
        if coded.keyframe:
            lane.limiter.satisfied()
        for track in list(lane.tracks):
            track.push(coded)
        if self._on_stats is not None:
            self._on_stats(lane.codec, coded)

    def _fail(self, error: EncoderFailed) -> None:
        if self.error is not None or self._closed:
            return
        self.error = error
        if self._on_error is not None:
            self._on_error(error)
