"""What the fit's losses see and what they are blind to."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from models.stylegan_v.fit_losses import (
    LEVELS,
    REGION_WEIGHTS,
    fit_loss,
    gradient_l1,
    psnr,
    pyramid,
    pyramid_l1,
    region_weights,
    texture_energy,
)
from models.training.heads.export import REGIONS


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_pyramid_loses_nothing():
    x = noise(2, 3, 32, 32)
    *bands, small = pyramid(x)
    assert [band.shape[2] for band in bands] == [32, 16, 8] and small.shape[2] == 4
    assert len(bands) + 1 == LEVELS
    for band in reversed(bands):
        small = band + F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(small, x)


def test_region_weights_are_one_on_average_and_ordered_as_the_table():
    assert len(REGION_WEIGHTS) == len(REGIONS)
    mask = torch.randint(0, 9, (3, 16, 16), generator=torch.Generator().manual_seed(1))
    weights = region_weights(mask.to(torch.uint8))
    assert weights.shape == (3, 1, 16, 16)
    torch.testing.assert_close(weights.mean((1, 2, 3)), torch.ones(3))
    found = weights[0, 0][mask[0] == 3].mean() / weights[0, 0][mask[0] == 0].mean()
    assert float(found) == pytest.approx(REGION_WEIGHTS[3] / REGION_WEIGHTS[0])


def test_an_equal_picture_costs_nothing_and_a_scaled_error_its_scale():
    truth, error = noise(2, 3, 32, 32), noise(2, 3, 32, 32, seed=1)
    assert float(fit_loss(truth, truth, texture=1.0)) == 0
    losses = [float(fit_loss(truth + s * error, truth)) for s in (0.1, 0.2)]
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-4)
    assert losses[0] > 0


def test_a_constant_offset_is_seen_by_the_smallest_level_alone():
    weights = torch.ones(1, 1, 32, 32)
    offset = torch.full((1, 3, 32, 32), 0.25)
    assert float(pyramid_l1(offset, weights)) == pytest.approx(0.25, rel=1e-5)
    assert float(gradient_l1(offset, weights)) == 0


def test_an_error_where_people_look_costs_more():
    truth = torch.zeros(1, 3, 32, 32)
    mask = torch.zeros(1, 32, 32, dtype=torch.uint8)
    mask[:, 8:16, 8:16] = 3
    eye, backdrop = truth.clone(), truth.clone()
    eye[:, :, 10:14, 10:14] = 1
    backdrop[:, :, 22:26, 22:26] = 1
    assert float(fit_loss(eye, truth, mask)) > 3 * float(fit_loss(backdrop, truth, mask))


def test_texture_energy_asks_how_much_and_not_where():
    truth = noise(1, 3, 64, 64)
    moved = noise(1, 3, 64, 64, seed=1)  # as much detail, elsewhere
    smooth = F.interpolate(F.avg_pool2d(truth, 4), scale_factor=4, mode="bilinear")
    assert float(texture_energy(moved, truth)) < 0.2 < 1 < float(texture_energy(smooth, truth))
    assert float(texture_energy(2 * truth, truth)) == pytest.approx(math.log(4), rel=0.02)
    assert float(texture_energy(truth / 2, truth)) == pytest.approx(math.log(4), rel=0.02)


def test_its_gradient_brings_detail_back():
    truth = noise(1, 3, 64, 64) * 0.3
    drawn = (truth * 0.3).requires_grad_()
    texture_energy(drawn, truth).backward()
    assert float((drawn.grad * drawn.detach()).sum()) < 0  # more of what is there


def test_psnr_is_of_stored_pictures():
    truth = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    exact = truth.float() / 127.5 - 1
    assert float(psnr(exact, truth)[0]) > 100
    assert float(psnr(exact + 0.3 / 127.5, truth)[0]) > 100  # rounded away
    off = exact + torch.tensor([5.0, 10.0])[:, None, None, None] / 127.5
    expected = [20 * math.log10(255 / e) for e in (5, 10)]
    torch.testing.assert_close(psnr(off, truth), torch.tensor(expected), rtol=1e-5, atol=1e-4)
    assert float(psnr(exact + 99, torch.full_like(truth, 255))[0]) > 100  # clipped


def test_psnr_of_a_region_sees_that_region_alone():
    truth = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    drawn = torch.full((1, 3, 8, 8), -1.0)
    drawn[..., :4] += 10 / 127.5
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[..., :4] = 2
    assert float(psnr(drawn, truth, mask)[0]) == pytest.approx(20 * math.log10(25.5), abs=1e-3)
    assert float(psnr(drawn, truth)[0]) == pytest.approx(20 * math.log10(25.5) + 3.01, abs=0.01)
