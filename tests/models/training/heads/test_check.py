"""The search for broken heads: it finds none, and it finds those that are made here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.faces.prior import Prior, person
from models.faces.state import FaceState
from models.training.heads import kit
from models.training.heads.anatomy import Anatomy
from models.training.heads.check import WIDEST, check, faults_of, states
from models.training.heads.person import make_person
from models.training.heads.renderer import HeadRenderer, Rendered

FRAMES = 300


def test_no_head_among_some_hundred_is_broken(facekit: Path | None) -> None:
    seen = []
    done = check(FRAMES, facekit=facekit, report=lambda now, _: seen.append(now))
    assert done.faults == {}, done.examples
    assert (done.frames, done.people) == (FRAMES, 6)
    assert seen == list(range(1, FRAMES + 1))


def test_poses_go_all_the_way() -> None:
    poses = np.array([s.pose for s in states(3, 400)])
    assert (np.abs(poses).max(0) > 0.95 * np.array(WIDEST)).all()
    assert (np.abs(poses).max(0) <= WIDEST).all()
    assert states(3, 5)[4].code().tolist() == states(3, 5)[4].code().tolist()


@pytest.fixture(scope="module")
def drawn(facekit: Path | None) -> Rendered:
    anatomy = Anatomy(kit.load(facekit))
    who = make_person(anatomy, person(2, Prior.NARROW), texture=256)
    return HeadRenderer(anatomy, 64, 1).render(who, FaceState())


def test_this_head_is_well(drawn: Rendered) -> None:
    assert faults_of(drawn, FaceState()) == []


def empty(d: Rendered) -> Rendered:
    return replace(d, rgb=np.full_like(d.rgb, 90), mask=np.zeros_like(d.mask))


def inside_out(d: Rendered) -> Rendered:
    return replace(d, mask=np.where(np.isin(d.mask, (1, 2, 3)), 4, d.mask).astype(np.uint8))


def mirrored(d: Rendered) -> Rendered:
    marks = d.labels.landmarks * np.array([-1, 1], np.float32) + np.array([64, 0], np.float32)
    return replace(d, labels=replace(d.labels, landmarks=marks))


def upside_down(d: Rendered) -> Rendered:
    marks = d.labels.landmarks * np.array([1, -1], np.float32) + np.array([0, 64], np.float32)
    return replace(d, labels=replace(d.labels, landmarks=marks))


def eyeless(d: Rendered) -> Rendered:
    return replace(d, mask=np.where(d.mask == 3, 1, d.mask).astype(np.uint8))


def in_pieces(d: Rendered) -> Rendered:
    mask = d.mask.copy()
    mask[30:33] = 0
    return replace(d, mask=mask)


def floating(d: Rendered) -> Rendered:
    mask = d.mask.copy()
    mask[-3:] = 0
    return replace(d, mask=mask)


def pierced(d: Rendered) -> Rendered:
    mask = d.mask.copy()
    mask[26:38, 26:38] = 0
    return replace(d, mask=mask)


def elsewhere(d: Rendered) -> Rendered:
    marks = d.labels.landmarks * 0.4
    return replace(d, labels=replace(d.labels, landmarks=marks))


def nameless(d: Rendered) -> Rendered:
    marks = d.labels.landmarks.copy()
    marks[5] = np.nan
    return replace(d, labels=replace(d.labels, landmarks=marks))


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (empty, "nobody is there"),
        (empty, "nothing is to be seen"),
        (inside_out, "too much inner mouth"),
        (inside_out, "too little or too much skin"),
        (mirrored, "the face is mirrored or upside down"),
        (upside_down, "the face is mirrored or upside down"),
        (eyeless, "no eye"),
        (in_pieces, "the head is in pieces"),
        (floating, "the shoulders float"),
        (pierced, "a hole in the head"),
        (elsewhere, "landmarks beside the head"),
        (nameless, "a label is no number"),
    ],
)
def test_a_broken_head_is_found(
    drawn: Rendered, broken: Callable[[Rendered], Rendered], fault: str
) -> None:
    assert fault in faults_of(broken(drawn), FaceState())
