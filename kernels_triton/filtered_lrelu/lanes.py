"""What the filtered leaky ReLU's kernels do on lanes of one channel, or two: arithmetic, and rows
between memory and registers.

Taps are compile-time constants and end up inside the instructions. Plain Triton and Gluon kernels
call the same functions.
"""

# mypy: disable-error-code="assignment"
# Tuples grow at compile time, one statement at a time: each has another type.

from __future__ import annotations

import triton
import triton.language as tl

# How sums are computed: in float32; in half precision; in half precision, two channels at a time;
# in float32 by instructions that the compiler leaves in our order, for its own spills registers.
FLOAT = tl.constexpr(0)
HALF = tl.constexpr(1)
PACKED = tl.constexpr(2)
ORDERED = tl.constexpr(3)

NAN = tl.constexpr(tl.PropagateNan.ALL)
FAR = tl.constexpr(-(2**30))  # a column outside of every picture


@triton.constexpr_function
def half_pair(value):
    """The bits of a half-precision number, twice in a word; too large a number is the largest."""
    import struct  # here: Triton refuses functions of a module's globals that are not its own

    held = max(-65504.0, min(65504.0, value))
    return struct.unpack("<H", struct.pack("<e", held))[0] * 0x10001


@triton.constexpr_function
def first_of(taps, at, count):
    """Where a sum of `count` taps begins: at the tap that is 1, which costs nothing."""
    magnitudes = [abs(taps[at + j]) for j in range(count)]
    ones = [j for j in range(count) if taps[at + j] == 1.0]
    return ones[0] if ones else magnitudes.index(max(magnitudes))


@triton.constexpr_function
def times_text(tap):
    return f"{{ .reg .b32 t; mov.b32 t, {half_pair(tap)}; mul.rn.f16x2 $0, $1, t; }}"


@triton.constexpr_function
def plus_times_text(tap):
    return f"{{ .reg .b32 t; mov.b32 t, {half_pair(tap)}; fma.rn.f16x2 $0, $1, t, $2; }}"


@triton.constexpr_function
def activate_text(slope, limit, signed):
    """Leaky ReLU and clamp of two halves. `signed` clamps in one instruction, since sm_86."""
    high, low = half_pair(limit), half_pair(-limit)
    lines = [f"mov.b32 c, {half_pair(slope)}; mul.rn.f16x2 t, $1, c; max.NaN.f16x2 t, $1, t;"]
    if limit == float("inf"):
        lines += ["mov.b32 $0, t;"]
    elif signed:
        lines += [f"mov.b32 c, {high}; min.NaN.xorsign.abs.f16x2 $0, t, c;"]
    else:
        lines += [f"mov.b32 c, {high}; min.NaN.f16x2 t, t, c;"]
        lines += [f"mov.b32 c, {low}; max.NaN.f16x2 $0, t, c;"]
    return "{ .reg .b32 c, t; " + " ".join(lines) + " }"


@triton.constexpr_function
def float_bits(value):
    import struct

    return struct.unpack("<I", struct.pack("<f", value))[0]


@triton.constexpr_function
def float_plus_times_text(tap):
    return f"fma.rn.f32 $0, $1, 0f{float_bits(tap):08X}, $2;"


@triton.constexpr_function
def clamp_text(limit):
    return f"min.NaN.xorsign.abs.f32 $0, $1, 0f{float_bits(limit):08X};"


@triton.jit
def load_scale(ptr, channel, MATH: tl.constexpr):
    """Factors or biases of the lanes, in the type that sums are computed in.

    Args:
        ptr: [C] float32.
        channel: [lanes]: number of the lane's channel, or pair of channels.
    """
    if MATH == PACKED:
        low = tl.load(ptr + channel * 2)
        high = tl.load(ptr + channel * 2 + 1)
        return tl.inline_asm_elementwise(
            "cvt.rn.f16x2.f32 $0, $2, $1;",
            "=r,f,f",
            [low, high],
            dtype=tl.int32,
            is_pure=True,
            pack=1,
        )
    elif MATH == HALF:
        return tl.load(ptr + channel).to(tl.float16)
    else:
        return tl.load(ptr + channel)


