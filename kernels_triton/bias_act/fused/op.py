"""bias_act_torgb: what follows StyleGAN2's last convolution of a resolution, and the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels_triton.bias_act import reference
from kernels_triton.bias_act.epilogue import Epilogue, check_epilogue
from kernels_triton.choice import fused_way


@dataclass(frozen=True)
class Skip:
    """How features become a part of the picture.

    Args:
        weight: [3, C] float32; padding is zero.
        bias: [3] float32.
        clamp: Limit of this part's magnitude; infinity is none.
        taps: Of one axis, of the filter that doubles the picture so far; an even number of them,
            in the order of a correlation, gain included.
    """

    weight: Tensor
    bias: Tensor
    clamp: float
    taps: tuple[float, ...]


def bias_act_torgb(
    x: Tensor,
    end: Epilogue,
    skip: Skip,
    style: Tensor,
    before: Tensor | None,
    image: Tensor,
    *,
    scale_in: Tensor | None = None,
    scale_out: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Per sample:

    1. `y = end(x * scale_in)`: noise, bias, leaky ReLU, gain, clamp.
    2. `image = clamp(y @ (skip.weight * style)^T + skip.bias)`, plus `before` doubled by
       `skip.taps`.
    3. `out = y * scale_out`, if `out` is given.

    All arithmetic is in float32.

    Args:
        x: [N, H, W, C], contiguous; float32, bfloat16 or float16; C a multiple of 16.
        style: [N, C] float32.
        before: [N, H/2, W/2, 3] float32, the picture so far; None is none.
        image: [N, H, W, 3] float32 to write into.
        scale_in, scale_out: [N, C] float32; None is 1.
        out: [N, H, W, C] in the dtype of x to write into; may be x; None if nobody reads it.
    Returns:
        `image`.
    Raises:
        ValueError: Shapes, dtypes or layouts do not fit.
    Source: Karras et al., StyleGAN2 (CVPR 2020), Sec. 4.1, Fig. 7.
    """
    check_epilogue(x, x.shape, end, scale_in, scale_out)
    n, height, width, channels = x.shape
    if style.shape != (n, channels) or skip.weight.shape != (3, channels):
        raise ValueError(
            f"style {list(style.shape)} must be {[n, channels]}, weight {[3, channels]}"
        )
    if image.shape != (n, height, width, 3) or image.dtype != torch.float32:
        raise ValueError(f"image must be float32 {[n, height, width, 3]}, not {list(image.shape)}")
    if before is not None and before.shape != (n, height // 2, width // 2, 3):
        raise ValueError(f"before must be half of {list(image.shape)}, not {list(before.shape)}")
    if out is not None and (out.shape != x.shape or out.dtype != x.dtype):
        raise ValueError(f"out must be {x.dtype} {list(x.shape)}, not {list(out.shape)}")
    way = fused_way(x, style, scale_in, scale_out)
    if way == "triton":
        from kernels_triton.bias_act.fused import kernel

        return kernel.bias_act_torgb(x, end, skip, style, before, image, scale_in, scale_out, out)
    if way == "cpu":
        from kernels_triton.bias_act import simd_cpu

        return simd_cpu.bias_act_torgb(x, end, skip, style, before, image, scale_in, scale_out, out)
    return reference.bias_act_torgb(x, end, skip, style, before, image, scale_in, scale_out, out)
