"""Whether a file is fit to be a training clip, and which of its frames are taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.errors import BadConfig
from models.training.data.listing import FILMS, PICTURES
from models.training.video_file import FilmIndex

MOST_UNEVEN = 0.10  # of the median interval, at the 95th percentile
ALIKE = 0.06  # rates this near are taken as they are: 24, 25 and 23.976


class Unfit(Exception):
    """A file that is no training clip.

    Args:
        reason: One of a few, to be counted.
        detail: The value, and what would do.
        failed: Something is broken, rather than unsuited.
    """

    def __init__(self, reason: str, detail: str, *, failed: bool = False) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.failed = failed


@dataclass(frozen=True)
class Cut:
    """What is made of each video.

    Args:
        resolution: Side of the frames.
        fps: Frames per second of what is written; None: the commonest rate of the videos.
        box: Left, top and side of the square to keep, in pixels of the upright picture; None is
            the largest one in the middle.
        least_frames: Of a clip.
    """

    resolution: int = 256
    fps: float | None = None
    box: tuple[int, int, int] | None = None
    least_frames: int = 32

    def __post_init__(self) -> None:
        side = self.resolution
        if not (8 <= side <= 2048 and side & (side - 1) == 0):
            raise BadConfig(f"resolution is {side}; a power of two from 8 to 2048 is needed")
        if self.fps is not None and not 1 <= self.fps <= 1000:
            raise BadConfig(f"fps is {self.fps}; 1 to 1000 can be")
        if self.box is not None and (min(self.box) < 0 or self.box[2] < 1):
            raise BadConfig(f"the box {self.box} is left, top and side in pixels, none negative")
        if self.least_frames < 3:
            raise BadConfig(f"least-frames is {self.least_frames}; clips need 3 or more")


def check_kind(path: Path) -> None:
    """By its name.

    Raises:
        Unfit: It is no video file.
    """
    if path.suffix.lower() in PICTURES:
        raise Unfit("a picture", "a folder of frames can be trained on as it is")
    if path.suffix.lower() not in FILMS:
        raise Unfit("no video", f"known are {', '.join(sorted(FILMS))}")


def taken(index: FilmIndex, fps: float) -> list[int]:
    """The frames that make a video of `fps` frames per second.

    A rate close to that is taken as it is; of a higher one the frames nearest in time are, each
    once.

    Raises:
        Unfit: The rate varies, or is lower.
    """
    if index.uneven > MOST_UNEVEN:
        raise Unfit(
            "variable frame rate",
            f"intervals differ by {index.uneven:.0%} of the median; convert it to a constant rate",
        )
    ratio = index.fps / fps
    if abs(ratio - 1) <= ALIKE:
        return list(range(len(index.times)))
    if ratio < 1:
        raise Unfit(
            "frame rate too low", f"{index.fps:.4g} a second; give --fps {index.fps:.4g} or less"
        )
    count = int((len(index.times) - 1) / ratio) + 1
    return [round(number * ratio) for number in range(count)]


def check_size(width: int, height: int, cut: Cut) -> tuple[int, int, int]:
    """Left, top and side of the square that is kept of an upright picture.

    Raises:
        Unfit: It would have to be enlarged, or the box is not within it.
    """
    if cut.box is None:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
    else:
        left, top, side = cut.box
        if left + side > width or top + side > height:
            raise Unfit("too small", f"{width} x {height}; the box {cut.box} is not within it")
    if side < cut.resolution:
        raise Unfit("too small", f"{side} pixels for {cut.resolution}; give a smaller --resolution")
    return left, top, side


def check_length(frames: int, cut: Cut) -> None:
    """By the number of frames that are taken.

    Raises:
        Unfit: There are too few.
    """
    if frames < cut.least_frames:
        raise Unfit("too short", f"{frames} frames; {cut.least_frames} are needed")
