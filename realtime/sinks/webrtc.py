"""Encode once, send to many: frames in, finished pictures to every viewer's track.

Threads: tracks and all settings live on the event loop; `offer` may be called from any thread, best
from the one that drew the frame. Each codec in use has one encoder thread, fed by a mailbox of one
(the newest frame wins), which sends to viewers that have a wire and hands pictures to the loop.
Nothing here waits in a queue: a viewer that does not keep up loses whole groups of pictures and
gets a keyframe, and nobody else notices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from realtime.config import StreamConfig
from realtime.encoder import Coded
from realtime.errors import EncoderFailed, SessionClosed
from realtime.frame import Frame
from realtime.sinks.encoder_lane import EncoderLane, Wanted
from realtime.sinks.viewer_track import FrameRow, ViewerTrack

__all__ = ["FrameRow", "LaneStats", "ViewerTrack", "WebRtcSink"]


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

    Error handling: a codec that fails for good ends its own viewers' tracks, with a sentence in
    `ViewerTrack.error`; if it is the last one, `offer` raises instead.

    Args:
        stream: Rates, sizes and limits.
        on_stats: Called on the loop with (codec, picture) after each picture was published.
    """

    def __init__(
        self,
        stream: StreamConfig,
        *,
        on_stats: Callable[[str, Coded], None] | None = None,
    ) -> None:
        self._stream = stream
        self._on_stats = on_stats
        self._fps = stream.fps
        self._ceiling = stream.bitrate
        self._lanes: dict[str, EncoderLane] = {}  # replaced, never changed: `offer` reads it
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
            wanted = Wanted(self._fps, self._ceiling, self._ceiling)
            lane = EncoderLane(codec, self._stream, wanted, self._publish, self._fail)
            self._lanes = {**self._lanes, codec: lane}
        track = ViewerTrack(lane, self._stream.viewer_queue)
        lane.tracks.add(track)
        return track

    def offer(self, frame: Frame) -> bool:
        """Hand a frame to every codec that somebody watches. Never blocks; retains what it keeps.

        From any thread, one frame at a time.

        Returns:
            Whether anybody took it.

        Raises:
            EncoderFailed: the last encoder has failed for good.
        """
        if self.error is not None:
            raise self.error
        taken = False
        if not self._closed:
            for lane in self._lanes.values():
                if lane.watching:
                    taken |= lane.offer(frame)
        return taken

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

    def _lane_of(self, viewer: ViewerTrack) -> EncoderLane | None:
        """None once the viewer has left: late feedback must not bring it back."""
        lane = self._lanes.get(viewer.codec)
        return lane if lane is not None and viewer in lane.tracks else None

    def _publish(self, lane: EncoderLane, coded: Coded) -> None:
        if coded.keyframe:
            lane.limiter.satisfied()
        for track in list(lane.tracks):
            track.push(coded)
        if any(track.starving for track in lane.tracks) and not lane.limiter.pending:
            # It came too late for this picture, or did not get it whole.
            lane.request_keyframe()
        if self._on_stats is not None:
            self._on_stats(lane.codec, coded)

    def _fail(self, lane: EncoderLane, error: EncoderFailed) -> None:
        if self._closed or self._lanes.get(lane.codec) is not lane:
            return
        if len(self._lanes) == 1:
            self.error = error
            return
        # Whoever comes next with this codec opens it anew.
        self._lanes = {codec: other for codec, other in self._lanes.items() if other is not lane}
        for track in list(lane.tracks):
            track.fail(f"The {lane.codec} picture has stopped: {error} Connect again.")
        lane.close()
