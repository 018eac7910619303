"""Our own encoders: I420 in, coded pictures with their RTP payloads out.

What a browser needs and the usual defaults lack: the true frame rate on a 90 kHz clock, a rate that
follows the network while the encoder is open, keyframes only when asked for, no picture held back.
I420 is BT.601, limited range; H.264 signals that, VP8 means it by definition.

H.264 is libx264 through PyAV (`realtime/h264.py`); VP8 is libvpx (`realtime/vp8.py`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Protocol

import av
import numpy as np

from realtime.clock import PTS_HZ
from realtime.errors import EncoderFailed

TIME_BASE = Fraction(1, PTS_HZ)
NEVER = 1 << 20  # pictures between keyframes nobody asked for


@dataclass(frozen=True)
class Coded:
    """One coded picture, shared by all viewers and never changed.

    Args:
        data: As the codec gave it.
        payloads: RTP payloads in sending order; the last carries the marker bit.
        timestamp: The picture's pts, 90 kHz; the wire adds a viewer's own origin.
        keyframe: Decoding may begin here.
        index: The tick's index.
        stamps: `time.monotonic_ns()` per stage, up to "encoded".
    """

    data: bytes
    payloads: tuple[bytes, ...]
    timestamp: int
    keyframe: bool
    index: int
    stamps: dict[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Coded size, without RTP."""
        return len(self.data)

    @cached_property
    def packet(self) -> av.Packet:
        """The same with pts, time base and keyframe flag, for whoever pulls a track or decodes.

        Its `opaque` is `payloads`, so that a track may hand the packet itself to a sender. Made
        when asked for: on a picture's way to the network it would cost 50 us.
        """
        packet = av.Packet(self.data)
        packet.pts = packet.dts = self.timestamp
        packet.time_base = TIME_BASE
        packet.is_keyframe = self.keyframe
        # PyAV keeps one entry per object, whatever number of packets carry it, and the first packet
        # that goes takes it away: the tuple must be this packet's own, as it is.
        packet.opaque = self.payloads
        return packet


class Encoder(Protocol):
    """Used by one thread. A change of picture size opens it anew, with a keyframe."""

    name: str  # "H264" or "VP8"
    detail: str  # which library does the work, and what it cannot do
    width: int
    height: int
    frames: int  # coded since it was made
    keyframes: int  # of those

    @property
    def fps(self) -> float:
        """The rate at which pictures are due. A new one costs no keyframe by itself."""
        ...

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

    @property
    def overdue(self) -> bool:
        """It would do better opened anew, which the next keyframe asked for brings about.

        Whoever spaces keyframes asks for one when there is room.
        """
        ...

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


class EncoderRates:
    """The settings that every encoder has: `fps`, and `bitrate` kept within floor and ceiling."""

    overdue = False

    def __init__(self, fps: float, bitrate: int, *, ceiling: int, floor: int) -> None:
        self.floor = floor
        self._ceiling = max(floor, ceiling)
        self._fps = fps
        self._bitrate = self._within(bitrate)

    @property
    def fps(self) -> float:
        return self._fps

    @fps.setter
    def fps(self, value: float) -> None:
        if value != self._fps:
            self._fps = value
            self._fps_changed()

    @property
    def bitrate(self) -> int:
        return self._bitrate

    @bitrate.setter
    def bitrate(self, value: int) -> None:
        value = self._within(value)
        if value != self._bitrate:
            self._bitrate = value
            self._bitrate_changed()

    @property
    def ceiling(self) -> int:
        return self._ceiling

    @ceiling.setter
    def ceiling(self, value: int) -> None:
        self._ceiling = max(self.floor, int(value))
        self.bitrate = self._bitrate

    def _within(self, bitrate: int) -> int:
        return int(max(self.floor, min(self._ceiling, bitrate)))

    def _fps_changed(self) -> None:
        """Nothing to do where the times of pictures say enough."""

    def _bitrate_changed(self) -> None:
        raise NotImplementedError


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
        from realtime.h264 import H264Encoder

        return H264Encoder(width, height, fps, bitrate, ceiling=ceiling, floor=floor)
    if codec == "VP8":
        from realtime import vp8

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
    data: bytes,
    payloads: tuple[bytes, ...],
    pts: int,
    keyframe: bool,
    index: int,
    stamps: dict[str, int] | None,
) -> Coded:
    """Join what the codecs have in common into a `Coded`, stamped now."""
    marks = dict(stamps or {})
    marks["encoded"] = time.monotonic_ns()
    return Coded(data, payloads, pts, keyframe, index, marks)


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
