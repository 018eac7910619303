"""Contact sheets."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.errors import BadConfig
from models.training.heads.sheet import ROWS, _encoded, people, sheet, states


def test_the_people_of_a_sheet_differ(small):
    chosen = people(0)
    assert len(chosen) == ROWS == len(states())
    assert len({one.chosen("hair") for one in chosen}) >= 6
    tones = [one["tone"] for one in chosen]
    assert max(tones) - min(tones) > 2
    assert (people(1)[0].vector != chosen[0].vector).any()


def test_a_sheet_is_written(tmp_path):
    seen = []
    sheet(
        tmp_path / "s.png",
        size=32,
        samples=1,
        report=lambda done, total: seen.append((done, total)),
    )
    picture = cv2.imread(str(tmp_path / "s.png"))
    assert picture.shape == (32 * 8, 32 * 8, 3)
    assert seen[-1] == (64, 64)


def test_a_jpeg_is_made_small_enough():
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 255, (640, 640, 3)).astype(np.uint8)
    assert len(_encoded(noisy, ".jpg")) <= 400_000
    assert len(_encoded(noisy, ".png")) > 400_000


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(BadConfig, match="gif"):
        sheet(tmp_path / "s.gif")
