"""Clips of rendered heads as a pure function of (seed, number of the video, times). No torch.

A video is one person who moves without end. To make a person takes as long as to draw dozens of
frames, so the last ones are kept, and whoever asks had better stay with a video for a while.
"""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.errors import BadConfig
from models.faces.prior import CAST, Prior, person
from models.faces.state import CODE_SIZE, EXPRESSION, EXPRESSIONS, FaceState, part
from models.faces.tracks import BLINK_S, BLINK_SLOT_S, Track, TrackStyle
from models.faces.traits import COUNT, Traits, shrink
from models.training.heads import kit, occluders, sensor
from models.training.heads.anatomy import Anatomy
from models.training.heads.camera import Camera
from models.training.heads.person import Person, make_person
from models.training.heads.renderer import HeadRenderer

HELD_OUT = range(1000, 1064)  # seeds of the narrow prior that are never trained on
UNSEEN_MOTION = 1_000_000  # seeds of tracks from here on are never trained on
_VIDEO, _CLIP = 1, 2  # what a stream of random numbers is for
_SEARCH_S = 4.0  # either way, for an open mouth
_START_S = 3600.0  # within which a video begins on its track


class Kind(NamedTuple):
    """Which heads a name stands for.

    Args:
        prior: Of the people; of their seeds, `people` are the lowest and the one after the highest.
        style: How they move.
        psi: They are drawn between these towards or away from the mean, `traits.shrink`.
        emphasis: Share of clips that are moved in time so that they begin in a blink, and as many
            with an open mouth: both are rare and would hardly be learnt.
        occluded, sensed: Shares of clips with something in front, and through a cheap camera.
        cameras: Fields of view and distances vary.
    """

    prior: Prior
    people: tuple[int, int]
    style: TrackStyle
    psi: tuple[float, float] = (1.0, 1.0)
    emphasis: float = 0.15
    occluded: float = 0.0
    sensed: float = 0.0
    cameras: bool = False


_FRESH = (HELD_OUT.stop, 1 << 32)
_WIDE = TrackStyle(yaw=60.0, pitch=35.0, roll=30.0)
KINDS = {
    "heads:open": Kind(Prior.OPEN, _FRESH, _WIDE),
    # As a tracker meets them: anybody, anyhow, through a webcam.
    "heads:wild": Kind(Prior.OPEN, _FRESH, _WIDE, occluded=0.25, sensed=0.6, cameras=True),
    "heads:narrow": Kind(Prior.NARROW, _FRESH, TrackStyle(), psi=(0.5, 1.1)),
    "heads:cast": Kind(Prior.NARROW, (0, CAST), TrackStyle(), psi=(0.5, 1.1)),
}


@dataclass(frozen=True)
class Recipe:
    """What clips are made, and how.

    Args:
        mix: Names of `KINDS` and their shares of people.
        resolution: Side, pixels.
        samples: Per pixel, along each side.
        facekit: The packed head model; None is the small head.
        seed: Of all of it.
        fps: Training frames a second.
        people: How many people are kept, over all workers; about 7 MB each.
        plain: Everybody at psi 1 and nothing moved in time, for evaluation.
        unseen: Movements that training never shows, for evaluation.
    Raises:
        BadConfig: A name is unknown or a number impossible.
    """

    mix: tuple[tuple[str, float], ...] = (("heads:narrow", 1.0),)
    resolution: int = 256
    samples: int = 2
    facekit: Path | None = None
    seed: int = 0
    fps: float = 25.0
    people: int = 24
    plain: bool = False
    unseen: bool = False

    def __post_init__(self) -> None:
        for name, share in self.mix:
            if name not in KINDS or not share > 0:
                raise BadConfig(
                    f"heads are {', '.join(KINDS)} with a share above 0, not {name!r} {share}"
                )
        if not self.mix or self.people < 1 or not self.fps > 0:
            raise BadConfig(
                f"a mix of {len(self.mix)} kinds, {self.people} people kept and {self.fps} frames a"
                " second; all must be above 0"
            )


class Cast(NamedTuple):
    """Who plays in a clip."""

    kind: str
    seed: int
    psi: float

    def traits(self) -> Traits:
        whole = person(self.seed, KINDS[self.kind].prior)
        return whole if self.psi == 1 else shrink(whole, self.psi)


@dataclass(frozen=True)
class Clip:
    """What is drawn of one clip. `fields` gives the shapes."""

    t: npt.NDArray[np.float64]
    frames: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    code: npt.NDArray[np.float32]
    landmarks: npt.NDArray[np.float32]
    visible: npt.NDArray[np.uint8]
    expression: npt.NDArray[np.float32]
    traits: npt.NDArray[np.float32]
    light: npt.NDArray[np.float32]
    camera: npt.NDArray[np.float32]


