"""Filtered leaky ReLU on a GPU, channels-last: the kernel in plain Triton, and how it is launched.

The tile is described in `stream`, the arithmetic in `schedule`. This form keeps its loop short and
filters in float32; it runs in Triton's interpreter and is what the Gluon form (`gluon_kernel`) is
tested by, and replaced by where Gluon does not work.
"""

from __future__ import annotations

import os
import warnings

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels_triton.aot import Variant
from kernels_triton.filtered_lrelu.lanes import FLOAT
from kernels_triton.filtered_lrelu.launch import OPTIONAL, SIZES, Call, variant
from kernels_triton.filtered_lrelu.resampling import Resampling
from kernels_triton.filtered_lrelu.schedule import schedule
from kernels_triton.filtered_lrelu.stream import stream_tile
from kernels_triton.filtered_lrelu.tiling import Tiling
from kernels_triton.filtered_lrelu.typical import typical

# Plain Triton chooses layouts by looking at every value, in a time that grows with their square:
# 10 s for these widths, minutes for Gluon's.
PLAIN_COLUMNS, PLAIN_COLUMNS_OF_TERMS = 4, 2

# "0" in STYLEWIRE_GLUON keeps to plain Triton. A failure of Gluon's does the same for the process.
_gluon_wanted = os.environ.get("STYLEWIRE_GLUON", "1") != "0"


@triton.jit(do_not_specialize=SIZES)
def filtered_lrelu_kernel(
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
):
    """One tile: see `stream_tile`.

    x_ptr [N, height, width, CHANNELS] and out_ptr [N, out_height, out_width, CHANNELS] contiguous;
    scales [N, CHANNELS] with a stride, bias [CHANNELS], float32, each of them None or given.
    """
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
        tl.arange(0, LANES),
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


def run(
    x: Tensor,
    how: Resampling,
    scale_in: Tensor | None,
    bias: Tensor | None,
    scale_out: Tensor | None,
    out: Tensor,
) -> Tensor:
    """`fused_filtered_lrelu` on the GPU that `x` is on, or in Triton's interpreter.

    On CUDA the Gluon form runs, in float16 with sums of float16 (see `lanes`). If it does not
    compile there, a warning says so and plain Triton takes over for the rest of the process: call
    once before capturing a CUDA graph. Allocates nothing; asks the GPU for nothing.

    Raises:
        ValueError: The factors are not even and 2, the slope is not from 0 to 1, a scale or the
            bias is not float32 with adjacent channels, or a picture has 2^31 values or more.
    """
    global _gluon_wanted
    call = Call(x, how, scale_in, bias, scale_out, out)
    call.check()
    if _gluon_wanted and gluon_runs(x.device):
        try:
            from kernels_triton.filtered_lrelu import gluon_kernel

            return gluon_kernel.run(call)
        # Gluon is experimental: its failures have no common type, and the plain form can do it.
        except Exception as error:
            schedule(how)  # what neither form takes is not Gluon's failure
            _gluon_wanted = False
            warnings.warn(
                f"filtered_lrelu: the Gluon kernel failed ({type(error).__name__}: {error}); plain "
                "Triton takes over, which is slower. STYLEWIRE_GLUON=0 chooses it from the start",
                RuntimeWarning,
                stacklevel=2,
            )
    return launch(call, plain_tiling(call))


def plain_tiling(call: Call) -> Tiling:
    """How the plain kernel is cut: narrow, and its loop not unrolled."""
    plan = schedule(call.how)
    most = PLAIN_COLUMNS if plan.terms == 1 else PLAIN_COLUMNS_OF_TERMS
    cut = call.tiling(FLOAT.value, max(most // plan.classes, 1) * plan.classes)
    return Tiling(cut.columns, cut.rows, 1, cut.turns * cut.unroll, cut.warps)


def gluon_runs(device: torch.device) -> bool:
    """Whether Gluon may be tried: it knows no interpreter."""
    return device.type == "cuda" and not triton.knobs.runtime.interpret


def launch(call: Call, cut: Tiling, math: int = FLOAT.value) -> Tensor:
    """The plain kernel with a tiling of the caller's."""
    grid, values, constants = call.arguments(cut, math)
    filtered_lrelu_kernel[grid](*values, **constants, SIGNED=False, num_warps=cut.warps)
    return call.out


def variants() -> list[Variant]:
    """Plain Triton at the constants of T's and R's layers."""
    cases: tuple[tuple[str, Resampling, int, str, tuple[str, ...], int], ...] = (
        ("up 2", typical(2, 9), 64, "bf16", OPTIONAL, PLAIN_COLUMNS),
        ("up 4", typical(4, 17), 64, "fp16", OPTIONAL[1:], PLAIN_COLUMNS),
        ("up 2, 3 terms", typical(2, -5, 3), 32, "fp32", OPTIONAL, PLAIN_COLUMNS_OF_TERMS),
    )
    return [
        variant(
            f"plain {name}, {dtype}",
            filtered_lrelu_kernel,
            how,
            Tiling(columns, 6, 1, 11, 1),
            channels=channels,
            dtype=dtype,
            math=FLOAT.value,
            signed=False,
            given=given,
            registers=192,
        )
        for name, how, channels, dtype, given, columns in cases
    ]
