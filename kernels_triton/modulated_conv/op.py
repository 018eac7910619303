"""Convolutions whose kernel is scaled by a style: `modulated_conv2d` (StyleGAN3) and
`modulated_conv2d_resample` (StyleGAN2).

Both avoid one kernel per sample. A style scales input channels and a demodulation factor output
channels, so with one sample they go into the weight, which is smaller than a picture; with several,
into the input and the output of one shared convolution. The factor `rsqrt(sum of (w*s)^2 over I, k,
k)` needs no modulated weight either: it is `W2 @ s^2` with `W2 = sum of w^2 over k, k`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels_triton.choice import needs_gradient, reference_wanted
from kernels_triton.conv2d_resample import conv2d_resample
from kernels_triton.modulated_conv import reference

EPSILON = 1e-8


def modulated_conv2d(
    x: Tensor,
    w: Tensor,
    s: Tensor,
    demodulate: bool = True,
    padding: int = 0,
    input_gain: Tensor | None = None,
) -> Tensor:
    """StyleGAN3's modulated convolution (a correlation, stride 1).

    1. If `demodulate`: scale `w` to unit mean square per output channel, and `s` to unit mean
       square over the batch.
    2. `m = w * s` per sample. If `demodulate`: divide by the root of `sum of m^2 over I, k, k +
       1e-8`.
    3. Multiply by `input_gain` (after the demodulation: before, it would cancel).
    4. Convolve sample n with m[n].

    Args:
        x: [N, I, H, W], any floating dtype; the modulation is computed in the dtype of w.
        w: [O, I, k, k].
        s: [N, I].
        input_gain: [], [I] or [N, I]; None is 1.
    Returns:
        [N, O, H + 2*padding - k + 1, ...], dtype of x.
    Raises:
        ValueError: shapes do not fit.
    Source: Karras et al., Alias-Free Generative Adversarial Networks (NeurIPS 2021), appendix D.
    """
    _check(x, w, s)
    if reference_wanted():
        return reference.modulated_conv2d(x, w, s, demodulate, padding, input_gain)

    scale_out = None
    if demodulate:
        squares = w.square().sum([2, 3])  # [O, I]
        mean = squares.mean(1, keepdim=True) / (w.shape[2] * w.shape[3])
        normal = mean.rsqrt()
        s = s * s.square().mean().rsqrt()
        factor = (s.square() @ (squares / mean).t() + EPSILON).rsqrt()  # [N, O]
        scale_out = factor * normal.t()
    if input_gain is not None:
        s = s * input_gain
    if x.shape[0] == 1 or x.dtype == torch.float16:
        return _per_sample(x, w, s, scale_out, padding)
    return _shared(x, w, s, scale_out, padding)


def _per_sample(x: Tensor, w: Tensor, s: Tensor, scale_out: Tensor | None, padding: int) -> Tensor:
    """Scale the weight. Also the form for half precision: the finished weight is rounded once and
    stays in range.
    """
    n, (o, i, kh, kw) = s.shape[0], w.shape
    m = w[None] * s[:, None, :, None, None]
    if scale_out is not None:
        m = m * scale_out[:, :, None, None, None]
    m = m.reshape(n * o, i, kh, kw).to(x.dtype)
    if n == 1:  # reshape would write other strides for the batch axis: no longer channels-last
        return F.conv2d(x, m, padding=padding)
    x = F.conv2d(x.reshape(1, n * i, *x.shape[2:]), m, padding=padding, groups=n)
    return x.reshape(n, o, *x.shape[2:])


def _shared(x: Tensor, w: Tensor, s: Tensor, scale_out: Tensor | None, padding: int) -> Tensor:
    """Scale input and output of one convolution for the whole batch."""
    x = F.conv2d(x * s.to(x.dtype)[:, :, None, None], w.to(x.dtype), padding=padding)
    return x if scale_out is None else x * scale_out.to(x.dtype)[:, :, None, None]


def modulated_conv2d_resample(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    bias: Tensor | None = None,
    gain: float = 1.0,
) -> Tensor:
    """StyleGAN2's modulated convolution.

    1. For float16 and `demodulate`: divide `weight` by its largest magnitude and root fan-in per
       output channel, `styles` by its largest magnitude per sample. Both cancel in step 2, up to
       its epsilon; they keep numbers in range.
    2. `m = weight * styles` per sample. If `demodulate`: divide by the root of `sum of m^2 over I,
       k, k + 1e-8`.
    3. `conv2d_resample` of sample n with m[n].
    4. Add `noise` and `bias`, multiply by `gain`. (A leaky ReLU lets a positive gain go first.)

    Args:
        x: [N, I, H, W]; the modulation is computed in the dtype of `weight`.
        weight: [O, I, k, k].
        styles: [N, I].
        noise: Broadcast to the result; None is none.
        resample_filter: As for `conv2d_resample`.
        flip_weight: True correlates, False convolves.
        bias: [O], or None.
    Returns:
        [N, O, H*up/down, W*up/down] when `padding` is half the kernel; dtype of x.
    Raises:
        ValueError: shapes do not fit.
    Source: Karras et al., StyleGAN2 (CVPR 2020), Sec. 2.2 and appendix B; half precision:
    StyleGAN2-ADA (NeurIPS 2020).
    """
    _check(x, weight, styles)
    if x.dtype == torch.float16 and demodulate:
        fan_in = weight[0].numel()
        weight = weight / (weight.abs().amax([1, 2, 3], keepdim=True) * fan_in**0.5)
        styles = styles / styles.abs().amax(1, keepdim=True)
    if reference_wanted():
        return reference.modulated_conv2d_resample(
            x,
            weight,
            styles,
            noise,
            up,
            down,
            padding,
            resample_filter,
            demodulate,
            flip_weight,
            bias,
            gain,
        )

    # What multiplies the output: [N, O], or one number.
    factor: Tensor | float = gain
    if demodulate:
        squares = styles.square() @ weight.square().sum([2, 3]).t()
        factor = (squares + EPSILON).rsqrt() * gain
    offset = None if bias is None else (bias * gain).to(x.dtype)
    single = x.shape[0] == 1
    if single:
        weight = weight * styles[0][:, None, None]
        weight = weight * (factor if isinstance(factor, float) else factor[0][:, None, None, None])
    else:
        x = x * styles.to(x.dtype)[:, :, None, None]
    x = conv2d_resample(
        x,
        weight.to(x.dtype),
        resample_filter,
        up=up,
        down=down,
        padding=padding,
        flip_weight=flip_weight,
        bias=offset if single else None,
    )
    if not single:
        x = x * (factor if isinstance(factor, float) else factor.to(x.dtype)[:, :, None, None])
        x = x if offset is None else x + offset[:, None, None]
    if noise is None:
        return x
    noise = (noise * gain).to(x.dtype)
    # The convolution's result is nobody else's: without a gradient it takes the noise in place.
    return x + noise if needs_gradient(x, noise) else x.add_(noise)


def _check(x: Tensor, w: Tensor, s: Tensor) -> None:
    if x.ndim != 4 or w.ndim != 4 or x.shape[1] != w.shape[1] or s.shape != x.shape[:2]:
        raise ValueError(
            f"x {list(x.shape)}, w {list(w.shape)} and s {list(s.shape)} do not fit: "
            "they are [N, I, H, W], [O, I, k, k] and [N, I]"
        )
