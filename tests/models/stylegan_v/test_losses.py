"""Losses and their gradients against golden vectors made by the authors' training code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.stylegan_v.losses import discriminator_loss, generator_loss, r1_gamma, r1_penalty
from models.stylegan_v.networks import Discriminator, Generator

from .goldens import (
    Golden,
    discriminator_of,
    discriminator_settings,
    error,
    generator_settings,
    relative_l2,
)

LABEL = torch.zeros(4, 0)


@pytest.fixture(scope="module")
def train(golden) -> Golden:
    return golden("train")


@pytest.fixture
def generator(train) -> Generator:
    made = Generator(**generator_settings(train.meta["G"]))
    made.load_state_dict(train.state("G/"), strict=True)
    return made


@pytest.fixture
def discriminator(train) -> Discriminator:
    made = Discriminator(**discriminator_settings(train.meta["D"]))
    made.load_state_dict(train.state("D/"), strict=True)
    return made


def fake_of(train: Golden, generator: Generator, **settings) -> torch.Tensor:
    return generator(train["z"], LABEL, train["gen_t"], motion_z=train["motion_z"], **settings)


def check_gradients(train: Golden, network: torch.nn.Module, phase: str, gain: float = 1.0) -> None:
    """Norms of all, and some in full: relative L2 1e-3."""
    found = {
        n: torch.zeros_like(p) if p.grad is None else p.grad * gain
        for n, p in network.named_parameters()
    }
    names = [str(n) for n in train.arrays[f"{phase}_gradnorms_names"]]
    norms = np.array([float(found[n].norm()) for n in names])
    np.testing.assert_allclose(norms, train.arrays[f"{phase}_gradnorms"], rtol=1e-3, atol=1e-6)
    prefix = f"{phase}_grad/"
    full = [key for key in train.arrays if key.startswith(prefix)]
    assert full
    for key in full:
        assert relative_l2(found[key.removeprefix(prefix)], train[key]) <= 1e-3


@torch.no_grad()
def test_fake_frames_and_logits_equal_the_golden(train, generator, discriminator):
    fake = fake_of(train, generator)
    assert error(fake, train["fake"]) <= 1.5e-3
    assert relative_l2(fake, train["fake"]) <= 2e-4
    logits = discriminator(train["fake"], LABEL, train["gen_t"])
    assert error(logits[:, 0], train["fake_logits"]) <= 2e-5
    real = train["real"].flatten(0, 1)
    logits = discriminator(real, LABEL, train["real_t"])
    assert error(logits[:, 0], train["real_logits"]) <= 2e-5


def test_generator_step_equals_the_golden(train, generator, discriminator):
    fake = fake_of(train, generator, update_emas=True)
    loss = generator_loss(discriminator(fake, LABEL, train["gen_t"]))
    assert error(loss, train["loss_Gmain"]) <= 1e-4
    loss.backward()
    check_gradients(train, generator, "Gmain")
    assert error(generator.mapping.w_avg, train["w_avg_after_Gmain"]) <= 1e-6


def test_discriminator_step_equals_the_golden(train, discriminator):
    real = train["real"].flatten(0, 1)
    loss = discriminator_loss(
        discriminator(real, LABEL, train["real_t"]),
        discriminator(train["fake"], LABEL, train["gen_t"]),
    )
    assert error(loss, train["loss_Dmain"]) <= 1e-4
    loss.backward()
    check_gradients(train, discriminator, "Dmain")


def test_regulariser_step_equals_the_golden(train, discriminator):
    real = train["real"].flatten(0, 1).requires_grad_()
    logits = discriminator(real, LABEL, train["real_t"])
    penalty = r1_penalty(logits, real, frames=3) * (train.meta["r1_gamma"] / 2)
    # A zero times the logits gives parameters without second-order gradient one of zero.
    (logits * 0 + penalty[:, None]).mean().mul(16).backward()
    check_gradients(train, discriminator, "Dreg")


def test_r1_equals_the_golden(discriminator_golden):
    found = discriminator_golden
    discriminator = discriminator_of(found)
    img = found["img"].requires_grad_()
    logits = discriminator(img, found["c"], found["t"])
    penalty = r1_penalty(logits, img, found.meta["k"])
    torch.testing.assert_close(penalty, found["r1_penalty_per_clip"], rtol=1e-3, atol=1e-6)
    (gradient,) = torch.autograd.grad(logits.sum(), img)
    assert relative_l2(gradient, found["r1_grads"]) <= 2e-2
    assert ((gradient - found["r1_grads"]).abs() > 1e-6).float().mean() <= 0.01


def test_published_gamma():
    assert r1_gamma(256, 64) == pytest.approx(0.2048)
