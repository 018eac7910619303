"""Filtered leaky ReLU on a GPU in Gluon: the layout is given, so wide tiles compile in seconds.

The same tile as `kernel`'s, from the same functions. Where features are stored in float16, sums are
too, two channels per instruction: noise of -80 dB per layer, where storing in float16 alone makes
-88 (tests/kernels_triton/test_filtered_lrelu_kernel.py). Other types filter in float32.
"""

from __future__ import annotations

import functools

import torch
import triton.language as tl
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from kernels_triton.aot import Variant
from kernels_triton.filtered_lrelu.lanes import ORDERED, PACKED
from kernels_triton.filtered_lrelu.launch import OPTIONAL, SIZES, Call, variant
from kernels_triton.filtered_lrelu.resampling import Resampling
from kernels_triton.filtered_lrelu.schedule import schedule
from kernels_triton.filtered_lrelu.stream import stream_tile
from kernels_triton.filtered_lrelu.tiling import Tiling, unrolled, widest
from kernels_triton.filtered_lrelu.typical import typical


@gluon.jit(do_not_specialize=SIZES)
def gluon_filtered_lrelu_kernel(
    x_ptr,
    scale_in_ptr,
    bias_ptr,
    scale_out_ptr,
    out_ptr,
    height,
    width,
    out_height,
    out_width,
    rows,
    turns,
    origin,
    scale_in_stride,
    scale_out_stride,
    CHANNELS: tl.constexpr,
    LANES: tl.constexpr,
    COLUMNS: tl.constexpr,
    SAMPLES: tl.constexpr,
    UNROLL: tl.constexpr,
    UP: tl.constexpr,
    WINDOW: tl.constexpr,
    TAPS: tl.constexpr,
    TERMS: tl.constexpr,
    STEPS: tl.constexpr,
    SLOPE: tl.constexpr,
    RISE: tl.constexpr,
    LIMITS: tl.constexpr,
    FOLD: tl.constexpr,
    ACROSS: tl.constexpr,
    FALL: tl.constexpr,
    MATH: tl.constexpr,
    SIGNED: tl.constexpr,
    WARPS: tl.constexpr,
):
    """One tile: see `stream_tile`.

    x_ptr [N, height, width, CHANNELS] and out_ptr [N, out_height, out_width, CHANNELS] contiguous;
    scales [N, CHANNELS] with a stride, bias [CHANNELS], float32, each of them None or given.
    """
    layout: gl.constexpr = gl.BlockedLayout([LANES // (32 * WARPS)], [32], [WARPS], [0])
    stream_tile(
        x_ptr,
        scale_in_ptr,
        bias_ptr,
        scale_out_ptr,
        out_ptr,
        height,
        width,
        out_height,
        out_width,
        rows,
        turns,
        origin,
        scale_in_stride,
        scale_out_stride,
        gl.arange(0, LANES, layout=layout),
        CHANNELS,
        LANES,
        COLUMNS,
        SAMPLES,
        UNROLL,
        UP,
        WINDOW,
        TAPS,
        TERMS,
        STEPS,
        SLOPE,
        RISE,
        LIMITS,
        FOLD,
        ACROSS,
        FALL,
        MATH,
        SIGNED,
    )


def run(call: Call) -> Tensor:
    """See `kernel.run`, which calls this."""
    x, out, plan = call.x, call.out, schedule(call.how)
    capability = capability_of(x.device)
    # Half-precision max and min, two at a time, are of sm_80; a clamp by magnitude is of sm_86.
    packed = x.dtype == torch.float16 and capability >= (8, 0) and _words(x) and _words(out)
    math = PACKED.value if packed else ORDERED.value
    cut = call.tiling(math, widest(plan, packed))
    grid, values, constants = call.arguments(cut, math)
    gluon_filtered_lrelu_kernel[grid](
        *values,
        **constants,
        SIGNED=capability >= (8, 6),
        WARPS=cut.warps,
        num_warps=cut.warps,
    )
    return out


@functools.lru_cache
def capability_of(device: torch.device) -> tuple[int, int]:
    """(8, 0) of an A100, (9, 0) of an H100."""
    return torch.cuda.get_device_capability(device)


def _words(x: Tensor) -> bool:
    """Whether pairs of float16 begin at whole words."""
    return x.data_ptr() % 4 == 0


def variants() -> list[Variant]:
    """Gluon at the constants of T's and R's layers; as wide as large maps have them, and narrow."""
    late = (89, 90)  # with the clamp in one instruction
    cases: tuple[tuple[str, Resampling, int, str, tuple[str, ...], int, tuple[int, ...]], ...] = (
        ("up 2", typical(2, 9), 64, "fp16", OPTIONAL, 0, late),
        ("up 2 on sm_80", typical(2, 9), 64, "fp16", OPTIONAL, 0, (80,)),
        ("up 2, narrow", typical(2, 10), 512, "fp16", OPTIONAL, 4, late),
        ("up 4", typical(4, 17), 128, "fp16", OPTIONAL, 0, late),
        ("up 2, cropped, critical", typical(2, -4), 32, "fp16", OPTIONAL[2:], 0, late),
        ("up 2, 2 terms", typical(2, 9, 2), 256, "fp16", OPTIONAL, 0, late),
        ("up 4, 3 terms", typical(4, 18, 3), 64, "fp16", OPTIONAL, 0, late),
        ("up 4, 3 terms on sm_80", typical(4, 18, 3), 64, "fp16", OPTIONAL, 0, (80,)),
        ("up 2", typical(2, 9), 64, "bf16", OPTIONAL, 0, late),
        ("up 4", typical(4, 17), 64, "fp32", OPTIONAL, 0, late),
    )
    found = []
    for name, how, channels, dtype, given, columns, targets in cases:
        packed, plan = dtype == "fp16", schedule(how)
        cut = Tiling(columns or widest(plan, packed), 6, unrolled(plan), 6, 1 if columns else 4)
        found.append(
            variant(
                f"gluon {name}, {dtype}",
                gluon_filtered_lrelu_kernel,
                how,
                cut,
                channels=channels,
                dtype=dtype,
                math=PACKED.value if packed else ORDERED.value,
                signed=targets != (80,),
                given=given,
                gluon=True,
                targets=targets,
            )
        )
    return found
