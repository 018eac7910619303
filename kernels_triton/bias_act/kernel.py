"""`bias_act` as a Triton kernel, and the last steps on lanes that other kernels share with it.

All arithmetic is in float32, whatever the storage. Each value is read once, and NaN passes through,
so that a broken picture is seen at the end of the network.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels_triton.aot import Variant

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ACT_TILE = 1024  # 8 values to a lane of 4 warps: one 16-byte load of float16


@triton.jit
def clip(value, limit):
    """Clamp to [-limit, limit]; NaN stays NaN, as in torch."""
    value = tl.maximum(value, -limit, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(value, limit, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def finish(value, slope, limit):
    """Leaky ReLU with a slope from 0 to 1 and a gain that is already in `value`, then the clamp."""
    return clip(tl.maximum(value, value * slope), limit)


@triton.jit
def spread(sums):
    """The same numbers, one to a lane.

    A sum over channels is held by all lanes that took part in it. What follows would be computed by
    each of them: four times as many instructions as sums.
    """
    return tl.gather(sums, tl.arange(0, sums.shape[0]), 0)


def row_stride(scale: Tensor | None, name: str) -> int:
    """Distance of the samples of a [N, C] tensor, 0 without one.

    Raises:
        ValueError: Its channels do not lie side by side.
    """
    if scale is None:
        return 0
    if scale.stride(1) != 1 or scale.dtype != torch.float32:
        raise ValueError(
            f"{name} must be float32 with channels side by side, not {scale.dtype} with strides "
            f"{list(scale.stride())}"
        )
    return scale.stride(0)


def channel_block(channels: int, most: int) -> int:
    """The largest power of two that divides the channels, at most `most` and at least 16."""
    return max(16, min(most, channels & -channels))


@triton.jit
def _exp_minus_1(x):
    """exp(x) - 1 for x <= 0, to float32's precision: a series where the difference would cancel."""
    small = x * (1.0 + x / 5.0 * (1.0 + x / 6.0 * (1.0 + x / 7.0)))
    small = x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + small / 4.0)))
    return tl.where(x > -0.35, small, tl.exp(x) - 1.0)


@triton.jit
def _tanh(x):
    """The hyperbolic tangent from exponentials that cannot overflow; a series near 0."""
    t = tl.exp(-2.0 * tl.abs(x))
    large = (1.0 - t) / (1.0 + t)
    q = x * x
    small = tl.abs(x) * (
        1.0 + q * (-1.0 / 3.0 + q * (2.0 / 15.0 + q * (-17.0 / 315.0 + q * (62.0 / 2835.0))))
    )
    size = tl.where(q < 0.0625, small, large)
    return tl.where(x < 0.0, -size, size)


@triton.jit
def _sigmoid(x):
    t = tl.exp(-tl.abs(x))  # never overflows
    return tl.where(x < 0.0, t, 1.0) / (1.0 + t)


@triton.jit
def _softplus(x):
    """log(1 + exp(x)); log(1 + t) loses a small t, which `t / (u - 1)` makes good (Kahan)."""
    t = tl.exp(-tl.abs(x))
    u = 1.0 + t
    rest = tl.where(u == 1.0, t, tl.log(u) * (t / tl.where(u == 1.0, 1.0, u - 1.0)))
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + rest


@triton.jit
def _activated(x, alpha, ACT: tl.constexpr):
    """The activations of `kernels_triton.bias_act.reference`."""
    if ACT == "relu":
        x = tl.where(x < 0.0, 0.0, x)
    elif ACT == "lrelu":
        x = tl.where(x < 0.0, x * alpha, x)
    elif ACT == "tanh":
        x = _tanh(x)
    elif ACT == "sigmoid":
        x = _sigmoid(x)
    elif ACT == "elu":
        x = tl.where(x > 0.0, x, _exp_minus_1(tl.where(x > 0.0, 0.0, x)))
    elif ACT == "selu":
        below = 1.7580993408473766 * _exp_minus_1(tl.where(x > 0.0, 0.0, x))
        x = tl.where(x > 0.0, 1.0507009873554805 * x, below)
    elif ACT == "softplus":
        x = _softplus(x)
    elif ACT == "swish":
        x = x * _sigmoid(x)
    return x


