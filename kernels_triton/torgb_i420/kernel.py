"""The last layer's 1x1 convolution to a picture, or straight to I420, as Triton kernels.

All arithmetic is in float32, whatever the storage. Each feature is read once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels_triton.aot import Variant
from kernels_triton.bias_act.kernel import clip, row_stride, spread
from kernels_triton.rgb_to_i420.kernel import report_broken, store_i420, unit

if TYPE_CHECKING:
    from kernels_triton.torgb_i420.op import ToRgb

# One pixel or square to a lane for what follows the sums. A warp alone exchanges its sums without a
# barrier; for single pixels, which have less to exchange, larger programs are fewer.
SQUARES, SQUARE_WARPS = 32, 1
PIXELS, PIXEL_WARPS = 128, 4
# Channels taken at a time: two loads of 16 bytes, which are one sector of memory. Of wider blocks
# the sums need more exchanges between lanes and more registers (64 bytes: 6.4 instead of 5.7 issue
# slots per feature on sm_90, 160 instead of 96 registers), so that fewer loads are under way.
BLOCK_BYTES = 32


@triton.jit
def _weights(weight_ptr, style_ptr, c, CHANNELS: tl.constexpr, EVEN: tl.constexpr):
    """The three rows of weights times the style, [1, block] each; zero beyond the channels."""
    there = c < CHANNELS
    rows = ()  # type: tuple
    for k in tl.static_range(3):
        at = weight_ptr + k * CHANNELS + c
        row = tl.load(at) if EVEN else tl.load(at, mask=there, other=0.0)
        if style_ptr is not None:
            at = style_ptr + c
            row *= tl.load(at) if EVEN else tl.load(at, mask=there, other=0.0)
        rows = rows + (row[None, :],)
    return rows


@triton.jit
def _features(x_ptr, pixel, c, CHANNELS: tl.constexpr, EVEN: tl.constexpr):
    """A tile [pixels, block] in float32."""
    at = x_ptr + (pixel[:, None] * CHANNELS + c[None, :])
    if EVEN:
        return tl.load(at).to(tl.float32)
    else:
        return tl.load(at, mask=(c < CHANNELS)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _colours(sums, k: tl.constexpr, bias_ptr, limit, gain):
    """Red, green and blue of sub-tile `k`, whose sums lie at 3 * k."""
    r = clip(spread(sums[3 * k]) + tl.load(bias_ptr), limit) * gain
    g = clip(spread(sums[3 * k + 1]) + tl.load(bias_ptr + 1), limit) * gain
    b = clip(spread(sums[3 * k + 2]) + tl.load(bias_ptr + 2), limit) * gain
    return r, g, b


@triton.jit(do_not_specialize=["pixels"])
def torgb_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    style_ptr,
    out_ptr,
    pixels,
    style_stride_n,
    limit,
    gain,
    CHANNELS: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # Tile: BLOCK_P pixels of one picture, all channels in blocks of BLOCK_C. Beyond the picture its
    # last pixel is read again.
    n = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = pixel < pixels
    x_ptr += n * pixels * CHANNELS
    if style_ptr is not None:
        style_ptr += n * style_stride_n
    zero = tl.zeros((BLOCK_P,), tl.float32)
    r, g, b = zero, zero, zero
    for block in range(0, CHANNELS, BLOCK_C):
        c = block + tl.arange(0, BLOCK_C)
        weights = _weights(weight_ptr, style_ptr, c, CHANNELS, EVEN)
        x = _features(x_ptr, tl.minimum(pixel, pixels - 1), c, CHANNELS, EVEN)
        r += tl.sum(x * weights[0], 1)
        g += tl.sum(x * weights[1], 1)
        b += tl.sum(x * weights[2], 1)
    r, g, b = _colours((r, g, b), 0, bias_ptr, limit, gain)
    target = out_ptr + (n * pixels + pixel) * 3
    tl.store(target, r, mask=inside)
    tl.store(target + 1, g, mask=inside)
    tl.store(target + 2, b, mask=inside)


@triton.jit(do_not_specialize=["height"])
def torgb_i420_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    style_ptr,
    out_ptr,
    broken_ptr,
    height,
    width,
    style_stride_n,
    limit,
    gain,
    CHANNELS: tl.constexpr,
    EVEN: tl.constexpr,
    SQUARES: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # Tile: SQUARES squares of 2x2 pixels of one pair of rows of one picture, all channels in blocks
    # of BLOCK_C. Beyond the row its last square is read again.
    n = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1)
    first = tl.program_id(0) * SQUARES
    column = first + tl.arange(0, SQUARES)
    pixel = 2 * tl.minimum(column, width // 2 - 1)
    x_ptr += (n * height + 2 * row) * width * CHANNELS
    if style_ptr is not None:
        style_ptr += n * style_stride_n
    sums = ()  # type: tuple
    for _ in tl.static_range(12):
        sums = sums + (tl.zeros((SQUARES,), tl.float32),)
    for block in range(0, CHANNELS, BLOCK_C):
        c = block + tl.arange(0, BLOCK_C)
        weights = _weights(weight_ptr, style_ptr, c, CHANNELS, EVEN)
        more = ()  # type: tuple
        for k in tl.static_range(4):
            line = x_ptr + (k // 2) * width.to(tl.int64) * CHANNELS
            x = _features(line, pixel + k % 2, c, CHANNELS, EVEN)
            for colour in tl.static_range(3):
                more = more + (sums[3 * k + colour] + tl.sum(x * weights[colour], 1),)
        sums = more
    red = ()  # type: tuple
    green = ()  # type: tuple
    blue = ()  # type: tuple
    sound = column >= 0
    for k in tl.static_range(4):
        r, g, b = _colours(sums, k, bias_ptr, limit, gain)
        r, fine_r = unit(r)
        g, fine_g = unit(g)
        b, fine_b = unit(b)
        red = red + (r,)
        green = green + (g,)
        blue = blue + (b,)
        sound = sound & fine_r & fine_g & fine_b
    picture = out_ptr + n * (height + height // 2) * width
    store_i420(picture, red, green, blue, row, first, height, width, SQUARES)
    if broken_ptr is not None:
        report_broken(broken_ptr, n, sound)


def torgb(x: Tensor, to: ToRgb, style: Tensor | None, out: Tensor) -> Tensor:
    """See `kernels_triton.torgb_i420.torgb`; shapes are already checked here. Allocates nothing.

    Raises:
        ValueError: Strides or dtypes that the kernel cannot walk.
    """
    _check(to, out)
    n, height, width, channels = x.shape
    block_c = BLOCK_BYTES // x.element_size()
    torgb_kernel[(triton.cdiv(height * width, PIXELS), n)](
        x,
        to.weight,
        to.bias,
        style,
        out,
        height * width,
        row_stride(style, "style"),
        to.clamp,
        to.gain,
        CHANNELS=channels,
        EVEN=channels % block_c == 0,
        BLOCK_P=PIXELS,
        BLOCK_C=block_c,
        num_warps=PIXEL_WARPS,
    )
    return out


def torgb_i420(
    x: Tensor, to: ToRgb, style: Tensor | None, out: Tensor, broken: Tensor | None
) -> Tensor:
    """See `kernels_triton.torgb_i420.torgb_i420`; shapes are already checked here. Allocates
    nothing.

    Raises:
        ValueError: Strides or dtypes that the kernel cannot walk.
    """
    _check(to, out)
    n, height, width, channels = x.shape
    block_c = BLOCK_BYTES // x.element_size()
    torgb_i420_kernel[(triton.cdiv(width // 2, SQUARES), height // 2, n)](
        x,
        to.weight,
        to.bias,
        style,
        out,
        broken,
        height,
        width,
        row_stride(style, "style"),
        to.clamp,
        to.gain,
        CHANNELS=channels,
        EVEN=channels % block_c == 0,
        SQUARES=SQUARES,
        BLOCK_C=block_c,
        num_warps=SQUARE_WARPS,
    )
    return out


def _check(to: ToRgb, out: Tensor) -> None:
    for name, tensor in (("weight", to.weight), ("bias", to.bias)):
        if tensor.dtype != torch.float32 or not tensor.is_contiguous():
            raise ValueError(
                f"{name} must be contiguous float32, not {tensor.dtype} with strides "
                f"{list(tensor.stride())}"
            )
    if not out.is_contiguous():
        raise ValueError(f"out must be contiguous, not strided {list(out.stride())}")


def _variant(name: str, kernel: object, dtype: str, style: bool) -> Variant:
    i420 = kernel is torgb_i420_kernel
    signature = {"x_ptr": f"*{dtype}", "weight_ptr": "*fp32", "bias_ptr": "*fp32"}
    signature["style_ptr"] = "*fp32" if style else "constexpr"
    signature |= {"out_ptr": "*u8", "broken_ptr": "*i32"} if i420 else {"out_ptr": "*fp32"}
    sizes = ("height", "width") if i420 else ("pixels",)
    signature |= dict.fromkeys((*sizes, "style_stride_n"), "i32")
    signature |= dict.fromkeys(("limit", "gain"), "fp32")
    block = {"SQUARES": SQUARES} if i420 else {"BLOCK_P": PIXELS}
    block_c = BLOCK_BYTES // (4 if dtype == "fp32" else 2)
    constants = {"CHANNELS": 32, "EVEN": True, **block, "BLOCK_C": block_c}
    signature |= dict.fromkeys(constants, "constexpr")
    warps = SQUARE_WARPS if i420 else PIXEL_WARPS
    rows = 4 * SQUARES if i420 else PIXELS
    return Variant(
        name,
        kernel,
        signature,
        constants | ({} if style else {"style_ptr": None}),
        aligned=("style_stride_n", *(("width",) if i420 else ())),
        num_warps=warps,
        registers=112 if i420 else 64,
        shared=1024,
        outputs=rows * block_c / (32 * warps),
    )


def variants() -> list[Variant]:
    """The last layer in the narrowest and the widest storage, and a picture of floats; figures per
    feature read.
    """
    return [
        _variant("torgb_i420_fp16", torgb_i420_kernel, "fp16", style=False),
        _variant("torgb_i420_fp32", torgb_i420_kernel, "fp32", style=False),
        _variant("torgb_fp16_styled", torgb_kernel, "fp16", style=True),
    ]
