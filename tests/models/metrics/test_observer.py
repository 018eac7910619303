"""The observer: shapes, files, what it is trained with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.checkpoint import tensor_bytes
from models.errors import BadCheckpoint
from models.metrics.negatives import KINDS, negatives, torn
from models.metrics.observer import SIDE, Observer, load, observe, prepared
from models.metrics.observer_training import moved


@pytest.fixture(scope="module")
def observer() -> Observer:
    torch.manual_seed(0)
    return Observer().eval()


def heads(count: int = 3) -> Tensor:
    """A lit ellipse each, in [-1, 1]."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    one = ((x / 0.5) ** 2 + (y / 0.7) ** 2 < 1).float() * (1 + 0.5 * x) - 0.8
    return one.expand(count, 3, -1, -1).clamp(-1, 1)


def test_it_is_small_and_reads_what_it_says(observer: Observer) -> None:
    assert sum(p.numel() for p in observer.parameters()) < 500_000
    seen = observe(observer, torch.zeros(5, 3, 200, 200, dtype=torch.uint8), at_once=2)
    shapes = {name: tuple(value.shape) for name, value in seen._asdict().items()}
    assert shapes == {
        "presence": (5,),
        "landmarks": (5, 68, 2),
        "visible": (5, 68),
        "pose": (5, 3),
        "gaze": (5, 2),
        "expression": (5, 53),
        "embedding": (5, 64),
        "traits": (5, 107),
    }
    assert [tuple(x.shape[1:]) for x in observer.features(torch.zeros(1, 3, 256, 256))] == [
        (16, 128, 128),
        (32, 64, 64),
        (48, 32, 32),
    ]


def test_large_frames_are_brought_to_its_size_in_its_range() -> None:
    frames = torch.full((1, 3, 256, 256), 255, dtype=torch.uint8)
    assert prepared(frames).shape == (1, 3, SIDE, SIDE)
    assert prepared(frames).max() == pytest.approx(1)
    assert prepared(frames * 0).min() == -1


def test_files_in_half_precision_load_again(observer: Observer, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    state = {key: x.half() for key, x in observer.state_dict().items()}
    path.write_bytes(tensor_bytes(state))
    again = load(path)
    x = heads()
    assert not any(p.requires_grad for p in again.parameters())
    torch.testing.assert_close(again(x).landmarks, observer(x).landmarks, atol=5e-3, rtol=0)


def test_other_networks_and_damaged_files_are_refused(observer: Observer, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    state = observer.state_dict()
    path.write_bytes(tensor_bytes({**state, "who.bias": torch.zeros(3)}))
    with pytest.raises(BadCheckpoint, match=r"mine\.safetensors is no observer.*who\.bias"):
        load(path)
    path.write_bytes(tensor_bytes(state)[:-100])
    with pytest.raises(BadCheckpoint):
        load(path)
    with pytest.raises(BadCheckpoint, match="CKPT_NOT_FOUND"):
        load(tmp_path / "missing.safetensors")


def test_a_copy_without_an_observer_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("models.metrics.observer.WEIGHTS", tmp_path / "observer.safetensors")
    with pytest.raises(BadCheckpoint, match="stylewire train observer"):
        load()


def test_heads_move_together_with_their_landmarks() -> None:
    picture = torch.full((6, 3, SIDE, SIDE), -1.0)
    at = torch.tensor([[30, 40], [60, 50], [48, 30], [34, 66], [66, 66], [40, 60]])
    for k, (x, y) in enumerate(at.tolist()):
        picture[k, :, y - 2 : y + 3, x - 2 : x + 3] = 1
    marks = ((at + 0.5) / SIDE)[:, None].expand(-1, 68, -1)
    out, found, seen = moved(picture, marks, torch.ones(6, 68), np.random.default_rng(0))
    grid = (torch.arange(SIDE) + 0.5) / SIDE
    for k in range(6):
        weight = (out[k, 0] + 1).clamp(min=0)
        x, y = (weight.sum(0) * grid).sum() / weight.sum(), (weight.sum(1) * grid).sum()
        assert float(x) == pytest.approx(float(found[k, 0, 0]), abs=0.006)
        assert float(y / weight.sum()) == pytest.approx(float(found[k, 0, 1]), abs=0.006)
    assert (found - marks).abs().max() > 0.05
    assert (seen == ((found >= 0) & (found <= 1)).all(-1)).all()


def test_no_tile_of_a_torn_head_is_where_it_was() -> None:
    tiles = SIDE // 16
    picture = torch.arange(tiles * tiles).view(1, 1, tiles, tiles).float()
    picture = picture.repeat_interleave(16, 2).repeat_interleave(16, 3).expand(1, 3, -1, -1)
    for seed in range(20):
        out = torn(picture, np.random.default_rng(seed))
        assert (out != picture[0]).all()
        assert sorted(out[0, ::16, ::16].flatten().tolist()) == list(range(tiles * tiles))


def test_negatives_are_of_all_kinds_differ_and_repeat() -> None:
    assert set(KINDS) == {"torn", "upturned", "clouds", "things", "untrained"}
    random = heads(2).clone()
    made = negatives(random, 40, np.random.default_rng(0))
    assert made.shape == (40, 3, SIDE, SIDE)
    assert made.abs().max() <= 1 + 1e-6 and torch.isfinite(made).all()
    assert len({float(x.double().sum()) for x in made}) > 25
    assert torch.equal(made, negatives(random, 40, np.random.default_rng(0)))
