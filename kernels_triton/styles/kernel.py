"""style_scales in two launches, however many layers there are.

The first adds the motion's part to all raw styles. The second normalises and demodulates: every
program reads the whole raw style of its layer, which is short, and writes a piece of the layer's
factors. So raw styles and finished scales never share memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels_triton.aot import Variant
from kernels_triton.styles.op import PIECE
from kernels_triton.styles.reference import TINY

if TYPE_CHECKING:
    from kernels_triton.styles.op import StyleTable

MOST_SAMPLES = 8  # that share one reading of the matrices
ROWS = 16  # styles per program of the first launch: some 500 programs for a network
PARTIAL = 256  # partial sums per row that a program holds: 32 registers per thread


@triton.jit(do_not_specialize=["samples", "styles"])
def add_motion(
    base_ptr,
    motion_ptr,
    matrix_ptr,
    raw_ptr,
    samples,
    styles,
    base_stride_n,
    motion_stride_n,
    raw_stride_n,
    MOTION: tl.constexpr,
    SAMPLES: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    # One tile: ROWS raw styles, of whichever layers, of SAMPLES samples.
    s = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = (tl.program_id(1) * SAMPLES + tl.arange(0, SAMPLES)).to(tl.int64)
    # Summed across threads once, after the loop.
    partial = tl.zeros((ROWS, DEPTH, SAMPLES), tl.float32)
    for start in range(0, MOTION, DEPTH):
        d = start + tl.arange(0, DEPTH)
        weighs = (s < styles)[:, None] & (d < MOTION)[None, :]
        matrix = tl.load(matrix_ptr + s[:, None] * MOTION + d[None, :], mask=weighs, other=0.0)
        moves = (d < MOTION)[:, None] & (n < samples)[None, :]
        places = n[None, :] * motion_stride_n + d[:, None]
        motion = tl.load(motion_ptr + places, mask=moves, other=0.0)
        partial += matrix.to(tl.float32)[:, :, None] * motion[None, :, :]
    known = (s < styles)[:, None] & (n < samples)[None, :]
    raw = tl.load(base_ptr + n[None, :] * base_stride_n + s[:, None], mask=known, other=0.0)
    raw += tl.sum(partial, 1)
    tl.store(raw_ptr + n[None, :] * raw_stride_n + s[:, None], raw, mask=known)


@triton.jit(do_not_specialize=["samples"])
def demodulate(
    raw_ptr,
    pieces_ptr,
    gains_ptr,
    squares_ptr,
    epsilon_ptr,
    scale_ptr,
    demod_ptr,
    samples,
    raw_stride_n,
    scale_stride_n,
    demod_stride_n,
    tiny,
    WIDEST: tl.constexpr,
    SAMPLES: tl.constexpr,
    PIECE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    # One tile: PIECE columns of `scale` and of `demod` of one layer, of SAMPLES samples.
    # See StyleTable.pieces for the row that says which.
    piece = tl.program_id(0)
    row_ptr = pieces_ptr + piece * 8
    start = tl.multiple_of(tl.load(row_ptr), 16)
    width = tl.multiple_of(tl.load(row_ptr + 1), 16)
    channels = tl.load(row_ptr + 2)
    demod_start = tl.load(row_ptr + 3)
    demod_width = tl.load(row_ptr + 4)
    squares_start = tl.multiple_of(tl.load(row_ptr + 5), 16)
    o = tl.load(row_ptr + 6) + tl.arange(0, PIECE)
    normalize = tl.load(row_ptr + 7)
    n = (tl.program_id(1) * SAMPLES + tl.arange(0, SAMPLES)).to(tl.int64)
    style_ptrs = raw_ptr + n[None, :] * raw_stride_n + start
    # Summed across threads once, after the loop, which is as long for narrow layers as for wide
    # ones: their masked turns read nothing.
    partial = tl.zeros((PIECE, DEPTH, SAMPLES), tl.float32)
    power = tl.zeros((DEPTH, SAMPLES), tl.float32)
    for first in range(0, WIDEST, DEPTH):
        i = first + tl.arange(0, DEPTH)
        reads = (i < width)[:, None] & (n < samples)[None, :]
        style = tl.load(style_ptrs + i[:, None], mask=reads, other=0.0)
        weighs = (o < demod_width)[:, None] & (i < width)[None, :]
        places = squares_start + o[:, None] * width + i[None, :]
        squares = tl.load(squares_ptr + places, mask=weighs, other=0.0).to(tl.float32)
        power += style * style
        partial += squares[:, :, None] * (style * style)[None, :, :]
    mean = tl.sum(power, 0) / channels + tiny
    factor = tl.where(normalize != 0, tl.rsqrt(mean), 1.0)[None, :]

    known = (o < demod_width)[:, None] & (n < samples)[None, :]
    epsilon = tl.load(epsilon_ptr + demod_start + o, mask=o < demod_width, other=1.0)
    total = tl.sum(partial, 1) * factor * factor + epsilon[:, None]
    demod_ptrs = demod_ptr + n[None, :] * demod_stride_n + (demod_start + o)[:, None]
    tl.store(demod_ptrs, tl.rsqrt(total), mask=known)

    known = (o < width)[:, None] & (n < samples)[None, :]
    style = tl.load(style_ptrs + o[:, None], mask=known, other=0.0)
    scale_ptrs = scale_ptr + n[None, :] * scale_stride_n + (start + o)[:, None]
    tl.store(scale_ptrs, style * (factor * tl.load(gains_ptr + piece)), mask=known)


def run(
    base: Tensor,
    motion: Tensor | None,
    table: StyleTable,
    scale: Tensor,
    demod: Tensor,
    raw: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """See `style_scales`; shapes are already checked there. Rows of all [N, ...] may be strided.

    The first call for a table makes its device copies; a CUDA graph is captured after that.

    Args:
        raw: [N, S] float32 for the raw styles; None makes one where there is motion.
    Raises:
        ValueError: A layout that the kernels do not read.
    """
    if motion is None:
        raw = base
    elif raw is None:
        raw = torch.empty_like(base)
    _check(base, motion, table, scale, demod, raw)
    n, styles = base.shape
    samples = min(MOST_SAMPLES, triton.next_power_of_2(n))
    across = triton.cdiv(n, samples)
    depth = PARTIAL // samples
    if motion is not None:
        add_motion[(triton.cdiv(styles, ROWS), across)](
            base,
            motion,
            table.matrix,
            raw,
            n,
            styles,
            base.stride(0),
            motion.stride(0),
            raw.stride(0),
            MOTION=motion.shape[1],
            SAMPLES=samples,
            ROWS=ROWS,
            DEPTH=depth,
        )
    pieces = table.pieces
    demodulate[(pieces.shape[0], across)](
        raw,
        pieces,
        table.gains,
        table.flat_squares,
        table.epsilon,
        scale,
        demod,
        n,
        raw.stride(0),
        scale.stride(0),
        demod.stride(0),
        TINY,
        WIDEST=table.widest,
        SAMPLES=samples,
        PIECE=PIECE,
        DEPTH=depth,
    )
    return scale, demod


def _check(
    base: Tensor,
    motion: Tensor | None,
    table: StyleTable,
    scale: Tensor,
    demod: Tensor,
    raw: Tensor,
) -> None:
    """Raises ValueError for what the kernels do not read."""
    if raw.shape != base.shape:
        raise ValueError(f"raw {list(raw.shape)} must be {list(base.shape)}")
    if raw.data_ptr() == scale.data_ptr():
        raise ValueError("raw (without motion: base) and scale must not share memory")
    rows = {"base": base, "motion": motion, "scale": scale, "demod": demod, "raw": raw}
    for name, tensor in rows.items():
        if tensor is not None and tensor.shape[1] > 1 and tensor.stride(1) != 1:
            raise ValueError(f"{name} with strides {tensor.stride()} must have adjacent columns")
    if not table.matrix.is_contiguous():
        raise ValueError(f"matrix with strides {table.matrix.stride()} must be contiguous")


def variants() -> list[Variant]:
    """Config T at batch 1 and 8, config R (1024 channels) at batch 1; a motion code of 512."""
    return [
        *(_motion_variant(samples) for samples in (1, 8)),
        *(_demod_variant(samples, widest) for samples, widest in ((1, 512), (8, 512), (1, 1024))),
    ]


def _motion_variant(samples: int) -> Variant:
    constants = {"MOTION": 512, "SAMPLES": samples, "ROWS": ROWS, "DEPTH": PARTIAL // samples}
    strides = ("base_stride_n", "motion_stride_n", "raw_stride_n")
    return Variant(
        name=f"style_motion_n{samples}",
        kernel=add_motion,
        signature=dict.fromkeys(("base_ptr", "motion_ptr", "matrix_ptr", "raw_ptr"), "*fp32")
        | dict.fromkeys(("samples", "styles", *strides), "i32")
        | dict.fromkeys(constants, "constexpr"),
        constants=constants,
        aligned=strides,
        registers=128,
        outputs=ROWS * samples / 128 / (512 * samples // PARTIAL),
    )


def _demod_variant(samples: int, widest: int) -> Variant:
    depth = PARTIAL // samples
    constants = {"WIDEST": widest, "SAMPLES": samples, "PIECE": PIECE, "DEPTH": depth}
    strides = ("raw_stride_n", "scale_stride_n", "demod_stride_n")
    floats = ("gains_ptr", "squares_ptr", "epsilon_ptr", "scale_ptr", "demod_ptr")
    return Variant(
        name=f"style_demod_n{samples}_{widest}",
        kernel=demodulate,
        signature={"raw_ptr": "*fp32", "pieces_ptr": "*i32"}
        | dict.fromkeys(floats, "*fp32")
        | dict.fromkeys(("samples", *strides), "i32")
        | {"tiny": "fp32"}
        | dict.fromkeys(constants, "constexpr"),
        constants=constants,
        aligned=strides,
        registers=192,
        # The compiler unrolls the loop over 1024 channels: uncounted.
        outputs=PIECE * samples / 128 / (widest // depth) if widest == 512 else 0,
    )
