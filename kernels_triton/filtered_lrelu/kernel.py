"""Filtered leaky ReLU on a GPU, channels-last: the kernel in plain Triton, and how it is launched.

The tile is described in `stream`, the arithmetic in `schedule`. This form keeps its loop short and
filters in float32; it runs in Triton's interpreter and is what the Gluon form (`gluon_kernel`) is
tested by, and replaced by where Gluon does not work.
"""

from __future__ import annotations

import functools
import os
import warnings
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels_triton.aot import Variant
from kernels_triton.filtered_lrelu.lanes import FLOAT, PACKED
from kernels_triton.filtered_lrelu.resampling import Resampling
from kernels_triton.filtered_lrelu.schedule import schedule
from kernels_triton.filtered_lrelu.stream import stream_tile
from kernels_triton.filtered_lrelu.tiling import WARP, Tiling, tiling
from kernels_triton.filtered_lrelu.typical import typical

# Not worth a compilation each: 1, and multiples of 16, are sizes like others.
SIZES = (
    "height",
    "width",
    "out_height",
    "out_width",
    "rows",
    "turns",
    "origin",
    "scale_in_stride",
    "scale_out_stride",
)
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
    check(x, scale_in, bias, scale_out, out)
    if _gluon_wanted and gluon_runs(x.device):
        try:
            from kernels_triton.filtered_lrelu import gluon_kernel

            return gluon_kernel.run(x, how, scale_in, bias, scale_out, out)
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
    return launch(x, how, scale_in, bias, scale_out, out, plain_tiling(x, how, out))


