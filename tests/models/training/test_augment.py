"""Augmentation of clips: against the published code's outputs, and by what it must not do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.training.augment import (
    Adaptive,
    Chance,
    Percentile,
    augment,
    colour,
    geometry,
    moved,
    recoloured,
)


@pytest.fixture(scope="module")
def golden(request):
    path = Path(request.config.getoption("goldens")) / "stylegan_v" / "train.npz"
    with np.load(path, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if key.startswith("aug")}


def chance(p: float, clips: int = 4, seed: int = 0) -> Chance:
    return Chance(np.random.default_rng(seed), clips, p)


@pytest.mark.parametrize("percentile", [0.15, 0.6])
def test_outputs_equal_the_golden(golden, percentile):
    given = golden["aug_in"]  # [2 clips, 3 frames of RGB, 24, 24]
    found = augment(given.reshape(6, 3, 24, 24), 3, Percentile(2, percentile))
    wanted = golden[f"aug_out_p{percentile}"].reshape(6, 3, 24, 24)
    assert float((found - wanted).abs().max()) <= 2e-4


def test_nothing_happens_at_probability_zero():
    img = torch.rand(8, 3, 16, 16) * 2 - 1
    found = augment(img, 2, chance(0.0))
    # Twice the resolution and back is exact but for rounding: sym6 is a perfect reconstruction.
    assert float((found - img).abs().max()) < 2e-3
    assert float((recoloured(img, colour(chance(0.0, 8))) - img).abs().max()) < 1e-6
    torch.testing.assert_close(geometry(chance(0.0), 16), torch.eye(3).double().expand(4, 3, 3))


def test_all_frames_of_a_clip_change_alike_and_clips_do_not():
    still = torch.rand(1, 3, 16, 16).expand(12, 3, 16, 16)
    found = augment(still, 3, chance(1.0)).reshape(4, 3, 3, 16, 16)
    for clip in found:
        assert torch.equal(clip[0], clip[1]) and torch.equal(clip[0], clip[2])
    assert float((found[0] - found[1]).abs().max()) > 0.1


def test_equal_draws_give_equal_pictures():
    img = torch.rand(4, 3, 16, 16)
    assert torch.equal(augment(img, 1, chance(0.7)), augment(img, 1, chance(0.7)))
    assert not torch.equal(augment(img, 1, chance(0.7)), augment(img, 1, chance(0.7, seed=1)))


def test_each_transformation_happens_with_its_probability():
    many = 20_000
    drawn = chance(0.3, many)
    assert float((drawn.normal() != 0).double().mean()) == pytest.approx(0.3, abs=0.015)
    before, after = (u != 0.5 for u in chance(0.3, many).rotation())
    assert float((before | after).double().mean()) == pytest.approx(0.3, abs=0.015)
    values = chance(1.0, many).normal(2)
    assert float(values.std()) == pytest.approx(1, abs=0.02)


def test_whole_shifts_and_quarter_turns_keep_every_pixel():
    """They only move pixels: the middle of the picture is what was there, exactly placed."""
    img = torch.rand(1, 3, 32, 32)
    shift = torch.eye(3).double()[None].clone()
    shift[0, :2, 2] = torch.tensor([3.0, -2.0])  # from where it comes
    found = moved(img, shift)
    wanted = img[:, :, 6:20, 11:25]
    assert float((found[:, :, 8:22, 8:22] - wanted).abs().max()) < 5e-3
    # Turned, the filter's up and down halves no longer fit: exact for what is smooth.
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    img = torch.stack([(x / 9).sin(), (y / 7).cos(), (x / 8 + y / 11).sin()])[None]
    turn = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]]).double()
    found, middle = moved(img, turn), slice(8, 24)
    errors = [
        float((found - img.rot90(quarter, (2, 3)))[:, :, middle, middle].abs().max())
        for quarter in (1, -1)
    ]
    assert min(errors) < 0.03 and max(errors) > 0.3


def test_greys_keep_their_hue():
    grey = torch.full((1, 3, 4, 4), 0.25)
    for seed in range(20):
        found = recoloured(grey, colour(chance(1.0, 1, seed)))
        assert float(found.std(1).max()) < 1e-6


def test_second_order_gradients_are_those_of_a_linear_map():
    """R1 goes through the augmentation twice: finite differences tell whether rightly."""
    torch.manual_seed(0)

    # Numbers that do not depend on how often they are asked for.
    def changed(x):
        return augment(x, 1, Percentile(2, 0.6))

    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(changed, (x,), atol=1e-6, fast_mode=True)
    weight = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)

    def gradient(x, weight):
        return torch.autograd.grad((changed(x).tanh() * weight).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradcheck(gradient, (x, weight), atol=1e-6, fast_mode=True)


def test_strength_follows_the_discriminator_and_stays_within_bounds():
    ada = Adaptive(target=0.6, kimg=1.0, interval=4, p_max=0.85)
    for step in range(401):
        ada.heard(step, signs=16.0, clips=16)
    assert ada.p == 0.85
    for step in range(401, 409):
        ada.heard(step, signs=-16.0, clips=16)
    assert ada.p == pytest.approx(0.85 - 2 * 16 * 4 / 1000)
    for step in range(400):
        ada.heard(step, signs=-16.0, clips=16)
    assert ada.p == 0.0


def test_a_move_is_the_published_one():
    ada = Adaptive()
    for step in range(5):  # moves at 0 and 4
        ada.heard(step, signs=64.0, clips=64)
    assert ada.p == pytest.approx(2 * 4 * 64 / 100_000)


def test_strength_goes_on_from_its_state():
    whole, first = Adaptive(kimg=1.0), Adaptive(kimg=1.0)
    signs = np.random.default_rng(0).uniform(-4, 16, 50)
    for step in range(50):
        whole.heard(step, signs[step], 16)
    for step in range(22):
        first.heard(step, signs[step], 16)
    second = Adaptive(kimg=1.0)
    second.load(first.state())
    for step in range(22, 50):
        second.heard(step, signs[step], 16)
    assert second.state().tolist() == whole.state().tolist()
