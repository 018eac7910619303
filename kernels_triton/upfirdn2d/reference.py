"""Pad, upsample, filter, downsample: the definition. Slow, obvious, differentiable to any order.

Source: the resampling operator of StyleGAN2 (Karras et al., CVPR 2020) and StyleGAN3 (Karras et
al., NeurIPS 2021).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels_triton.bias_act.epilogue import Epilogue


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """See `kernels_triton.upfirdn2d.upfirdn2d`; arguments are already checked and completed
    here.
    """
    n, c, h, w = x.shape
    (up_x, up_y), (down_x, down_y) = up, down

    # Zeros after every sample, the last one included.
    x = x.reshape(n, c, h, 1, w, 1)
    x = F.pad(x, [0, up_x - 1, 0, 0, 0, up_y - 1])
    x = x.reshape(n, c, h * up_y, w * up_x)

    # Padding counts in the upsampled grid; a negative number crops.
    x = F.pad(x, list(padding))

    # Convolution is correlation with the mirrored filter.
    if f is not None:
        taps = f.to(x.dtype) if flip_filter else f.to(x.dtype).flip(list(range(f.ndim)))
        if taps.ndim == 1:
            x = F.conv2d(x, taps[None, None, None, :].expand(c, 1, 1, -1), groups=c)
            x = F.conv2d(x, taps[None, None, :, None].expand(c, 1, -1, 1), groups=c)
        else:
            x = F.conv2d(x, taps[None, None].expand(c, 1, -1, -1), groups=c)
    x = x * gain

    return x[:, :, ::down_y, ::down_x]


def fir_bias_act(
    x: Tensor,
    taps: tuple[float, ...],
    pad: int,
    end: Epilogue,
    scale_in: Tensor | None,
    scale_out: Tensor | None,
) -> Tensor:
    """See `kernels_triton.upfirdn2d.fir_bias_act`. Computed in float32, or in float64 where x is
    that.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    y = x.to(wide).permute(0, 3, 1, 2)
    y = upfirdn2d(y, y.new_tensor(taps), (1, 1), (1, 1), (pad, pad, pad, pad), True, 1.0)
    y = end.apply(y.permute(0, 2, 3, 1), scale_in)
    return y if scale_out is None else y * scale_out.to(wide)[:, None, None]
