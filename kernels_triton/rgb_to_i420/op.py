"""rgb_to_i420: what a video encoder reads."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels_triton.choice import fused_way, watched
from kernels_triton.rgb_to_i420 import cupy_cuda, reference


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
    wanted = (n, height * 3 // 2, width)
    if out is not None and (out.shape != wanted or out.dtype != torch.uint8):
        raise ValueError(f"out must be uint8 {list(wanted)}, not {out.dtype} {list(out.shape)}")
    way = fused_way(rgb)
    if way == "triton" and not watched(rgb):
        from kernels_triton.rgb_to_i420 import kernel

        if out is not None and out.is_contiguous():
            return kernel.rgb_to_i420(rgb, out)
        i420 = kernel.rgb_to_i420(rgb, torch.empty(wanted, dtype=torch.uint8, device=rgb.device))
    elif way == "reference" and cupy_cuda.takes(rgb):
        i420 = cupy_cuda.rgb_to_i420(rgb, torch.empty(wanted, dtype=torch.uint8, device=rgb.device))
    else:
        i420 = reference.rgb_to_i420(rgb)
    return i420 if out is None else out.copy_(i420)


def image_to_i420(image: Tensor, *, out: Tensor, broken: Tensor | None = None) -> Tensor:
    """`rgb_to_i420` of a channels-last picture.

    Args:
        image: [N, H, W, 3] float32, contiguous; H and W even.
        out: [N, H*3//2, W] uint8 to write into, contiguous.
        broken: [N] int32: set to 1 where a picture holds NaN or infinity; else left as it is. A
            broken picture's bytes are arbitrary.
    Returns:
        `out`.
    Raises:
        ValueError: Shapes or layouts do not fit.
    """
    n, height, width = image.shape[:3]
    fits = image.ndim == 4 and image.shape[3] == 3 and image.dtype == torch.float32
    if not fits or height % 2 or width % 2 or not image.is_contiguous():
        raise ValueError(
            f"image must be contiguous float32 [N, H, W, 3] with even sides, not {image.dtype} "
            f"{list(image.shape)}"
        )
    if out.shape != (n, height * 3 // 2, width) or out.dtype != torch.uint8:
        raise ValueError(
            f"out must be uint8 {[n, height * 3 // 2, width]}, not {out.dtype} {list(out.shape)}"
        )
    if not out.is_contiguous():
        raise ValueError(f"out must be contiguous, not strided {out.stride()}")
    way = fused_way(image)
    if way == "triton":
        from kernels_triton.rgb_to_i420 import kernel

        return kernel.image_to_i420(image, out, broken)
    if way == "cpu":
        from kernels_triton.rgb_to_i420 import simd_cpu

        return simd_cpu.image_to_i420(image, out, broken)
    if cupy_cuda.takes(image):
        return cupy_cuda.rgb_to_i420(image.permute(0, 3, 1, 2), out, broken)
    return reference.image_to_i420(image, out, broken)
