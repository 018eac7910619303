"""Sharpness: spectral power between 1/4 and 1/2 cycles per pixel, relative to true frames.

The finest that a picture of its size can show lies in that octave, and blur takes it first. A ratio
of 1 is as sharp as the truth; above it lies noise or aliasing. Read it beside PSNR: each alone can
be gamed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import BadConfig

_LOW, _HIGH = 0.25, 0.5  # cycles per pixel, radial
_LUMA = (0.299, 0.587, 0.114)


def fine_power(frames: Tensor) -> float:
    """Power of the luma between 1/4 and 1/2 cycles per pixel, summed over frames.

    Args:
        frames: uint8 [N, 3, H, W]. A Hann window keeps the picture's edges out of it.
    """
    luma = torch.einsum("nchw,c->nhw", frames.float(), torch.tensor(_LUMA))
    height, width = luma.shape[-2:]
    window = torch.outer(
        torch.hann_window(height, periodic=False), torch.hann_window(width, periodic=False)
    )
    spectrum = torch.fft.rfft2(luma * window)
    y, x = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None, :]
    radius = (x**2 + y**2).sqrt()
    # Columns of a half spectrum stand for two, but for the first and (even width) the last one.
    twice = torch.full((spectrum.shape[-1],), 2.0)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    inside = ((radius >= _LOW) & (radius <= _HIGH)).float() * twice
    return float((spectrum.abs().square().double() * inside).sum() / (height * width))


@dataclass
class Sharpness:
    """Adds up frames and the true frames they stand for; `ratio` is the figure."""

    power: float = 0.0
    true_power: float = 0.0
    frames: int = 0

    def add(self, frames: Tensor, truth: Tensor) -> None:
        """uint8 [N, 3, H, W] each, of the same size.

        Raises:
            BadConfig: Sizes differ.
        """
        if frames.shape[1:] != truth.shape[1:]:
            raise BadConfig(
                f"frames of {list(frames.shape[1:])} against truth of {list(truth.shape[1:])};"
                " sharpness is compared at one size"
            )
        self.power += fine_power(frames) / len(frames)
        self.true_power += fine_power(truth) / len(truth)
        self.frames += len(frames)

    @property
    def ratio(self) -> float:
        """Raises BadConfig where the truth has nothing that fine."""
        if self.true_power <= 0:
            raise BadConfig("the true frames have no power between 1/4 and 1/2 cycles per pixel")
        return self.power / self.true_power


def sharpness(frames: Iterable[Tensor], truth: Iterable[Tensor]) -> float:
    """The ratio over batches that come in pairs. The two sets need not show the same moments: over
    many frames powers compare all the same."""
    total = Sharpness()
    for a, b in zip(frames, truth, strict=True):
        total.add(a, b)
    return total.ratio
