"""Whether a model draws the faces that it was told to: likeness, faces, pose, blinks, speech.

A model whose content is the numbers of a person and whose motion is those of a face can be held
against the renderer's picture of the same numbers (`Likeness`), and its streams against what their
tracks say (`streams`). What is read in its frames is read by the observer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.contracts import System
from models.errors import BadConfig
from models.faces.state import SCALE, part
from models.faces.tracks import BLINK_S, BLINK_SLOT_S, Track
from models.faces.traits import Traits
from models.metrics.generated import clip
from models.metrics.landmarks import eye_opening, mouth_gap, off_by
from models.metrics.negatives import negatives
from models.metrics.observer import Observer, observe, prepared
from models.metrics.sharpness import Sharpness
from models.metrics.truth import Truth

NEAR = 0.06  # of the face's width: how far landmarks may be off on average
SHUT = 0.35  # of an eye's usual opening, below which it counts as shut
UNSEEN_TRACKS = 1_000_000  # seeds of motion from here on are never trained on
Report = Callable[[int, int], None]  # people done, people in all
F64 = npt.NDArray[np.float64]


class Numbered(System, Protocol):
    """A system that knows the numbers behind its seeds."""

    def traits(self, *, seed: int, psi: float = 1.0) -> Traits: ...

    def track(self, *, seed: int) -> Track: ...


def numbered(system: System) -> Numbered:
    """The system as one that knows its numbers.

    Raises:
        BadConfig: It does not.
    """
    if not (hasattr(system, "traits") and hasattr(system, "track")):
        raise BadConfig(f"{system.name} knows no numbers of its faces; judge it by fvd and fid")
    system.traits(seed=0)  # raises
    system.track(seed=0)
    return cast(Numbered, system)


@dataclass(frozen=True)
class LikenessFigures:
    """Frames of people at moments of unseen tracks against the renderer's.

    Args:
        psnr, psnr_median, psnr_worst: dB; squared errors are pooled per person first.
        psnr_head: The same over whoever is seen, without the backdrop; mean over people.
        sharpness: Power between 1/4 and 1/2 cycles per pixel over the rendered frames'.
        faces: Share of frames that hold the face they should, see `is_face`.
        landmarks: Mean distance of landmarks from the truth, share of the face's width.
        mouth: Correlation of the lips' distance with the truth's.
        people, frames: How many.
    """

    psnr: float
    psnr_median: float
    psnr_worst: float
    psnr_head: float
    sharpness: float
    faces: float
    landmarks: float
    mouth: float
    people: int
    frames: int


@dataclass(frozen=True)
class StreamFigures:
    """What is observed in long streams.

    Args:
        yaw_low, yaw_high: 1st and 99th percentile of the observed yaw, degrees.
        yaw_correlation, pitch_correlation: Of the observed pose with the track's.
        blinks: Share of the tracks' blinks in which the eyes are seen to shut.
        identity: 5th percentile of the cosine between a frame's embedding and its stream's mean.
        identity_ratio: Distance of a frame's embedding from its stream's mean, over the distance of
            that mean from the nearest other stream's; mean over streams. Below 0.5 nobody is taken
            for somebody else.
        people, seconds: How many, and of which length.
    """

    yaw_low: float
    yaw_high: float
    yaw_correlation: float
    pitch_correlation: float
    blinks: float
    identity: float
    identity_ratio: float
    people: int
    seconds: float


def is_face(observer: Observer, frames: Tensor, landmarks: Tensor, visible: Tensor) -> Tensor:
    """[N] bool: there is a head, and its landmarks lie where they should.

    Args:
        frames: uint8 [N, 3, H, W].
        landmarks, visible: The truth, [N, 68, 2] shares of the side and [N, 68].
    """
    seen = observe(observer, frames)
    return (seen.presence > 0) & (off_by(seen.landmarks, landmarks, visible) < NEAR)


def false_faces(observer: Observer, truth: Truth, system: Numbered, count: int = 400) -> float:
    """Share of pictures without a head that would pass for the face of somebody of the system.

    The check is worth something only if this is near 0.
    """
    codes = system.track(seed=UNSEEN_TRACKS).codes(np.arange(8) * 1.7)
    real = truth.frames(system.traits(seed=0), codes)
    made = negatives(prepared(real.frames), count, np.random.Generator(np.random.Philox(key=7)))
    which = torch.arange(count) % len(codes)
    pictures = ((made + 1) * 127.5).round().to(torch.uint8)
    passed = is_face(observer, pictures, real.landmarks[which], real.visible[which])
    return float(passed.float().mean())


def likeness(
    system: Numbered,
    truth: Truth,
    observer: Observer | None,
    people: Sequence[int],
    *,
    moments: int = 32,
    psi: float = 1.0,
    report: Report | None = None,
) -> LikenessFigures:
    """Holds frames against the renderer's.

    Args:
        observer: None leaves out what is read by it: those figures are then NaN.
        people: Seeds.
        moments: Of each person, at unseen times of an unseen track.
    Raises:
        BadConfig: Fewer than two frames.
    """
    if len(people) * moments < 2:
        raise BadConfig(f"{len(people)} people at {moments} moments are too few")
    random = np.random.Generator(np.random.Philox(key=11))
    errors, head_errors, passed, off, gaps = [], [], [], [], []
    sharp = Sharpness()
    for done, seed in enumerate(people):
        times = np.sort(random.uniform(0, 600, moments))
        motion = UNSEEN_TRACKS + seed
        real = truth.frames(
            system.traits(seed=seed, psi=psi), system.track(seed=motion).codes(times)
        )
        drawn = clip(system, times.tolist(), seed=seed, motion_seed=motion, psi=psi)
        square = (drawn.double() - real.frames.double()).square().mean(1)  # [T, R, R]
        errors.append(float(square.mean()))
        head_errors.append(float(square[real.head].mean()))
        sharp.add(drawn, real.frames)
        if observer is not None:
            seen = observe(observer, drawn)
            away = off_by(seen.landmarks, real.landmarks, real.visible)
            off.append(away)
            passed.append((seen.presence > 0) & (away < NEAR))
            gaps.append(torch.stack([mouth_gap(seen.landmarks), mouth_gap(real.landmarks)]))
        if report:
            report(done + 1, len(people))
    decibels = _decibels(errors)
    read = observer is not None
    return LikenessFigures(
        psnr=float(decibels.mean()),
        psnr_median=float(np.median(decibels)),
        psnr_worst=float(decibels.min()),
        psnr_head=float(_decibels(head_errors).mean()),
        sharpness=sharp.ratio,
        faces=float(torch.cat(passed).float().mean()) if read else float("nan"),
        landmarks=float(torch.cat(off).mean()) if read else float("nan"),
        mouth=correlation(*torch.cat(gaps, 1).double().numpy()) if read else float("nan"),
        people=len(people),
        frames=len(people) * moments,
    )


def streams(
    system: Numbered,
    observer: Observer,
    people: Sequence[int],
    *,
    seconds: float = 60.0,
    fps: float = 2.0,
    psi: float = 1.0,
    report: Report | None = None,
) -> StreamFigures:
    """Observes people for a while.

    Args:
        people: Seeds, two at least.
        fps: Frames looked at per second; around each blink of the track there are more.
    Raises:
        BadConfig: One person has nobody to be taken for.
    """
    if len(people) < 2:
        raise BadConfig("identity needs two people at least, to be told apart")
    yaw, pitch, shut, embedded = [], [], [], []
    for done, seed in enumerate(people):
        motion = UNSEEN_TRACKS + seed
        track = system.track(seed=motion)
        times = np.arange(0.0, seconds, 1 / fps)
        seen = observe(
            observer, clip(system, times.tolist(), seed=seed, motion_seed=motion, psi=psi)
        )
        code = track.codes(times)[:, part("pose")]
        yaw.append(np.stack([seen.pose[:, 0].numpy(), code[:, 0]]))
        pitch.append(np.stack([seen.pose[:, 1].numpy(), code[:, 1]]))
        embedded.append(seen.embedding)
        usual = float(eye_opening(seen.landmarks).median())
        for start in _blinks(track, seconds):
            moments = (start + BLINK_S * np.linspace(0.2, 0.6, 5)).tolist()
            drawn = clip(system, moments, seed=seed, motion_seed=motion, psi=psi)
            least = float(eye_opening(observe(observer, drawn).landmarks).min())
            shut.append(least < SHUT * usual)
        if report:
            report(done + 1, len(people))
    sides, ups = np.concatenate(yaw, 1), np.concatenate(pitch, 1)
    cosine, ratio = _identity(embedded)
    return StreamFigures(
        yaw_low=float(np.percentile(sides[0], 1) * SCALE[0]),
        yaw_high=float(np.percentile(sides[0], 99) * SCALE[0]),
        yaw_correlation=correlation(*sides),
        pitch_correlation=correlation(*ups),
        blinks=float(np.mean(shut)) if shut else float("nan"),
        identity=cosine,
        identity_ratio=ratio,
        people=len(people),
        seconds=seconds,
    )


def correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Pearson's; 0 where one of the two does not vary."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def lines(figures: LikenessFigures | StreamFigures) -> list[str]:
    """One line for each figure that was taken."""
    return [
        f"{name:18} {value:.3f}" if isinstance(value, float) else f"{name:18} {value}"
        for name, value in asdict(figures).items()
        if not math.isnan(value)
    ]


def _decibels(errors: Sequence[float]) -> F64:
    return 10 * np.log10(255.0**2 / np.maximum(np.asarray(errors, np.float64), 1e-9))


def _blinks(track: Track, seconds: float) -> list[float]:
    """When blinks begin that end before `seconds`."""
    starts = [track.blink_start(slot) for slot in range(int(seconds / BLINK_SLOT_S) + 1)]
    return [start for start in starts if start + BLINK_S <= seconds]


def _identity(embedded: Sequence[Tensor]) -> tuple[float, float]:
    """See `StreamFigures.identity` and `identity_ratio`."""
    # Around the mean of all, which says what a face is and nothing about whose it is.
    middle = torch.cat(list(embedded)).mean(0)
    own = [x - middle for x in embedded]
    means = torch.stack([x.mean(0) for x in own])
    apart = torch.cdist(means, means)
    apart.fill_diagonal_(float("inf"))
    cosines, ratios = [], []
    for k, x in enumerate(own):
        cosines.append(torch.cosine_similarity(x, means[k][None], dim=1))
        ratios.append(float((x - means[k]).norm(dim=1).mean() / apart[k].min()))
    return float(torch.cat(cosines).quantile(0.05)), float(np.mean(ratios))
