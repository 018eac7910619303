"""fused_filtered_lrelu: scale, bias, upsample, leaky ReLU, clamp, downsample, scale; channels-last.

The form that inference runs: everything that modulation needs around the filters happens on the
way, and the oversampled picture never reaches memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels_triton.choice import fused_way
from kernels_triton.filtered_lrelu import reference
from kernels_triton.filtered_lrelu.resampling import Resampling


def fused_filtered_lrelu(
    x: Tensor,
    how: Resampling,
    size: tuple[int, int],
    *,
    scale_in: Tensor | None = None,
    bias: Tensor | None = None,
    scale_out: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Per sample and channel:

    1. Multiply by `scale_in`, add `bias`. The padded border receives neither.
    2. Upsample, pad, filter with `how.up_taps` along both axes.
    3. Leaky ReLU, clamp to [-how.clamp, how.clamp].
    4. Filter with `how.down_terms`, keep every `how.down`-th sample.
    5. Multiply by `scale_out`.

    All arithmetic is in float32; a kernel may filter in half precision where `x` is stored in it.

    Args:
        x: [N, H, W, C], contiguous; float32, bfloat16 or float16; C a multiple of 16.
        how: The layer's constants.
        size: (rows, columns) of the result; samples beyond the picture are zero.
        scale_in: [N, C] float32; None is 1.
        bias: [C] float32; None is 0.
        scale_out: [N, C] float32; None is 1.
        out: [N, rows, columns, C] in the dtype of x to write into; None makes a new one.
    Returns:
        `out`.
    Raises:
        ValueError: Shapes, dtypes or layouts do not fit.
    Source: Karras et al., Alias-Free Generative Adversarial Networks (NeurIPS 2021), Sec. 3.2.
    """
    if x.ndim != 4 or x.shape[3] % 16 or not x.is_contiguous():
        raise ValueError(
            f"x {list(x.shape)} with strides {list(x.stride())} must be contiguous [N, H, W, C], "
            "C a multiple of 16"
        )
    n, channels = x.shape[0], x.shape[3]
    for name, scale in (("scale_in", scale_in), ("scale_out", scale_out)):
        if scale is not None and scale.shape != (n, channels):
            raise ValueError(f"{name} must be {[n, channels]}, not {list(scale.shape)}")
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"bias must be {[channels]}, not {list(bias.shape)}")
    wanted = (n, *size, channels)
    if out is None:
        out = torch.empty(wanted, dtype=x.dtype, device=x.device)
    elif out.shape != wanted or out.dtype != x.dtype or not out.is_contiguous():
        raise ValueError(f"out must be contiguous {x.dtype} {list(wanted)}, not {list(out.shape)}")
    way = fused_way(x, scale_in, bias, scale_out)
    if way == "triton":
        from kernels_triton.filtered_lrelu import kernel

        return kernel.run(x, how, scale_in, bias, scale_out, out)
    if way == "cpu":
        from kernels_triton.filtered_lrelu import simd_cpu

        if simd_cpu.takes(x, how, size):
            return simd_cpu.fused(x, how, scale_in, bias, scale_out, out)
    return out.copy_(reference.fused_filtered_lrelu(x, how, size, scale_in, bias, scale_out))