def fields(count: int, side: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of each array of a clip of `count` frames, in order."""
    return {
        "t": ((count,), np.float64),
        "frames": ((count, 3, side, side), np.uint8),
        "mask": ((count, side, side), np.uint8),
        "code": ((count, CODE_SIZE), np.float32),
        "landmarks": ((count, 68, 2), np.float32),
        "visible": ((count, 68), np.uint8),
        "expression": ((count, len(EXPRESSIONS)), np.float32),
        "traits": ((COUNT,), np.float32),
        "light": ((39,), np.float32),
        "camera": ((2,), np.float32),
    }


def _random(recipe: Recipe, purpose: int, video: int, instant: float = 0.0) -> np.random.Generator:
    low = (1 << 64) - 1
    when = int.from_bytes(struct.pack("<d", instant), "little")
    key = np.array([recipe.seed & low, video & low], np.uint64)
    counter = np.array([0, 0, when, purpose], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class Video(NamedTuple):
    """What is the same in all frames of a video."""

    cast: Cast
    track: int
    start_s: float
    camera: Camera


def video_of(recipe: Recipe, number: int) -> Video:
    """The video of a number; any number has one."""
    random = _random(recipe, _VIDEO, number)
    shares = np.array([share for _, share in recipe.mix])
    name = recipe.mix[int(random.choice(len(shares), p=shares / shares.sum()))][0]
    kind = KINDS[name]
    seed = int(random.integers(*kind.people))
    psi = round(float(random.uniform(*kind.psi)), 3)
    track = int(random.integers(0, UNSEEN_MOTION)) + UNSEEN_MOTION * recipe.unseen
    start = float(random.uniform(0, _START_S))
    lens = Camera(float(random.uniform(20, 60)), float(random.uniform(0.8, 1.25)))
    return Video(
        Cast(name, seed, 1.0 if recipe.plain else psi),
        track,
        start,
        lens if kind.cameras else Camera(),
    )


class ClipPainter:
    """Draws clips. Owns an anatomy, a renderer and the people that were drawn last.

    Args:
        recipe: What to draw.
        keep: How many people are kept, about 7 MB each.
    """

    def __init__(self, recipe: Recipe, keep: int) -> None:
        self.recipe = recipe
        self._keep = keep
        self._anatomy = Anatomy(kit.load(recipe.facekit))
        self._renderer = HeadRenderer(self._anatomy, recipe.resolution, recipe.samples)
        self._people: OrderedDict[Cast, tuple[Person, Traits]] = OrderedDict()
        self._texture = 256 if recipe.resolution < 200 else 512

    def paint(self, number: int, times: tuple[float, ...]) -> Clip:
        """Frames of a video at times in training frames after its beginning."""
        recipe, video = self.recipe, video_of(self.recipe, number)
        who, traits = self._person(video.cast)
        random = _random(recipe, _CLIP, number, times[0])
        kind = KINDS[video.cast.kind]
        track = Track(video.track, kind.style)
        moments = video.start_s + np.asarray(times, np.float64) / recipe.fps
        share = 0.0 if recipe.plain else kind.emphasis
        later = _towards_events(track, float(moments[0]), share, random)
        moments += later
        things = []
        if random.random() < kind.occluded:
            things = occluders.random_occluders(random)
        taken = sensor.random_sensor(random) if random.random() < kind.sensed else None
        shapes = fields(len(times), recipe.resolution)
        made: dict[str, Any] = {n: np.empty(shape, dtype) for n, (shape, dtype) in shapes.items()}
        made["traits"][:] = traits.vector
        made["t"][:] = np.asarray(times) + later * recipe.fps
        made["code"][:] = track.codes(moments)
        for k, code in enumerate(made["code"]):
            state = FaceState.from_code(code)
            drawn = self._renderer.render(who, state, video.camera, occluders=things)
            rgb = drawn.rgb if taken is None else taken.capture(drawn.rgb, random)
            made["frames"][k] = rgb.transpose(2, 0, 1)
            made["mask"][k] = drawn.mask
            labels = drawn.labels
            made["landmarks"][k], made["visible"][k] = labels.landmarks, labels.visible
            made["expression"][k] = labels.expression
            made["light"][:], made["camera"][:] = labels.light, labels.camera
        return Clip(**made)

    def _person(self, cast: Cast) -> tuple[Person, Traits]:
        kept = self._people.get(cast)
        if kept is None:
            traits = cast.traits()
            kept = make_person(self._anatomy, traits, texture=self._texture), traits
            self._people[cast] = kept
            while len(self._people) > self._keep:
                self._people.popitem(last=False)
        self._people.move_to_end(cast)
        return kept


def _towards_events(track: Track, t: float, share: float, random: np.random.Generator) -> float:
    """Seconds by which a clip is moved so that something rare happens at its first frame, t."""
    luck, where = random.random(2).tolist()
    if luck < share:
        return track.blink_start(math.floor(t / BLINK_SLOT_S)) + where * BLINK_S - t
    if luck < 2 * share:
        near = t + np.linspace(-_SEARCH_S, _SEARCH_S, 65)
        mouth = track.codes(near)[:, part("expression")][:, EXPRESSION["jawOpen"]]
        widest = np.argsort(mouth)[-4:]
        return float(near[widest[int(where * len(widest))]] - t)
    return 0.0
