"""VP8: libvpx called directly through ctypes, or through PyAV where that cannot be.

FFmpeg's wrapper ignores a bit rate assigned to an open VP8 encoder, so through PyAV a new rate
means a new encoder and a keyframe. libvpx itself takes a new rate between two pictures. PyAV ships
it as a shared library, which `ctypes` opens; its configuration struct has no stable layout, so two
locks guard it: libvpx checks its interface number, and 22 defaults are compared with what they must
be.
"""

from __future__ import annotations

import ctypes as c
import ctypes.util
import functools
import logging
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from realtime.encoder import CLOCK_HZ, NEVER, Coded, Encoder, PyAvEncoder, finish, size_of
from realtime.errors import EncoderFailed
from realtime.rtp_payload import vp8_payloads

_log = logging.getLogger(__name__)

# Both ways are set alike.
_CPU_USED = -10  # negative is a fixed speed; positive lets libvpx choose by load
_BUFFER_MS = 300  # with _MAX_INTRA it keeps a keyframe at 1.2 Mbit/s to 5 kB
_MAX_INTRA = 450  # a keyframe's weight, % of a mean picture
_MIN_Q, _MAX_Q = 2, 56
_UNDERSHOOT, _OVERSHOOT = 100, 15  # %

# vpx/vpx_encoder.h and vpx/vp8cx.h
_CBR, _KF_AUTO, _REALTIME, _FORCE_KEYFRAME = 1, 0, 1, 1
_PACKET_PICTURE, _IS_KEYFRAME = 0, 1
_IMAGE_I420 = 0x102
_CONTROLS = ((13, _CPU_USED), (17, 1), (15, 0), (26, _MAX_INTRA), (18, 0))
# static threshold 1, no denoising (it would waste work on texture we made), one token partition
_INTERFACE_NUMBERS = range(24, 50)  # differs between releases; libvpx refuses all but its own

# vpx_codec_enc_cfg, 64-bit: byte offset of each unsigned 32-bit field, and libvpx's default for it
_FIELDS = {
    "threads": (4, 0),
    "width": (12, 320),
    "height": (16, 240),
    "timebase_num": (28, 1),
    "timebase_den": (32, 30),
    "error_resilient": (36, 0),
    "pass": (40, 0),
    "lag": (44, 0),
    "drop_threshold": (48, 0),
    "resize": (52, 0),
    "end_usage": (72, 0),
    "bitrate": (112, 256),  # kbit/s
    "min_q": (116, 4),
    "max_q": (120, 63),
    "undershoot": (124, 100),
    "overshoot": (128, 100),
    "buffer": (132, 6000),  # ms
    "buffer_initial": (136, 4000),
    "buffer_optimal": (140, 5000),
    "kf_mode": (160, 1),
    "kf_min": (164, 0),
    "kf_max": (168, 128),
}
# Room for the library's structs, several times their size: only libvpx writes into them.
_CONFIG_BYTES, _CODEC_BYTES, _IMAGE_BYTES = 4096, 512, 1024


class LibvpxUnusable(EncoderFailed):
    """libvpx cannot be called directly here; the text says why."""


class _Packet(c.Structure):
    """The front of vpx_codec_cx_pkt."""

    _fields_ = [
        ("kind", c.c_int),
        ("data", c.c_void_p),
        ("size", c.c_size_t),
        ("pts", c.c_int64),
        ("duration", c.c_ulong),
        ("flags", c.c_uint32),
    ]


def _library_path() -> str:
    """PyAV's own libvpx (Linux and Windows wheels, macOS wheels), else the system's."""
    package = Path(av.__file__).parent
    for folder in (package.parent / "av.libs", package / ".dylibs"):
        for path in sorted(folder.glob("*vpx*")):
            return str(path)
    found = ctypes.util.find_library("vpx")
    if found is None:
        raise LibvpxUnusable("no libvpx beside PyAV and none on the system")
    return found


