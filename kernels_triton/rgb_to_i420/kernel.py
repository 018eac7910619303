"""RGB to I420, BT.601 limited range, as a Triton kernel; and the parts that other kernels use."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels_triton.aot import Variant
from kernels_triton.rgb_to_i420.reference import BLUE, LUMA, RED

_LUMA = tl.constexpr(LUMA)
_BLUE = tl.constexpr(BLUE)
_RED = tl.constexpr(RED)

# A thread converts one square of four pixels: its bytes of Y leave in pairs, and a warp's share of
# a row fills whole sectors.
SQUARES, WARPS = 128, 4


@triton.jit
def unit(value):
    """[-1, 1], or beyond, to [0, 1], and whether it was a number; what was none becomes 0.5."""
    finite = tl.abs(value) < float("inf")
    value = tl.where(finite, value, 0.0)
    return tl.minimum(tl.maximum(value, -1.0), 1.0) * 0.5 + 0.5, finite


@triton.jit
def _byte(r, g, b, ROW: tl.constexpr, OFFSET: tl.constexpr):
    """One plane's value, rounded half up: a cast drops the fraction of a positive number."""
    value = ROW[0] * r + ROW[1] * g + ROW[2] * b + OFFSET
    return (value + 0.5).to(tl.uint8)


@triton.jit
def store_i420(out_ptr, r, g, b, row, first, height, width, SQUARES: tl.constexpr):
    """Stores squares of 2x2 pixels of one pair of rows: Y of each pixel, U and V of their mean.

    out_ptr: The picture's first byte; a picture has fewer than 2**31.
    r, g, b: Four blocks [SQUARES] each, in [0, 1]: top left, top right, bottom left, bottom right.
    row, first: Of squares.
    """
    x = 2 * first + tl.arange(0, 2 * SQUARES)
    for k in tl.static_range(2):
        left = _byte(r[2 * k], g[2 * k], b[2 * k], _LUMA, 16.0)
        right = _byte(r[2 * k + 1], g[2 * k + 1], b[2 * k + 1], _LUMA, 16.0)
        target = out_ptr + (2 * row + k) * width + x
        tl.store(target, tl.interleave(left, right), mask=x < width)
    red = (r[0] + r[1] + r[2] + r[3]) * 0.25
    green = (g[0] + g[1] + g[2] + g[3]) * 0.25
    blue = (b[0] + b[1] + b[2] + b[3]) * 0.25
    half = width // 2
    column = first + tl.arange(0, SQUARES)
    target = out_ptr + height * width + row * half + column
    tl.store(target, _byte(red, green, blue, _BLUE, 128.0), mask=column < half)
    target += height // 2 * half
    tl.store(target, _byte(red, green, blue, _RED, 128.0), mask=column < half)


@triton.jit
def report_broken(broken_ptr, n, sound):
    """Stores 1 for sample `n` if a block holds what is not sound.

    All who find a fault store the same number, so that no order is needed.
    """
    tl.store(broken_ptr + n + tl.zeros(sound.shape, tl.int32), 1, mask=sound == 0)


@triton.jit(do_not_specialize=["height"])
def i420_kernel(
    rgb_ptr,
    out_ptr,
    broken_ptr,
    height,
    width,
    rgb_stride_n,
    rgb_stride_c,
    rgb_stride_h,
    rgb_stride_w,
    SQUARES: tl.constexpr,
):
    # Tile: SQUARES squares of 2x2 pixels of one pair of rows of one picture.
    n = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1)
    first = tl.program_id(0) * SQUARES
    column = first + tl.arange(0, SQUARES)
    inside = column < width // 2
    sound = column >= 0
    red = ()  # type: tuple
    green = ()  # type: tuple
    blue = ()  # type: tuple
    for k in tl.static_range(4):
        line = rgb_ptr + n * rgb_stride_n + (2 * row + k // 2).to(tl.int64) * rgb_stride_h
        at = line + (2 * column + k % 2) * rgb_stride_w
        r, fine_r = unit(tl.load(at, mask=inside, other=0.0).to(tl.float32))
        g, fine_g = unit(tl.load(at + rgb_stride_c, mask=inside, other=0.0).to(tl.float32))
        b, fine_b = unit(tl.load(at + 2 * rgb_stride_c, mask=inside, other=0.0).to(tl.float32))
        red = red + (r,)
        green = green + (g,)
        blue = blue + (b,)
        sound = sound & fine_r & fine_g & fine_b
    picture = out_ptr + n * (height + height // 2) * width
    store_i420(picture, red, green, blue, row, first, height, width, SQUARES)
    if broken_ptr is not None:
        report_broken(broken_ptr, n, sound)


def rgb_to_i420(rgb: Tensor, out: Tensor, broken: Tensor | None = None) -> Tensor:
    """See `kernels_triton.rgb_to_i420.rgb_to_i420`; shapes are already checked here. Allocates
    nothing.

    Args:
        rgb: [N, 3, H, W], floating point, with any strides.
        out: Contiguous.
        broken: [N] int32: set to 1 where a picture holds NaN or infinity; else left as it is.
    Returns:
        `out`.
    """
    n, _, height, width = rgb.shape
    i420_kernel[(triton.cdiv(width // 2, SQUARES), height // 2, n)](
        rgb, out, broken, height, width, *rgb.stride(), SQUARES=SQUARES, num_warps=WARPS
    )
    return out


def image_to_i420(image: Tensor, out: Tensor, broken: Tensor | None) -> Tensor:
    """See `kernels_triton.rgb_to_i420.image_to_i420`; arguments are already checked here. Allocates
    nothing.
    """
    return rgb_to_i420(image.permute(0, 3, 1, 2), out, broken)


def _variant(name: str, dtype: str, last: bool, broken: bool) -> Variant:
    """`last`: channels-last."""
    signature = {"rgb_ptr": f"*{dtype}", "out_ptr": "*u8"}
    signature["broken_ptr"] = "*i32" if broken else "constexpr"
    strides = [f"rgb_stride_{axis}" for axis in "nchw"]
    signature |= dict.fromkeys(("height", "width", *strides), "i32") | {"SQUARES": "constexpr"}
    one = "rgb_stride_c" if last else "rgb_stride_w"
    signature[one] = "constexpr"
    rest = [stride for stride in strides if stride not in (one, "rgb_stride_w")]
    constants = {one: 1, "SQUARES": SQUARES} | ({} if broken else {"broken_ptr": None})
    return Variant(
        name,
        i420_kernel,
        signature,
        constants,
        aligned=("width", *rest),
        num_warps=WARPS,
        registers=64,
        shared=1024,
        outputs=6,
    )


def variants() -> list[Variant]:
    """Channels-last float32, the last buffer of StyleGAN2; and the general op's usual picture."""
    return [
        _variant("image_to_i420_fp32", "fp32", last=True, broken=True),
        _variant("rgb_to_i420_fp16", "fp16", last=False, broken=False),
    ]
