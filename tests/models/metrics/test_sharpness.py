"""Spectral power on pictures whose spectrum is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.errors import BadConfig
from models.metrics.sharpness import Sharpness, fine_power, sharpness


def wave(cycles_per_pixel: float, side: int = 64, angle: float = 0.0) -> torch.Tensor:
    """uint8 [1, 3, side, side]."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    along = x * torch.cos(torch.tensor(angle)) + y * torch.sin(torch.tensor(angle))
    grey = 128 + 100 * torch.sin(2 * torch.pi * cycles_per_pixel * along)
    return grey.to(torch.uint8).expand(1, 3, -1, -1)


def noise(count: int = 4, side: int = 64) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), generator=random).to(torch.uint8)


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.5708])
def test_only_fine_waves_count_in_every_direction(angle: float) -> None:
    fine, coarse = fine_power(wave(0.375, angle=angle)), fine_power(wave(0.125, angle=angle))
    assert coarse < 2e-3 * fine
    # A sine of amplitude a has power a^2 / 2; the window keeps (3/8)^2 of it.
    assert fine == pytest.approx(100**2 / 2 * (3 / 8) ** 2 * 64 * 64 / 1, rel=0.06)


def test_brightness_is_no_sharpness() -> None:
    assert fine_power(torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)) == pytest.approx(0, abs=1)


def test_a_picture_is_as_sharp_as_itself_and_a_blurred_one_less() -> None:
    x = noise()
    blurred = F.avg_pool2d(x.float(), 3, 1, 1).to(torch.uint8)
    assert sharpness([x], [x]) == 1.0
    assert sharpness([blurred], [x]) < 0.2
    assert sharpness([blurred, x], [x, x]) == pytest.approx(
        (1 + sharpness([blurred], [x])) / 2, rel=1e-6
    )


def test_sets_of_different_length_compare_per_frame() -> None:
    total = Sharpness()
    total.add(noise()[:2], noise()[:1])
    assert total.ratio == pytest.approx(1.0, rel=0.1)


def test_other_sizes_and_flat_truths_are_refused() -> None:
    with pytest.raises(BadConfig, match=r"\[3, 64, 64\] against truth of \[3, 32, 32\]"):
        Sharpness().add(noise(), noise(side=32))
    with pytest.raises(BadConfig, match="no power"):
        _ = Sharpness().ratio