@functools.cache
def _libvpx() -> tuple[c.CDLL, c.PyDLL]:
    """(for encoding, without the interpreter lock; for short calls, with it).

    A call that gives the lock up may wait a whole switch interval to get it back, which is longer
    than any of the short ones takes.

    Raises:
        LibvpxUnusable: no library, or one that lacks a function.
    """
    if c.sizeof(c.c_void_p) != 8:
        raise LibvpxUnusable("the layout of libvpx's configuration is known for 64 bits only")
    path = _library_path()
    try:
        slow, quick = c.CDLL(path), c.PyDLL(path)
        slow.vpx_codec_encode.argtypes = [
            c.c_void_p, c.c_void_p, c.c_int64, c.c_ulong, c.c_long, c.c_ulong,
        ]  # fmt: skip
        quick.vpx_codec_vp8_cx.restype = c.c_void_p
        quick.vpx_codec_version_str.restype = c.c_char_p
        quick.vpx_codec_enc_config_default.argtypes = [c.c_void_p, c.c_void_p, c.c_uint]
        quick.vpx_codec_enc_init_ver.argtypes = [
            c.c_void_p, c.c_void_p, c.c_void_p, c.c_long, c.c_int,
        ]  # fmt: skip
        quick.vpx_codec_enc_config_set.argtypes = [c.c_void_p, c.c_void_p]
        quick.vpx_codec_control_.argtypes = [c.c_void_p, c.c_int]  # and one int: it is variadic
        quick.vpx_codec_get_cx_data.argtypes = [c.c_void_p, c.c_void_p]
        quick.vpx_codec_get_cx_data.restype = c.POINTER(_Packet)
        quick.vpx_img_wrap.argtypes = [
            c.c_void_p, c.c_int, c.c_uint, c.c_uint, c.c_uint, c.c_void_p,
        ]  # fmt: skip
        quick.vpx_img_wrap.restype = c.c_void_p
        quick.vpx_codec_err_to_string.argtypes = [c.c_int]
        quick.vpx_codec_err_to_string.restype = c.c_char_p
        quick.vpx_codec_destroy.argtypes = [c.c_void_p]
    except (OSError, AttributeError) as error:
        raise LibvpxUnusable(f"{path}: {error}") from error
    return slow, quick


class _Configuration:
    """vpx_codec_enc_cfg by name of field."""

    def __init__(self, quick: c.PyDLL, interface: int) -> None:
        self.memory = c.create_string_buffer(_CONFIG_BYTES)
        if quick.vpx_codec_enc_config_default(interface, self.memory, 0):
            raise LibvpxUnusable("libvpx gives no default configuration")
        for name, (_, default) in _FIELDS.items():
            if self[name] != default:
                raise LibvpxUnusable(
                    f"its configuration is laid out otherwise: {name} reads {self[name]}, "
                    f"not {default}"
                )

    def __getitem__(self, name: str) -> int:
        return c.c_uint32.from_buffer(self.memory, _FIELDS[name][0]).value

    def __setitem__(self, name: str, value: int) -> None:
        c.c_uint32.from_buffer(self.memory, _FIELDS[name][0]).value = value

    def update(self, **values: int) -> None:
        for name, value in values.items():
            self[name] = value


