"""How a clip moves: how much, how smoothly, and whether it comes round again.

None of these needs a network or other clips. They are read beside the same figures of the training
data, because a still picture is perfectly smooth and noise never repeats.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from models.errors import BadConfig

_THUMBNAIL = 32  # pixels; a return is one of pose and expression, not of the last pixel


@dataclass(frozen=True)
class MotionFigures:
    """Of a set of clips, as means over clips.

    Args:
        speed: Mean change of a pixel from a frame to the next, 0..255.
        roughness: Second difference over twice the first, 0 where everything moves evenly, 0.5 for
            movement that is new in each frame, 0.87 for flicker without movement.
        loop: See `loop_score`; None where no clip was long enough.
        clips: How many.
    """

    speed: float
    roughness: float
    loop: float | None
    clips: int

    def __str__(self) -> str:
        loop = "clips too short" if self.loop is None else f"{self.loop:.3f}"
        return (
            f"speed {self.speed:.2f}  roughness {self.roughness:.3f}  loop {loop}"
            f"  ({self.clips} clips)"
        )


def speed(clip: Tensor) -> float:
    """Mean absolute change of a pixel per frame. uint8 [T, 3, H, W], T >= 2."""
    x = clip.float()
    return float((x[1:] - x[:-1]).abs().mean())


def roughness(clip: Tensor) -> float:
    """Root mean square of the second differences over twice that of the first ones.

    uint8 [T, 3, H, W], T >= 3. A still clip has 0.
    """
    x = clip.float()
    first = x[1:] - x[:-1]
    second = first[1:] - first[:-1]
    moved = float(first.square().mean())
    return 0.0 if moved == 0 else 0.5 * (float(second.square().mean()) / moved) ** 0.5


def loop_score(clip: Tensor, *, least: int) -> float:
    """1: after some lag the clip repeats exactly; 0: every lag is as far from it as any other.

    The distance at lag L is the mean change of a thumbnail's pixel over L frames; the score is one
    less the smallest distance over the median distance, for lags from `least` to half the clip.

    Args:
        clip: uint8 [T, 3, H, W].
        least: The shortest lag that counts as coming round, frames. Shorter ones are near because
            nothing has happened yet.
    Raises:
        BadConfig: The clip has fewer than 2 `least` frames, or `least` is below 1.
    """
    if least < 1 or len(clip) < 2 * least:
        raise BadConfig(f"{len(clip)} frames are too few to find loops of {least}; need twice that")
    small = F.interpolate(clip.float(), (_THUMBNAIL, _THUMBNAIL), mode="area")
    lags = range(least, len(clip) // 2 + 1)
    distances = [float((small[lag:] - small[:-lag]).abs().mean()) for lag in lags]
    middle = statistics.median(distances)
    return 1.0 if middle == 0 else 1.0 - min(distances) / middle


def motion_figures(clips: Iterable[Tensor], *, fps: float, least_s: float = 1.0) -> MotionFigures:
    """All three over clips uint8 [T, 3, H, W] with T >= 3.

    Args:
        fps: Frames a second of the clips.
        least_s: Shortest loop, seconds.
    Raises:
        BadConfig: There is no clip, or one of fewer than 3 frames.
    """
    speeds, roughs, loops = [], [], []
    least = max(1, round(least_s * fps))
    for clip in clips:
        if len(clip) < 3:
            raise BadConfig(f"a clip of {len(clip)} frames has no smoothness; need 3")
        speeds.append(speed(clip))
        roughs.append(roughness(clip))
        if len(clip) >= 2 * least:
            loops.append(loop_score(clip, least=least))
    if not speeds:
        raise BadConfig("no clip to look at")
    loop = statistics.fmean(loops) if loops else None
    return MotionFigures(statistics.fmean(speeds), statistics.fmean(roughs), loop, len(speeds))
