"""The published training step through the trainer, against golden vectors of the authors' code."""

from __future__ import annotations

from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch

from models import registry
from models.errors import BadConfig
from models.stylegan_v.losses import discriminator_loss
from models.stylegan_v.training import Published, build
from models.training.config import TrainConfig
from models.training.contracts import ClipBatch, DataInfo
from models.training.distributed import Ranks
from models.training.draws import Draws
from models.training.step import Stepper

from .goldens import Golden, error, generator_settings
from .shapes import Discs
from .test_losses import check_gradients
from .test_tracks import CONFIG as TRACKS

CPU = torch.device("cpu")
LR, BETA2 = 0.0025, 0.99


def config(**changes: Any) -> TrainConfig:
    table: dict[str, Any] = {
        "system": "stylegan_v",
        "data": {"source": "clips", "resolution": 32},
        "batch": {"size": 4, "micro": 4, "frames": 3},
        "optim": {},
        "run": {"total_kimg": 10},
    }
    for key, value in changes.items():
        table[key] = {**table.get(key, {}), **value}
    return TrainConfig.from_dict(table)


@pytest.fixture(scope="module")
def train(golden) -> Golden:
    return golden("train")


@pytest.fixture
def published(train) -> Published:
    """The golden's networks, noise and clips in a trainer, as its draws would have been."""
    given = generator_settings(train.meta["G"])
    motion = {k: v for k, v in given["cfg"]["motion"].items() if k != "use_fractional_t"}  # dead
    given["cfg"]["motion"] = motion
    meta = train.meta["D"]
    sizes = {"channel_base": meta["channel_base"], "channel_max": meta["channel_max"]}
    table = {**sizes, "concat_res": meta["concat_res"], "mbstd_group": meta["mbstd_group_size"]}
    trainer = build(
        config(
            generator={key: given[key] for key in given if key not in ("img_resolution", "c_dim")},
            discriminator=table,
            optim={"r1_gamma": train.meta["r1_gamma"]},
        ),
        DataInfo("golden", 32, 25.0, lengths=np.full(4, 256)),
        CPU,
    )
    trainer.generator.load_state_dict(train.state("G/"), strict=True)
    trainer.discriminator.load_state_dict(train.state("D/"), strict=True)

    def latents(self: Published, which: str, draws: Draws) -> tuple[torch.Tensor, ...]:
        return train["z"], torch.zeros(4, 0), train["gen_t"], train["motion_z"]

    def real(self: Published, batch: ClipBatch) -> torch.Tensor:
        return batch.frames.flatten(0, 1)

    trainer.latents = MethodType(latents, trainer)  # type: ignore[method-assign]
    trainer.real = MethodType(real, trainer)  # type: ignore[method-assign]
    return trainer


@pytest.fixture
def batch(train) -> ClipBatch:
    return ClipBatch(train["real"], train["real_t"].double(), torch.zeros(4, 0))


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_every_phase_has_the_golden_s_loss_and_gradients(published, batch, train, share):
    for phase in published.phases:
        network = published.networks[phase.network]
        network.zero_grad(set_to_none=True)
        found = published.accumulate(phase, batch, Draws(0, 0, 0), share)
        if phase.name != "Dreg":
            assert error(found["loss"].detach(), train[f"loss_{phase.name}"]) <= 1e-4
        check_gradients(train, network, phase.name, gain=1 / share)


def test_the_average_of_w_moves_as_published(published, batch, train):
    found = published.accumulate(published.phases[0], batch, Draws(0, 0, 0), 1.0)
    published.after_step(0, {"Gmain/w": found["w"], "Dmain/signs": torch.zeros(1)})
    for network in (published.generator, published.averages["G"]):
        assert error(network.mapping.w_avg, train["w_avg_after_Gmain"]) <= 1e-6


def test_optimisers_have_the_lazy_correction(published):
    for name, ratio in (("G", 4 / 5), ("D", 16 / 17)):
        group = published.optimizers[name].param_groups[0]
        assert published.learning_rate(name, 7) == pytest.approx(LR * ratio)
        assert group["betas"] == pytest.approx((0.0, BETA2**ratio)) and group["eps"] == 1e-8
    phases = [(p.name, p.network, p.interval, p.gain) for p in published.phases]
    assert phases == [("Gmain", "G", 1, 1.0), ("Dmain", "D", 1, 1.0), ("Dreg", "D", 16, 16.0)]


def test_automatic_settings_are_the_published_ones():
    trainer = build(
        config(
            data={"resolution": 256},
            batch={"size": 64, "micro": 4},
            generator={"w_dim": 8, "synthesis_kwargs": {"channel_max": 8}, **SMALL_CFG},
            discriminator={"channel_max": 8},
        ),
        DataInfo("clips", 256, 25.0, lengths=np.array([40])),
        CPU,
    )
    assert trainer.r1_gamma == pytest.approx(0.2048)
    before = trainer.averages["G"].mapping.fc0.weight.clone()
    with torch.no_grad():
        trainer.generator.mapping.fc0.weight.add_(1.0)
    trainer.after_step(0, {"Gmain/w": torch.zeros(8), "Dmain/signs": torch.zeros(1)})
    moved = float((trainer.averages["G"].mapping.fc0.weight - before).mean())
    assert moved == pytest.approx(1 - 0.5 ** (64 / 20_000), rel=1e-3)  # half-life of 20,000 clips


SMALL_CFG = {
    "cfg": {
        "z_dim": 8,
        "motion": {"z_dim": 4, "v_dim": 4, "kernel_size": 3},
        "time_enc": {"dim": 4},
    }
}
SMALL: dict[str, Any] = {
    "generator": {
        "w_dim": 16,
        "synthesis_kwargs": {"channel_base": 256, "channel_max": 16},
        **SMALL_CFG,
    },
    "discriminator": {"channel_base": 256, "channel_max": 16},
}


