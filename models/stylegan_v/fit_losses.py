"""Losses between a drawn frame and the rendered one it should be.

A rendered frame is exact truth for its numbers, pixel by pixel, so plain distances lead a generator
to pose, shape and colour without an adversary. What they cannot give is texture: where strands of
hair may lie either way, the mean of both is the best guess and is smooth. `texture_energy` asks for
as much fine detail as the truth has there, wherever it may lie.

Pictures are [N, 3, R, R] in [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 4
PATCH = 16  # side of the squares whose energy is compared, pixels
ENERGY_FLOOR = 1e-3  # of mean squares: detail below one part in sixty of the range counts as none

# By value of the mask: background, skin, lips, eyes, inner mouth, hair, cloth, glasses, occluder.
# Eyes and mouth are few pixels and most of what a person looks at.
REGION_WEIGHTS = (0.5, 1.5, 4.0, 4.0, 4.0, 0.7, 0.7, 1.5, 0.5)


def region_weights(mask: Tensor, weights: tuple[float, ...] = REGION_WEIGHTS) -> Tensor:
    """What each pixel counts.

    Args:
        mask: uint8 [N, R, R] of the values above.
        weights: One per value.
    Returns:
        float32 [N, 1, R, R] with mean 1 in every picture.
    """
    table = torch.tensor(weights, device=mask.device)
    found = table[mask.long()][:, None]
    return found / found.mean(dim=(1, 2, 3), keepdim=True)


def pyramid(x: Tensor, levels: int = LEVELS) -> list[Tensor]:
    """What each halving of a picture loses, the finest first, and last the smallest picture."""
    bands = []
    for _ in range(levels - 1):
        small = F.avg_pool2d(x, 2)
        bands.append(x - F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False))
        x = small
    return [*bands, x]


def pyramid_l1(difference: Tensor, weights: Tensor, levels: int = LEVELS) -> Tensor:
    """Mean magnitude of a difference of pictures, summed over the levels of its pyramid, a scalar.

    The pyramid is linear: that of a difference is the difference of pyramids.

    Args:
        difference: [N, 3, R, R]; R can be halved `levels - 1` times.
        weights: [N, 1, R, R].
    """
    total = difference.new_zeros(())
    for band in pyramid(difference, levels):
        total = total + (band.abs() * weights).mean()
        if min(weights.shape[2:]) > 1:
            weights = F.avg_pool2d(weights, 2)
    return total


def gradient_l1(difference: Tensor, weights: Tensor) -> Tensor:
    """Mean magnitude of the steps between neighbouring pixels of a difference, a scalar."""
    across = (difference[..., 1:] - difference[..., :-1]).abs() * weights[..., 1:]
    down = (difference[..., 1:, :] - difference[..., :-1, :]).abs() * weights[..., 1:, :]
    return across.mean() + down.mean()


def texture_energy(drawn: Tensor, truth: Tensor) -> Tensor:
    """How far the energy of fine detail is from the truth's, square by square, a scalar.

    Logarithms, so that half as much and twice as much are equally wrong; squares, so that where
    inside a square the detail lies does not matter.

    Args:
        drawn, truth: [N, 3, R, R] with R a multiple of PATCH.
    """
    return (_energy(drawn) - _energy(truth)).abs().mean()


def _energy(x: Tensor) -> Tensor:
    """Log mean square of the finest band in each square, [N, 1, R / PATCH, R / PATCH]."""
    band = pyramid(x, 2)[0].square().mean(1, keepdim=True)
    return (F.avg_pool2d(band, PATCH) + ENERGY_FLOOR).log()


def fit_loss(
    drawn: Tensor,
    truth: Tensor,
    mask: Tensor | None = None,
    *,
    gradient: float = 0.5,
    texture: float = 0.0,
) -> Tensor:
    """The regression's whole loss, a scalar.

    Args:
        drawn, truth: [N, 3, R, R]; R a multiple of 8, with `texture` of PATCH.
        mask: uint8 [N, R, R]; None weights all pixels alike.
        gradient, texture: Weights beside the pyramid's 1.
    """
    drawn, truth = drawn.float(), truth.float()
    difference = drawn - truth
    if mask is None:
        weights = difference.new_ones(difference.shape[0], 1, *difference.shape[2:])
    else:
        weights = region_weights(mask)
    loss = pyramid_l1(difference, weights) + gradient * gradient_l1(difference, weights)
    return loss + texture * texture_energy(drawn, truth) if texture else loss


def psnr(drawn: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Decibels of each picture, as they would be stored: rounded to 256 steps, [N].

    Args:
        drawn: [N, 3, R, R] in [-1, 1], clipped there.
        truth: uint8 [N, 3, R, R].
        mask: [N, R, R]; only pixels above 0 count. None: all do.
    """
    stored = (drawn.clamp(-1, 1) * 127.5 + 127.5).round()
    error = (stored - truth.float()).square().mean(1)  # [N, R, R]
    if mask is None:
        mean = error.mean(dim=(1, 2))
    else:
        inside = (mask > 0).float()
        mean = (error * inside).sum((1, 2)) / inside.sum((1, 2)).clamp_min(1)
    return 10 * torch.log10(255**2 / mean.clamp_min(1e-6))
