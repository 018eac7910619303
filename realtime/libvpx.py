"""libvpx through ctypes: as much of it as VP8 in real time needs.

PyAV ships libvpx as a shared library. Its configuration struct has no stable layout, so two locks
guard it: libvpx checks its interface number, and 22 defaults are compared with what they must be.
"""

from __future__ import annotations

import ctypes as c
import ctypes.util
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import av
import numpy as np

from realtime.errors import EncoderFailed

# vpx/vpx_encoder.h and vpx/vp8cx.h
_REALTIME, _FORCE_KEYFRAME = 1, 1
_PACKET_PICTURE, _IS_KEYFRAME = 0, 1
_IMAGE_I420 = 0x102
_INTERFACE_MISMATCH = 3
_INTERFACE_NUMBERS = range(24, 50)  # differs between releases; libvpx refuses all but its own
CBR = 1
KF_DISABLED = 0
CPU_USED, NOISE_SENSITIVITY, STATIC_THRESHOLD, TOKEN_PARTITIONS, MAX_INTRA = 13, 15, 17, 18, 26

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
def load() -> tuple[c.CDLL, c.PyDLL]:
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

    def update(self, values: Mapping[str, int]) -> None:
        for name, value in values.items():
            self[name] = value


class Vp8Codec:
    """One open encoder.

    Args:
        settings: Fields of the configuration by the names above; `bitrate` in kbit/s.
        controls: Numbers and values of vp8e_enc_control_id.
    Raises:
        LibvpxUnusable: this libvpx is not as it must be, or lacks a control.
        EncoderFailed: it refuses the settings.
    """

    def __init__(self, settings: Mapping[str, int], controls: Mapping[int, int]) -> None:
        self._slow, self._quick = load()
        self._codec: c.Array[c.c_char] | None = None
        self._image = c.create_string_buffer(_IMAGE_BYTES)
        interface = self._quick.vpx_codec_vp8_cx()
        self._config = _Configuration(self._quick, interface)
        self._config.update(settings)
        codec = c.create_string_buffer(_CODEC_BYTES)
        for number in _INTERFACE_NUMBERS:
            error = self._quick.vpx_codec_enc_init_ver(
                codec, interface, self._config.memory, 0, number
            )
            if error != _INTERFACE_MISMATCH:
                break
        else:
            raise LibvpxUnusable(f"it refuses every interface number in {_INTERFACE_NUMBERS}")
        self._check(error, f"opening with {dict(settings)}")
        self._codec = codec
        for control, value in controls.items():
            error = self._quick.vpx_codec_control_(codec, control, c.c_int(value))
            if error:
                self.close()  # nobody else knows of it yet
                raise LibvpxUnusable(f"it refuses control {control} = {value}: {self._text(error)}")

    def set_bitrate(self, kilobits: int) -> None:
        """A new rate from the next picture on, without a keyframe."""
        self._config["bitrate"] = kilobits
        self._check(
            self._quick.vpx_codec_enc_config_set(self._codec, self._config.memory),
            f"a rate of {kilobits} kbit/s",
        )

    def encode(
        self, i420: np.ndarray, pts: int, duration: int, keyframe: bool
    ) -> list[tuple[bytes, bool]]:
        """(data, is it a keyframe) of each picture that came out; one, as nothing is held back.

        The pixels are read where they lie and copied before this returns.

        Args:
            i420: uint8 [H*3//2, W], contiguous, of the size configured.
            pts, duration: In units of the configured time base.
        """
        if self._codec is None:
            raise EncoderFailed("VP8: the encoder is closed.")
        wrapped = self._quick.vpx_img_wrap(
            self._image,
            _IMAGE_I420,
            self._config["width"],
            self._config["height"],
            1,
            i420.ctypes.data,
        )
        if not wrapped:
            raise EncoderFailed(f"VP8: libvpx takes no I420 picture {i420.shape}.")
        flags = _FORCE_KEYFRAME if keyframe else 0
        self._check(
            self._slow.vpx_codec_encode(self._codec, self._image, pts, duration, flags, _REALTIME),
            f"the picture at {pts}",
        )
        return list(self._pictures())

    def close(self) -> None:
        """Idempotent."""
        codec, self._codec = self._codec, None
        if codec is not None:
            self._quick.vpx_codec_destroy(codec)

    def _pictures(self) -> Iterator[tuple[bytes, bool]]:
        cursor = c.c_void_p(None)
        while packet := self._quick.vpx_codec_get_cx_data(self._codec, c.byref(cursor)):
            if packet.contents.kind == _PACKET_PICTURE:
                data = c.string_at(packet.contents.data, packet.contents.size)
                yield data, bool(packet.contents.flags & _IS_KEYFRAME)

    def _check(self, error: int, doing: str) -> None:
        if error:
            raise EncoderFailed(f"VP8, {doing}: libvpx says {self._text(error)}.")

    def _text(self, error: int) -> str:
        return f"{self._quick.vpx_codec_err_to_string(error).decode()!r} ({error})"


def version() -> str:
    """Of the library that `load` finds.

    Raises:
        LibvpxUnusable: there is none.
    """
    return load()[1].vpx_codec_version_str().decode()
