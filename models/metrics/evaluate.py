"""All figures of a model that were asked for, as a table that JSON can hold and lines to read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from models.contracts import System
from models.errors import BadConfig
from models.metrics import faces
from models.metrics.features import image_features, video_features
from models.metrics.fid import GENERATED, fid
from models.metrics.fvd import PROTOCOLS, fvd, lengths_of
from models.metrics.generated import clip
from models.metrics.motion import motion_figures
from models.metrics.observer import Observer, load
from models.metrics.sharpness import fine_power
from models.metrics.truth import Truth
from models.training.contracts import ClipRequest, ClipSource

METRICS = (*PROTOCOLS, "fid", "motion", "sharpness", "likeness", "faces")
NEEDS_DATA = {*PROTOCOLS, "fid"}
_MOTION_S = 4.0  # of a clip whose movement is looked at
_MOTION_CLIPS, _SHARP_FRAMES = 16, 64
_UNSEEN_PEOPLE = 1000  # seeds from here on are not trained on
_PAGE_PSI = 0.7  # what the page shows at first
Report = Callable[[str, int, int], None]  # what, done, in all


@dataclass(frozen=True)
class Asked:
    """What to measure, and how much of it.

    Args:
        metrics: Of `METRICS`.
        features: The user's TorchScript network for FVD and FID; None is the random one.
        clips: Generated clips (FVD) or frames (FID); None is what was published.
        facekit: The geometry the model was trained on, for `likeness` and `faces`; None is the
            small head.
        observer: Its weights; None are the shipped ones.
        people: For both: how many of the people it was trained on, and as many unseen.
        moments: Of each of these, against the renderer.
        seconds: Of each stream that is observed.
    Raises:
        BadConfig: A metric is unknown or a number impossible.
    """

    metrics: Sequence[str]
    features: Path | None = None
    clips: int | None = None
    facekit: Path | None = None
    observer: Path | None = None
    people: int = 64
    moments: int = 32
    seconds: float = 60.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise BadConfig(
                f"no metric is called {', '.join(unknown) or 'nothing'}; known are"
                f" {', '.join(METRICS)}"
            )
        if self.clips is not None and self.clips < 2:
            raise BadConfig(f"clips is {self.clips}; two at least are compared")
        if self.people < 2 or self.moments < 1 or not 5 <= self.seconds <= 3600:
            raise BadConfig(
                f"{self.people} people, {self.moments} moments, {self.seconds:g} s; need 2 and 1 at"
                " least, and 5 .. 3600 s"
            )


@dataclass
class Evaluation:
    """What was found: `table` for JSON, `lines` for people."""

    table: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def add(self, name: str, figures: Any, lines: Sequence[str]) -> None:
        self.table[name] = {key: _plain(value) for key, value in figures.items()}
        self.lines += [name, *(f"  {line}" for line in lines)]


def evaluate(
    system: System, source: ClipSource | None, asked: Asked, report: Report | None = None
) -> Evaluation:
    """Measures a model.

    Args:
        source: Real clips at the model's resolution, for FVD and FID; motion and sharpness do
            without, but say less then; likeness and faces are against rendered truth.
    Raises:
        BadConfig: A metric needs data and there is none, or numbers of faces and it knows none.
        BadFeatures, BadNetwork, BadCheckpoint: See each metric.
    """
    missing = [name for name in asked.metrics if name in NEEDS_DATA and source is None]
    if missing:
        raise BadConfig(f"{', '.join(missing)} compare with data; give --data PATH")
    found = Evaluation({"model": system.name, "resolution": system.resolution})
    for name in asked.metrics:
        told = (lambda done, total, name=name: report(name, done, total)) if report else None
        if name in ("likeness", "faces"):
            known, truth = faces.numbered(system), Truth(system.resolution, asked.facekit)
            observer = load(asked.observer) if name == "faces" else None
            _likeness(found, known, truth, observer, asked, report)
            if observer is not None:
                _streams(found, known, truth, observer, asked, report)
        elif name == "motion":
            _motion(found, system, source)
        elif name == "sharpness":
            _sharpness(found, system, source)
        else:
            assert source is not None
            if name == "fid":
                network = image_features(asked.features)
                result = fid(system, source, network, count=asked.clips or GENERATED, report=told)
            else:
                video = video_features(asked.features)
                protocol = PROTOCOLS[name]
                result = fvd(system, source, protocol, video, clips=asked.clips, report=told)
            found.add(name, asdict(result), [str(result)])
    return found


def _motion(found: Evaluation, system: System, source: ClipSource | None) -> None:
    fps = source.info.fps if source else 25.0
    frames = round(_MOTION_S * fps)
    times = [k / fps for k in range(frames)]
    drawn = motion_figures((clip(system, times, seed=s) for s in range(_MOTION_CLIPS)), fps=fps)
    found.add("motion", asdict(drawn), [f"generated  {drawn}"])
    if source is None:
        return
    clips = list(_real_clips(source, _MOTION_CLIPS, frames))
    if not clips:
        found.lines.append(f"  real       no video has {frames} frames")
        return
    real = motion_figures(clips, fps=fps)
    found.add("motion of the data", asdict(real), [f"real       {real}"])


def _sharpness(found: Evaluation, system: System, source: ClipSource | None) -> None:
    drawn = [clip(system, [0.7 * s], seed=s) for s in range(_SHARP_FRAMES)]
    power = sum(fine_power(x) for x in drawn) / _SHARP_FRAMES
    figures: dict[str, Any] = {"power": power, "ratio": None, "frames": _SHARP_FRAMES}
    line = f"power {power:.1f}"
    if source is not None:
        real = [x[0, :1] for x in _real_frames(source, _SHARP_FRAMES)]
        true_power = sum(fine_power(x) for x in real) / len(real)
        figures["ratio"] = power / true_power if true_power else None
        line = f"{figures['ratio']:.3f} of the data's" if true_power else "the data is flat"
    line += f"  (1/4 .. 1/2 cycles per pixel, {_SHARP_FRAMES} frames)"
    found.add("sharpness", figures, [line])


def _likeness(
    found: Evaluation,
    known: faces.Numbered,
    truth: Truth,
    observer: Observer | None,
    asked: Asked,
    report: Report | None,
) -> None:
    """Against the renderer; without an observer, what pixels alone say."""
    own = range(asked.people)
    unseen = range(_UNSEEN_PEOPLE, _UNSEEN_PEOPLE + asked.people)
    for name, people, psi in (
        ("its people", own, 1.0),
        (f"its people, psi {_PAGE_PSI}", own, _PAGE_PSI),
        ("unseen people", unseen, 1.0),
    ):
        told = (lambda done, total, name=name: report(name, done, total)) if report else None
        like = faces.likeness(
            known, truth, observer, people, moments=asked.moments, psi=psi, report=told
        )
        found.add(name, asdict(like), faces.lines(like))


def _streams(
    found: Evaluation,
    known: faces.Numbered,
    truth: Truth,
    observer: Observer,
    asked: Asked,
    report: Report | None,
) -> None:
    watched = (lambda done, total: report("streams", done, total)) if report else None
    people = range(asked.people)
    seen = faces.streams(known, observer, people, seconds=asked.seconds, report=watched)
    found.add("streams", asdict(seen), faces.lines(seen))
    false = faces.false_faces(observer, truth, known)
    found.add("face check", {"false": false}, [f"{false:.2%} of pictures without a head pass it"])


def _real_clips(source: ClipSource, count: int, frames: int) -> list[Tensor]:
    lengths = lengths_of(source, count)
    videos = np.flatnonzero(lengths >= frames)[:count]
    times = tuple(float(k) for k in range(frames))
    return [source.clips([ClipRequest(int(v), times)]).frames[0] for v in videos]


def _real_frames(source: ClipSource, count: int) -> list[Tensor]:
    """Single frames, evenly over all videos."""
    lengths = lengths_of(source, count)
    videos = np.linspace(0, len(lengths) - 1, count).round().astype(int)
    places = np.linspace(0, 1, count)
    return [
        source.clips([ClipRequest(int(v), (float(int(p * (lengths[v] - 1))),))]).frames
        for v, p in zip(videos, places, strict=True)
    ]


def _plain(value: Any) -> Any:
    """What JSON knows: it has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
