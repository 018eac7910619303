"""What follows StyleGAN2's transposed convolution, as a Triton kernel: filter, bias, activation.

All arithmetic is in float32, whatever the storage.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels_triton.aot import Variant
from kernels_triton.bias_act.epilogue import Epilogue
from kernels_triton.bias_act.kernel import channel_block, finish, row_stride

# A lane holds 8 bytes of channels in FIR_COLUMNS neighbouring outputs. On sm_90 four channels of
# float16 take 19 issue slots per output and 165 registers, two take 22 and 91, two in eight columns
# 20 and 159 with longer halos. Few warps are enough, since each has 28 loads under way at once.
FIR_WARPS, FIR_COLUMNS, FIR_LANE_BYTES = 4, 4, 8
FIR_PROGRAMS = 1024  # below this many programs, strips become shorter: an H200 runs 396 at a time
FIR_TURNS = 8  # 32 rows of 4 taps: 3 rows in 32 are filtered twice


@triton.jit
def _row(ptr, inside, there, CHANNELS: tl.constexpr, SAMPLES: tl.constexpr):
    """SAMPLES neighbouring columns of the tile's input row, zero outside of the picture."""
    row = ()  # type: tuple
    for i in tl.static_range(SAMPLES):
        row = row + (tl.load(ptr + i * CHANNELS, mask=inside[i] & there, other=0.0),)
    return row


@triton.jit
def _along_x(row, first, TAPS: tl.constexpr, COUNT: tl.constexpr, COLUMNS: tl.constexpr):
    """Filters one row of blocks from block `first` on: COLUMNS blocks of float32."""
    wide = ()  # type: tuple
    for i in tl.static_range(COLUMNS + COUNT - 1):
        wide = wide + (row[first + i].to(tl.float32),)
    filtered = ()  # type: tuple
    for o in tl.static_range(COLUMNS):
        total = wide[o] * TAPS[0]
        for k in tl.static_range(1, COUNT):
            total += wide[o + k] * TAPS[k]
        filtered = filtered + (total,)
    return filtered


@triton.jit
def _from(blocks, first: tl.constexpr, count: tl.constexpr):
    part = ()  # type: tuple
    for i in tl.static_range(count):
        part = part + (blocks[first + i],)
    return part


@triton.jit
def _down_column(
    window, column: tl.constexpr, TAPS: tl.constexpr, COUNT: tl.constexpr, COLUMNS: tl.constexpr
):
    """Filters COUNT rows of COLUMNS blocks along y, in one column."""
    total = window[column] * TAPS[0]
    for k in tl.static_range(1, COUNT):
        total += window[k * COLUMNS + column] * TAPS[k]
    return total


