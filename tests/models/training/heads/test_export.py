"""Clips as files: what is in them, going on after an interruption, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.errors import BadConfig
from models.faces.state import FaceState
from models.training.heads.clip_painter import ClipPainter, Recipe
from models.training.heads.export import REGIONS, export, masks
from models.training.video_file import every_frame

SIDE, FRAMES = 64, 5


@pytest.fixture(scope="module")
def recipe(facekit: Path | None) -> Recipe:
    return Recipe((("heads:open", 1.0),), SIDE, samples=1, facekit=facekit, plain=True)


@pytest.fixture(scope="module")
def folder(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("heads")
    assert export(out, recipe, 2, FRAMES / recipe.fps) == 2
    return out


def test_a_clip_is_a_video_with_its_labels(folder: Path, recipe: Recipe) -> None:
    clip = ClipPainter(recipe, 1).paint(1, tuple(map(float, range(FRAMES))))
    with np.load(folder / "clip-00001.npz") as file:
        labels = {name: file[name] for name in file.files}
    about = json.loads((folder / "labels.json").read_text())
    assert labels.keys() == about["arrays"].keys()
    assert (labels["landmarks"] == clip.landmarks).all()
    assert (labels["traits"] == clip.traits).all()
    np.testing.assert_allclose(labels["t"], np.arange(FRAMES) / 25)
    state = FaceState.from_code(clip.code[3])
    np.testing.assert_allclose(labels["pose"][3], state.pose, rtol=1e-5)
    np.testing.assert_allclose(labels["gaze"][3], state.gaze, rtol=1e-5)
    assert (masks(folder / "clip-00001.npz") == clip.mask).all()
    assert clip.mask.max() < len(REGIONS) == len(about["regions"])
    seen = [picture for _, picture in every_frame(folder / "clip-00001.mp4")]
    assert len(seen) == FRAMES
    truth = clip.frames.transpose(0, 2, 3, 1).astype(float)
    assert np.abs(np.stack(seen) - truth).mean() < 6


def test_units_and_names_are_told(folder: Path) -> None:
    about = json.loads((folder / "labels.json").read_text())
    assert about["format"] == "stylewire-heads"
    assert len(about["expressions"]) == 53 and len(about["traits"]) == 107
    assert "degrees" in about["arrays"]["pose"] and "pixels" in about["arrays"]["landmarks"]
    assert about["recipe"]["mix"] == [["heads:open", 1.0]]


def test_what_is_there_stays_and_what_is_not_is_written(folder: Path, recipe: Recipe) -> None:
    first, second = folder / "clip-00000.npz", folder / "clip-00001.npz"
    before = first.stat().st_mtime_ns
    content = second.read_bytes()
    second.unlink()  # as after an interruption: the video is there, its labels are not
    seen: list[tuple[int, int]] = []
    assert export(folder, recipe, 2, FRAMES / 25, lambda *p: seen.append(p)) == 1
    assert seen == [(1, 2), (2, 2)]
    assert first.stat().st_mtime_ns == before
    with np.load(second) as again:
        assert len(again.files) == 12
    assert len(second.read_bytes()) == len(content)
    assert not [p.name for p in folder.iterdir() if p.name.startswith(".")]


def test_other_recipes_do_not_mix_and_impossible_clips_are_refused(
    folder: Path, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(BadConfig, match="clips of another recipe"):
        export(folder, replace(recipe, seed=1), 2, FRAMES / 25)
    with pytest.raises(BadConfig, match="clips of another recipe"):
        export(folder, recipe, 2, 1.0)
    with pytest.raises(BadConfig, match="0 frames each"):
        export(tmp_path / "none", recipe, 1, 0.01)
    with pytest.raises(BadConfig, match="0 clips"):
        export(tmp_path / "none", recipe, 0, 1.0)
