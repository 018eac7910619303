"""fourier_input in one launch: sines by rows and columns, mixed on tensor cores.

A program takes a rectangle of pixels, so that its sines are those of a few rows and columns; the
products of two of them are the features, which never leave its registers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels_triton.aot import Variant

if TYPE_CHECKING:
    from kernels_triton.fourier_input.op import FourierTable

ROWS = COLUMNS = 8  # a square has the fewest sines: 16 per channel for 64 pixels
# A thread's part of a channel's constants (frequency, fade) does not shrink with the tile, so half
# precision takes many channels per turn. float32 sums are computed without tensor cores and have
# no registers to spare.
DEPTH_HALF, DEPTH_SINGLE = 128, 16
CHANNELS = 64


@triton.jit
def sine_and_cosine(turns):
    """Of 2 pi turns. The nearest quarter of a turn is taken off first, which is exact; what
    remains is at most an eighth, where the series end below float32's precision.
    """
    quarters = tl.floor(turns * 4.0 + 0.5)
    y = (turns - quarters * 0.25) * 6.283185307179586
    y2 = y * y
    s = y2 * (1.0 / 362880) - 1.0 / 5040
    s = (s * y2 + 1.0 / 120) * y2 - 1.0 / 6
    s = s * y2 * y + y
    c = y2 * (-1.0 / 3628800) + 1.0 / 40320
    c = (c * y2 - 1.0 / 720) * y2 + 1.0 / 24
    c = (c * y2 - 0.5) * y2 + 1.0
    quadrant = quarters.to(tl.int32)
    odd = (quadrant & 1) != 0
    sine = tl.where(odd, c, s)
    cosine = tl.where(odd, s, c)
    sine = tl.where((quadrant & 2) != 0, -sine, sine)
    cosine = tl.where(((quadrant + 1) & 2) != 0, -cosine, cosine)
    return sine, cosine


@triton.jit(do_not_specialize=["rows", "columns"])
def features(
    turn_ptr,
    freqs_ptr,
    phases_ptr,
    transform_ptr,
    mixing_ptr,
    columns_ptr,
    rows_ptr,
    scale_ptr,
    out_ptr,
    rows,
    columns,
    turn_stride_n,
    scale_stride_n,
    bandwidth,
    slope,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    # One tile: ROWS x COLUMNS pixels of one sample by CHANNELS channels.
    n = tl.program_id(2).to(tl.int64)
    across = tl.cdiv(columns, COLUMNS)
    r = tl.program_id(1) // across * ROWS + tl.arange(0, ROWS)
    q = tl.program_id(1) % across * COLUMNS + tl.arange(0, COLUMNS)
    o = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    at_y = tl.load(rows_ptr + r, mask=r < rows, other=0.0)
    at_x = tl.load(columns_ptr + q, mask=q < columns, other=0.0)

    # The plane's motion: rotation, shift, then the user's transform; a [2, 3] matrix.
    cos = tl.load(turn_ptr + n * turn_stride_n)
    sin = tl.load(turn_ptr + n * turn_stride_n + 1)
    dx = tl.load(turn_ptr + n * turn_stride_n + 2)
    dy = tl.load(turn_ptr + n * turn_stride_n + 3)
    unit = 1.0 / tl.sqrt_rn(cos * cos + sin * sin)
    cos, sin, dx, dy = cos * unit, sin * unit, dx * unit, dy * unit
    m00, m01, m02 = _moved_row(cos, -sin, sin * dy - cos * dx, transform_ptr)
    m10, m11, m12 = _moved_row(sin, cos, -sin * dx - cos * dy, transform_ptr)

    DOT: tl.constexpr = mixing_ptr.dtype.element_ty
    sums = tl.zeros((ROWS * COLUMNS, CHANNELS), tl.float32)
    for start in range(0, INPUTS, DEPTH):
        k = start + tl.arange(0, DEPTH)
        known = k < INPUTS
        u = tl.load(freqs_ptr + 2 * k, mask=known, other=0.0)
        v = tl.load(freqs_ptr + 2 * k + 1, mask=known, other=0.0)
        phase = tl.load(phases_ptr + k, mask=known, other=0.0) + u * m02 + v * m12
        fx = u * m00 + v * m10
        fy = u * m01 + v * m11
        excess = tl.sqrt(fx * fx + fy * fy) - bandwidth
        fade = tl.minimum(tl.maximum(1.0 - excess * slope, 0.0), 1.0)
        sin_y, cos_y = sine_and_cosine(at_y[:, None] * fy[None, :] + phase[None, :])
        sin_x, cos_x = sine_and_cosine(at_x[:, None] * fx[None, :])
        sin_y *= fade[None, :]
        cos_y *= fade[None, :]
        waves = sin_y[:, None, :] * cos_x[None, :, :] + cos_y[:, None, :] * sin_x[None, :, :]
        waves = tl.reshape(waves.to(DOT), (ROWS * COLUMNS, DEPTH))
        weighs = known[:, None] & (o < OUTPUTS)[None, :]
        mixing = tl.load(mixing_ptr + k[:, None] * OUTPUTS + o[None, :], mask=weighs, other=0.0)
        sums = tl.dot(waves, mixing, sums, input_precision="ieee")

    if scale_ptr is not None:
        scale_ptrs = scale_ptr + n * scale_stride_n + o
        sums *= tl.load(scale_ptrs, mask=o < OUTPUTS, other=0.0)[None, :]
    pixel = tl.arange(0, ROWS * COLUMNS)
    y = tl.program_id(1) // across * ROWS + pixel // COLUMNS
    x = tl.program_id(1) % across * COLUMNS + pixel % COLUMNS
    places = ((n * rows + y) * columns + x)[:, None] * OUTPUTS + o[None, :]
    inside = ((y < rows) & (x < columns))[:, None] & (o < OUTPUTS)[None, :]
    tl.store(out_ptr + places, sums.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _moved_row(a, b, c, transform_ptr):
    """(a, b, c) @ transform."""
    x = a * tl.load(transform_ptr) + b * tl.load(transform_ptr + 3) + c * tl.load(transform_ptr + 6)
    y = (
        a * tl.load(transform_ptr + 1)
        + b * tl.load(transform_ptr + 4)
        + c * tl.load(transform_ptr + 7)
    )
    z = (
        a * tl.load(transform_ptr + 2)
        + b * tl.load(transform_ptr + 5)
        + c * tl.load(transform_ptr + 8)
    )
    return x, y, z


def run(turn: Tensor, table: FourierTable, scale: Tensor | None, out: Tensor) -> Tensor:
    """See `fourier_input`; shapes are already checked there. Rows of `turn` and `scale` may be
    strided. Allocates nothing, waits for nothing; the first call for a table in half precision
    makes its copy of the mixing matrix, so a CUDA graph is captured after that.

    Raises:
        ValueError: A layout that the kernel does not read.
    """
    n, rows, columns, outputs = out.shape
    _check(turn, table, scale)
    single = out.dtype == torch.float32
    mixing = table.mixing if single else table.mixing_half
    inputs = len(table.phases)
    channels = min(CHANNELS, triton.next_power_of_2(outputs))
    depth = DEPTH_SINGLE if single else min(DEPTH_HALF, max(16, triton.next_power_of_2(inputs)))
    span = table.rate / 2 - table.bandwidth
    tiles = triton.cdiv(rows, ROWS) * triton.cdiv(columns, COLUMNS)
    features[(triton.cdiv(outputs, channels), tiles, n)](
        turn,
        table.freqs,
        table.phases,
        table.transform,
        mixing,
        table.columns,
        table.rows,
        scale,
        out,
        rows,
        columns,
        turn.stride(0),
        0 if scale is None else scale.stride(0),
        table.bandwidth,
        1 / span if span else math.inf,
        INPUTS=inputs,
        OUTPUTS=outputs,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        CHANNELS=channels,
        DEPTH=depth,
        num_warps=4,
        num_stages=2,
    )
    return out


def _check(turn: Tensor, table: FourierTable, scale: Tensor | None) -> None:
    """Raises ValueError for what the kernel does not read."""
    for name, tensor in (("turn", turn), ("scale", scale)):
        if tensor is not None and tensor.stride(1) != 1:
            raise ValueError(f"{name} with strides {tensor.stride()} must have adjacent columns")
    for name in ("freqs", "phases", "transform", "mixing", "columns", "rows"):
        tensor = getattr(table, name)
        if not tensor.is_contiguous():
            raise ValueError(f"{name} with strides {tensor.stride()} must be contiguous")


def variants() -> list[Variant]:
    """Config T (512 channels) and config R (1024)."""
    return [
        _variant("fp16", 512, DEPTH_HALF),
        _variant("fp16", 1024, DEPTH_HALF),
        _variant("fp32", 512, DEPTH_SINGLE),
    ]


def _variant(dtype: str, channels: int, depth: int) -> Variant:
    constants = {"INPUTS": channels, "OUTPUTS": channels, "ROWS": ROWS, "COLUMNS": COLUMNS}
    constants |= {"CHANNELS": CHANNELS, "DEPTH": depth}
    before = ("turn_ptr", "freqs_ptr", "phases_ptr", "transform_ptr")
    signature = dict.fromkeys(before, "*fp32")
    signature["mixing_ptr"] = "*fp32" if dtype == "fp32" else "*fp16"
    signature |= dict.fromkeys(("columns_ptr", "rows_ptr", "scale_ptr"), "*fp32")
    signature["out_ptr"] = f"*{dtype}"
    signature |= dict.fromkeys(("rows", "columns", "turn_stride_n", "scale_stride_n"), "i32")
    signature |= dict.fromkeys(("bandwidth", "slope"), "fp32")
    return Variant(
        name=f"fourier_input_{dtype}_{channels}",
        kernel=features,
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constants=constants,
        aligned=("turn_stride_n", "scale_stride_n"),
        num_stages=2,
        dot=dtype != "fp32",
        outputs=ROWS * COLUMNS * CHANNELS / 128 / (channels // depth),
    )
