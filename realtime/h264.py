"""H.264 by libx264, and what every encoder that PyAV opens shares."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from realtime.clock import PTS_HZ
from realtime.encoder import NEVER, TIME_BASE, Coded, EncoderRates, finish, size_of
from realtime.errors import EncoderFailed
from realtime.pyav import signal_bt601
from realtime.rtp_payload import h264_payloads

SLOTS = 8  # wrapped at most; a session has fewer


class PyAvEncoder(EncoderRates):
    """What the codecs that PyAV opens share. Subclasses give `_open` and `_payloads`.

    Pictures are read where they lie: both libraries have copied one when `encode` returns, since
    nothing is looked ahead.
    """

    name = ""
    detail = ""

    def __init__(
        self, width: int, height: int, fps: float, bitrate: int, *, ceiling: int, floor: int
    ) -> None:
        super().__init__(fps, bitrate, ceiling=ceiling, floor=floor)
        self.width, self.height = width, height
        self.frames = self.keyframes = 0
        self._context: VideoCodecContext | None = None
        self.reopen()

    def reopen(self) -> None:
        try:
            self._context = self._open()
        except (av.FFmpegError, ValueError) as error:
            raise EncoderFailed(
                f"{self.name} {self.width}x{self.height} at {self._fps:g} fps and "
                f"{self._bitrate} bit/s does not open: {error}. "
                "Try another size, or install PyAV from its wheels, which carry the codecs."
            ) from error
        self._frames: dict[int, av.VideoFrame] = {}  # by address of the slot they wrap
        self._fresh = True

    def close(self) -> None:
        self._context = None
        self._frames = {}

    def encode(
        self,
        i420: np.ndarray,
        pts: int,
        keyframe: bool = False,
        *,
        index: int = 0,
        stamps: dict[str, int] | None = None,
    ) -> Coded:
        if (size := size_of(i420)) != (self.width, self.height):
            self.width, self.height = size
            self.reopen()
        elif keyframe or self._fresh:
            self._before_keyframe()
        if self._context is None:
            raise EncoderFailed(f"{self.name}: the encoder is closed.")
        frame = self._wrapped(i420)
        # PyAV rewrites pts and time base of the frame while encoding if they differ from the
        # context's, and a picture type stays set: all three are set anew each time.
        frame.pts, frame.time_base = pts, TIME_BASE
        frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        try:
            packets = self._context.encode(frame)
        except (av.FFmpegError, ValueError) as error:
            raise EncoderFailed(f"{self.name} refused picture {index}: {error}.") from error
        if len(packets) != 1:
            raise EncoderFailed(f"{self.name} gave {len(packets)} packets for picture {index}.")
        (packet,) = packets
        self._fresh = False
        self.frames += 1
        self.keyframes += packet.is_keyframe
        data = bytes(packet)
        return finish(data, self._payloads(data), pts, packet.is_keyframe, index, stamps)

    def _wrapped(self, i420: np.ndarray) -> av.VideoFrame:
        """A frame over these very pixels: made once for each slot, since that takes 0.1 ms."""
        frame = self._frames.get(id(i420))
        if frame is None:
            while len(self._frames) >= SLOTS:
                del self._frames[next(iter(self._frames))]
            # It keeps `i420` alive, so that its id is nobody else's.
            frame = av.VideoFrame.from_numpy_buffer(i420, "yuv420p")
            self._frames[id(i420)] = frame
        return frame

    def _new_context(self, codec: str) -> VideoCodecContext:
        context = av.CodecContext.create(codec, "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.time_base = TIME_BASE
        context.framerate = Fraction(self._fps).limit_denominator(1001)
        context.gop_size = NEVER
        signal_bt601(context)
        context.thread_count = 1  # frame threads would hold pictures back
        return context

    def _open(self) -> VideoCodecContext:
        raise NotImplementedError

    def _before_keyframe(self) -> None:
        """A keyframe is due anyway: the moment to open anew at no cost."""

    def _payloads(self, data: bytes) -> tuple[bytes, ...]:
        raise NotImplementedError


class H264Encoder(PyAvEncoder):
    """libx264, constrained baseline, ultrafast: 1 ms for 512x512.

    Rate: opened in CBR at a maximum (`maxrate` = `bit_rate`), after which an assigned `bit_rate`
    is taken over before the next picture, without a keyframe. Close to its maximum x264 falls
    short, hence the headroom. The buffer bounds a keyframe's weight and cannot change while open;
    so where a keyframe is due anyway and the rate has fallen far below, it opens again with a lower
    maximum; and again when the rate climbs towards that one, the only keyframe a rate ever costs.

    x264 counts pictures, not time (variable frame rate would hold one picture back): at another
    pace than it was opened for, since ticks are skipped or the frame rate moved, it would miss in
    proportion. So the rate assigned follows the actual pace, at once and without a keyframe. That
    strains its buffer, so it opens again at the pace of then where a keyframe is due anyway. It is
    `overdue` where the frame rate has come to rest far from the one it knows, or where its maximum
    has long not allowed for the pace.
    """

    name = "H264"
    detail = "libx264 through PyAV"

    _HEADROOM = 2.0  # maximum over ceiling: at the ceiling itself 1 to 9 % short, 15 to 60 fps
    _BUFFER_S = 0.1  # 1/30 s would keep keyframes small but miss the target by a fifth
    _BUFFER_PICTURES = 2.5  # and at least so many intervals, for low frame rates
    _FAR_BELOW = 4.0  # times the rate
    _MARGIN = 2.2  # times the rate, when opened again
    _NEAR = 0.9  # of the maximum
    _PACE_WEIGHT = 0.1  # of the newest interval in the mean
    _SLACK = 0.05  # a strain not worth another setting
    _STRAINED = 1.25  # frame rate over the one it was opened for, or the other way round
    _AT_REST = PTS_HZ // 2  # a slider that is being dragged moves more often

    def __init__(
        self, width: int, height: int, fps: float, bitrate: int, *, ceiling: int, floor: int
    ) -> None:
        self._maximum = int(self._HEADROOM * max(floor, ceiling))
        self._pace = 1.0  # mean interval over the nominal one
        self._last_pts: int | None = None
        self._moved_pts: int | None = None  # when the frame rate last moved, or the first picture
        self._short_pts: int | None = None  # since when the maximum does not allow for the pace
        super().__init__(width, height, fps, bitrate, ceiling=ceiling, floor=floor)

    @property
    def overdue(self) -> bool:  # type: ignore[override]
        ratio = self._fps / self._known_fps
        return self._rested(self._moved_pts) and (
            not 1 / self._STRAINED <= ratio <= self._STRAINED or self._rested(self._short_pts)
        )

    def _rested(self, since: int | None) -> bool:
        """Whether nothing has changed since then for long enough to last."""
        if since is None or self._last_pts is None:
            return False
        return self._last_pts - since >= self._AT_REST

    @property
    def _strain(self) -> float:
        """Actual mean interval over the one that x264 reckons with."""
        return self._pace * self._counted_fps / self._fps

    def _open(self) -> VideoCodecContext:
        context = self._new_context("libx264")
        self._known_fps = self._fps
        self._counted_fps = self._fps / max(1.0, self._pace)
        context.framerate = Fraction(self._counted_fps).limit_denominator(1001)
        buffer_s = max(self._BUFFER_S, self._BUFFER_PICTURES / self._counted_fps)
        context.bit_rate = self._maximum
        context.thread_type = "SLICE"
        context.profile = "Baseline"
        context.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "forced-idr": "1",
            "maxrate": str(self._maximum),
            "bufsize": str(int(self._maximum * buffer_s)),
            # Parameter sets before each keyframe: a viewer may join at any of them. A buffer that
            # starts half full halves the first keyframe.
            "x264-params": "keyint=infinite:scenecut=0:repeat-headers=1:vbv-init=0.5",
        }
        context.open()
        self._assign(context)
        return context

    def _assign(self, context: VideoCodecContext) -> None:
        self._applied = self._strain
        context.bit_rate = min(int(self._bitrate * self._applied), self._maximum)

    def encode(
        self,
        i420: np.ndarray,
        pts: int,
        keyframe: bool = False,
        *,
        index: int = 0,
        stamps: dict[str, int] | None = None,
    ) -> Coded:
        self._keep_pace(pts)
        return super().encode(i420, pts, keyframe, index=index, stamps=stamps)

    def _keep_pace(self, pts: int) -> None:
        last, self._last_pts = self._last_pts, pts
        if self._moved_pts is None:
            self._moved_pts = pts
        if last is not None and 0 < pts - last < PTS_HZ:  # a pause says nothing about the pace
            interval = (pts - last) * self._fps / PTS_HZ
            self._pace += self._PACE_WEIGHT * (min(4.0, max(0.5, interval)) - self._pace)
        if self._context is not None and abs(self._strain / self._applied - 1) > self._SLACK:
            self._assign(self._context)
        if self._bitrate * self._strain <= self._NEAR * self._maximum:
            self._short_pts = None
        elif self._short_pts is None:
            self._short_pts = pts

    def _fps_changed(self) -> None:
        self._moved_pts = self._last_pts

    def _bitrate_changed(self) -> None:
        if self._bitrate > self._NEAR * self._maximum:
            self._reopen_for(self._bitrate)
        elif self._context is not None:
            self._assign(self._context)

    def _before_keyframe(self) -> None:
        if self.frames and self._maximum > self._FAR_BELOW * self._bitrate:
            self._reopen_for(self._bitrate)
        elif abs(self._strain - 1) > self._SLACK:
            self.reopen()
            self._short_pts = None

    def _reopen_for(self, bitrate: int) -> None:
        self._maximum = int(min(self._HEADROOM * self._ceiling, self._MARGIN * bitrate))
        self.reopen()

    def _payloads(self, data: bytes) -> tuple[bytes, ...]:
        return h264_payloads(data)
