"""Frames into an MP4 file that survives its writer.

H.264 in fragments of a second: whatever happens to the process, all but the last second plays.
BT.601 limited range, and the file says so.
"""

from __future__ import annotations

import errno
import struct
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.video.stream import VideoStream

from realtime.clock import PTS_HZ
from realtime.errors import RealtimeError
from realtime.frame import Frame
from realtime.pyav import fill_frame, signal_bt601

FRAGMENT_S = 1.0
_OPTIONS = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "flush_packets": "1",  # each fragment goes to the system at once: kill -9 cannot take it back
}


class FileFailed(RealtimeError):
    """The file cannot be written any further; what was written before is kept and plays."""


class VideoFile:
    """An MP4 file being written, frame by frame, in the thread that calls.

    Resource handling: a context manager; leaving ends the file, also after an error. A file that
    got no frame is removed, since it would not play.
    Error handling: after a failed write the file is cut behind its last whole fragment.

    Args:
        path: Created or replaced; its folder exists.
        width: Pixels, even.
        height: Pixels, even.
        fps: Frames per second; each frame's own PTS counts.
        bitrate: Mean rate, bit/s.
    Raises:
        FileFailed: It cannot be created, or H.264 cannot be opened.
    """

    def __init__(
        self, path: str | Path, width: int, height: int, fps: Fraction, bitrate: int
    ) -> None:
        self.path = Path(path)
        self.frames = 0
        self._open = False
        self._first_pts = 0
        try:
            self._container = av.open(str(self.path), "w", format="mp4", options=_OPTIONS)
            self._stream = self._add_stream(width, height, fps, bitrate)
            self._container.start_encoding()
        except (OSError, ValueError, av.FFmpegError) as error:
            raise FileFailed(f"{self.path} cannot be written: {_reason(error)}.") from error
        self._picture = av.VideoFrame(width, height, "yuv420p")
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, frame: Frame) -> None:
        """Code one frame. It is not kept.

        Raises:
            FileFailed: No space is left, or the like. The file is ended and kept.
        """
        if not self._open:
            raise FileFailed(f"{self.path} is ended.")
        if self.frames == 0:
            self._first_pts = frame.tick.pts
        fill_frame(self._picture, frame.planes)
        self._picture.pts = frame.tick.pts - self._first_pts
        self._picture.time_base = Fraction(1, PTS_HZ)
        try:
            self._container.mux(self._stream.encode(self._picture))
        except (OSError, av.FFmpegError) as error:
            self._give_up()
            raise self._failed(error) from error
        self.frames += 1

    def close(self) -> None:
        """End the file. Does nothing twice.

        Raises:
            FileFailed: The last second could not be written.
        """
        if not self._open:
            return
        self._open = False
        try:
            if self.frames:
                self._container.mux(self._stream.encode(None))
            self._container.close()
        except (OSError, av.FFmpegError) as error:
            self._give_up()
            raise self._failed(error) from error
        self._remove_if_empty()

    def _add_stream(self, width: int, height: int, fps: Fraction, bitrate: int) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=fps)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = Fraction(1, PTS_HZ)
        context.bit_rate = bitrate
        context.gop_size = max(1, round(fps * Fraction(FRAGMENT_S)))
        context.max_b_frames = 0  # so that a fragment needs nothing of the next one
        signal_bt601(context)
        # A keyframe begins a fragment, so none where nobody asked for it.
        context.options = {"preset": "veryfast", "sc_threshold": "0"}
        return stream

    def _give_up(self) -> None:
        """Close what can be closed, then cut the torn end off."""
        self._open = False
        try:
            self._container.close()
        except (OSError, av.FFmpegError):
            pass  # the reason is already on its way to the caller
        cut_torn_end(self.path)
        self._remove_if_empty()

    def _remove_if_empty(self) -> None:
        if self.frames == 0 and self.path.is_file():
            self.path.unlink()

    def _failed(self, error: Exception) -> FileFailed:
        kept = (
            f"Its first {self.frames} frames but for the last second are kept"
            if self.frames
            else "Nothing of it is kept"
        )
        return FileFailed(
            f"{self.path} could not be written any further: {_reason(error)}. {kept}; "
            "free some space or choose another folder."
        )


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "no space is left for it"
    return getattr(error, "strerror", None) or str(error)


def cut_torn_end(path: Path) -> int:
    """Cut a fragmented MP4 behind its last whole fragment, in place.

    Returns:
        The bytes that were cut off.
    """
    size = path.stat().st_size
    whole = at = 0
    with path.open("rb+") as file:
        while at + 8 <= size:
            file.seek(at)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length < 8 or at + length > size:
                break
            at += length
            if kind != b"moof":  # a fragment is whole with its data, which follows its index
                whole = at
        file.truncate(whole)
    return size - whole
