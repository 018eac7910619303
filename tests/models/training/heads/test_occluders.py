"""Occluders: what they cover, what the mask says, and which landmarks they hide."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import BadConfig
from models.training.heads.occluders import (
    KINDS,
    OCCLUDER,
    Occluder,
    draw,
    hide_landmarks,
    random_occluders,
)

SIDE = 96


def blank() -> tuple[np.ndarray, np.ndarray]:
    return np.full((SIDE, SIDE, 3), 90, np.uint8), np.ones((SIDE, SIDE), np.uint8)


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_covers_its_place_and_nothing_far_from_it(kind: str) -> None:
    rgb, mask = blank()
    draw([Occluder(kind, 0.5, 0.3, 0.12, rgb=(0.9, 0.1, 0.1))], rgb, mask)
    covered = mask == OCCLUDER
    assert 0.01 < covered.mean() < 0.35
    assert covered[round(0.3 * SIDE), SIDE // 2]
    assert not covered[: round(0.1 * SIDE)].any() and not covered[:, : round(0.2 * SIDE)].any()
    assert (mask[~covered] == 1).all()
    far = ~covered
    far[1:-1, 1:-1] &= ~(covered[2:, 1:-1] | covered[:-2, 1:-1])
    far[:, 1:-1] &= ~(covered[:, 2:] | covered[:, :-2])
    assert (rgb[covered, 0] > rgb[covered, 1]).all()


def test_the_rim_is_soft_and_what_is_not_covered_stays() -> None:
    rgb, mask = blank()
    draw([Occluder("mug", 0.5, 0.5, 0.2, rgb=(1, 1, 1))], rgb, mask)
    touched = (rgb != 90).any(-1)
    assert (mask[~touched] == 1).all()
    rim = touched & (mask == 1)  # less than half covered
    assert 0 < rim.sum() < 0.2 * (mask == OCCLUDER).sum()


def test_the_later_one_lies_over_the_earlier() -> None:
    rgb, mask = blank()
    red = Occluder("sheet", 0.5, 0.5, 0.3, rgb=(1, 0, 0))
    blue = Occluder("sheet", 0.5, 0.5, 0.2, rgb=(0, 0, 1))
    draw([red, blue], rgb, mask)
    assert rgb[SIDE // 2, SIDE // 2, 2] > 50 > rgb[SIDE // 2, SIDE // 2, 0]


def test_turning_turns_clockwise() -> None:
    rgb, mask = blank()
    draw([Occluder("microphone", 0.5, 0.5, 0.1, turn=90)], rgb, mask)
    covered = mask == OCCLUDER
    # The stem points down; a quarter clockwise it points to the left.
    assert covered[SIDE // 2, : SIDE // 2].sum() > 3 * covered[SIDE // 2, SIDE // 2 + 5 :].sum()


def test_landmarks_behind_one_are_hidden_and_hidden_ones_stay_so() -> None:
    rgb, mask = blank()
    draw([Occluder("sheet", 0.5, 0.5, 0.2)], rgb, mask)
    marks = np.array([[48.2, 48.9], [5.0, 5.0], [6.0, 6.0], [500.0, -3.0]])
    seen = hide_landmarks(mask, marks, np.array([True, True, False, True]))
    assert seen.tolist() == [False, True, False, True]


def test_random_ones_repeat_and_mostly_touch_the_face() -> None:
    assert random_occluders(np.random.default_rng(1)) == random_occluders(np.random.default_rng(1))
    shares = []
    for seed in range(40):
        rgb, mask = blank()
        draw(random_occluders(np.random.default_rng(seed)), rgb, mask)
        middle = mask[SIDE // 5 : -SIDE // 5, SIDE // 5 : -SIDE // 5]
        shares.append((middle == OCCLUDER).mean())
    assert np.median(shares) > 0.03 and max(shares) < 0.8


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(BadConfig, match="no occluder 'cat'; known are hand"):
        Occluder("cat", 0.5, 0.5, 0.1)