@pytest.fixture(scope="module")
def discs() -> Discs:
    return Discs(32, people=3)


def small(discs: Discs, **changes: Any) -> Published:
    return build(config(**{**SMALL, **changes}), discs.info, CPU)


def test_the_discriminator_learns_to_tell_real_from_the_first_fakes(discs):
    trainer = small(discs)

    def fetch(step: int, micro: int) -> ClipBatch:
        return discs.clips([_plain(r) for r in trainer.requests(Draws(0, step, micro))])

    def loss() -> float:
        with torch.no_grad():
            real = trainer.discriminator(trainer.real(batch), batch.c, batch.t)
            return float(discriminator_loss(real, trainer.discriminator(fake, c, t)))

    batch = fetch(1000, 0)
    z, c, t, noise = trainer.latents("d", Draws(0, 1000, 0))
    with torch.no_grad():
        fake = trainer.generator(z, c, t, motion_z=noise)
    before = loss()
    stepper = Stepper(trainer, fetch, 0, 1, Ranks())
    reported = [stepper.take(step) for step in range(18)]
    assert loss() < 0.8 * before
    assert "Dreg/r1" in reported[0] and "Dreg/r1" not in reported[1] and "Dreg/r1" in reported[16]
    assert all(r["mended"] == 0 for r in reported)
    moved = trainer.averages["G"].state_dict()
    assert any(
        not torch.equal(moved[k], v) for k, v in small(discs).averages["G"].state_dict().items()
    )


def _plain(request):
    """Discs have no mirrored side."""
    return type(request)(request.video, request.times)


def test_times_of_real_clips_are_whole_and_of_fakes_share_a_fraction(discs):
    trainer = small(discs, data={"mirror": True, "window": 40})
    asked = [r for step in range(30) for r in trainer.requests(Draws(2, step, 0))]
    assert all(float(t).is_integer() and 0 <= t < 250 for r in asked for t in r.times)
    assert all(r.times[-1] - r.times[0] <= 32 for r in asked)
    assert max(r.times[0] for r in asked) > 150  # windows lie anywhere
    assert {(r.video, r.mirror) for r in asked} == {(v, m) for v in range(3) for m in (0, 1)}
    _, _, t, noise = trainer.latents("g", Draws(2, 0, 0))
    fractions = t - t.floor()
    torch.testing.assert_close(fractions, fractions[:, :1].expand(-1, 3), rtol=0, atol=1e-9)
    assert fractions.std() > 0.01 and float(t.max()) < 40
    other = trainer.latents("d", Draws(2, 0, 0))
    assert not torch.equal(noise, other[3]) and not torch.equal(t, other[2])
    assert torch.equal(noise, trainer.latents("g", Draws(2, 0, 0))[3])


def test_augmentation_follows_the_discriminator_and_is_kept_in_the_state(discs):
    trainer = small(discs, optim={"ada_kimg": 0.2, "ada_interval": 1})
    sums = {"Gmain/w": torch.zeros(16), "Dmain/signs": torch.tensor([4.0])}
    for step in range(8):
        trainer.after_step(step, sums)
    assert trainer.ada.p == pytest.approx(8 * 4 / 200)
    again = small(discs)
    again.load_aux_state(trainer.aux_state())
    assert again.ada.p == trainer.ada.p
    batch = discs.clips([_plain(r) for r in trainer.requests(Draws(0, 0, 0))])
    losses = []
    for p in (0.0, 0.8):
        trainer.ada.p = p
        found = trainer.accumulate(trainer.phases[1], batch, Draws(0, 0, 0), 1.0)
        losses.append(float(found["loss"]))
    assert losses[0] != losses[1]
    trainer.accumulate(trainer.phases[2], batch, Draws(0, 0, 0), 1.0)  # twice through it
    assert all(torch.isfinite(p.grad).all() for p in trainer.discriminator.parameters())


def test_labels_reach_both_networks(discs):
    labels = np.eye(2, dtype=np.float32)[[0, 1, 0]]
    info = DataInfo("discs", 32, 25.0, 2, discs.info.lengths, labels)
    trainer = build(config(**SMALL), info, CPU)
    _, c, _, _ = trainer.latents("g", Draws(0, 3, 0))
    assert c.shape == (4, 2) and (c.sum(1) == 1).all()
    assert trainer.generator.c_dim == trainer.discriminator.c_dim == 2


def test_the_export_is_a_system_and_samples_are_its_pictures(discs, tmp_path):
    trainer = small(discs)
    path = trainer.export(tmp_path / "model", {"trained": True, "fps": 25.0})
    system = registry.load_model(str(path))
    with torch.no_grad():
        frame = system.synthesizer(system.identity(seed=1), system.motion(seed=1).sample(2.0))[0]
    sheet = trainer.samples()
    assert sheet.grid.shape == (8, 6, 3, 32, 32) and sheet.clips.shape == (2, 50, 3, 32, 32)
    stored = (frame.clamp(-1, 1) * 127.5 + 127.5).round()
    assert float((sheet.grid[1, 2].float() - stored).abs().max()) <= 1  # half-precision weights


def test_what_it_cannot_train_is_refused(discs):
    tracks = {key: value for key, value in TRACKS.items() if key != "c_dim"}
    for changes, word in (
        ({"generator": {**tracks, "img_resolution": 32}}, "fitted"),
        ({"generator": {**SMALL["generator"], "img_resolution": 64}}, "full size"),
        ({"generator": {"wdim": 3}}, "wdim"),
        ({"discriminator": {"base": 3}}, "base"),
    ):
        with pytest.raises(BadConfig, match=word):
            small(discs, **changes)
