"""rgb_to_i420: what a video encoder reads."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels_triton.rgb_to_i420 import reference


def rgb_to_i420(rgb: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Planar YUV 4:2:0, BT.601 matrix, limited range (Y 16 to 235, U and V 16 to 240).

    1. Clamp to [-1, 1].
    2. Y of each pixel; U and V of the mean of each 2x2 block.
    3. Round half up.

    Args:
        rgb: [N, 3, H, W], floating point in [-1, 1]; H and W even.
        out: [N, H*3//2, W] uint8 to write into; None makes a new one.
    Returns:
        [N, H*3//2, W] uint8: the Y plane, then the U and the V plane, each without gaps.
    Raises:
        ValueError: a shape or dtype does not fit.
    Source: ITU-R BT.601-7, Sec. 2.5.
    """
    if rgb.ndim != 4 or rgb.shape[1] != 3 or rgb.shape[2] % 2 or rgb.shape[3] % 2:
        raise ValueError(f"rgb must be [N, 3, H, W] with even H and W, not {list(rgb.shape)}")
    n, _, height, width = rgb.shape
    i420 = reference.rgb_to_i420(rgb)
    if out is None:
        return i420
    if out.shape != (n, height * 3 // 2, width) or out.dtype != torch.uint8:
        raise ValueError(
            f"out must be uint8 {[n, height * 3 // 2, width]}, not {out.dtype} {list(out.shape)}"
        )
    return out.copy_(i420)
