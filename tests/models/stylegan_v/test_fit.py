"""Fitting lowers its loss, stage by stage, and leaves a checkpoint that draws what was learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models import checkpoint, registry
from models.errors import BadConfig
from models.stylegan_v.fit import Fit, build
from models.training.config import TrainConfig
from models.training.contracts import ClipRequest, DataInfo
from models.training.distributed import Ranks
from models.training.draws import Draws
from models.training.step import Stepper

from .shapes import Discs
from .test_tracks import CONFIG

CPU = torch.device("cpu")
GENERATOR = {
    **CONFIG,
    "w_dim": 32,
    "img_resolution": 32,
    "synthesis_kwargs": {"channel_base": 512, "channel_max": 32},
    "mapping_kwargs": {"num_layers": 2, "lr_multiplier": 0.1},
}


def settings(**changes: Any) -> TrainConfig:
    table: dict[str, Any] = {
        "system": "stylegan_v_fit",
        "data": {"source": "discs", "resolution": 16},
        "batch": {"size": 8, "micro": 8, "frames": 1},
        "optim": {"lr": 0.004, "beta1": 0.9, "beta2": 0.99},
        "run": {"total_kimg": 10},
        "generator": {key: v for key, v in GENERATOR.items() if key not in ("c_dim",)},
    }
    for key, value in changes.items():
        table[key] = {**table.get(key, {}), **value}
    return TrainConfig.from_dict(table)


def fitted(trainer: Fit, source: Discs, first: int, steps: int) -> list[float]:
    def fetch(step: int, micro: int):
        return source.clips(trainer.requests(Draws(0, step, micro)))

    stepper = Stepper(trainer, fetch, 0, 1, Ranks())
    return [float(stepper.take(step)["fit/loss"]) for step in range(first, first + steps)]


@torch.no_grad()
def quality(trainer: Fit, source: Discs) -> float:
    """Decibels of the averaged weights on moments that no step has seen."""
    batch = source.clips([ClipRequest(v % 4, (10.3 + 31.7 * v,)) for v in range(7)])
    drawn, _ = trainer.draw(trainer.averages["G"], batch)
    error = (drawn.clamp(-1, 1) * 127.5 + 127.5 - batch.frames[:, 0].float()).square().mean()
    return float(10 * torch.log10(255**2 / error))


@pytest.fixture(scope="module")
def stage_a():
    source, trainer = Discs(16), build(settings(), Discs(16).info, CPU)
    before = quality(trainer, source)
    losses = fitted(trainer, source, 0, 120)
    return trainer, source, losses, before


def test_the_loss_falls_and_unseen_moments_are_drawn(stage_a):
    trainer, source, losses, before = stage_a
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    assert quality(trainer, source) > before + 6


def test_blocks_beyond_the_stage_are_not_touched_and_silent(stage_a):
    trainer = stage_a[0]
    fresh = build(settings(), stage_a[1].info, CPU).networks["G"].state_dict()
    for name, value in trainer.networks["G"].state_dict().items():
        if ".b32." in name:
            assert torch.equal(value, fresh[name])
    assert not trainer.networks["G"].synthesis.b32.torgb.weight.any()
    assert all(
        name not in trainer.optimizers["G"].state
        for name in trainer.networks["G"].synthesis.b32.parameters()
    )


def test_the_checkpoint_is_half_precision_draws_and_starts_the_next_stage(stage_a, tmp_path):
    trainer, source, losses, _ = stage_a
    path = trainer.export(tmp_path / "a", {"trained": True, "fps": 25.0})
    parameters = sum(p.numel() for p in trainer.networks["G"].parameters())
    assert path.with_suffix(".safetensors").stat().st_size < 2.2 * parameters + 20_000
    system = registry.load_model(str(path))
    picture = system.synthesizer(system.identity(seed=1), system.motion(seed=1).sample(0.5))
    assert picture.shape == (1, 3, 32, 32)
    larger = Discs(32)
    config = settings(fit={"start": str(path)}, data={"resolution": 32})
    stage_b = build(config, larger.info, CPU)
    assert quality(stage_b, larger) > 15  # the small picture, enlarged
    first = fitted(stage_b, larger, 0, 40)
    assert np.mean(first[-5:]) < np.mean(first[:2])
    changed = {**GENERATOR, "w_dim": 16}
    with pytest.raises(checkpoint.BadCheckpoint):
        build(settings(fit={"start": str(path)}, generator=changed), source.info, CPU)


def test_the_average_of_w_follows(stage_a):
    trainer = stage_a[0]
    assert trainer.networks["G"].mapping.w_avg.any()
    for name in ("mapping.w_avg", "synthesis.motion_encoder.gain"):
        own, average = (
            dict(n.named_buffers())[name] for n in (trainer.networks["G"], trainer.averages["G"])
        )
        assert torch.equal(own, average)


def test_requests_are_a_function_of_the_draws(stage_a):
    trainer = stage_a[0]
    asked = trainer.requests(Draws(3, 7, 0))
    assert asked == trainer.requests(Draws(3, 7, 0)) != trainer.requests(Draws(3, 8, 0))
    assert all(0 <= r.times[0] <= 249 and r.video < 4 for r in asked)


def test_slots_of_an_endless_source_keep_their_person_and_change_one_by_one():
    config = settings(fit={"stay": 16})
    trainer = build(config, DataInfo("heads", 16, 25.0), CPU)
    videos = np.array([[r.video for r in trainer.requests(Draws(0, s, 0))] for s in range(64)])
    changes = (videos[1:] != videos[:-1]).sum(1)
    assert changes.max() == 1 and changes.sum() in range(30, 33)  # 8 slots, 64 / 16 turns
    assert len(set(videos[0])) == 8
    assert len(np.unique(videos)) == changes.sum() + 8


def test_samples_are_pictures_and_change_nothing(stage_a):
    trainer = stage_a[0]
    before = torch.random.get_rng_state()
    sheet = trainer.samples()
    assert sheet.grid.dtype == torch.uint8 and sheet.grid.shape[2:] == (3, 16, 16)
    assert sheet.clips.shape[0] == 2 and sheet.clips.shape[2:] == (3, 16, 16)
    assert torch.equal(sheet.grid, trainer.samples().grid)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_cannot_be_fitted_is_refused(stage_a):
    source = stage_a[1]
    noise = {"cfg": {"z_dim": 112, "content": {"type": "traits"}}}
    with pytest.raises(BadConfig, match="tracks"):
        build(settings(generator=noise), source.info, CPU)
    batch = source.clips([ClipRequest(0, (1.0,))])
    batch.extra.pop("code")
    with pytest.raises(BadConfig, match="code"):
        stage_a[0].draw(stage_a[0].networks["G"], batch)
    for wrong in ({"gradient": -1.0}, {"seconds": 0.0}, {"stay": 0}, {"begin": "x"}):
        with pytest.raises(BadConfig):
            build(settings(fit=wrong), source.info, CPU)
