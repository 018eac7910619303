"""Convolution with up- or downsampling built in: the definition. Differentiable to any order."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kernels_triton.upfirdn2d.reference import upfirdn2d


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    groups: int,
    flip_weight: bool,
    flip_filter: bool,
    bias: Tensor | None,
) -> Tensor:
    """See `kernels_triton.conv2d_resample.conv2d_resample`; `padding` already holds everything, in
    the upsampled grid.
    """
    taps = f if up > 1 else None
    x = upfirdn2d(x, taps, (up, up), (1, 1), padding, flip_filter, float(up * up))
    x = F.conv2d(x, w if flip_weight else w.flip([2, 3]), groups=groups)
    if down > 1:
        x = upfirdn2d(x, f, (1, 1), (down, down), (0, 0, 0, 0), flip_filter, 1.0)
    return x if bias is None else x + bias[None, :, None, None]
