"""What everything that hands I420 pictures to PyAV has in common."""

from __future__ import annotations

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

_BT601 = 6  # SMPTE 170M, as matrix, primaries and transfer alike (ITU-T H.273)
_LIMITED = 1  # AVCOL_RANGE_MPEG


def signal_bt601(context: VideoCodecContext) -> None:
    """Let the coded stream say BT.601, limited range. Before the context is opened."""
    context.color_range, context.colorspace = _LIMITED, _BT601
    context.color_primaries = context.color_trc = _BT601


def fill_frame(picture: av.VideoFrame, planes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Copy pixels into a yuv420p frame of the same size, whose rows may be padded.

    Args:
        planes: uint8 Y [H, W], U [H/2, W/2], V [H/2, W/2].
    """
    for plane, source in zip(picture.planes, planes, strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        rows[:, : plane.width] = source
