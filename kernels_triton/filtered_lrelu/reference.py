"""Leaky ReLU at a higher sampling rate: the definition. Slow, obvious, differentiable to any
order.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

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