class Vp8Direct:
    """libvpx in real-time CBR; the rate changes between two pictures, without a keyframe.

    The picture is read where it lies, and copied by libvpx before `encode` returns.
    """

    name = "VP8"

    def __init__(
        self, width: int, height: int, fps: float, bitrate: int, *, ceiling: int, floor: int
    ) -> None:
        self._slow, self._quick = _libvpx()
        version = self._quick.vpx_codec_version_str().decode()
        self.detail = f"libvpx {version}, called directly"
        self.width, self.height = width, height
        self.frames = self.keyframes = 0
        self.floor = floor
        self._ceiling = max(floor, ceiling)
        self._fps = fps
        self._bitrate = self._within(bitrate)
        self._picture_id = 0
        self._rate_changed = False
        self._image = c.create_string_buffer(_IMAGE_BYTES)
        self._codec: c.Array[c.c_char] | None = None
        self.reopen()

    @property
    def fps(self) -> float:
        return self._fps

    @fps.setter
    def fps(self, value: float) -> None:
        # The rate of pictures is what pts and duration say; nothing to open anew.
        self._fps = value

    @property
    def bitrate(self) -> int:
        return self._bitrate

    @bitrate.setter
    def bitrate(self, value: int) -> None:
        value = self._within(value)
        self._rate_changed |= value != self._bitrate
        self._bitrate = value

    @property
    def ceiling(self) -> int:
        return self._ceiling

    @ceiling.setter
    def ceiling(self, value: int) -> None:
        self._ceiling = max(self.floor, int(value))
        self.bitrate = self._bitrate

    def _within(self, bitrate: int) -> int:
        return int(max(self.floor, min(self._ceiling, bitrate)))

    def reopen(self) -> None:
        self.close()
        interface = self._quick.vpx_codec_vp8_cx()
        self._config = config = _Configuration(self._quick, interface)
        config.update(
            width=self.width,
            height=self.height,
            threads=1,
            timebase_num=1,
            timebase_den=CLOCK_HZ,
            end_usage=_CBR,
            bitrate=self._kilobits(),
            min_q=_MIN_Q,
            max_q=_MAX_Q,
            undershoot=_UNDERSHOOT,
            overshoot=_OVERSHOOT,
            buffer=_BUFFER_MS,
            buffer_initial=_BUFFER_MS // 2,
            buffer_optimal=_BUFFER_MS * 5 // 6,
            kf_mode=_KF_AUTO,
            kf_max=NEVER,
        )
        codec = c.create_string_buffer(_CODEC_BYTES)
        for number in _INTERFACE_NUMBERS:
            error = self._quick.vpx_codec_enc_init_ver(codec, interface, config.memory, 0, number)
            if error != 3:  # VPX_CODEC_ABI_MISMATCH
                break
        else:
            raise LibvpxUnusable(f"it refuses every interface number in {_INTERFACE_NUMBERS}")
        self._check(error, f"opening {self.width}x{self.height} at {self._bitrate} bit/s")
        self._codec = codec
        for control, value in _CONTROLS:
            self._check(
                self._quick.vpx_codec_control_(codec, control, c.c_int(value)),
                f"control {control} = {value}",
            )

    def close(self) -> None:
        codec, self._codec = self._codec, None
        if codec is not None:
            self._quick.vpx_codec_destroy(codec)

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
            self._config["bitrate"] = self._kilobits()
            self._check(
                self._quick.vpx_codec_enc_config_set(self._codec, self._config.memory),
                f"a rate of {self._bitrate} bit/s",
            )
        wrapped = self._quick.vpx_img_wrap(
            self._image, _IMAGE_I420, self.width, self.height, 1, i420.ctypes.data
        )
        if not wrapped:
            raise EncoderFailed(f"VP8: libvpx takes no {self.width}x{self.height} picture.")
        flags = _FORCE_KEYFRAME if keyframe else 0
        duration = round(CLOCK_HZ / self._fps)
        self._check(
            self._slow.vpx_codec_encode(self._codec, self._image, pts, duration, flags, _REALTIME),
            f"picture {index}",
        )
        pictures = list(self._pictures())
        if len(pictures) != 1:
            raise EncoderFailed(f"VP8 gave {len(pictures)} packets for picture {index}.")
        ((data, is_key),) = pictures
        self.frames += 1
        self.keyframes += is_key
        self._picture_id = self._picture_id + 1 & 0x7FFF
        return finish(data, vp8_payloads(data, self._picture_id), pts, is_key, index, stamps)

    def _pictures(self) -> Iterator[tuple[bytes, bool]]:
        cursor = c.c_void_p(None)
        while packet := self._quick.vpx_codec_get_cx_data(self._codec, c.byref(cursor)):
            if packet.contents.kind == _PACKET_PICTURE:
                data = c.string_at(packet.contents.data, packet.contents.size)
                yield data, bool(packet.contents.flags & _IS_KEYFRAME)

    def _kilobits(self) -> int:
        return max(1, self._bitrate // 1000)

    def _check(self, error: int, doing: str) -> None:
        if error:
            text = self._quick.vpx_codec_err_to_string(error).decode()
            raise EncoderFailed(f"VP8, {doing}: libvpx says {text!r} ({error}).")


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

    def _apply_bitrate(self) -> None:
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
