"""Frames: the same bits whatever was drawn before, classes where they belong, and speed."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from models.errors import BadConfig
from models.faces.prior import Prior, person
from models.faces.state import EXPRESSION, FaceState
from models.faces.tracks import Track
from models.training import heads
from models.training.heads.occluders import Occluder
from models.training.heads.person import make_person
from models.training.heads.renderer import HeadRenderer

BACKGROUND, SKIN, LIPS, EYES, MOUTH, HAIR, CLOTH, GLASSES, OCCLUDER = range(9)
MOMENTS = (0.4, 3.1, 7.7)
ELSEWHERE = """
import hashlib, sys
from pathlib import Path
from models.faces.prior import Prior, person
from models.faces.tracks import Track
from models.training.heads import kit
from models.training.heads.anatomy import Anatomy
from models.training.heads.person import make_person
from models.training.heads.renderer import HeadRenderer
anatomy = Anatomy(kit.load(Path(sys.argv[1]) if sys.argv[1] else None))
drawn = HeadRenderer(anatomy, 96, 1).render(
    make_person(anatomy, person(5, Prior.OPEN), texture=256), Track(5).state(3.1)
)
print(hashlib.sha256(drawn.rgb.tobytes() + drawn.mask.tobytes()).hexdigest())
"""


def smiling(**named: float) -> FaceState:
    expression = np.zeros(len(EXPRESSION), np.float32)
    for name, value in named.items():
        expression[EXPRESSION[name]] = value
    return FaceState(expression=expression)


@pytest.fixture(scope="module")
def people(anatomy):
    return [make_person(anatomy, person(seed, Prior.OPEN), texture=256) for seed in (0, 5, 8)]


@pytest.fixture(scope="module")
def renderer(anatomy):
    return HeadRenderer(anatomy, 96, 1)


def test_pictures_do_not_depend_on_what_was_drawn_before(anatomy, renderer, people):
    wanted = [(one, t) for one in people for t in MOMENTS]
    first = [renderer.render(one, Track(5).state(t)) for one, t in wanted]
    again = [renderer.render(one, Track(5).state(t)) for one, t in reversed(wanted)][::-1]
    for (one, t), a, b in zip(wanted, first, again, strict=True):
        fresh = HeadRenderer(anatomy, 96, 1).render(one, Track(5).state(t))
        for other in (b, fresh):
            np.testing.assert_array_equal(a.rgb, other.rgb)
            np.testing.assert_array_equal(a.mask, other.mask)
            np.testing.assert_array_equal(a.labels.landmarks, other.labels.landmarks)
            np.testing.assert_array_equal(a.labels.visible, other.labels.visible)


def test_another_process_draws_the_same_bits(kit, renderer, people, pytestconfig):
    facekit = pytestconfig.getoption("--facekit") if kit.name != "small" else ""
    here = renderer.render(people[1], Track(5).state(3.1))
    there = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(facekit)],
        cwd=Path(__file__).parents[4],
        env={**os.environ, "NUMBA_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    mine = hashlib.sha256(here.rgb.tobytes() + here.mask.tobytes()).hexdigest()
    assert there.stdout.strip() == mine


def test_all_randomness_of_people_is_fixed():
    """Only `noise.draws` makes generators; clips, occluders and the sensor are given theirs."""
    folder, faults = Path(heads.__path__[0]), []
    for path in sorted(folder.rglob("*.py")):
        if path.name in ("noise.py", "clip_painter.py", "check.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            made = isinstance(node, ast.Call) and ast.unparse(node.func).startswith("np.random.")
            if made:
                faults.append(f"{path.name}:{node.lineno} {ast.unparse(node.func)}")
    assert not faults


def test_classes_lie_where_they_belong(anatomy):
    traits = person(2, Prior.NARROW)
    drawn = HeadRenderer(anatomy, 128, 2).render(make_person(anatomy, traits), FaceState())
    mask, marks = drawn.mask, drawn.labels.landmarks
    counts = np.bincount(mask.ravel(), minlength=9)
    assert (counts[[BACKGROUND, SKIN, LIPS, EYES, HAIR, CLOTH]] > 8).all()
    assert counts[OCCLUDER] == counts[GLASSES] == 0

    def classes_at(points) -> set[int]:
        x, y = np.asarray(points).mean(0).astype(int)
        return set(mask[y - 1 : y + 2, x - 1 : x + 2].ravel().tolist())

    assert EYES in classes_at(marks[36:42]) and EYES in classes_at(marks[42:48])
    assert LIPS in classes_at(marks[48:60])
    assert classes_at(marks[[30]]) == {SKIN}
    assert mask[-1, 64] in (CLOTH, SKIN) and mask[0, 0] == BACKGROUND


def test_the_inner_mouth_shows_only_when_open(anatomy, people, renderer):
    shut = renderer.render(people[0], FaceState()).mask
    wide = renderer.render(people[0], smiling(jawOpen=0.6)).mask
    assert (shut == MOUTH).sum() == 0
    assert (wide == MOUTH).sum() > 10


def test_a_mouth_opens_without_a_jump(anatomy, people, renderer):
    """Where the lips part, the inner mouth fades in: no step is much larger than its neighbours."""
    jaw = np.linspace(0.0, 0.12, 25)
    frames = [renderer.render(people[1], smiling(jawOpen=j)).rgb.astype(float) for j in jaw]
    steps = [np.abs(b - a).mean() for a, b in zip(frames, frames[1:], strict=False)]
    assert max(steps) < 6 * np.median(steps) + 0.05


def test_eyes_follow_the_gaze(people, renderer):
    left = renderer.render(people[1], FaceState(gaze=(25, 0)))
    right = renderer.render(people[1], FaceState(gaze=(-25, 0)))
    eye = left.mask == EYES
    assert eye.sum() > 8
    assert np.abs(left.rgb[eye].astype(float) - right.rgb[eye]).mean() > 3


def test_an_occluder_is_in_front_and_hides_landmarks(people, renderer):
    free = renderer.render(people[0], FaceState())
    at = free.labels.landmarks[30] / 96
    thing = Occluder(
        "microphone", x=float(at[0]), y=float(at[1]), size=0.15, turn=0.0, rgb=(1, 0, 0)
    )
    covered = renderer.render(people[0], FaceState(), occluders=[thing])
    assert (covered.mask == OCCLUDER).sum() > 20
    assert free.labels.visible[30] and not covered.labels.visible[30]


def test_what_cannot_be_drawn_is_refused(anatomy):
    with pytest.raises(BadConfig, match="samples"):
        HeadRenderer(anatomy, 128, 9)
    with pytest.raises(BadConfig, match="hair_share"):
        HeadRenderer(anatomy, 128, 1, hair_share=0.0)
    with pytest.raises(BadConfig, match="texture"):
        make_person(anatomy, person(0, Prior.OPEN), texture=100)


@pytest.mark.parametrize(("size", "samples", "least"), [(128, 1, 75.0), (256, 2, 22.5)])
def test_frames_per_second_are_at_least_half_of_the_goal(anatomy, people, size, samples, least):
    """Half, because other processes share the machine's caches; bench/heads.py holds the goal."""
    renderer = HeadRenderer(anatomy, size, samples)
    times = []
    for one in people:
        renderer.render(one, FaceState())
        for k in range(8):
            state = Track(3).state(k / 7)
            begin = time.process_time()
            renderer.render(one, state)
            times.append(time.process_time() - begin)
    assert 1 / np.median(times) >= least
