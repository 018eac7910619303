"""Looks for broken heads among random frames, by their masks and labels.

A head that is empty, inside out, mirrored or in pieces cannot pass: its face would not be where its
landmarks are, or not look at the camera, or not stand on its shoulders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from models.faces.prior import Prior, person
from models.faces.state import EXPRESSION, FaceState
from models.faces.tracks import Track, TrackStyle
from models.training.heads import kit
from models.training.heads.anatomy import Anatomy
from models.training.heads.occluders import OCCLUDER
from models.training.heads.person import make_person
from models.training.heads.renderer import HeadRenderer, Rendered

PER_PERSON = 50  # frames, of which every second is turned anywhere within the widest pose
WIDEST = (60.0, 35.0, 30.0)  # yaw, pitch, roll, degrees
_SKIN, _EYES, _MOUTH = 1, 3, 4
_LEAST_SKIN, _MOST_SKIN = 0.03, 0.75  # of the picture
_MOST_MOUTH = 0.06  # an inside-out head would show little else
_FRONTAL = 45.0  # degrees of yaw within which an open eye must be seen
_LEAST_ON_HEAD = 0.9  # of the visible landmarks, or a pixel beside it: some lie on the outline
Report = Callable[[int, int], None]  # frames done, frames in all


@dataclass
class Checked:
    """What was found.

    Args:
        frames, people: Looked at.
        faults: How often each was met.
        examples: The first frames with a fault, as "person 17, moment 3: no eye".
    """

    frames: int = 0
    people: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


def faults_of(drawn: Rendered, state: FaceState) -> list[str]:
    """What is wrong with a frame."""
    mask, labels = drawn.mask, drawn.labels
    side = mask.shape[0]
    found = []
    numbers = (labels.landmarks, labels.expression, labels.light)
    if not all(np.isfinite(x).all() for x in numbers):
        return ["a label is no number"]
    if drawn.rgb.std() < 4:
        found.append("nothing is to be seen")
    skin = float((mask == _SKIN).mean())
    if not _LEAST_SKIN <= skin <= _MOST_SKIN:
        found.append("too little or too much skin")
    if float((mask == _MOUTH).mean()) > _MOST_MOUTH:
        found.append("too much inner mouth")
    found += _outline_faults(mask)
    marks, seen = labels.landmarks, labels.visible
    if abs(state.pose[0]) < _FRONTAL:
        if _turns(marks[36], marks[45], marks[8]) <= 0:
            found.append("the face is mirrored or upside down")
        if _eye_should_show(state, seen) and not (mask == _EYES).any():
            found.append("no eye")
    if seen.sum() >= 8:
        at = marks[seen].astype(int).clip(0, side - 1)
        head = np.isin(mask, (1, 2, 3, 4, 5, 7, OCCLUDER)).astype(np.uint8)
        near = cv2.dilate(head, np.ones((3, 3), np.uint8))
        if near[at[:, 1], at[:, 0]].mean() < _LEAST_ON_HEAD:
            found.append("landmarks beside the head")
    return found


def _outline_faults(mask: npt.NDArray[np.uint8]) -> list[str]:
    """Of the person as a shape: one piece, standing on the lower edge."""
    person_ = (mask > 0).astype(np.uint8)
    if not person_.any():
        return ["nobody is there"]
    found = []
    _, _, stats, _ = cv2.connectedComponentsWithStats(person_, connectivity=8)
    areas = np.sort(stats[1:, cv2.CC_STAT_AREA])
    # Loose strands may stand off; a part of the head may not.
    if areas[-1] < 0.985 * areas.sum():
        found.append("the head is in pieces")
    if not person_[-1].any():
        found.append("the shoulders float")
    holes, _, inner, _ = cv2.connectedComponentsWithStats(1 - person_, connectivity=4)
    height, width = mask.shape
    for k in range(1, holes):
        x, y, w, h, area = inner[k]
        enclosed = x > 0 and y > 0 and x + w < width and y + h < height
        # Between hair and neck the backdrop may be seen.
        if enclosed and area > 0.02 * height * width:
            found.append("a hole in the head")
            break
    return found


def _turns(a: npt.NDArray, b: npt.NDArray, c: npt.NDArray) -> float:
    """> 0 where a, b, c go clockwise in the picture (y down)."""
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _eye_should_show(state: FaceState, visible: npt.NDArray[np.bool_]) -> bool:
    """Both eyes are open and their outlines are seen."""
    blink = max(state.expression[EXPRESSION[f"eyeBlink_{side}"]] for side in "LR")
    squint = max(state.expression[EXPRESSION[f"eyeSquint_{side}"]] for side in "LR")
    open_ = blink < 0.25 and squint < 0.3 and state.gaze[1] > -10
    return bool(open_ and abs(state.pose[1]) < 25 and visible[36:48].all())


def states(seed: int, count: int) -> list[FaceState]:
    """Moments of a person's track; every second one with the head turned anywhere."""
    random = np.random.Generator(np.random.Philox(key=[seed, 77]))
    track = Track(seed, TrackStyle(yaw=WIDEST[0], pitch=WIDEST[1], roll=WIDEST[2]))
    made = []
    for k, t in enumerate(random.uniform(0, 600, count)):
        state = track.state(float(t))
        if k % 2:
            yaw, pitch, roll = (float(random.uniform(-w, w)) for w in WIDEST)
            gaze = (float(random.uniform(-28, 28)), float(random.uniform(-18, 14)))
            state = FaceState(
                pose=(yaw, pitch, roll),
                gaze=gaze,
                shift=state.shift,
                torso=(0.3 * yaw, state.torso[1], 0.3 * roll),
                expression=state.expression,
            )
        made.append(state)
    return made


def check(
    frames: int,
    *,
    facekit: Path | None = None,
    size: int = 64,
    samples: int = 1,
    seed: int = 0,
    report: Report | None = None,
) -> Checked:
    """Renders random frames of people at large and looks for faults.

    Args:
        frames: How many.
        facekit: The packed head model; None is the small head.
        size: Of the pictures, pixels.
        samples: Per pixel, along each side.
        seed: Of the first person.
    """
    anatomy = Anatomy(kit.load(facekit))
    renderer = HeadRenderer(anatomy, size, samples)
    done = Checked()
    while done.frames < frames:
        who = seed + done.people
        made = make_person(anatomy, person(who, Prior.OPEN), texture=256 if size < 200 else 512)
        done.people += 1
        for k, state in enumerate(states(who, min(PER_PERSON, frames - done.frames))):
            for fault in faults_of(renderer.render(made, state), state):
                done.faults[fault] += 1
                if len(done.examples) < 20:
                    done.examples.append(f"person {who}, moment {k}: {fault}")
            done.frames += 1
            if report:
                report(done.frames, frames)
    return done