@triton.jit(do_not_specialize=["height", "width", "out_height", "out_width", "pad"])
def fir_bias_act_kernel(
    x_ptr,
    noise_ptr,
    bias_ptr,
    scale_in_ptr,
    scale_out_ptr,
    out_ptr,
    height,
    width,
    out_height,
    out_width,
    scale_in_stride_n,
    scale_out_stride_n,
    pad,
    strength,
    slope,
    gain,
    limit,
    CHANNELS: tl.constexpr,
    TURNS: tl.constexpr,
    TAPS: tl.constexpr,
    COUNT: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # Tile: BLOCK_C channels, which divide all, GROUPS x COLUMNS output columns and TURNS x COUNT
    # output rows of one picture. A lane keeps the last COUNT - 1 rows, filtered along x, in
    # registers; a turn takes COUNT rows, so that the rows' places repeat and nothing is moved.
    # The largest of TAPS is 1: it costs no product, and `strength` makes up for it.
    SAMPLES: tl.constexpr = COLUMNS + COUNT - 1
    KEPT: tl.constexpr = (COUNT - 1) * COLUMNS
    BLOCKS: tl.constexpr = CHANNELS // BLOCK_C
    n = tl.program_id(2).to(tl.int64)
    c = tl.program_id(0) % BLOCKS * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    group = tl.program_id(0) // BLOCKS * GROUPS + tl.arange(0, GROUPS)[:, None]
    column = group * COLUMNS
    top = tl.program_id(1) * (TURNS * COUNT)
    first = (n * height + top - pad) * width - pad
    source = x_ptr + first * CHANNELS + (column * CHANNELS + c)
    first = (n * out_height + top) * out_width
    target = out_ptr + first * CHANNELS + (column * CHANNELS + c)
    if noise_ptr is not None:
        noise_ptr += top * out_width

    inside = ()  # type: tuple
    kept = ()  # type: tuple
    for i in tl.static_range(SAMPLES):
        x = column + i - pad
        inside = inside + ((x >= 0) & (x < width) & (c >= 0),)
    for o in tl.static_range(COLUMNS):
        kept = kept + ((column + o < out_width) & (c >= 0),)

    # A positive gain passes through the leaky ReLU: it costs nothing on scale and bias.
    bias = tl.load(bias_ptr + c) * gain
    scale = tl.full((1, BLOCK_C), 1.0, tl.float32) * (strength * gain)
    if scale_in_ptr is not None:
        scale *= tl.load(scale_in_ptr + n * scale_in_stride_n + c)
    scale_out = tl.full((1, BLOCK_C), 1.0, tl.float32)
    if scale_out_ptr is not None:
        scale_out = tl.load(scale_out_ptr + n * scale_out_stride_n + c)

    window = ()  # type: tuple
    y = top - pad
    for _ in tl.static_range(COUNT - 1):
        row = _row(source, inside, (y >= 0) & (y < height), CHANNELS, SAMPLES)
        window = window + _along_x(row, 0, TAPS, COUNT, COLUMNS)
        source += width * CHANNELS
        y += 1
    line = top
    for _ in range(TURNS):
        # All loads of a turn come before its stores, so that they are under way together.
        rows = ()  # type: tuple
        for _k in tl.static_range(COUNT):
            rows = rows + _row(source, inside, (y >= 0) & (y < height), CHANNELS, SAMPLES)
            source += width * CHANNELS
            y += 1
        for k in tl.static_range(COUNT):
            window = window + _along_x(rows, k * SAMPLES, TAPS, COUNT, COLUMNS)
            there = line < out_height
            for o in tl.static_range(COLUMNS):
                value = _down_column(window, o, TAPS, COUNT, COLUMNS) * scale + bias
                if noise_ptr is not None:
                    mask = (column + o < out_width) & there
                    value += tl.load(noise_ptr + (column + o), mask=mask, other=0.0) * gain
                value = finish(value, slope, limit) * scale_out
                tl.store(
                    target + o * CHANNELS, value.to(out_ptr.dtype.element_ty), mask=kept[o] & there
                )
            window = _from(window, COLUMNS, KEPT)
            target += out_width * CHANNELS
            line += 1
            if noise_ptr is not None:
                noise_ptr += out_width


def _groups(bytes_each: int, block_c: int) -> int:
    """How many groups of columns fill a program's lanes."""
    return 32 * FIR_WARPS * (FIR_LANE_BYTES // bytes_each) // block_c


def fir_bias_act(
    x: Tensor,
    taps: tuple[float, ...],
    pad: int,
    end: Epilogue,
    scale_in: Tensor | None,
    scale_out: Tensor | None,
    out: Tensor,
) -> Tensor:
    """See `kernels_triton.upfirdn2d.fir_bias_act`; arguments are already checked and completed
    here. Allocates nothing.

    Raises:
        ValueError: More or fewer than 2 to 8 taps, all taps zero, or strides that the kernel cannot
            walk.
    """
    peak = max(taps, key=abs, default=0.0)
    if not 2 <= len(taps) <= 8 or peak == 0:
        raise ValueError(f"taps are {taps}; the kernel takes 2 to 8, not all zero")
    n, height, width, channels = x.shape
    out_height, out_width = out.shape[1:3]
    block_c = channel_block(channels, 64)
    groups = _groups(x.element_size(), block_c)
    columns = FIR_COLUMNS if len(taps) <= 5 else 1  # or registers run out
    across = channels // block_c * triton.cdiv(out_width, groups * columns)
    strips = triton.cdiv(out_height, len(taps))
    turns = 1  # a power of two, so that there are few kernels to compile
    while turns < FIR_TURNS and n * across * strips >= 2 * turns * FIR_PROGRAMS:
        turns *= 2
    fir_bias_act_kernel[(across, triton.cdiv(strips, turns), n)](
        x,
        end.noise,
        end.bias,
        scale_in,
        scale_out,
        out,
        height,
        width,
        out_height,
        out_width,
        row_stride(scale_in, "scale_in"),
        row_stride(scale_out, "scale_out"),
        pad,
        peak * peak,
        end.slope,
        end.gain,
        end.clamp,
        CHANNELS=channels,
        TURNS=turns,
        TAPS=tuple(tap / peak for tap in taps),
        COUNT=len(taps),
        COLUMNS=columns,
        GROUPS=groups,
        BLOCK_C=block_c,
        num_warps=FIR_WARPS,
    )
    return out


def _variant(name: str, dtype: str, channels: int) -> Variant:
    signature = {
        "x_ptr": f"*{dtype}",
        **dict.fromkeys(("noise_ptr", "bias_ptr", "scale_in_ptr", "scale_out_ptr"), "*fp32"),
        "out_ptr": f"*{dtype}",
        **dict.fromkeys(("height", "width", "out_height", "out_width"), "i32"),
        **dict.fromkeys(("scale_in_stride_n", "scale_out_stride_n", "pad"), "i32"),
        **dict.fromkeys(("strength", "slope", "gain", "limit"), "fp32"),
        **dict.fromkeys(("CHANNELS", "TURNS"), "constexpr"),
        "TAPS": ("constexpr",) * 4,
        **dict.fromkeys(("COUNT", "COLUMNS", "GROUPS", "BLOCK_C"), "constexpr"),
    }
    block_c = channel_block(channels, 64)
    bytes_each = 4 if dtype == "fp32" else 2
    constants = {"CHANNELS": channels, "TURNS": 4, "TAPS": (1 / 3, 1.0, 1.0, 1 / 3)}
    constants |= {
        "COUNT": 4,
        "COLUMNS": FIR_COLUMNS,
        "GROUPS": _groups(bytes_each, block_c),
        "BLOCK_C": block_c,
    }
    return Variant(
        name,
        fir_bias_act_kernel,
        signature,
        constants,
        aligned=("scale_in_stride_n", "scale_out_stride_n"),
        num_warps=FIR_WARPS,
        registers=168,
        shared=0,
        outputs=FIR_LANE_BYTES // bytes_each * 4 * FIR_COLUMNS,
    )


def variants() -> list[Variant]:
    """What StyleGAN2 runs with, in the narrowest and the widest storage."""
    return [
        _variant("fir_bias_act_fp16_c128", "fp16", 128),
        _variant("fir_bias_act_fp16_c32", "fp16", 32),
        _variant("fir_bias_act_fp32_c128", "fp32", 128),
    ]
