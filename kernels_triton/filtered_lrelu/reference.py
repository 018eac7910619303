"""Leaky ReLU at a higher sampling rate: the definition. Slow, obvious, differentiable to any
order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels_triton.filtered_lrelu.resampling import Resampling
from kernels_triton.upfirdn2d.reference import upfirdn2d


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool,
) -> Tensor:
    """See `kernels_triton.filtered_lrelu.filtered_lrelu`; arguments are already checked here."""
    if b is not None:
        x = x + b[None, :, None, None]
    x = upfirdn2d(x, fu, (up, up), (1, 1), padding, flip_filter, float(up * up))
    x = F.leaky_relu(x, slope)
    x = x * gain
    if clamp is not None:
        x = x.clamp(-clamp, clamp)
    return upfirdn2d(x, fd, (1, 1), (down, down), (0, 0, 0, 0), flip_filter, 1.0)


def fused_filtered_lrelu(
    x: Tensor,
    how: Resampling,
    size: tuple[int, int],
    scale_in: Tensor | None,
    bias: Tensor | None,
    scale_out: Tensor | None,
) -> Tensor:
    """See `kernels_triton.filtered_lrelu.fused_filtered_lrelu`. Computed in float32, or in float64
    where x is that.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    y = x.to(wide).permute(0, 3, 1, 2)  # [N, C, H, W]
    if scale_in is not None:
        y = y * scale_in.to(wide)[:, :, None, None]
    if bias is not None:
        y = y + bias.to(wide)[:, None, None]
    # What `size` outputs read, and not a sample more.
    overlap = len(how.up_taps) + how.down_taps - 2
    after = [
        (outputs - 1) * how.down + 1 + overlap - samples * how.up - how.pad
        for outputs, samples in zip(size, x.shape[1:3], strict=True)
    ]
    padding = (how.pad, after[1], how.pad, after[0])
    up, down = (how.up, how.up), (how.down, how.down)
    y = upfirdn2d(y, y.new_tensor(how.up_taps), up, (1, 1), padding, True, 1.0)
    y = torch.where(y < 0, y * how.slope, y).clamp(-how.clamp, how.clamp)
    terms = [
        upfirdn2d(
            y, torch.outer(y.new_tensor(v), y.new_tensor(h)), (1, 1), down, (0, 0, 0, 0), True, 1.0
        )
        for v, h in how.down_terms
    ]
    y = torch.stack(terms).sum(0).permute(0, 2, 3, 1)
    return y if scale_out is None else y * scale_out.to(wide)[:, None, None]
