"""Frechet video distance of a system to a source of clips, by the protocols of StyleGAN-V.

Source: Unterthiner et al., "Towards Accurate Generative Models of Video", 2018
(https://arxiv.org/abs/1812.01717); the protocols' sizes are those of StyleGAN-V
(https://arxiv.org/abs/2112.14683), Sec. 4. A number says something only beside numbers of the same
protocol, feature network and resolution, so `FrechetResult` prints them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.contracts import System
from models.metrics.features import FeatureNetwork
from models.metrics.frechet import BadFeatures, Moments, MomentSum, frechet_distance
from models.metrics.generated import clip
from models.training.contracts import ClipRequest, ClipSource

ENDLESS = 1024  # frames that count of a video without an end: as long as any may be in training
Report = Callable[[int, int], None]  # clips done, clips in all


@dataclass(frozen=True)
class Protocol:
    """Which clips are compared.

    Args:
        name: As published.
        clips: Of the system; as many of the data, if there are so many videos.
        frames: Of a clip.
        step: Training frames between two frames of a clip.
    """

    name: str
    clips: int
    frames: int
    step: int = 1

    @property
    def span(self) -> int:
        """Training frames from the first to the last one."""
        return (self.frames - 1) * self.step


PROTOCOLS = {
    "fvd16": Protocol("fvd2048_16f", 2048, 16),
    "fvd128": Protocol("fvd2048_128f", 2048, 128),
    "fvd128s8": Protocol("fvd2048_128f_subsample8f", 2048, 16, 8),
}


@dataclass(frozen=True)
class FrechetResult:
    """A distance and all that it depends on.

    Args:
        protocol: Its name.
        features: The name of the feature network.
        real, generated: Clips (of `frames`, `step` apart) that were compared.
        resolution: Side of the pictures, pixels.
    """

    distance: float
    protocol: str
    features: str
    real: int
    generated: int
    frames: int
    step: int
    resolution: int

    def __str__(self) -> str:
        return (
            f"{self.protocol} {self.distance:.2f}  ({self.generated} generated against {self.real}"
            f" real clips of {self.frames} frames, step {self.step}, {self.resolution} px;"
            f" features: {self.features})"
        )


def lengths_of(source: ClipSource, videos: int) -> npt.NDArray[np.int64]:
    """Of its videos; of the first `videos` of a source that makes as many as are asked for."""
    lengths = np.asarray(source.info.lengths, np.int64)
    return lengths if len(lengths) else np.full(videos, ENDLESS, np.int64)


def real_moments(
    source: ClipSource,
    protocol: Protocol,
    features: FeatureNetwork,
    *,
    seed: int = 0,
    report: Report | None = None,
) -> Moments:
    """Of one clip of each video at a random start; videos that are too short are left out.

    Raises:
        BadFeatures: Fewer than two videos are long enough.
    """
    random = np.random.Generator(np.random.Philox(key=seed))
    lengths = lengths_of(source, protocol.clips)
    long_enough = np.flatnonzero(lengths > protocol.span)
    if len(long_enough) < 2:
        raise BadFeatures(
            f"{len(long_enough)} of {len(lengths)} videos of {source.info.name} have the"
            f" {protocol.span + 1} frames of {protocol.name}; choose a shorter protocol"
        )
    chosen = np.sort(random.permutation(long_enough)[: protocol.clips])
    total = MomentSum()
    for done, video in enumerate(chosen):
        start = int(random.integers(0, lengths[video] - protocol.span))
        times = tuple(float(start + k * protocol.step) for k in range(protocol.frames))
        batch = source.clips([ClipRequest(int(video), times)])
        total.add(features(batch.frames).numpy())
        if report:
            report(done + 1, len(chosen))
    return total.moments()


def generated_moments(
    system: System,
    protocol: Protocol,
    features: FeatureNetwork,
    *,
    fps: float,
    report: Report | None = None,
) -> Moments:
    """Of people 0, 1, ..., each moving by its own seed from time 0 on, psi 1.

    Args:
        fps: Training frames a second: the system's own unit of `protocol.step`.
    """
    total = MomentSum()
    times_s = [k * protocol.step / fps for k in range(protocol.frames)]
    for seed in range(protocol.clips):
        total.add(features(clip(system, times_s, seed=seed)[None]).numpy())
        if report:
            report(seed + 1, protocol.clips)
    return total.moments()


def fvd(
    system: System,
    source: ClipSource,
    protocol: Protocol,
    features: FeatureNetwork,
    *,
    clips: int | None = None,
    report: Report | None = None,
) -> FrechetResult:
    """The distance of a system to the videos of `source`.

    Args:
        clips: Of either, instead of the protocol's number; the result says how many there were.
    Raises:
        BadFeatures: Resolutions differ, or videos are too few or too short.
    """
    if system.resolution != source.info.resolution:
        raise BadFeatures(
            f"{system.name} draws {system.resolution} px, {source.info.name} is read at"
            f" {source.info.resolution} px; open the data at the model's resolution"
        )
    if clips is not None:
        protocol = replace(protocol, clips=clips)
    real = real_moments(source, protocol, features, report=report)
    drawn = generated_moments(system, protocol, features, fps=source.info.fps, report=report)
    return FrechetResult(
        frechet_distance(real, drawn),
        protocol.name,
        features.name,
        real.count,
        drawn.count,
        protocol.frames,
        protocol.step,
        system.resolution,
    )