def plain_tiling(x: Tensor, how: Resampling, out: Tensor) -> Tiling:
    """How the plain kernel is cut: narrow, and its loop not unrolled."""
    plan = schedule(how)
    most = PLAIN_COLUMNS if plan.terms == 1 else PLAIN_COLUMNS_OF_TERMS
    most = max(most // plan.classes, 1) * plan.classes
    size, batch = (out.shape[1], out.shape[2]), x.shape[0]
    cut = tiling(plan, size, x.shape[3], batch, processors_of(x.device), most)
    return Tiling(cut.columns, cut.rows, 1, cut.turns * cut.unroll, cut.warps)


def gluon_runs(device: torch.device) -> bool:
    """Whether Gluon may be tried: it knows no interpreter."""
    return device.type == "cuda" and not triton.knobs.runtime.interpret


def launch(
    x: Tensor,
    how: Resampling,
    scale_in: Tensor | None,
    bias: Tensor | None,
    scale_out: Tensor | None,
    out: Tensor,
    cut: Tiling,
    math: int = FLOAT.value,
) -> Tensor:
    """The plain kernel with a tiling of the caller's."""
    grid, values, constants = arguments(x, how, scale_in, bias, scale_out, out, cut, math)
    filtered_lrelu_kernel[grid](*values, **constants, SIGNED=False, num_warps=cut.warps)
    return out


def check(
    x: Tensor, scale_in: Tensor | None, bias: Tensor | None, scale_out: Tensor | None, out: Tensor
) -> None:
    """What the kernels need beyond what `fused_filtered_lrelu` has looked at.

    Raises:
        ValueError: See `run`.
    """
    for name, scale in (("scale_in", scale_in), ("bias", bias), ("scale_out", scale_out)):
        if scale is not None and (scale.dtype != torch.float32 or scale.stride(-1) != 1):
            raise ValueError(
                f"{name} is {scale.dtype} with strides {list(scale.stride())}; "
                "it must be float32 with adjacent channels"
            )
    largest = max(x[:1].numel(), out[:1].numel())
    if largest >= 2**31:
        raise ValueError(f"a picture of {largest} values: 2^31 or more are not supported")


def arguments(
    x: Tensor,
    how: Resampling,
    scale_in: Tensor | None,
    bias: Tensor | None,
    scale_out: Tensor | None,
    out: Tensor,
    cut: Tiling,
    math: int,
) -> tuple[tuple[int, int, int], tuple[Any, ...], dict[str, Any]]:
    """Grid, values and constants of a launch, all but SIGNED."""
    batch, height, width, channels = x.shape
    _, out_height, out_width, _ = out.shape
    constants = constants_of(how, cut, channels, math)
    lanes = -(-out_width // cut.columns) * (channels // 2 if math == PACKED.value else channels)
    grid = (-(-lanes // constants["LANES"]), -(-out_height // cut.rows), batch)
    values = (
        *(x, scale_in, bias, scale_out, out),
        *(height, width, out_height, out_width, cut.rows, cut.turns, schedule(how).origin),
        0 if scale_in is None else scale_in.stride(0),
        0 if scale_out is None else scale_out.stride(0),
    )
    return grid, values, constants


def constants_of(how: Resampling, cut: Tiling, channels: int, math: int) -> dict[str, Any]:
    """The compile-time arguments, all but SIGNED."""
    plan = schedule(how)
    return {
        "CHANNELS": channels,
        "LANES": WARP * cut.warps,
        "COLUMNS": cut.columns,
        "SAMPLES": plan.samples(cut.columns),
        "UNROLL": cut.unroll,
        "UP": plan.up,
        "WINDOW": plan.window,
        "TAPS": plan.taps,
        "TERMS": plan.terms,
        "STEPS": plan.steps,
        "SLOPE": how.slope,
        "RISE": plan.rise,
        "LIMITS": plan.limits,
        "FOLD": plan.fold,
        "ACROSS": plan.across,
        "FALL": plan.fall,
        "MATH": math,
    }


@functools.lru_cache
def processors_of(device: torch.device) -> int:
    """Multiprocessors; one in the interpreter, where every program costs time."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def variant(
    name: str,
    kernel: Any,
    how: Resampling,
    cut: Tiling,
    *,
    channels: int,
    dtype: str,
    math: int,
    signed: bool,
    given: tuple[str, ...] = (),
    **more: Any,
) -> Variant:
    """A variant of either form.

    Args:
        given: Which of scale_in, bias and scale_out there are.
        more: Other arguments of `Variant`.
    """
    optional = ("scale_in", "bias", "scale_out")
    constants: dict[str, Any] = {f"{it}_ptr": None for it in optional if it not in given}
    constants |= constants_of(how, cut, channels, math) | {"SIGNED": signed}
    constants |= {it: cut.warps for it in kernel.arg_names if it == "WARPS"}
    signature: dict[str, Any] = {}
    for argument in kernel.arg_names:
        if argument in constants:
            value = constants[argument]
            signature[argument] = (
                ("constexpr",) * len(value) if isinstance(value, tuple) else "constexpr"
            )
        elif argument.endswith("_ptr"):
            signature[argument] = f"*{dtype}" if argument in ("x_ptr", "out_ptr") else "*fp32"
        else:
            signature[argument] = "i32"
    per_lane = 2 if math == PACKED.value else 1
    return Variant(
        name=f"filtered_lrelu {name}",
        kernel=kernel,
        signature=signature,
        constants=constants,
        num_warps=cut.warps,
        shared=0,
        outputs=float(cut.unroll * schedule(how).classes * cut.columns * per_lane),
        **more,
    )


def variants() -> list[Variant]:
    """Plain Triton at the constants of T's and R's layers."""
    every = ("scale_in", "bias", "scale_out")
    cases: tuple[tuple[str, Resampling, int, str, tuple[str, ...], int], ...] = (
        ("up 2", typical(2, 9), 64, "bf16", every, PLAIN_COLUMNS),
        ("up 4", typical(4, 17), 64, "fp16", every[1:], PLAIN_COLUMNS),
        ("up 2, 3 terms", typical(2, -5, 3), 32, "fp32", every, PLAIN_COLUMNS_OF_TERMS),
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
