"""What follows a convolution of StyleGAN2, as Triton kernels: `bias_act`, and `bias_act_torgb`.

All arithmetic is in float32, whatever the storage. Every kernel reads each value once and lets NaN
through, so that a broken picture is seen at the end of the network.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels_triton.aot import Variant
from kernels_triton.bias_act.epilogue import Epilogue
from kernels_triton.bias_act.fused import Skip

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# 4096 features of a tile are 32 to a lane of 4 warps. Blocks of 32 channels leave one pixel to each
# lane for what follows the sums, and 95 registers are enough to have many loads under way. Where
# there are too few tiles to fill a GPU (below TORGB_PROGRAMS), time is a chain of blocks that each
# wait for memory: then blocks are wide and the chain is short.
TORGB_TILE, TORGB_WARPS = 4096, 4
TORGB_NARROW, TORGB_WIDE, TORGB_PROGRAMS = 32, 256, 2048
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


@triton.jit
def _doubled(before_ptr, row, column, height, width, TAPS: tl.constexpr, HALF: tl.constexpr):
    """One row of one colour of a [height, width, 3] picture doubled by an even filter: [columns].

    Zeros lie between the samples, so that of 2 * HALF taps every other one meets a sample.
    """
    odd_row = (row + HALF) & 1
    odd_column = (column + HALF) & 1
    first_row = (row - HALF + odd_row) >> 1
    first_column = (column - HALF + odd_column) >> 1
    total = tl.zeros(column.shape, tl.float32)
    for i in tl.static_range(HALF):
        x = first_column + i
        here = (x >= 0) & (x < width)
        line = tl.zeros(column.shape, tl.float32)
        for j in tl.static_range(HALF):
            y = first_row + j
            sample = tl.load(
                before_ptr + (y * width + x) * 3, mask=here & (y >= 0) & (y < height), other=0.0
            )
            line += sample * tl.where(odd_row == 1, TAPS[2 * j + 1], TAPS[2 * j])
        total += line * tl.where(odd_column == 1, TAPS[2 * i + 1], TAPS[2 * i])
    return total


@triton.jit(do_not_specialize=["height", "width"])
def bias_act_torgb_kernel(
    x_ptr,
    noise_ptr,
    bias_ptr,
    scale_in_ptr,
    scale_out_ptr,
    style_ptr,
    weight_ptr,
    rgb_bias_ptr,
    before_ptr,
    image_ptr,
    out_ptr,
    height,
    width,
    scale_in_stride_n,
    scale_out_stride_n,
    style_stride_n,
    slope,
    gain,
    limit,
    rgb_limit,
    CHANNELS: tl.constexpr,
    TAPS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # Tile: BLOCK_P pixels of one row of one picture, all channels in blocks of BLOCK_C, which
    # divides them. Beyond the row its last pixel is read again: that needs no mask, hence no zeros.
    n = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1)
    column = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = column < width
    column = tl.minimum(column, width - 1)
    first = (n * height + row) * width
    r = tl.zeros((BLOCK_P,), tl.float32)
    g = tl.zeros((BLOCK_P,), tl.float32)
    b = tl.zeros((BLOCK_P,), tl.float32)
    for block in range(0, CHANNELS, BLOCK_C):
        c = block + tl.arange(0, BLOCK_C)
        at = column[:, None] * CHANNELS + c[None, :]
        x = tl.load(x_ptr + first * CHANNELS + at).to(tl.float32)
        # A positive gain passes through the leaky ReLU: it costs nothing on scale and bias.
        bias = tl.load(bias_ptr + c) * gain
        if scale_in_ptr is not None:
            scale = tl.load(scale_in_ptr + n * scale_in_stride_n + c) * gain
            y = x * scale[None, :] + bias[None, :]
        else:
            y = x * gain + bias[None, :]
        if noise_ptr is not None:
            y += (tl.load(noise_ptr + row * width + column) * gain)[:, None]
        y = finish(y, slope, limit)
        # Summing each block at once keeps three tiles of sums out of the registers.
        style = tl.load(style_ptr + n * style_stride_n + c)
        r += tl.sum(y * (style * tl.load(weight_ptr + c))[None, :], 1)
        g += tl.sum(y * (style * tl.load(weight_ptr + CHANNELS + c))[None, :], 1)
        b += tl.sum(y * (style * tl.load(weight_ptr + 2 * CHANNELS + c))[None, :], 1)
        if out_ptr is not None:
            if scale_out_ptr is not None:
                y *= tl.load(scale_out_ptr + n * scale_out_stride_n + c)[None, :]
            target = out_ptr + first * CHANNELS + at
            tl.store(target, y.to(out_ptr.dtype.element_ty), mask=inside[:, None])
    r = clip(spread(r) + tl.load(rgb_bias_ptr), rgb_limit)
    g = clip(spread(g) + tl.load(rgb_bias_ptr + 1), rgb_limit)
    b = clip(spread(b) + tl.load(rgb_bias_ptr + 2), rgb_limit)
    if before_ptr is not None:
        below, side = height // 2, width // 2
        source = before_ptr + n * below * side * 3
        r += _doubled(source, row, column, below, side, TAPS, HALF)
        g += _doubled(source + 1, row, column, below, side, TAPS, HALF)
        b += _doubled(source + 2, row, column, below, side, TAPS, HALF)
    target = image_ptr + first * 3 + column * 3
    tl.store(target, r, mask=inside)
    tl.store(target + 1, g, mask=inside)
    tl.store(target + 2, b, mask=inside)


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


def bias_act_torgb(
    x: Tensor,
    end: Epilogue,
    skip: Skip,
    style: Tensor,
    before: Tensor | None,
    image: Tensor,
    scale_in: Tensor | None,
    scale_out: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    """See `kernels_triton.bias_act.bias_act_torgb`; shapes are already checked here. Allocates
    nothing.

    Raises:
        ValueError: Strides that the kernel cannot walk.
    """
    for name, tensor in (("before", before), ("image", image), ("out", out)):
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, not strided {list(tensor.stride())}")
    n, height, width, channels = x.shape
    tiles = n * height * triton.cdiv(width, TORGB_TILE // TORGB_NARROW)
    block_c = channel_block(channels, TORGB_NARROW if tiles >= TORGB_PROGRAMS else TORGB_WIDE)
    block_p = min(TORGB_TILE // block_c, 128)
    bias_act_torgb_kernel[(triton.cdiv(width, block_p), height, n)](
        x,
        end.noise,
        end.bias,
        scale_in,
        scale_out,
        style,
        skip.weight,
        skip.bias,
        before,
        image,
        out,
        height,
        width,
        row_stride(scale_in, "scale_in"),
        row_stride(scale_out, "scale_out"),
        row_stride(style, "style"),
        end.slope,
        end.gain,
        end.clamp,
        skip.clamp,
        CHANNELS=channels,
        TAPS=skip.taps,
        HALF=len(skip.taps) // 2,
        BLOCK_P=block_p,
        BLOCK_C=block_c,
        num_warps=TORGB_WARPS,
    )
    return image


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


def _torgb_variant(name: str, dtype: str, channels: int, block_c: int, last: bool) -> Variant:
    """`last`: the network's last resolution, whose features nobody reads any more."""
    signature = {
        "x_ptr": f"*{dtype}",
        **dict.fromkeys(("noise_ptr", "bias_ptr", "scale_in_ptr"), "*fp32"),
        "scale_out_ptr": "constexpr" if last else "*fp32",
        **dict.fromkeys(("style_ptr", "weight_ptr", "rgb_bias_ptr"), "*fp32"),
        **dict.fromkeys(("before_ptr", "image_ptr"), "*fp32"),
        "out_ptr": "constexpr" if last else f"*{dtype}",
        **dict.fromkeys(("height", "width"), "i32"),
        **dict.fromkeys(("scale_in_stride_n", "scale_out_stride_n", "style_stride_n"), "i32"),
        **dict.fromkeys(("slope", "gain", "limit", "rgb_limit"), "fp32"),
        "CHANNELS": "constexpr",
        "TAPS": ("constexpr",) * 4,
        **dict.fromkeys(("HALF", "BLOCK_P", "BLOCK_C"), "constexpr"),
    }
    block_p = min(TORGB_TILE // block_c, 128)
    constants = {
        "CHANNELS": channels,
        "TAPS": (0.25, 0.75, 0.75, 0.25),
        "HALF": 2,
        "BLOCK_P": block_p,
    }
    constants |= {"BLOCK_C": block_c} | ({"scale_out_ptr": None, "out_ptr": None} if last else {})
    return Variant(
        name,
        bias_act_torgb_kernel,
        signature,
        constants,
        aligned=("scale_in_stride_n", "scale_out_stride_n", "style_stride_n"),
        num_warps=TORGB_WARPS,
        registers=128,
        shared=16 * 1024,
        outputs=block_p * block_c / (32 * TORGB_WARPS),
    )


def variants() -> list[Variant]:
    """What StyleGAN2 runs with: a middle and the last resolution, and the plain op."""
    plain = {
        **dict.fromkeys(("x_ptr", "bias_ptr", "out_ptr"), "*fp16"),
        **dict.fromkeys(("numbers", "length", "biases"), "i32"),
        **dict.fromkeys(("alpha", "gain", "limit"), "fp32"),
        **dict.fromkeys(("ACT", "BY_COLUMN", "BLOCK_R", "BLOCK_L"), "constexpr"),
    }
    return [
        _torgb_variant("bias_act_torgb_fp16_small", "fp16", 512, TORGB_WIDE, last=False),
        _torgb_variant("bias_act_torgb_fp16_large", "fp16", 64, TORGB_NARROW, last=False),
        _torgb_variant("bias_act_torgb_fp16_last", "fp16", 32, TORGB_NARROW, last=True),
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
