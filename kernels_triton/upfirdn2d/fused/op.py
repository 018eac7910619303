"""fir_bias_act: what follows StyleGAN2's transposed convolution, in one pass; channels-last."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels_triton.bias_act.epilogue import Epilogue, check_epilogue
from kernels_triton.choice import fused_way
from kernels_triton.upfirdn2d import reference

Taps = tuple[float, ...]


def fir_bias_act(
    x: Tensor,
    taps: Taps,
    pad: int,
    end: Epilogue,
    *,
    scale_in: Tensor | None = None,
    scale_out: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Per sample and channel:

    1. Pad by `pad` zeros on each side, filter with `taps` along both axes.
    2. Multiply by `scale_in`, add `end.noise` and `end.bias`.
    3. Leaky ReLU, multiply by `end.gain`, clamp.
    4. Multiply by `scale_out`.

    All arithmetic is in float32.

    Args:
        x: [N, H, W, C], contiguous; float32, bfloat16 or float16; C a multiple of 16.
        taps: Of one axis, 2 to 8, in the order of a correlation; every gain is in them.
        scale_in, scale_out: [N, C] float32; None is 1.
        out: [N, H', W', C] with H' = H + 2 * pad - len(taps) + 1, to write into, or None.
    Returns:
        `out`.
    Raises:
        ValueError: Shapes, dtypes or layouts do not fit.
    Source: Karras et al., StyleGAN2 (CVPR 2020), Sec. 2.2, Fig. 2.
    """
    grow = 2 * pad - len(taps) + 1
    wanted = (x.shape[0], x.shape[1] + grow, x.shape[2] + grow, x.shape[3])
    check_epilogue(x, wanted, end, scale_in, scale_out)
    if out is None:
        out = torch.empty(wanted, dtype=x.dtype, device=x.device)
    elif out.shape != wanted or out.dtype != x.dtype or not out.is_contiguous():
        raise ValueError(f"out must be contiguous {x.dtype} {list(wanted)}, not {list(out.shape)}")
    way = fused_way(x, scale_in, scale_out)
    if way == "triton":
        from kernels_triton.upfirdn2d.fused import kernel

        return kernel.fir_bias_act(x, taps, pad, end, scale_in, scale_out, out)
    if way == "cpu":
        from kernels_triton.upfirdn2d import simd_cpu

        return simd_cpu.fir_bias_act(x, taps, pad, end, scale_in, scale_out, out)
    return out.copy_(reference.fir_bias_act(x, taps, pad, end, scale_in, scale_out))
