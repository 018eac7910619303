"""Modulated convolution, as StyleGAN3 and as StyleGAN2 define it: one kernel per sample.
Differentiable to any order.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kernels_triton.conv2d_resample import conv2d_resample


def modulated_conv2d(
    x: Tensor,
    w: Tensor,
    s: Tensor,
    demodulate: bool,
    padding: int,
    input_gain: Tensor | None,
) -> Tensor:
    """See `kernels_triton.modulated_conv.modulated_conv2d`."""
    n, i = s.shape
    o = w.shape[0]

    # Range for half precision; cancels in the demodulation up to its epsilon.
    if demodulate:
        w = w * w.square().mean([1, 2, 3], keepdim=True).rsqrt()
        s = s * s.square().mean().rsqrt()

    m = w[None] * s[:, None, :, None, None]  # [N, O, I, k, k]
    if demodulate:
        m = m * (m.square().sum([2, 3, 4], keepdim=True) + 1e-8).rsqrt()
    if input_gain is not None:
        m = m * input_gain.expand(n, i)[:, None, :, None, None]

    # One sample is one group.
    x = x.reshape(1, n * i, *x.shape[2:])
    x = F.conv2d(x, m.reshape(n * o, *m.shape[2:]).to(x.dtype), padding=padding, groups=n)
    return x.reshape(n, o, *x.shape[2:])


def modulated_conv2d_resample(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None,
    up: int,
    down: int,
    padding: int,
    resample_filter: Tensor | None,
    demodulate: bool,
    flip_weight: bool,
    bias: Tensor | None,
    gain: float,
) -> Tensor:
    """See `kernels_triton.modulated_conv.modulated_conv2d_resample`; weights and styles are
    already scaled for half precision.
    """
    n, i = styles.shape
    o = weight.shape[0]

    m = weight[None] * styles[:, None, :, None, None]  # [N, O, I, k, k]
    if demodulate:
        m = m * (m.square().sum([2, 3, 4], keepdim=True) + 1e-8).rsqrt()

    x = x.reshape(1, n * i, *x.shape[2:])
    x = conv2d_resample(
        x,
        m.reshape(n * o, *m.shape[2:]).to(x.dtype),
        resample_filter,
        up=up,
        down=down,
        padding=padding,
        groups=n,
        flip_weight=flip_weight,
    )
    x = x.reshape(n, o, *x.shape[2:])
    if noise is not None:
        x = x + noise.to(x.dtype)
    if bias is not None:
        x = x + bias[None, :, None, None].to(x.dtype)
    return x * gain
