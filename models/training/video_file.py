"""Video files by PyAV: any frame by its number, and clips into MP4. The only file here that knows
codecs.
"""

from __future__ import annotations

import bisect
import io
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from torch import Tensor

from models.training.data.errors import BadData

Picture = npt.NDArray[np.uint8]
_GUESSED = {"avi"}  # containers without presentation times: the demuxer makes them up
_SLACK = 0.05  # share of a film's frames that its header may be wrong by
_CRF = "16"  # of sample clips: what is judged shall be the model, not the codec


@dataclass(frozen=True)
class FilmIndex:
    """Where the frames of a file are.

    Args:
        times: Presentation time of each frame, rising, in units of `base`.
        keys: Those that decoding can begin at. None: the file's times are guesses, and frames are
            counted from its start.
        base: Seconds.
        fps: From the median interval.
        uneven: 95th percentile of |interval - median| by the median; 0 is a constant rate.
        width, height: As stored; a turned picture is turned when it is read.
        lost: About how many frames the file announces and does not hold: it was cut off.
    """

    times: tuple[int, ...]
    keys: tuple[int, ...]
    base: Fraction
    fps: float
    uneven: float
    width: int
    height: int
    lost: int = 0

    @property
    def seconds(self) -> float:
        """From the first frame to the last one's end."""
        span = float((self.times[-1] - self.times[0]) * self.base)
        return span + 1 / self.fps


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The container and its first real video stream.

    Raises:
        BadData: None of these is there, or a decoding error passes through.
    """
    try:
        with av.open(str(path)) as container:
            # A cover picture is a stream too; it has one frame.
            streams = [s for s in container.streams.video if not _is_cover(s)]
            if not streams:
                raise BadData(f"{path} holds no video")
            yield container, streams[0]
    except (av.error.FFmpegError, OSError) as error:
        raise BadData(f"{path} cannot be read: {error.strerror or error}") from error


def _is_cover(stream: Any) -> bool:
    return bool(int(stream.disposition) & int(av.stream.Disposition.attached_pic))


def index(path: Path) -> FilmIndex:
    """Reads through a file without decoding it.

    Raises:
        BadData: It cannot be read, holds no video or not two frames.
    """
    with _opened(path) as (container, stream):
        size = (stream.codec_context.width, stream.codec_context.height)
        base = stream.time_base
        packets = [p for p in container.demux(stream) if p.size]
        announced, said_s = stream.frames, _announced_s(stream)
        guessed = container.format.name in _GUESSED or any(p.pts is None for p in packets)
        if not guessed:
            shown = [p for p in packets if not p.is_discard]
            times = sorted({p.pts for p in shown})
            keys = sorted({p.pts for p in shown if p.is_keyframe}) or times[:1]
    if guessed:
        with _opened(path) as (container, stream):  # again: not all of these can be wound back
            base = 1 / (stream.average_rate or stream.guessed_rate or Fraction(25))
            times, keys = list(range(sum(1 for _ in container.decode(stream)))), []
    if len(times) < 2 or base is None:
        raise BadData(f"{path} has {len(times)} frames with a time; 2 are needed")
    steps = np.diff(np.array(times, np.float64))
    median = float(np.median(steps))
    fps = 1 / (median * float(base))
    uneven = float(np.percentile(np.abs(steps - median), 95)) / median
    lost = max(announced, round(said_s * fps)) - len(packets)
    # Durations are rounded, and some count another stream's tail.
    lost = lost if lost > 2 + _SLACK * len(packets) else 0
    return FilmIndex(tuple(times), tuple(keys), base, fps, uneven, *size, lost)


def _announced_s(stream: Any) -> float:
    """What Matroska's header says of the stream's length; 0 where it says nothing."""
    parts = str(stream.metadata.get("DURATION", "")).split(":")
    try:
        hours, minutes, seconds = map(float, parts)
    except ValueError:
        return 0.0
    return hours * 3600 + minutes * 60 + seconds


def read_frames(
    path: Path, where: FilmIndex, wanted: Sequence[int]
) -> Iterator[tuple[int, Picture]]:
    """Frames by number, in rising order.

    Args:
        wanted: Numbers, rising.
    Yields:
        Number and picture [H, W, 3] RGB, turned as the file says.
    Raises:
        BadData: One cannot be decoded; it is named.
    """
    todo = list(wanted)
    if not todo:
        return
    with _opened(path) as (container, stream):
        stream.thread_type = "NONE"  # the workers are threads already
        if not where.keys:
            for number, frame in enumerate(container.decode(stream)):
                if number == todo[0]:
                    yield todo.pop(0), _turned(frame)
                    if not todo:
                        return
            raise BadData(f"{path}: frame {todo[0]} cannot be decoded; the file is damaged")
        while todo:
            target = where.times[todo[0]]
            key = where.keys[max(bisect.bisect_right(where.keys, target) - 1, 0)]
            container.seek(key, stream=stream, backward=True)
            found = yield from _forward(container, stream, where, todo)
            if not found:
                raise BadData(f"{path}: frame {todo[0]} cannot be decoded; the file is damaged")


def _forward(
    container: Any, stream: Any, where: FilmIndex, todo: list[int]
) -> Generator[tuple[int, Picture], None, bool]:
    """Frames from where the file is, until the next one wanted is behind another keyframe.

    Returns:
        Whether there was any; those found are taken from `todo`.
    """
    found = False
    for frame in container.decode(stream):
        if frame.pts is None or frame.pts < where.times[todo[0]]:
            continue
        if frame.pts > where.times[todo[0]]:
            return found  # it is missing
        yield todo.pop(0), _turned(frame)
        found = True
        if not todo:
            return True
        here = bisect.bisect_right(where.keys, frame.pts)
        if here < bisect.bisect_right(where.keys, where.times[todo[0]]):
            return True  # a seek is nearer
    return found


def every_frame(path: Path) -> Iterator[tuple[float, Picture]]:
    """All frames in order, with their time in seconds.

    Raises:
        BadData: One cannot be decoded; it is named.
    """
    number = 0
    with _opened(path) as (container, stream):
        stream.thread_type = "NONE"
        frames = container.decode(stream)
        while True:
            try:
                frame = next(frames, None)
                if frame is None:
                    return
                # Concealed damage is damage: the decoder says so for each frame.
                if frame.is_corrupt:
                    raise BadData(f"{path}: frame {number} is damaged")
                picture = _turned(frame)
            except av.error.FFmpegError as error:
                raise BadData(f"{path}: frame {number}: {error.strerror or error}") from error
            time = frame.time if frame.time is not None else math.nan
            yield time, picture
            number += 1


def _turned(frame: Any) -> Picture:
    """RGB pixels, upright: phones store the sensor's picture and how it was held."""
    picture: Picture = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarters)) if quarters else picture


def write_clips(path: Path, clips: Tensor, fps: float) -> None:
    """An MP4 of clips side by side.

    Args:
        clips: uint8 [N, T, 3, R, R].
        fps: Frames per second.
    Raises:
        OSError: The file cannot be written.
    """
    wide = clips.permute(1, 3, 0, 4, 2).flatten(2, 3).cpu().numpy()  # [T, R, N * R, 3]
    wide = wide[:, : wide.shape[1] // 2 * 2, : wide.shape[2] // 2 * 2]  # 4:2:0 has even sides
    # Into memory first: a full disk is then an OSError of a plain write, and no torn file stays.
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": _CRF})
        stream.width, stream.height = wide.shape[2], wide.shape[1]
        stream.pix_fmt = "yuv420p"
        for picture in wide:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(buffer.getvalue())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
