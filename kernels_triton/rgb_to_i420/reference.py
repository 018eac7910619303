"""RGB in [-1, 1] to I420, BT.601 limited range: the definition."""

from __future__ import annotations

import torch
from torch import Tensor

# ITU-R BT.601, 8 bit: Y' = 16 + 65.481 R + 128.553 G + 24.966 B for R, G, B in [0, 1], and so on.
LUMA = (65.481, 128.553, 24.966)
BLUE = (-37.797, -74.203, 112.0)
RED = (112.0, -93.786, -18.214)


def rgb_to_i420(rgb: Tensor) -> Tensor:
    """See `kernels_triton.rgb_to_i420.rgb_to_i420`; arguments are already checked here."""
    n, _, height, width = rgb.shape
    rgb = rgb.float().clamp(-1, 1) * 0.5 + 0.5  # [0, 1]
    coarse = rgb.reshape(n, 3, height // 2, 2, width // 2, 2).mean([3, 5])
    planes = []
    for picture, row, offset in ((rgb, LUMA, 16), (coarse, BLUE, 128), (coarse, RED, 128)):
        r, g, b = picture.unbind(1)
        plane = row[0] * r + row[1] * g + row[2] * b + offset
        planes.append((plane + 0.5).floor().to(torch.uint8).flatten(1))
    return torch.cat(planes, dim=1).reshape(n, height * 3 // 2, width)


def image_to_i420(image: Tensor, out: Tensor, broken: Tensor | None) -> Tensor:
    """See `kernels_triton.rgb_to_i420.image_to_i420`; arguments are already checked here."""
    if broken is not None:
        broken.masked_fill_(~torch.isfinite(image.flatten(1).sum(1)), 1)
    return out.copy_(rgb_to_i420(image.permute(0, 3, 1, 2).nan_to_num()))
