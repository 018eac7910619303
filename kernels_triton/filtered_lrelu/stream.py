"""One tile of the filtered leaky ReLU, streamed from top to bottom.

A lane owns one channel (two, in packed half precision) of a tile `COLUMNS` outputs wide and walks
down the rows. What it holds in registers: a window of input rows, and the outputs that are being
summed. Every value is one-dimensional, [lanes]; the spatial axes are tuples, unrolled at compile
time, so nothing is exchanged between lanes and shared memory is not used.

Plain Triton and Gluon kernels call the same functions, so what Triton's interpreter checks is what
Gluon compiles. The tables are those of `schedule.Schedule`.
"""

# mypy: disable-error-code="assignment,misc"
# Tuples grow at compile time, one statement at a time: each has another type.

from __future__ import annotations

import triton
import triton.language as tl

from kernels_triton.filtered_lrelu.lanes import (
    FAR,
    HALF,
    PACKED,
    activate,
    fir,
    load_scale,
    plus_times,
    prepared,
    read_row,
    times,
    write_row,
)


@triton.constexpr_function
def moves_at(steps):
    """Oversampled row of a step before which the window moves on; their number: after the last."""
    return list(steps).index(1) if 1 in list(steps) else len(steps)


@triton.jit
def column_sums(
    u,
    sums,
    o: tl.constexpr,
    T: tl.constexpr,
    UP: tl.constexpr,
    TAPS: tl.constexpr,
    TERMS: tl.constexpr,
    FOLD: tl.constexpr,
    ACROSS: tl.constexpr,
    FALL: tl.constexpr,
    MATH: tl.constexpr,
):
    """Filter an oversampled row for output column `o` and add it to the outputs it is part of.

    Args:
        u: The row so far.
        sums: Of all columns: TAPS // 2 outputs each, oldest first. Where T is even the newest does
            not exist yet.
    Returns:
        TAPS // 2 sums of this column.
    """
    HALVES: tl.constexpr = TAPS // 2
    KIND: tl.constexpr = o % (UP // 2)
    filtered = ()
    if FOLD is None:
        for term in tl.static_range(TERMS):
            total = fir(u, 2 * o, 1, ACROSS, (KIND * TERMS + term) * TAPS, TAPS, MATH)
            filtered = filtered + (total,)
    else:
        pairs = ()
        for k in tl.static_range(HALVES):
            first = u[2 * o + k]
            second = u[2 * o + TAPS - 1 - k]
            pairs = pairs + (plus_times(first, second, FOLD[KIND * HALVES + k], MATH),)
        for term in tl.static_range(TERMS):
            total = fir(pairs, 0, 1, ACROSS, (KIND * TERMS + term) * HALVES, HALVES, MATH)
            filtered = filtered + (total,)
    OLDER: tl.constexpr = HALVES - 1 + T % 2
    LAST: tl.constexpr = (KIND * UP + T) * TERMS * HALVES + HALVES - 1
    added = ()
    for k in tl.static_range(OLDER):
        total = sums[o * OLDER + k]
        for term in tl.static_range(TERMS):
            total = plus_times(total, filtered[term], FALL[LAST + term * HALVES - k], MATH)
        added = added + (total,)
    if T % 2 == 0:
        total = times(filtered[0], FALL[LAST - HALVES + 1], MATH)
        for term in tl.static_range(1, TERMS):
            total = plus_times(total, filtered[term], FALL[LAST + term * HALVES - HALVES + 1], MATH)
        added = added + (total,)
    return added


@triton.jit
def oversampled_row(
    window,
    sums,
    T: tl.constexpr,
    COLUMNS: tl.constexpr,
    SAMPLES: tl.constexpr,
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
    """One row of phase T: along y, along x, activated, and along x into the sums.

    From left to right, so that only a few values live at a time.
    """
    v = ()  # the row, oversampled along y only
    u = ()
    added = ()
    for c in tl.static_range(2 * COLUMNS + TAPS - 2):
        for i in tl.static_range(len(v), c // UP + STEPS[c % UP] + WINDOW):
            v = v + (fir(window, i, SAMPLES, RISE, T * WINDOW, WINDOW, MATH),)
        value = fir(v, c // UP + STEPS[c % UP], 1, RISE, (c % UP) * WINDOW, WINDOW, MATH)
        u = u + (activate(value, SLOPE, LIMITS[T * UP + c % UP], MATH, SIGNED),)
        if c % 2 == 1 and c >= TAPS - 1:
            added = added + column_sums(
                u, sums, (c - TAPS + 1) // 2, T, UP, TAPS, TERMS, FOLD, ACROSS, FALL, MATH
            )
    return added


@triton.jit
def oldest(sums, COLUMNS: tl.constexpr, HALVES: tl.constexpr):
    """The finished output of every column."""
    done = ()
    for o in tl.static_range(COLUMNS):
        done = done + (sums[o * HALVES],)
    return done


@triton.jit
def younger(sums, COLUMNS: tl.constexpr, HALVES: tl.constexpr):
    """All but the finished outputs."""
    rest = ()
    for o in tl.static_range(COLUMNS):
        for k in tl.static_range(1, HALVES):
            rest = rest + (sums[o * HALVES + k],)
    return rest


@triton.jit
def zeros_like_lanes(lanes, MATH: tl.constexpr):
    """[lanes] zeros of the type that sums are computed in."""
    if MATH == PACKED:
        return lanes * 0
    elif MATH == HALF:
        return (lanes * 0).to(tl.float16)
    else:
        return (lanes * 0).to(tl.float32)


@triton.jit
def no_sums(lanes, COUNT: tl.constexpr, MATH: tl.constexpr):
    """What outputs begin with."""
    zero = zeros_like_lanes(lanes, MATH)
    sums = ()
    for _ in tl.static_range(COUNT):
        sums = sums + (zero,)
    return sums


@triton.jit
def first_window(
    here_ptr,
    row,
    height,
    width,
    column,
    inside,
    scale,
    bias,
    CHANNELS: tl.constexpr,
    SAMPLES: tl.constexpr,
    WINDOW: tl.constexpr,
    MATH: tl.constexpr,
):
    """WINDOW rows from `row` on, prepared."""
    window = ()
    for _ in tl.static_range(WINDOW):
        samples = read_row(here_ptr, row, height, width, column, inside, CHANNELS, SAMPLES)
        window = window + prepared(
            samples, row, height, width, column, inside, scale, bias, SAMPLES, MATH
        )
        row += 1
    return window


@triton.jit
def moved_on(window, row, SAMPLES: tl.constexpr, WINDOW: tl.constexpr):
    """The window one row further down."""
    kept = ()
    for i in tl.static_range(SAMPLES, SAMPLES * WINDOW):
        kept = kept + (window[i],)
    return kept + row


@triton.jit
def stream_tile(
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
    lanes,
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
    """The program's tile: `rows` rows by COLUMNS columns for each of LANES consecutive pairs of
    (tile column, channel), channel fastest.

    Args:
        rows: Output rows of a strip; a multiple of UP // 2.
        turns: Turns of the loop, UNROLL input rows each, that finish that many.
        origin: `Schedule.origin`.
        lanes: [LANES], 0 to LANES - 1, in the layout that everything has.
    """
    HALVES: tl.constexpr = TAPS // 2
    MOVES: tl.constexpr = moves_at(STEPS)
    PER_LANE: tl.constexpr = 2 if MATH == PACKED else 1
    channels: tl.constexpr = CHANNELS // PER_LANE
    begin = tl.program_id(0) * LANES
    lane = begin + lanes
    channel = lane % channels
    tile = lane // channels
    tiles = (out_width + COLUMNS - 1) // COLUMNS
    wanted = tile < tiles
    sample = tl.program_id(2).to(tl.int64)
    first_row = tl.program_id(1) * rows  # of the output
    own_rows = tl.minimum(rows, out_height - first_row)
    row = first_row * 2 // UP + origin  # of the input, at the top of the window
    column = tile * (2 * COLUMNS // UP) + origin
    out_column = tile * COLUMNS
    last = begin + LANES - 1
    all_wanted = last < tiles * channels
    leftmost = begin // channels * (2 * COLUMNS // UP) + origin
    rightmost = last // channels * (2 * COLUMNS // UP) + origin + SAMPLES
    inside = all_wanted & (leftmost >= 0) & (rightmost <= width)
    whole = all_wanted & ((last // channels + 1) * COLUMNS <= out_width)

    scale_in = None
    bias = None
    scale_out = None
    if scale_in_ptr is not None:
        scale_in = load_scale(scale_in_ptr + sample * scale_in_stride, channel, MATH)
    if bias_ptr is not None:
        bias = load_scale(bias_ptr, channel, MATH)
    if scale_out_ptr is not None:
        scale_out = load_scale(scale_out_ptr + sample * scale_out_stride, channel, MATH)
    if MATH == PACKED:  # a word holds a pair of channels
        x_ptr = x_ptr.to(tl.pointer_type(tl.int32))
        out_ptr = out_ptr.to(tl.pointer_type(tl.int32))
    here_ptr = x_ptr + sample * height * width * channels + (column * channels + channel)
    there_ptr = out_ptr + (sample * out_height + first_row) * out_width * channels
    there_ptr += out_column * channels + channel
    column = tl.where(wanted, column, FAR)
    out_column = tl.where(wanted, out_column, FAR)
    window = first_window(
        here_ptr,
        row,
        height,
        width,
        column,
        inside,
        scale_in,
        bias,
        channels,
        SAMPLES,
        WINDOW,
        MATH,
    )
    row += WINDOW
    sums = no_sums(lanes, COLUMNS * (HALVES - 1), MATH)
    out_row = tl.program_id(1) * 0 + (1 - HALVES)
    turn = tl.program_id(1) * 0
    while turn < turns:  # the interpreter of numpy 2.4 has no range of what is not constant
        for _ in tl.static_range(UNROLL):
            for t in tl.static_range(UP):
                if t == max(MOVES - UP // 2, 0):  # early: memory is far away
                    samples = read_row(
                        here_ptr, row, height, width, column, inside, channels, SAMPLES
                    )
                if t == MOVES:
                    below = prepared(
                        samples, row, height, width, column, inside, scale_in, bias, SAMPLES, MATH
                    )
                    window = moved_on(window, below, SAMPLES, WINDOW)
                sums = oversampled_row(
                    window,
                    sums,
                    t,
                    COLUMNS,
                    SAMPLES,
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
                if t % 2 == 1:
                    write_row(
                        there_ptr,
                        oldest(sums, COLUMNS, HALVES),
                        out_row,
                        own_rows,
                        out_width,
                        out_column,
                        whole,
                        scale_out,
                        channels,
                        COLUMNS,
                        MATH,
                    )
                    out_row += 1
                    sums = younger(sums, COLUMNS, HALVES)
            if MOVES == UP:
                below = prepared(
                    samples, row, height, width, column, inside, scale_in, bias, SAMPLES, MATH
                )
                window = moved_on(window, below, SAMPLES, WINDOW)
            row += 1
        turn += 1
