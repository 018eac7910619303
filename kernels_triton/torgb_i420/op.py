"""torgb and torgb_i420: the last layer's 1x1 convolution to a picture, or straight to I420."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels_triton.choice import fused_way
from kernels_triton.torgb_i420 import reference


@dataclass(frozen=True)
class ToRgb:
    """Constants of the layer.

    Args:
        weight: [3, C'] float32; a grey model repeats its row, padding is zero.
        bias: [3] float32.
        clamp: Limit of the magnitude before `gain`; infinity is none.
        gain: What the result is multiplied by.
    """

    weight: Tensor
    bias: Tensor
    clamp: float
    gain: float = 1.0


def torgb(
    x: Tensor, to: ToRgb, style: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """`clamp(x @ (weight * style)^T + bias) * gain`.

    Args:
        x: [N, H, W, C'], contiguous; float32, bfloat16 or float16.
        style: [N, C'] float32; None where x is already multiplied by it.
        out: [N, H, W, 3] float32 to write into, or None.
    Returns:
        `out`: RGB, nominally in [-1, 1].
    Raises:
        ValueError: Shapes do not fit.
    """
    _check(x, to, style)
    if out is None:
        out = torch.empty((*x.shape[:3], 3), device=x.device)
    elif out.shape != (*x.shape[:3], 3) or out.dtype != torch.float32 or not out.is_contiguous():
        raise ValueError(
            f"out must be contiguous float32 {[*x.shape[:3], 3]}, not {out.dtype} "
            f"{list(out.shape)} with strides {list(out.stride())}"
        )
    way = fused_way(x, style)
    if way == "triton":
        from kernels_triton.torgb_i420 import kernel

        return kernel.torgb(x, to, style, out)
    if way == "cpu":
        from kernels_triton.torgb_i420 import simd_cpu

        return simd_cpu.torgb(x, to, style, out)
    return out.copy_(reference.torgb(x, to, style))


def torgb_i420(
    x: Tensor,
    to: ToRgb,
    style: Tensor | None = None,
    *,
    out: Tensor,
    broken: Tensor | None = None,
) -> Tensor:
    """`rgb_to_i420` of `torgb`, in one pass over x.

    Args:
        x: [N, H, W, C'] with even H and W; else as `torgb`.
        out: [N, H*3//2, W] uint8 to write into, contiguous.
        broken: [N] int32: set to 1 where a sample holds NaN or infinity; else left as it is.
    Returns:
        `out`.
    Raises:
        ValueError: Shapes do not fit.
    """
    _check(x, to, style)
    n, height, width, _ = x.shape
    if height % 2 or width % 2 or out.shape != (n, height * 3 // 2, width):
        raise ValueError(
            f"x {list(x.shape)} needs even sides and out {[n, height * 3 // 2, width]}, not "
            f"{list(out.shape)}"
        )
    if out.dtype != torch.uint8 or not out.is_contiguous():
        raise ValueError(f"out must be contiguous uint8, not {out.dtype}")
    way = fused_way(x, style)
    if way == "triton":
        from kernels_triton.torgb_i420 import kernel

        return kernel.torgb_i420(x, to, style, out, broken)
    if way == "cpu":
        from kernels_triton.torgb_i420 import simd_cpu

        return simd_cpu.torgb_i420(x, to, style, out, broken)
    return reference.torgb_i420(x, to, style, out, broken)


def _check(x: Tensor, to: ToRgb, style: Tensor | None) -> None:
    if x.ndim != 4 or not x.is_contiguous() or to.weight.shape != (3, x.shape[3]):
        raise ValueError(
            f"x {list(x.shape)} and weight {list(to.weight.shape)} must be contiguous [N, H, W, C] "
            "and [3, C]"
        )
    if style is not None and style.shape != (x.shape[0], x.shape[3]):
        raise ValueError(f"style must be {[x.shape[0], x.shape[3]]}, not {list(style.shape)}")
