"""Small videos as users have them, made here: frames, films, and damaged ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def picture(number: int, width: int = 32, height: int = 24) -> np.ndarray:
    """A smooth picture [H, W, 3] RGB whose brightness tells its number, up to 60."""
    y, x = np.mgrid[:height, :width]
    red = np.full((height, width), 4 * number)
    return np.stack([red, 60 + 2 * y, 60 + 2 * x], -1).clip(0, 255).astype(np.uint8)


def number_of(frame: np.ndarray) -> int:
    """Which one it was; red is all that is looked at. [3, R, R] or [R, R, 3]."""
    red = frame[0] if frame.shape[0] == 3 else frame[..., 0]
    return round(float(red.mean()) / 4)


def frames(folder: Path, count: int, **size: int) -> Path:
    """A folder of PNGs."""
    folder.mkdir(parents=True)
    for number in range(count):
        bgr = np.ascontiguousarray(picture(number, **size)[..., ::-1])
        assert cv2.imwrite(str(folder / f"{number:04d}.png"), bgr)
    return folder


def film(
    path: Path, count: int, *, fps: int = 25, times=None, gop: int = 12, codec="libx264", **size
) -> Path:
    """A video file; `times` are presentation times in 1/1000 s, evenly spaced unless told."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        shown = picture(0, **size)
        stream.width, stream.height, stream.pix_fmt = shown.shape[1], shown.shape[0], "yuv420p"
        stream.gop_size = gop
        if codec == "libx264":
            stream.options = {"crf": "8"}
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, **size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def damaged(path: Path, source: Path) -> Path:
    """The same film, its middle overwritten."""
    content = bytearray(source.read_bytes())
    middle = len(content) // 2
    noise = np.random.default_rng(0).integers(0, 256, len(content) // 4, np.uint8).tobytes()
    content[middle - len(noise) // 2 : middle - len(noise) // 2 + len(noise)] = noise
    path.write_bytes(content)
    return path
