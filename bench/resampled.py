"""The definition's picture at another size, in float64: what is sent smaller or larger than drawn.

Smaller ones must show no aliases, for which two filters are in use: the mean of the area that a
pixel covers, and a cubic that is as wide as that. Where sizes divide, only the first is right.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels_triton.rgb_to_i420.reference import rgb_to_i420


def pictures(image: Tensor, size: int) -> list[Tensor]:
    """What `image` [R, R, 3] may look like as [size, size, 3], float64."""
    side, image = image.shape[0], image.double()
    if size == side:
        return [image]
    if size > side:
        return [_cubic(image, size)]
    area = torch.from_numpy(_area(side, size))
    mean = torch.einsum("yi,ijc,xj->yxc", area, image, area)
    return [mean] if side % size == 0 else [mean, _cubic(image, size)]


def i420(image: Tensor, size: int) -> list[np.ndarray]:
    """The same as bytes, [size * 3 // 2, size] each."""
    return [
        rgb_to_i420(picture.permute(2, 0, 1)[None])[0].numpy() for picture in pictures(image, size)
    ]


def _cubic(image: Tensor, size: int) -> Tensor:
    """Convolution with a cubic (a = -0.75), widened where the picture shrinks."""
    planes = image.permute(2, 0, 1)[None]
    fitted = F.interpolate(
        planes,
        (size, size),
        mode="bicubic",
        align_corners=False,
        antialias=size < image.shape[0],
    )
    return fitted[0].permute(1, 2, 0)


def _area(side: int, size: int) -> np.ndarray:
    """[size, side]: how much of each output pixel an input pixel covers, 1 in sum."""
    edges = np.arange(size + 1) * (side / size)
    left, right = edges[:-1, None], edges[1:, None]
    pixel = np.arange(side)[None, :]
    covered = np.minimum(right, pixel + 1) - np.maximum(left, pixel)
    return np.maximum(covered, 0) * (size / side)
