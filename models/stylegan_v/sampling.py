"""Which frames of a clip the discriminator sees.

Source: StyleGAN-V (https://arxiv.org/abs/2112.14683), Sec. 3.2; how spans, offsets and the frames
between are drawn is the behaviour of the published code.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.errors import BadConfig


def admissible_spans(length: int, frames: int, max_span: int) -> list[int]:
    """Powers of two that hold `frames` distinct frames and fit a video of `length` frames.

    Raises:
        BadConfig: None does: the video is too short.
    """
    longest = min(length - 1, max_span)
    spans = [2**e for e in range(max(longest, 1).bit_length()) if frames - 1 <= 2**e <= longest]
    if not spans:
        raise BadConfig(
            f"a video of {length} frames has no span for {frames} frames of at most {max_span};"
            " leave such videos out"
        )
    return spans


def random_times(
    rng: np.random.Generator,
    length: int,
    *,
    frames: int = 3,
    max_span: int = 32,
    fractional: bool = False,
) -> npt.NDArray[np.float64]:
    """Times of one training clip: first, last, and distinct random frames between.

    Args:
        rng: Where randomness comes from.
        length: Of the video (or of the training window, if that is shorter), frames.
        frames: How many.
        max_span: Longest time from first to last.
        fractional: For generated clips: a real offset, shared by all frames, so that differences
            stay whole. Real clips take whole frames.
    Returns:
        [frames] float64, rising.
    Raises:
        BadConfig: The video is too short.
    """
    if frames == 1:
        return np.array([rng.uniform(0, length - 1) if fractional else rng.integers(length)], float)
    span = int(rng.choice(admissible_spans(length, frames, max_span)))
    room = length - span - 1  # how far the clip can be moved
    offset = rng.uniform(0, room) if fractional and room > 0 else float(rng.integers(room + 1))
    between = rng.choice(np.arange(1, span), frames - 2, replace=False)
    return offset + np.sort(np.concatenate([[0, span], between])).astype(float)


def uniform_times(
    rng: np.random.Generator,
    length: int,
    *,
    frames: int = 3,
    max_step: int = 32,
    fractional: bool = False,
) -> npt.NDArray[np.float64]:
    """Times of one training clip of equally spaced frames; the step is a whole number.

    Args and returns as for `random_times`, but `max_step` limits the step, as does
    `length // frames`.

    Raises:
        BadConfig: The video is too short.
    """
    if length < frames:
        raise BadConfig(f"a video of {length} frames is too short for clips of {frames}")
    step = int(rng.integers(1, min(max_step, length // frames) + 1))
    room = length - step * (frames - 1) - 1
    offset = rng.uniform(0, room) if fractional and room > 0 else float(rng.integers(room + 1))
    return offset + step * np.arange(frames, dtype=float)
