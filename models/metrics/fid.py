"""Frechet inception distance of single frames: how pictures look, whatever moves.

Source: Heusel et al., NeurIPS 2017. StyleGAN-V compares 50,000 generated frames with all frames of
the data; fewer say so in the result.
"""

from __future__ import annotations

import numpy as np

from models.contracts import System
from models.metrics.features import FeatureNetwork
from models.metrics.frechet import BadFeatures, Moments, MomentSum, frechet_distance
from models.metrics.fvd import FrechetResult, Report, lengths_of
from models.metrics.generated import clip
from models.training.contracts import ClipRequest, ClipSource

GENERATED = 50_000
_AT_ONCE = 16  # real frames of one video that are read together


def real_frames(
    source: ClipSource,
    features: FeatureNetwork,
    *,
    limit: int | None = None,
    report: Report | None = None,
) -> Moments:
    """Of all frames, or of `limit` of them spread evenly over all."""
    lengths = lengths_of(source, limit or GENERATED)
    ends = np.cumsum(lengths)
    everything = int(ends[-1])
    wanted = everything if limit is None else min(limit, everything)
    chosen = np.unique(np.linspace(0, everything - 1, wanted).round().astype(np.int64))
    videos = np.searchsorted(ends, chosen, side="right")
    total = MomentSum()
    done = 0
    for video in np.unique(videos):
        times = chosen[videos == video] - (ends[video] - lengths[video])
        for first in range(0, len(times), _AT_ONCE):
            part = tuple(float(t) for t in times[first : first + _AT_ONCE])
            frames = source.clips([ClipRequest(int(video), part)]).frames[0]
            total.add(features(frames[:, None]).numpy())
            done += len(part)
            if report:
                report(done, len(chosen))
    return total.moments()


def generated_frames(
    system: System,
    features: FeatureNetwork,
    count: int,
    *,
    seconds: float,
    report: Report | None = None,
) -> Moments:
    """Of `count` people, a frame each at a random time within `seconds`, psi 1."""
    random = np.random.Generator(np.random.Philox(key=1))
    total = MomentSum()
    for seed in range(count):
        total.add(features(clip(system, [random.uniform(0, seconds)], seed=seed)[None]).numpy())
        if report:
            report(seed + 1, count)
    return total.moments()


def fid(
    system: System,
    source: ClipSource,
    features: FeatureNetwork,
    *,
    count: int = GENERATED,
    report: Report | None = None,
) -> FrechetResult:
    """The distance of a system's frames to those of `source`.

    Args:
        count: Generated frames. Fewer than were published, or a source without end: as many of
            the data; else all of the data.
    Raises:
        BadFeatures: Resolutions differ.
    """
    if system.resolution != source.info.resolution:
        raise BadFeatures(
            f"{system.name} draws {system.resolution} px, {source.info.name} is read at"
            f" {source.info.resolution} px; open the data at the model's resolution"
        )
    whole = count >= GENERATED and len(source.info.lengths) > 0
    real = real_frames(source, features, limit=None if whole else count, report=report)
    seconds = float(np.median(lengths_of(source, 1))) / source.info.fps
    drawn = generated_frames(system, features, count, seconds=seconds, report=report)
    name = "fid50k" if count == GENERATED else f"fid{count}"
    distance = frechet_distance(real, drawn)
    return FrechetResult(
        distance, name, features.name, real.count, drawn.count, 1, 1, system.resolution
    )