@triton.jit(do_not_specialize=["biases"])
def bias_act_kernel(
    x_ptr,
    bias_ptr,
    out_ptr,
    numbers,
    length,
    biases,
    alpha,
    gain,
    limit,
    ACT: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    # Tile: BLOCK_R rows, BLOCK_L columns of memory seen as rows of `length` numbers. A bias belongs
    # to a column, or to a row modulo their count.
    across = tl.cdiv(length, BLOCK_L)
    row = (tl.program_id(0) // across).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.program_id(0) % across * BLOCK_L + tl.arange(0, BLOCK_L)
    at = row[:, None] * length + column[None, :]
    mask = (column < length)[None, :] & (at < numbers)
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        if BY_COLUMN:
            bias = tl.load(bias_ptr + column, mask=column < length, other=0.0).to(tl.float32)
            x += bias[None, :]
        else:
            x += tl.load(bias_ptr + row % biases).to(tl.float32)[:, None]
    x = clip(_activated(x, alpha, ACT) * gain, limit)
    tl.store(out_ptr + at, x.to(out_ptr.dtype.element_ty), mask=mask)


def takes(x: Tensor, b: Tensor | None) -> bool:
    """Whether `bias_act` below can do it: float32 or less on one device, without gaps in memory."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    fits = b is None or (b.device == x.device and b.is_floating_point() and b.stride(0) == 1)
    return x.dtype in DTYPES and fits


def bias_act(
    x: Tensor,
    b: Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
    out: Tensor | None = None,
) -> Tensor:
    """See `kernels_triton.bias_act.bias_act`; arguments are already checked and completed here, and
    `takes` them.

    Args:
        x: Its axes may lie in any order.
        dim: From 0.
        out: To write into, in the dtype and strides of x, may be x; None makes one. With it nothing
            is allocated.
    Returns:
        `out`.
    """
    if out is None:
        out = torch.empty_like(x)
    elif out.shape != x.shape or out.dtype != x.dtype or out.stride() != x.stride():
        raise ValueError(
            f"out must be {x.dtype} {list(x.shape)} with strides {list(x.stride())}, not "
            f"{out.dtype} {list(out.shape)} with strides {list(out.stride())}"
        )
    numbers = x.numel()
    if not numbers:
        return out
    inner = x.stride(dim) if b is not None and x.shape[dim] > 1 else numbers
    by_column = inner == 1
    length = x.shape[dim] if by_column else min(inner, numbers)
    if b is None:
        length = ACT_TILE
    block_l = next((size for size in (ACT_TILE, 128) if length >= size // 2), 16)
    block_r = ACT_TILE // block_l
    rows = triton.cdiv(numbers, length)
    bias_act_kernel[(triton.cdiv(rows, block_r) * triton.cdiv(length, block_l),)](
        x,
        b,
        out,
        numbers,
        length,
        1 if b is None else b.shape[0],
        alpha,
        gain,
        math.inf if clamp is None else clamp,
        ACT=act,
        BY_COLUMN=by_column,
        BLOCK_R=block_r,
        BLOCK_L=block_l,
    )
    return out


def variants() -> list[Variant]:
    """StyleGAN2's activation in planar float16."""
    plain = {
        **dict.fromkeys(("x_ptr", "bias_ptr", "out_ptr"), "*fp16"),
        **dict.fromkeys(("numbers", "length", "biases"), "i32"),
        **dict.fromkeys(("alpha", "gain", "limit"), "fp32"),
        **dict.fromkeys(("ACT", "BY_COLUMN", "BLOCK_R", "BLOCK_L"), "constexpr"),
    }
    return [
        Variant(
            "bias_act_lrelu_fp16_nchw",
            bias_act_kernel,
            plain,
            {"ACT": "lrelu", "BY_COLUMN": False, "BLOCK_R": 1, "BLOCK_L": ACT_TILE},
            aligned=("numbers", "length"),
            registers=64,
            shared=1024,
            outputs=ACT_TILE / 128,
        ),
    ]
