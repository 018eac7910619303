"""VP8: libvpx called directly, or through PyAV where that cannot be.

FFmpeg's wrapper ignores a bit rate assigned to an open VP8 encoder, so through PyAV a new rate
means a new encoder and a keyframe. libvpx itself takes a new rate between two pictures.
"""

from __future__ import annotations

import functools
import logging

import numpy as np
from av.video.codeccontext import VideoCodecContext

from realtime import libvpx
from realtime.clock import PTS_HZ
from realtime.encoder import NEVER, Coded, Encoder, EncoderRates, finish, size_of
from realtime.errors import EncoderFailed
from realtime.h264 import PyAvEncoder
from realtime.libvpx import LibvpxUnusable, Vp8Codec
from realtime.rtp_payload import vp8_payloads

_log = logging.getLogger(__name__)

# Both ways are set alike.
_CPU_USED = -10  # negative is a fixed speed; positive lets libvpx choose by load
_BUFFER_MS = 300  # with _MAX_INTRA it keeps a keyframe at 1.2 Mbit/s to 5 kB
_MAX_INTRA = 450  # a keyframe's weight, % of a mean picture
_MIN_Q, _MAX_Q = 2, 56
_UNDERSHOOT, _OVERSHOOT = 100, 15  # %


class Vp8Direct(EncoderRates):
    """libvpx in real-time CBR; the rate changes between two pictures, without a keyframe.

    The rate of pictures is what pts and duration say: nothing to open anew when it moves. The
    picture is read where it lies: no plane is copied on the way in.
    """

    name = "VP8"

    def __init__(
        self, width: int, height: int, fps: float, bitrate: int, *, ceiling: int, floor: int
    ) -> None:
        super().__init__(fps, bitrate, ceiling=ceiling, floor=floor)
        self.detail = f"libvpx {libvpx.version()}, called directly"
        self.width, self.height = width, height
        self.frames = self.keyframes = 0
        self._picture_id = 0
        self._rate_changed = False
        self._codec: Vp8Codec | None = None
        self.reopen()

    def _bitrate_changed(self) -> None:
        self._rate_changed = True

    def reopen(self) -> None:
        self.close()
        self._rate_changed = False
        settings = {
            "width": self.width,
            "height": self.height,
            "threads": 1,
            "timebase_num": 1,
            "timebase_den": PTS_HZ,
            "end_usage": libvpx.CBR,
            "bitrate": self._kilobits(),
            "min_q": _MIN_Q,
            "max_q": _MAX_Q,
            "undershoot": _UNDERSHOOT,
            "overshoot": _OVERSHOOT,
            "buffer": _BUFFER_MS,
            "buffer_initial": _BUFFER_MS // 2,
            "buffer_optimal": _BUFFER_MS * 5 // 6,
            # Automatic, it would set keyframes by distance, and may by scene at slower speeds.
            "kf_mode": libvpx.KF_DISABLED,
            "kf_max": NEVER,
        }
        controls = {
            libvpx.CPU_USED: _CPU_USED,
            libvpx.STATIC_THRESHOLD: 1,
            libvpx.NOISE_SENSITIVITY: 0,  # denoising would be wasted on texture we made
            libvpx.MAX_INTRA: _MAX_INTRA,
            libvpx.TOKEN_PARTITIONS: 0,  # one
        }
        self._codec = Vp8Codec(settings, controls)

    def close(self) -> None:
        codec, self._codec = self._codec, None
        if codec is not None:
            codec.close()

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
        if self._codec is None:
            raise EncoderFailed("VP8: the encoder is closed.")
        if self._rate_changed:
            self._rate_changed = False
            self._codec.set_bitrate(self._kilobits())
        pictures = self._codec.encode(i420, pts, round(PTS_HZ / self._fps), keyframe)
        if len(pictures) != 1:
            raise EncoderFailed(f"VP8 gave {len(pictures)} packets for picture {index}.")
        ((data, is_key),) = pictures
        self.frames += 1
        self.keyframes += is_key
        self._picture_id = self._picture_id + 1 & 0x7FFF
        return finish(data, vp8_payloads(data, self._picture_id), pts, is_key, index, stamps)

    def _kilobits(self) -> int:
        return max(1, self._bitrate // 1000)


class Vp8PyAv(PyAvEncoder):
    """libvpx through PyAV. Only a large change of rate is worth the keyframe that it costs."""

    name = "VP8"
    STEP = 1.35

    def __init__(
        self,
        width: int,
        height: int,
        fps: float,
        bitrate: int,
        *,
        ceiling: int,
        floor: int,
        why: str = "",
    ) -> None:
        self.detail = "libvpx through PyAV: a rate that moves by a third costs a keyframe"
        if why:
            self.detail += f" (directly not: {why})"
        self._picture_id = 0
        self._opened_rate = 0
        super().__init__(width, height, fps, bitrate, ceiling=ceiling, floor=floor)

    def _open(self) -> VideoCodecContext:
        context = self._new_context("libvpx")
        rate = self._opened_rate = self._bitrate
        context.bit_rate, context.qmin, context.qmax = rate, _MIN_Q, _MAX_Q
        context.options = {
            "deadline": "realtime",
            "cpu-used": str(_CPU_USED),
            "lag-in-frames": "0",
            "error-resilient": "default",
            "minrate": str(rate),
            "maxrate": str(rate),
            "bufsize": str(int(rate * _BUFFER_MS / 1000)),
            "undershoot-pct": str(_UNDERSHOOT),
            "overshoot-pct": str(_OVERSHOOT),
            "static-thresh": "1",
            "noise-sensitivity": "0",
            "max-intra-rate": str(_MAX_INTRA),
        }
        context.open()
        return context

    def _bitrate_changed(self) -> None:
        if not 1 / self.STEP < self._bitrate / self._opened_rate < self.STEP:
            self.reopen()

    def _payloads(self, data: bytes) -> tuple[bytes, ...]:
        self._picture_id = self._picture_id + 1 & 0x7FFF
        return vp8_payloads(data, self._picture_id)


def open_vp8(
    width: int, height: int, fps: float, bitrate: int, *, ceiling: int, floor: int
) -> Encoder:
    """libvpx directly; through PyAV where that is not possible, saying so once.

    Raises:
        EncoderFailed: VP8 cannot be opened in either way.
    """
    try:
        return Vp8Direct(width, height, fps, bitrate, ceiling=ceiling, floor=floor)
    except LibvpxUnusable as error:
        _say_once(str(error))
        return Vp8PyAv(width, height, fps, bitrate, ceiling=ceiling, floor=floor, why=str(error))


@functools.cache
def _say_once(why: str) -> None:
    _log.warning("VP8: libvpx through PyAV (directly not: %s); rate steps cost keyframes", why)
