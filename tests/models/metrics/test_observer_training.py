"""Training the observer: what it asks for, that it learns, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.errors import BadConfig
from models.metrics.observer import load
from models.metrics.observer_training import STAY, ObserverTraining, build
from models.training import config as configs
from models.training.contracts import ClipBatch, DataInfo
from models.training.draws import Draws
from models.training.heads.stream import HeadClips, open_heads

from .clips import Discs

CONFIG = configs.load(
    "observer", ["batch.size=4", "batch.micro=4", "optim.warmup_steps=0", "data.resolution=64"]
)
DRAWS = Draws(0, 0, 0)


@pytest.fixture(scope="module")
def heads(facekit: Path | None) -> Iterator[HeadClips]:
    source = open_heads("heads:wild", resolution=64, samples=1, facekit=facekit)
    yield source
    source.close()


def trainer(info: DataInfo) -> ObserverTraining:
    return build(CONFIG, info, torch.device("cpu"))


@pytest.fixture(scope="module")
def batch(heads: HeadClips) -> ClipBatch:
    return heads.clips(trainer(heads.info).requests(DRAWS))


def loss(made: ObserverTraining, batch: ClipBatch) -> float:
    return float(made.accumulate(made.phases[0], batch, DRAWS, 1.0)["loss"].detach())


def test_slots_keep_their_people_for_a_while_and_do_not_change_all_at_once(
    heads: HeadClips,
) -> None:
    made = trainer(heads.info)
    videos = [[r.video for r in made.requests(Draws(0, step, 0))] for step in range(3 * STAY)]
    assert made.requests(Draws(0, 7, 0)) == made.requests(Draws(0, 7, 0))
    for slot in range(4):
        stays = [row[slot] for row in videos]
        assert 3 <= len(set(stays)) <= 4
    changed = [
        sum(a != b for a, b in zip(x, y, strict=True))
        for x, y in zip(videos, videos[1:], strict=False)
    ]
    assert max(changed) == 1
    assert len({video for row in videos for video in row}) == sum(changed) + 4


def test_a_few_steps_lower_every_loss_on_a_fixed_batch(heads: HeadClips, batch: ClipBatch) -> None:
    made = trainer(heads.info)
    optimizer = made.optimizers["observer"]
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    before = made.accumulate(made.phases[0], batch, DRAWS, 1.0)
    before = {name: float(value.detach()) for name, value in before.items()}
    optimizer.zero_grad()
    for step in range(25):
        made.accumulate(made.phases[0], batch, DRAWS, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        made.after_step(step, {})
    after = made.accumulate(made.phases[0], batch, DRAWS, 1.0)
    assert float(after["loss"].detach()) < 0.75 * before["loss"]
    for name in ("presence", "landmarks", "lids", "pose"):
        assert float(after[name].detach()) < before[name], name


def test_gradients_are_of_the_share(heads: HeadClips, batch: ClipBatch) -> None:
    found = []
    for share in (1.0, 0.25):
        made = trainer(heads.info)
        made.accumulate(made.phases[0], batch, DRAWS, share)
        gradient = made.observer.summary.weight.grad
        assert gradient is not None
        found.append(gradient.clone())
    torch.testing.assert_close(found[1] * 4, found[0], rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_loss(heads: HeadClips, batch: ClipBatch) -> None:
    torch.manual_seed(3)
    one = loss(trainer(heads.info), batch)
    torch.manual_seed(4)
    assert loss(trainer(heads.info), batch) == one


def test_what_it_writes_is_loaded_as_an_observer(heads: HeadClips, tmp_path: Path) -> None:
    made = trainer(heads.info)
    path = made.export(tmp_path / "model-00000001", {})
    assert path.name == "model-00000001.safetensors" and path.stat().st_size < 1_050_000
    again = load(path)
    average = made.averages["observer"].state_dict()
    for key, value in again.state_dict().items():
        torch.testing.assert_close(value, average[key], rtol=1e-3, atol=1e-6)


def test_data_without_labels_and_clips_of_several_frames_are_refused() -> None:
    discs = Discs([10] * 4)
    made = trainer(discs.info)
    with pytest.raises(BadConfig, match="discs does not tell traits"):
        made.accumulate(made.phases[0], discs.clips(made.requests(DRAWS)), DRAWS, 1.0)
    several = configs.load("observer", ["batch.frames=2"])
    with pytest.raises(BadConfig, match=r"batch\.frames is 2"):
        build(several, discs.info, torch.device("cpu"))
