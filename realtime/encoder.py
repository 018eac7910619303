"""Our own encoders: I420 in, coded pictures with their RTP payloads out.

What a browser needs and the usual defaults lack: the true frame rate on a 90 kHz clock, a rate that
follows the network while the encoder is open, keyframes only when asked for, no picture held back.
I420 is BT.601, limited range; H.264 signals that, VP8 means it by definition.

H.264 is libx264 through PyAV (here); VP8 is libvpx (`realtime/vp8.py`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from realtime.errors import EncoderFailed
from realtime.rtp_payload import h264_payloads

CLOCK_HZ = 90_000
TIME_BASE = Fraction(1, CLOCK_HZ)
NEVER = 1 << 20  # pictures between keyframes nobody asked for

_BT601 = 6  # SMPTE 170M, as matrix, primaries and transfer alike (ITU-T H.273)
_LIMITED = 1  # AVCOL_RANGE_MPEG


@dataclass(frozen=True)
class Coded:
    """One coded picture, shared by all viewers and never changed.

    Args:
        packet: The same as an `av.Packet` with pts, time base and keyframe flag; its `opaque` is
            `payloads`, so that a track may hand the packet itself to a sender.
        payloads: RTP payloads in sending order; the last carries the marker bit.
        timestamp: The picture's pts, 90 kHz; the wire adds a viewer's own origin.
        keyframe: Decoding may begin here.
        index: The tick's index.
        bytes: Coded size, without RTP.
        stamps: `time.monotonic_ns()` per stage, up to "encoded".
    """

    packet: av.Packet
    payloads: tuple[bytes, ...]
    timestamp: int
    keyframe: bool
    index: int
    bytes: int
    stamps: dict[str, int] = field(default_factory=dict)


class Encoder(Protocol):
    """Used by one thread. A change of picture size or frame rate opens it anew, with a keyframe."""

    name: str  # "H264" or "VP8"
    detail: str  # which library does the work, and what it cannot do
    width: int
    height: int
    frames: int  # coded since it was made
    keyframes: int  # of those

    @property
    def fps(self) -> float: ...
    @fps.setter
    def fps(self, value: float) -> None: ...
    @property
    def bitrate(self) -> int:
        """Wanted rate, bit/s, kept within floor and ceiling; takes effect with the next picture."""
        ...

    @bitrate.setter
    def bitrate(self, value: int) -> None: ...
    @property
    def ceiling(self) -> int:
        """The most `bitrate` may become, bit/s."""
        ...

    @ceiling.setter
    def ceiling(self, value: int) -> None: ...

    def encode(
        self,
        i420: np.ndarray,
        pts: int,
        keyframe: bool = False,
        *,
        index: int = 0,
        stamps: dict[str, int] | None = None,
    ) -> Coded:
        """Code one picture; nothing of `i420` is needed afterwards.

        Args:
            i420: uint8 [H*3//2, W], contiguous, even sides; another size than before is followed.
            pts: 90 kHz, rising.
            keyframe: Code it without reference to earlier pictures.
            index, stamps: Go into the result; `stamps` gains "encoded".
        Raises:
            EncoderFailed: the codec refused.
        """
        ...

    def reopen(self) -> None:
        """Begin anew: the next picture is a keyframe. The way on after an error."""
        ...

    def close(self) -> None:
        """Free the codec. Idempotent."""
        ...


def open_encoder(
    codec: str,
    width: int,
    height: int,
    fps: float,
    bitrate: int,
    *,
    ceiling: int,
    floor: int,
) -> Encoder:
    """An open encoder.

    Args:
        codec: "H264" or "VP8".
        width, height: Pixels, even.
        fps: The true rate of pictures; rate control depends on it.
        bitrate: bit/s.
        ceiling, floor: What `bitrate` is kept within, now and later.
    Raises:
        EncoderFailed: the codec cannot be opened here.
    """
    if codec == "H264":
        return H264Encoder(width, height, fps, bitrate, ceiling=ceiling, floor=floor)
    if codec == "VP8":
        from realtime import vp8  # loads libvpx; not before it is wanted

        return vp8.open_vp8(width, height, fps, bitrate, ceiling=ceiling, floor=floor)
    raise EncoderFailed(f"codec {codec!r} is unknown; choose H264 or VP8.")


@dataclass(frozen=True)
class CodecReport:
    """Whether a codec opens here, and with what or why not."""

    ok: bool
    detail: str


def available() -> dict[str, CodecReport]:
    """Each codec tried on a small picture, for `stylewire doctor`."""
    reports = {}
    for codec in ("H264", "VP8"):
        try:
            encoder = open_encoder(codec, 64, 64, 30, 200_000, ceiling=200_000, floor=100_000)
            try:
                coded = encoder.encode(np.full((96, 64), 128, np.uint8), 0, keyframe=True)
            finally:
                encoder.close()
            reports[codec] = CodecReport(coded.keyframe, encoder.detail)
        except EncoderFailed as error:
            reports[codec] = CodecReport(False, str(error))
    return reports


def finish(
    data: bytes | av.Packet,
    payloads: tuple[bytes, ...],
    pts: int,
    keyframe: bool,
    index: int,
    stamps: dict[str, int] | None,
) -> Coded:
    """Join what the codecs have in common into a `Coded`, stamped now."""
    packet = data if isinstance(data, av.Packet) else av.Packet(data)
    packet.pts = packet.dts = pts
    packet.time_base = TIME_BASE
    packet.is_keyframe = keyframe
    # PyAV keeps one entry per object, whatever number of packets carry it, and the first packet
    # that goes takes it away: the tuple must be this packet's own, as it is.
    packet.opaque = payloads
    marks = dict(stamps or {})
    marks["encoded"] = time.monotonic_ns()
    return Coded(packet, payloads, pts, keyframe, index, packet.size, marks)


def size_of(i420: np.ndarray) -> tuple[int, int]:
    """(width, height) of an I420 array.

    Raises:
        EncoderFailed: no I420 picture with even sides.
    """
    if i420.ndim != 2 or i420.dtype != np.uint8 or i420.shape[0] % 3 or i420.shape[1] % 2:
        raise EncoderFailed(f"no I420 picture: {i420.dtype} {i420.shape}; need uint8 [H*3//2, W].")
    if not i420.flags.c_contiguous:
        raise EncoderFailed("the I420 picture's rows must lie one after the other in memory.")
    return i420.shape[1], i420.shape[0] * 2 // 3


class PyAvEncoder:
    """What the codecs that PyAV opens share. Subclasses give `_open` and `_payloads`.

    PyAV keeps one frame, filled for each picture: both libraries copy it before `encode` returns,
    since nothing is looked ahead.
    """

    name = ""
    detail = ""

    def __init__(
        self, width: int, height: int, fps: float, bitrate: int, *, ceiling: int, floor: int
    ) -> None:
        self.width, self.height = width, height
        self.frames = self.keyframes = 0
        self.floor = floor
        self._ceiling = max(floor, ceiling)
        self._fps = fps
        self._bitrate = self._within(bitrate)
        self._context: VideoCodecContext | None = None
        self.reopen()

    @property
    def fps(self) -> float:
        return self._fps

    @fps.setter
    def fps(self, value: float) -> None:
        if value != self._fps:
            self._fps = value
            self.reopen()

    @property
    def bitrate(self) -> int:
        return self._bitrate

    @bitrate.setter
    def bitrate(self, value: int) -> None:
        self._bitrate = self._within(value)
        self._apply_bitrate()

    @property
    def ceiling(self) -> int:
        return self._ceiling

    @ceiling.setter
    def ceiling(self, value: int) -> None:
        self._ceiling = max(self.floor, int(value))
        if self._bitrate > self._ceiling:
            self.bitrate = self._ceiling

    def _within(self, bitrate: int) -> int:
        return int(max(self.floor, min(self._ceiling, bitrate)))

    def reopen(self) -> None:
        try:
            self._context = self._open()
        except (av.FFmpegError, ValueError) as error:
            raise EncoderFailed(
                f"{self.name} {self.width}x{self.height} at {self._fps:g} fps and "
                f"{self._bitrate} bit/s does not open: {error}. "
                "Try another size, or install PyAV from its wheels, which carry the codecs."
            ) from error
        self._frame = av.VideoFrame(self.width, self.height, "yuv420p")
        self._frame.time_base = TIME_BASE
        # line_size may exceed the width: padded rows are cut off in the view.
        self._planes = []
        for plane in self._frame.planes:
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            self._planes.append(rows[:, : plane.width])

    def close(self) -> None:
        self._context = None

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
        elif keyframe:
            self._before_keyframe()
        if self._context is None:
            raise EncoderFailed(f"{self.name}: the encoder is closed.")
        self._fill(i420)
        # PyAV rewrites pts and time base of the frame while encoding if they differ from the
        # context's, and a picture type stays set: all three are set anew each time.
        self._frame.pts, self._frame.time_base = pts, TIME_BASE
        self._frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        try:
            packets = self._context.encode(self._frame)
        except (av.FFmpegError, ValueError) as error:
            raise EncoderFailed(f"{self.name} refused picture {index}: {error}.") from error
        if len(packets) != 1:
            raise EncoderFailed(f"{self.name} gave {len(packets)} packets for picture {index}.")
        (packet,) = packets
        self.frames += 1
        self.keyframes += packet.is_keyframe
        payloads = self._payloads(bytes(packet))
        return finish(packet, payloads, pts, packet.is_keyframe, index, stamps)

    def _fill(self, i420: np.ndarray) -> None:
        flat, at = i420.reshape(-1), 0
        for plane in self._planes:
            plane[:] = flat[at : at + plane.size].reshape(plane.shape)
            at += plane.size

    def _new_context(self, codec: str) -> VideoCodecContext:
        context = av.CodecContext.create(codec, "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.time_base = TIME_BASE
        context.framerate = Fraction(self._fps).limit_denominator(1001)
        context.gop_size = NEVER
        context.color_range, context.colorspace = _LIMITED, _BT601
        context.color_primaries = context.color_trc = _BT601
        context.thread_count = 1  # frame threads would hold pictures back
        return context

    def _open(self) -> VideoCodecContext:
        raise NotImplementedError

    def _apply_bitrate(self) -> None:
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

    x264 counts pictures, not time (variable frame rate would hold one picture back): where ticks
    are skipped it would fall short in proportion, so the rate assigned follows the actual pace.
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

    def __init__(
        self, width: int, height: int, fps: float, bitrate: int, *, ceiling: int, floor: int
    ) -> None:
        self._maximum = int(self._HEADROOM * max(floor, ceiling))
        self._pace = self._applied_pace = 1.0  # mean interval over the nominal one
        self._last_pts: int | None = None
        super().__init__(width, height, fps, bitrate, ceiling=ceiling, floor=floor)

    def _open(self) -> VideoCodecContext:
        context = self._new_context("libx264")
        buffer_s = max(self._BUFFER_S, self._BUFFER_PICTURES / self._fps)
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
        context.bit_rate = min(int(self._bitrate * self._applied_pace), self._maximum)
        return context

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
        if last is None or not 0 < pts - last < CLOCK_HZ:  # a pause says nothing about the pace
            return
        interval = (pts - last) * self._fps / CLOCK_HZ
        self._pace += self._PACE_WEIGHT * (min(4.0, max(0.5, interval)) - self._pace)
        if abs(self._pace / self._applied_pace - 1) > 0.05:
            self._applied_pace = self._pace
            self._apply_bitrate()

    def _apply_bitrate(self) -> None:
        if self._bitrate > self._NEAR * self._maximum:
            self._reopen_for(self._bitrate)
        elif self._context is not None:
            wanted = int(self._bitrate * self._applied_pace)
            self._context.bit_rate = min(wanted, self._maximum)

    def _before_keyframe(self) -> None:
        if self.frames and self._maximum > self._FAR_BELOW * self._bitrate:
            self._reopen_for(self._bitrate)

    def _reopen_for(self, bitrate: int) -> None:
        self._maximum = int(min(self._HEADROOM * self._ceiling, self._MARGIN * bitrate))
        self.reopen()

    def _payloads(self, data: bytes) -> tuple[bytes, ...]:
        return h264_payloads(data)
