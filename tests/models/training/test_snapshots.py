"""Pictures and models of a run: enough of them, the best one kept, none worth the run."""

from __future__ import annotations

import json

import pytest
import torch

from models.training.contracts import SampleSheet
from models.training.run_dir import RunDir
from models.training.run_state import Progress
from models.training.snapshots import Snapshots

from .tiny import Painting, config


class Judged(Painting):
    score: float | None = None

    def export(self, path, meta):
        path.with_suffix(".safetensors").write_bytes(b"x")
        path.with_suffix(".json").write_text(json.dumps(meta))
        return path.with_suffix(".json")

    def samples(self):
        grid = torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8)
        return SampleSheet(grid=grid, score=self.score)


@pytest.fixture
def said():
    return []


@pytest.fixture
def snapshots(tmp_path, said):
    plan = config()
    return Snapshots(plan, Judged(plan), RunDir(tmp_path, said.append))


def names(tmp_path):
    return {p.name for p in tmp_path.glob("model-*.json")}


def test_the_newest_models_and_all_pictures_stay(tmp_path, snapshots):
    for step in (5, 99_999_999, 100_000_000, 100_000_001):
        snapshots.take(Progress(step, step, 1.0))
    assert names(tmp_path) == {"model-100000001.json", "model-100000000.json"}
    assert len(list((tmp_path / "samples").glob("grid-*.png"))) == 4
    meta = json.loads((tmp_path / "model-100000000.json").read_text())
    assert meta["trained"] is True and meta["recipe"]["step"] == 100_000_000


def test_the_best_model_is_kept_by_its_score(tmp_path, snapshots):
    for step, score in enumerate((0.5, 0.9, 0.7, None), 1):
        snapshots._trainer.score = score
        snapshots.take(Progress(step, step, 1.0))
    assert json.loads((tmp_path / "model-best.json").read_text())["recipe"]["step"] == 2
    assert snapshots.best == 0.9


def test_a_model_can_be_had_without_its_pictures(tmp_path, snapshots):
    snapshots.take(Progress(1, 1, 1.0), pictures=False)
    assert names(tmp_path) == {"model-00000001.json"}
    assert not (tmp_path / "samples").exists()


def test_without_a_score_there_is_no_best(tmp_path, snapshots):
    snapshots.take(Progress(1, 1, 1.0))
    assert names(tmp_path) == {"model-00000001.json"} and snapshots.best is None


def test_a_full_disk_costs_the_picture_only(tmp_path, snapshots, said, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.training.pictures.write_grid", full)
    snapshots.take(Progress(1, 1, 1.0))
    assert said == [
        "warning: sample pictures not written: No space left on device; training goes on"
    ]
    assert names(tmp_path) == {"model-00000001.json"}