@triton.jit
def plus(a, b, MATH: tl.constexpr):
    """a + b"""
    if MATH == PACKED:
        return tl.inline_asm_elementwise(
            "add.rn.f16x2 $0, $1, $2;", "=r,r,r", [a, b], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        return a + b


@triton.jit
def times(a, TAP: tl.constexpr, MATH: tl.constexpr):
    """a * TAP"""
    if TAP == 1.0:
        return a
    elif MATH == PACKED:
        return tl.inline_asm_elementwise(
            times_text(TAP), "=r,r", [a], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        return a * TAP


@triton.jit
def plus_times(b, a, TAP: tl.constexpr, MATH: tl.constexpr):
    """b + a * TAP"""
    if TAP == 0.0:
        return b
    elif TAP == 1.0:
        return plus(b, a, MATH)
    elif MATH == PACKED:
        return tl.inline_asm_elementwise(
            plus_times_text(TAP), "=r,r,r", [a, b], dtype=tl.int32, is_pure=True, pack=1
        )
    elif MATH == ORDERED:
        return tl.inline_asm_elementwise(
            float_plus_times_text(TAP), "=f,f,f", [a, b], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return b + a * TAP


@triton.jit
def scaled(a, scale, bias, MATH: tl.constexpr):
    """a * scale + bias, either of which may be None, in the type that sums are computed in."""
    if MATH == PACKED:
        if scale is not None and bias is not None:
            return tl.inline_asm_elementwise(
                "fma.rn.f16x2 $0, $1, $2, $3;",
                "=r,r,r,r",
                [a, scale, bias],
                dtype=tl.int32,
                is_pure=True,
                pack=1,
            )
        elif scale is not None:
            return tl.inline_asm_elementwise(
                "mul.rn.f16x2 $0, $1, $2;",
                "=r,r,r",
                [a, scale],
                dtype=tl.int32,
                is_pure=True,
                pack=1,
            )
        elif bias is not None:
            return plus(a, bias, MATH)
        else:
            return a
    else:
        if MATH != HALF:
            a = a.to(tl.float32)
        if scale is not None:
            a = a * scale
        if bias is not None:
            a = a + bias
        return a


@triton.jit
def activate(a, SLOPE: tl.constexpr, LIMIT: tl.constexpr, MATH: tl.constexpr, SIGNED: tl.constexpr):
    """Leaky ReLU and clamp to [-LIMIT, LIMIT]; what is not a number stays so."""
    if MATH == PACKED:
        return tl.inline_asm_elementwise(
            activate_text(SLOPE, LIMIT, SIGNED),
            "=r,r",
            [a],
            dtype=tl.int32,
            is_pure=True,
            pack=1,
        )
    else:
        a = tl.maximum(a, a * SLOPE, propagate_nan=NAN)
        if LIMIT == float("inf"):
            return a
        elif SIGNED:
            return tl.inline_asm_elementwise(
                clamp_text(LIMIT), "=f,f", [a], dtype=tl.float32, is_pure=True, pack=1
            )
        else:
            return tl.clamp(a, -LIMIT, LIMIT, propagate_nan=NAN)


@triton.jit
def fir(
    values,
    FIRST: tl.constexpr,
    STRIDE: tl.constexpr,
    TAPS: tl.constexpr,
    AT: tl.constexpr,
    COUNT: tl.constexpr,
    MATH: tl.constexpr,
):
    """The sum over j < COUNT of values[FIRST + j * STRIDE] * TAPS[AT + j]."""
    BEGIN: tl.constexpr = first_of(TAPS, AT, COUNT)
    total = times(values[FIRST + BEGIN * STRIDE], TAPS[AT + BEGIN], MATH)
    for j in tl.static_range(COUNT):
        if j != BEGIN:
            total = plus_times(total, values[FIRST + j * STRIDE], TAPS[AT + j], MATH)
    return total


@triton.jit
def is_there(column, width):
    """Whether a column is one of the picture: one comparison, as a negative one becomes large."""
    return column.to(tl.uint32, bitcast=True) < width.to(tl.uint32, bitcast=True)


@triton.jit
def load_all(here_ptr, CHANNELS: tl.constexpr, SAMPLES: tl.constexpr):
    samples = ()
    for i in tl.static_range(SAMPLES):
        samples = samples + (tl.load(here_ptr + i * CHANNELS),)
    return samples


@triton.jit
def load_some(here_ptr, column, width, CHANNELS: tl.constexpr, SAMPLES: tl.constexpr):
    samples = ()
    for i in tl.static_range(SAMPLES):
        there = is_there(column + i, width)
        samples = samples + (tl.load(here_ptr + i * CHANNELS, mask=there, other=0),)
    return samples


@triton.jit
def read_row(
    x_ptr, row, height, width, column, inside, CHANNELS: tl.constexpr, SAMPLES: tl.constexpr
):
    """SAMPLES values of a row as they lie in memory, zero where there is no picture.

    Args:
        column: [lanes]: first column, FAR for a lane that has nothing to do.
        inside: Whether no lane has a column outside. Most tiles are so, and need no masks.
    """
    here_ptr = x_ptr + row.to(tl.int64) * width * CHANNELS
    there = (row >= 0) & (row < height)
    if there & inside:
        samples = load_all(here_ptr, CHANNELS, SAMPLES)
    else:
        samples = load_some(here_ptr, tl.where(there, column, FAR), width, CHANNELS, SAMPLES)
    return samples


@triton.jit
def all_scaled(samples, scale, bias, SAMPLES: tl.constexpr, MATH: tl.constexpr):
    ready = ()
    for i in tl.static_range(SAMPLES):
        ready = ready + (scaled(samples[i], scale, bias, MATH),)
    return ready


@triton.jit
def some_scaled(samples, column, width, scale, bias, SAMPLES: tl.constexpr, MATH: tl.constexpr):
    ready = ()
    for i in tl.static_range(SAMPLES):
        there = is_there(column + i, width)
        ready = ready + (tl.where(there, scaled(samples[i], scale, bias, MATH), 0),)
    return ready


@triton.jit
def prepared(
    samples,
    row,
    height,
    width,
    column,
    inside,
    scale,
    bias,
    SAMPLES: tl.constexpr,
    MATH: tl.constexpr,
):
    """A row in the type that sums are computed in, scaled and biased inside the picture only.

    Apart from `read_row`, so that nothing waits for memory before the row is needed.
    """
    if bias is None:  # a scaled zero is zero
        return all_scaled(samples, scale, bias, SAMPLES, MATH)
    else:
        there = (row >= 0) & (row < height)
        if there & inside:
            ready = all_scaled(samples, scale, bias, SAMPLES, MATH)
        else:
            ready = some_scaled(
                samples, tl.where(there, column, FAR), width, scale, bias, SAMPLES, MATH
            )
        return ready


@triton.jit
def write_row(
    out_ptr,
    values,
    row,
    rows,
    width,
    column,
    whole,
    scale,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MATH: tl.constexpr,
):
    """A finished row of the tile, if it is one of the tile's own."""
    if (row >= 0) & (row < rows):
        here_ptr = out_ptr + row.to(tl.int64) * width * CHANNELS
        if whole:
            for o in tl.static_range(COLUMNS):
                done = scaled(values[o], scale, None, MATH).to(out_ptr.dtype.element_ty)
                tl.store(here_ptr + o * CHANNELS, done)
        else:
            for o in tl.static_range(COLUMNS):
                done = scaled(values[o], scale, None, MATH).to(out_ptr.dtype.element_ty)
                tl.store(here_ptr + o * CHANNELS, done, mask=is_there(column + o, width))
