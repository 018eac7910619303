"""One codec of a session: its viewers and its rate on the event loop, its encoder in a thread.

The encoder's thread also sends: viewers with a wire have a picture's packets on their way before
the event loop knows of it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from realtime.config import StreamConfig
from realtime.encoder import Coded, Encoder, open_encoder
from realtime.errors import EncoderFailed
from realtime.frame import Frame
from realtime.mailbox import MailboxClosed, ThreadMailbox
from realtime.rate import KeyframeLimiter, RateController
from realtime.rtp_wire import NoWay
from realtime.sinks.viewer_track import ViewerTrack

_log = logging.getLogger(__name__)

REOPEN_SPACING_NS = 10_000_000_000  # an encoder that fails again so soon will not recover
JOIN_S = 5.0  # far longer than any picture takes to encode


@dataclass
class Wanted:
    """Settings that the loop sets one by one; an encoder thread takes them before each picture."""

    fps: float
    bitrate: int
    ceiling: int


class EncoderLane:
    """One codec: its viewers and rate on the loop, its encoder in a thread.

    The encoder is opened for the first frame, at that frame's size.

    Args:
        publish: Gets each picture, on the loop; what can be sent by wires is sent by then.
        fail: Told on the loop, once the thread has ended, that the encoder has failed for good.
    """

    def __init__(
        self,
        codec: str,
        stream: StreamConfig,
        wanted: Wanted,
        publish: Callable[[EncoderLane, Coded], None],
        fail: Callable[[EncoderLane, EncoderFailed], None],
    ) -> None:
        self.codec = codec
        self.detail = ""
        self.tracks: set[ViewerTrack] = set()
        self._wired: tuple[ViewerTrack, ...] = ()  # replaced, never changed: the thread reads it
        self.watching = False  # somebody's transport is up
        self.rate = RateController(
            floor=min(stream.bitrate_floor, wanted.ceiling), ceiling=wanted.ceiling
        )
        self.limiter = KeyframeLimiter(int(stream.keyframe_interval_s * 1e9))
        self.encoded = self.keyframes = self.reopened = 0
        self.wanted = wanted
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
        self._look()

    def request_keyframe(self) -> None:
        self.limiter.request()

    def leave(self, track: ViewerTrack) -> None:
        self.tracks.discard(track)
        self._look()
        self.apply(self.rate.forget(track, time.monotonic_ns()))

    def _look(self) -> None:
        """Who watches, and how."""
        self.watching = any(track.started for track in self.tracks)
        self._wired = tuple(track for track in self.tracks if track.started and track.wired)

    def apply(self, bitrate: int) -> None:
        self.wanted.bitrate = bitrate

    def offer(self, frame: Frame) -> bool:
        """From any thread; never blocks. Whether it was taken."""
        replaced = self._mailbox.put(frame.retain())
        if replaced is not None:
            replaced.release()
        return replaced is not frame

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

    def _over(self, failure: EncoderFailed | None) -> None:
        self._thread.join()  # this was its last word
        self._ended.set()
        if failure is not None:
            self._fail(self, failure)

    # In the encoder thread.

    def _run(self) -> None:
        encoder: Encoder | None = None
        failure: EncoderFailed | None = None
        try:
            while True:
                frame = self._mailbox.get()
                try:
                    if encoder is None:
                        encoder = self._open(frame)
                    coded = self._encode(encoder, frame)
                finally:
                    frame.release()
                self._send(coded)
                self._hand_over(self._publish, self, coded)
        except MailboxClosed:
            pass
        except EncoderFailed as error:
            _log.error("%s stops: %s", self.codec, error)
            failure = error
        except Exception as error:
            _log.exception("the %s encoder thread failed", self.codec)
            failure = EncoderFailed(f"{self.codec}: {error!r}.")
        finally:
            left = self._mailbox.close()  # what comes from now on is refused, not kept
            if left is not None:
                left.release()
            if encoder is not None:
                encoder.close()
            self._hand_over(self._over, failure)

    def _send(self, coded: Coded) -> None:
        wired = self._wired
        first = self.encoded % len(wired) if wired else 0  # so that nobody is always the last
        for track in (*wired[first:], *wired[:first]):
            try:
                track.send(coded)
            except NoWay as error:
                self._hand_over(track.fail, f"There was {error}")
            except Exception as error:  # one viewer's trouble is not the others'
                _log.exception("sending a picture to a viewer")
                self._hand_over(track.fail, f"Sending failed ({type(error).__name__}).")

    def _open(self, frame: Frame) -> Encoder:
        wanted = self.wanted
        encoder = open_encoder(
            self.codec,
            frame.width,
            frame.height,
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
        now_ns = time.monotonic_ns()
        keyframe = self.limiter.due(now_ns) or (encoder.overdue and self.limiter.free(now_ns))
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
            left = self._mailbox.close()
            if left is not None:
                left.release()
