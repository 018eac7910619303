"""The general upfirdn2d as a Triton kernel.

All arithmetic is in float32, whatever the storage.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels_triton.aot import Variant

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_TAPS, MOST_TAPS_2D = 24, 16  # per axis; the loop along x is unrolled
MOST_FACTOR = 4
TILE_WARPS, TILE = 4, 1024  # outputs of a program of the general op


@triton.jit
def _first_tap(position, UP: tl.constexpr):
    """The first tap at or after `position` in the upsampled grid that meets a sample."""
    return ((-position) % UP + UP) % UP  # a remainder has the sign of what is divided


@triton.jit
def _tap(
    taps_ptr,
    phase,
    there,
    first: tl.constexpr,
    UP: tl.constexpr,
    WIDTH: tl.constexpr,
    FLIP: tl.constexpr,
    stride,
):
    """Tap `first + phase` of each output: one load per phase, whatever the number of outputs."""
    tap = tl.zeros(phase.shape, tl.float32)
    for p in tl.static_range(UP):
        if first + p < WIDTH:
            at = taps_ptr + (first + p if FLIP else WIDTH - 1 - first - p) * stride
            tap = tl.where(phase == p, tl.load(at, mask=there, other=0.0).to(tl.float32), tap)
    return tap


@triton.jit
def _add_row(
    total,
    x_ptr,
    f_ptr,
    step,
    first_y,
    top,
    first_x,
    left,
    mask,
    height,
    width,
    x_stride_h,
    x_stride_w,
    f_stride_h,
    f_stride_w,
    UP_X: tl.constexpr,
    UP_Y: tl.constexpr,
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    FLIP: tl.constexpr,
):
    """`total` [columns, channels] and one row of taps' share of it."""
    y = top + step
    tap_y = first_y + step * UP_Y
    met = (tap_y < HEIGHT) & (y >= 0) & (y < height)
    line = x_ptr + y.to(tl.int64) * x_stride_h
    taps = f_ptr + (tap_y if FLIP else HEIGHT - 1 - tap_y) * f_stride_h
    for i in tl.static_range((WIDTH + UP_X - 1) // UP_X):
        x = left + i
        here = (x >= 0) & (x < width) & met
        sample = tl.load(line + (x * x_stride_w)[:, None], mask=here[:, None] & mask, other=0.0)
        tap = _tap(taps, first_x, met, i * UP_X, UP_X, WIDTH, FLIP, f_stride_w)
        total += sample.to(tl.float32) * tap[:, None]
    return total


@triton.jit(do_not_specialize=["height", "width", "out_width", "pad_x", "pad_y"])
def upfirdn2d_kernel(
    x_ptr,
    f_ptr,
    out_ptr,
    height,
    width,
    channels,
    out_width,
    x_stride_n,
    x_stride_c,
    x_stride_h,
    x_stride_w,
    out_stride_n,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    f_stride_h,
    f_stride_w,
    pad_x,
    pad_y,
    gain,
    UP_X: tl.constexpr,
    UP_Y: tl.constexpr,
    DOWN_X: tl.constexpr,
    DOWN_Y: tl.constexpr,
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    FLIP: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # Tile: BLOCK_X outputs of one row, in BLOCK_C channels of one picture. Of the WIDTH x HEIGHT
    # taps only those that meet a sample, and no inserted zero, are touched.
    across = tl.cdiv(out_width, BLOCK_X)
    deep = tl.cdiv(channels, BLOCK_C)
    n = (tl.program_id(0) // (across * deep)).to(tl.int64)
    row = tl.program_id(1)
    column = tl.program_id(0) % across * BLOCK_X + tl.arange(0, BLOCK_X)
    c = tl.program_id(0) // across % deep * BLOCK_C + tl.arange(0, BLOCK_C)
    channel = c.to(tl.int64)[None, :]
    mask = (column < out_width)[:, None] & (c < channels)[None, :]

    first_y = _first_tap(row * DOWN_Y - pad_y, UP_Y)
    first_x = _first_tap(column * DOWN_X - pad_x, UP_X)
    top = (row * DOWN_Y - pad_y + first_y) // UP_Y  # exact, whatever the sign
    left = (column * DOWN_X - pad_x + first_x) // UP_X
    source = x_ptr + n * x_stride_n + channel * x_stride_c
    total = tl.zeros((BLOCK_X, BLOCK_C), tl.float32)
    # A loop that is not unrolled keeps the code of a large filter small.
    STEPS: tl.constexpr = (HEIGHT + UP_Y - 1) // UP_Y
    if STEPS <= 4:
        for j in tl.static_range(STEPS):
            total = _add_row(
                total, source, f_ptr, j, first_y, top, first_x, left, mask, height, width,
                x_stride_h, x_stride_w, f_stride_h, f_stride_w, UP_X, UP_Y, WIDTH, HEIGHT, FLIP
            )  # fmt: skip
    else:
        for j in range(STEPS):
            total = _add_row(
                total, source, f_ptr, j, first_y, top, first_x, left, mask, height, width,
                x_stride_h, x_stride_w, f_stride_h, f_stride_w, UP_X, UP_Y, WIDTH, HEIGHT, FLIP
            )  # fmt: skip
    target = out_ptr + n * out_stride_n + channel * out_stride_c + row.to(tl.int64) * out_stride_h
    tl.store(
        target + (column * out_stride_w)[:, None],
        (total * gain).to(out_ptr.dtype.element_ty),
        mask=mask,
    )


def takes(x: Tensor, f: Tensor, up: tuple[int, int], down: tuple[int, int]) -> bool:
    """Whether `upfirdn2d` below can do it: a small filter and small factors, on one device."""
    return (
        x.dtype in DTYPES
        and f.device == x.device
        and f.is_floating_point()
        and max(f.shape) <= (MOST_TAPS if f.ndim == 1 else MOST_TAPS_2D)
        and max(*up, *down) <= MOST_FACTOR
        and x.numel() > 0
    )


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """See `kernels_triton.upfirdn2d.upfirdn2d`; arguments are already checked and completed here,
    and `takes` them. x may have any strides; the result is channels-last where x is.
    """
    if f.ndim == 2:
        return _filtered(x, f, up, down, padding, flip_filter, gain, x.dtype)
    x0, x1, y0, y1 = padding
    across, along = (x0, x1, 0, 0), (0, 0, y0, y1)
    wide = _filtered(
        x, f[None, :], (up[0], 1), (down[0], 1), across, flip_filter, 1.0, torch.float32
    )
    return _filtered(wide, f[:, None], (1, up[1]), (1, down[1]), along, flip_filter, gain, x.dtype)


def _filtered(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
    dtype: torch.dtype,
) -> Tensor:
    """One pass with a [fh, fw] filter."""
    n, channels, height, width = x.shape
    x0, x1, y0, y1 = padding
    out_height = (height * up[1] + y0 + y1 - f.shape[0]) // down[1] + 1
    out_width = (width * up[0] + x0 + x1 - f.shape[1]) // down[0] + 1
    last = x.stride(1) == 1 and channels > 1
    out = torch.empty(
        (n, channels, out_height, out_width),
        dtype=dtype,
        device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )
    # Lanes lie along what is contiguous.
    if last:
        block_c = min(64, triton.next_power_of_2(channels))
        block_x = TILE // block_c
    else:
        block_x = min(TILE, max(16, triton.next_power_of_2(out_width)))
        block_c = TILE // block_x
    tiles = triton.cdiv(out_width, block_x) * triton.cdiv(channels, block_c)
    upfirdn2d_kernel[(n * tiles, out_height)](
        x,
        f,
        out,
        height,
        width,
        channels,
        out_width,
        *x.stride(),
        *out.stride(),
        *f.stride(),
        x0,
        y0,
        gain,
        UP_X=up[0],
        UP_Y=up[1],
        DOWN_X=down[0],
        DOWN_Y=down[1],
        WIDTH=f.shape[1],
        HEIGHT=f.shape[0],
        FLIP=flip_filter,
        BLOCK_X=block_x,
        BLOCK_C=block_c,
        num_warps=TILE_WARPS,
    )
    return out


def _variant(name: str, last: bool) -> Variant:
    """A 4x4 filter that doubles a picture; `last`: channels-last."""
    strides = [f"{t}_stride_{axis}" for t in ("x", "out") for axis in "nchw"]
    one = ["x_stride_c", "out_stride_c"] if last else ["x_stride_w", "out_stride_w"]
    factors = {"UP_X": 2, "UP_Y": 2, "DOWN_X": 1, "DOWN_Y": 1, "WIDTH": 4, "HEIGHT": 4}
    block = {"BLOCK_X": TILE // 64, "BLOCK_C": 64} if last else {"BLOCK_X": TILE, "BLOCK_C": 1}
    constants = {**dict.fromkeys(one, 1), "f_stride_w": 1, **factors, "FLIP": False, **block}
    signature = {
        **dict.fromkeys(("x_ptr", "f_ptr", "out_ptr"), "*fp32"),
        **dict.fromkeys(("height", "width", "channels", "out_width"), "i32"),
        **dict.fromkeys((*strides, "f_stride_h", "f_stride_w", "pad_x", "pad_y"), "i32"),
        "gain": "fp32",
        **dict.fromkeys((*factors, "FLIP", *block), "constexpr"),
    }
    signature |= dict.fromkeys((*one, "f_stride_w"), "constexpr")
    return Variant(
        name,
        upfirdn2d_kernel,
        signature,
        constants,
        aligned=("channels", *(stride for stride in strides if stride not in one)),
        num_warps=TILE_WARPS,
        registers=80,
        shared=0,
        outputs=TILE / (32 * TILE_WARPS),
    )


def variants() -> list[Variant]:
    """A picture that is doubled, in both memory layouts."""
    return [
        _variant("upfirdn2d_up2_fp32_nchw", last=False),
        _variant("upfirdn2d_up2_fp32_nhwc", last=True),
    ]
