"""packed_conv2d as an implicit matrix product on tensor cores, channels-last.

Pixels of the output are rows, output channels are columns, and the sum runs over taps and input
channels, in the order in which a channels-last weight lies in memory. Nothing is unfolded: a
program reads the input at the shifted places itself. Scale and bias are applied to the float32 sums
before they are rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import OutOfResources

from kernels_triton.aot import Variant
from kernels_triton.modulated_conv import tiles as choices
from kernels_triton.modulated_conv.tiles import LARGEST_KERNEL, Tiles, Work, tiles_of

if TYPE_CHECKING:
    from kernels_triton.modulated_conv.packed import PackedConv

__all__ = ["OutOfResources", "convolve", "run", "variants"]  # the first: what a launch may raise


@triton.jit(do_not_specialize=["rows", "columns", "out_rows", "out_columns"])
def convolve(
    x_ptr,
    weight_ptr,
    scale_ptr,
    bias_ptr,
    out_ptr,
    rows,
    columns,
    out_rows,
    out_columns,
    scale_stride_n,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    KERNEL: tl.constexpr,
    PADDING: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    # One tile: PIXELS pixels of one sample's output by CHANNELS channels.
    # Neighbouring programs share their pixels, so that the input comes from the L2 cache.
    # A tile over two samples would need a scale per element, and registers for them: some spilled.
    n = tl.program_id(1).to(tl.int64)
    tile = tl.program_id(0)
    ACROSS: tl.constexpr = (OUTPUTS + CHANNELS - 1) // CHANNELS
    o = tile % ACROSS * CHANNELS + tl.arange(0, CHANNELS)
    m = tile // ACROSS * PIXELS + tl.arange(0, PIXELS)
    top = m // out_columns - PADDING
    left = m % out_columns - PADDING
    # Bit t says whether tap t of a pixel lies in the picture: the loop below then asks by a shift.
    # Bits beyond the last tap are zero, which masks the end of a sum that DEPTH does not divide.
    taps = tl.zeros((PIXELS,), tl.int32)
    for t in tl.static_range(KERNEL * KERNEL):
        y = top + t // KERNEL
        x = left + t % KERNEL
        there = (m < out_rows * out_columns) & (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
        taps |= there.to(tl.int32) << t
    x_ptrs = x_ptr + (n * rows * columns + top * columns + left)[:, None] * INPUTS
    LENGTH: tl.constexpr = KERNEL * KERNEL * INPUTS
    w_ptrs = weight_ptr + o[None, :] * LENGTH
    sums = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for start in range(0, LENGTH, DEPTH):
        k = start + tl.arange(0, DEPTH)
        tap = k // INPUTS
        shift = (tap // KERNEL * columns + tap % KERNEL) * INPUTS + k % INPUTS
        reads = (taps[:, None] >> tap[None, :]) & 1
        a = tl.load(x_ptrs + shift[None, :], mask=reads != 0, other=0.0)
        weighs = (k < LENGTH)[:, None] & (o < OUTPUTS)[None, :]
        b = tl.load(w_ptrs + k[:, None], mask=weighs, other=0.0)
        if WIDEN:  # the interpreter takes bfloat16 for integers in a product
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        sums = tl.dot(a, b, sums, input_precision=PRECISION)
    if scale_ptr is not None:
        scale_ptrs = scale_ptr + n * scale_stride_n + o
        sums *= tl.load(scale_ptrs, mask=o < OUTPUTS, other=0.0)[None, :]
    if bias_ptr is not None:
        sums += tl.load(bias_ptr + o, mask=o < OUTPUTS, other=0.0)[None, :]
    places = (n * out_rows * out_columns + m)[:, None] * OUTPUTS + o[None, :]
    known = (m < out_rows * out_columns)[:, None] & (o < OUTPUTS)[None, :]
    tl.store(out_ptr + places, sums.to(out_ptr.dtype.element_ty), mask=known)


def run(
    x: Tensor,
    conv: PackedConv,
    scale: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    tiles: Tiles | None = None,
) -> Tensor:
    """See `packed_conv2d`; shapes are already checked there. Allocates nothing, waits for nothing.

    Args:
        scale: [N, O'] float32, rows may be strided.
        out: [N, H', W', O'], contiguous.
        tiles: None takes what was measured, else what is likely.
    Raises:
        ValueError: The kernel does not cover the case.
    """
    n, rows, columns = x.shape[:3]
    out_rows, out_columns = out.shape[1:3]
    _check(conv, scale, bias, out)
    tiles = tiles or tiles_of(Work.of(conv, n, rows, columns))
    inputs, outputs = conv.channels
    down = triton.cdiv(out_rows * out_columns, tiles.pixels)
    grid = (down * triton.cdiv(outputs, tiles.channels), n)
    convolve[grid](
        x,
        conv.weight,
        scale,
        bias,
        out,
        rows,
        columns,
        out_rows,
        out_columns,
        0 if scale is None else scale.stride(0),
        INPUTS=inputs,
        OUTPUTS=outputs,
        KERNEL=conv.kernel,
        PADDING=conv.padding,
        PRECISION=conv.precision,
        WIDEN=triton.knobs.runtime.interpret and x.dtype == torch.bfloat16,
        PIXELS=tiles.pixels,
        CHANNELS=tiles.channels,
        DEPTH=tiles.depth,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return out


def _check(conv: PackedConv, scale: Tensor | None, bias: Tensor | None, out: Tensor) -> None:
    """Raises ValueError for what the kernel does not cover."""
    if conv.up != 1 or conv.kernel > LARGEST_KERNEL:
        raise ValueError(
            f"the Triton kernel does up 1 and kernels of at most {LARGEST_KERNEL}, not up "
            f"{conv.up} and {conv.kernel}; implementation('torch') does"
        )
    n, _, _, outputs = out.shape
    if not out.is_contiguous() or not conv.weight.is_contiguous(memory_format=torch.channels_last):
        raise ValueError("out must be contiguous and conv.weight channels-last: use PackedConv.of")
    if scale is not None and (scale.shape != (n, outputs) or scale.stride(1) != 1):
        raise ValueError(
            f"scale {list(scale.shape)} with strides {scale.stride()} must be {[n, outputs]} "
            "with adjacent channels"
        )
    if bias is not None and (bias.shape != (outputs,) or bias.stride(0) != 1):
        raise ValueError(f"bias {list(bias.shape)} must be {[outputs]} with adjacent channels")


def variants() -> list[Variant]:
    """What published networks run: config T at 1024x1024 and 256x256, config R, StyleGAN2."""
    return [
        _variant("fp16_512_512_3x3_small", (512, 512, 3, 2), choices.HALF[1]),
        _variant("fp16_512_512_3x3", (512, 512, 3, 2), choices.HALF[0]),
        _variant("fp16_32_32_3x3", (32, 32, 3, 2), choices.HALF[3]),
        _variant("fp16_1024_1024_1x1_wide", (1024, 1024, 1, 0), choices.HALF[5], wide=True),
        _variant("bf16_336_208_3x3", (336, 208, 3, 2), choices.HALF[2]),
        _variant("fp32_512_512_3x3", (512, 512, 3, 2), choices.SINGLE[0]),
    ]


def _variant(
    name: str, sizes: tuple[int, int, int, int], tiles: Tiles, wide: bool = False
) -> Variant:
    """`sizes`: I', O', kernel, padding. `wide`: tiles that only sm_90 has the memory for."""
    dtype = name.split("_")[0]
    constants: dict[str, int | str] = dict(
        zip(("INPUTS", "OUTPUTS", "KERNEL", "PADDING"), sizes, strict=True)
    )
    constants |= {"PRECISION": "ieee", "WIDEN": False}
    constants |= {"PIXELS": tiles.pixels, "CHANNELS": tiles.channels, "DEPTH": tiles.depth}
    pointers = {"x_ptr": dtype, "weight_ptr": dtype, "scale_ptr": "fp32", "bias_ptr": "fp32"}
    pointers["out_ptr"] = dtype
    numbers = ("rows", "columns", "out_rows", "out_columns", "scale_stride_n")
    turns = -(-sizes[0] * sizes[2] ** 2 // tiles.depth)
    # Loops of some twenty turns are unrolled, on one architecture and not on the next: uncounted.
    results = tiles.pixels * tiles.channels / (32 * tiles.warps)
    return Variant(
        name=f"packed_conv_{name}",
        kernel=convolve,
        signature={key: f"*{value}" for key, value in pointers.items()}
        | dict.fromkeys(numbers, "i32")
        | dict.fromkeys(constants, "constexpr"),
        constants=constants,
        aligned=("scale_stride_n",),
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        shared=(227 if wide else 99) * 1024,
        dot=dtype != "fp32",
        outputs=results / turns if turns > 32 else 0,
        targets=(90,) if wide else (80, 89, 90),
    )
