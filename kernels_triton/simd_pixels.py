"""What the pixel kernels add to `simd`: sums across lanes, bytes, interleaved colours.

Every function names its lanes with constant shuffles, which LLVM lowers to whatever the processor
has. Vectors are `simd.f32x16`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels_triton.simd import LANES, f32x16

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORD = ir.IntType(32)
_BYTES = ir.VectorType(ir.IntType(8), LANES)
_QUADS = range(0, LANES, 4)


def _shuffle(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    """Lane k of the result is lane order[k] of a, or lane order[k] - 16 of b."""
    lanes = ir.Constant(ir.VectorType(_WORD, len(order)), list(order))
    return builder.shuffle_vector(a, b, lanes)


def _sum_of(builder: Any, a: Any, b: Any, low: Sequence[int], high: Sequence[int]) -> Any:
    return builder.fadd(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high))


# Adding across lanes four pixels at a time: one instruction per pixel and step that never leaves a
# quarter of the register, then twice the halves.
_FIRST = (
    [lane for k in _QUADS for lane in (k, k + 16, k + 1, k + 17)],
    [lane for k in _QUADS for lane in (k + 2, k + 18, k + 3, k + 19)],
)
_SECOND = (
    [lane for k in _QUADS for lane in (k, k + 1, k + 16, k + 17)],
    [lane for k in _QUADS for lane in (k + 2, k + 3, k + 18, k + 19)],
)
_THIRD = ([*range(8), *range(16, 24)], [*range(8, 16), *range(24, 32)])
_FOURTH = (
    [lane for k in (0, 8, 16, 24) for lane in range(k, k + 4)],
    [lane for k in (4, 12, 20, 28) for lane in range(k, k + 4)],
)


@intrinsic
def vsum4(typing_context: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """A quarter of four sums: lanes 4 k to 4 k + 3 hold the sums of those lanes of a, b, c, d."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        left = _sum_of(builder, values[0], values[1], *_FIRST)
        right = _sum_of(builder, values[2], values[3], *_FIRST)
        return _sum_of(builder, left, right, *_SECOND)

    return f32x16(f32x16, f32x16, f32x16, f32x16), generate


@intrinsic
def vsum16(typing_context: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Four results of `vsum4` to sixteen sums, in order."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        left = _sum_of(builder, values[0], values[1], *_THIRD)
        right = _sum_of(builder, values[2], values[3], *_THIRD)
        return _sum_of(builder, left, right, *_FOURTH)

    return f32x16(f32x16, f32x16, f32x16, f32x16), generate


@intrinsic
def vneighbours(typing_context: Any, a: Any) -> Any:
    """The eight sums of lanes 2 k and 2 k + 1, twice."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        even = [*range(0, 16, 2)] * 2
        return _sum_of(builder, values[0], values[0], even, [lane + 1 for lane in even])

    return f32x16(f32x16), generate


@intrinsic
def vnan(typing_context: Any, a: Any) -> Any:
    """Whether any lane is not a number."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lanes = builder.fcmp_unordered("uno", values[0], values[0])
        mask = builder.bitcast(lanes, ir.IntType(LANES))
        return builder.icmp_unsigned("!=", mask, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(f32x16), generate


def _bytes(builder: Any, value: Any) -> Any:
    words = builder.fptosi(value, ir.VectorType(_WORD, LANES))
    return builder.trunc(words, _BYTES)


def _store_bytes(context: Any, builder: Any, kind: Any, array: Any, at: Any, value: Any) -> None:
    data = context.make_array(kind)(context, builder, array).data
    address = builder.bitcast(builder.gep(data, [at], inbounds=True), value.type.as_pointer())
    builder.store(value, address).align = 1


@intrinsic
def vstore_bytes(typing_context: Any, array: Any, at: Any, value: Any) -> Any:
    """Sixteen numbers, at least 0 and below 256, without their fractions, to uint8."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        levels = _bytes(builder, values[2])
        _store_bytes(context, builder, array, values[0], values[1], levels)
        return context.get_dummy_value()

    return types.void(array, types.intp, f32x16), generate


@intrinsic
def vstore_halves(typing_context: Any, array: Any, at: Any, to: Any, value: Any) -> Any:
    """As `vstore_bytes`, lanes 0 to 7 from element `at` and lanes 8 to 15 from element `to`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        levels = _bytes(builder, values[3])
        for element, first in ((values[1], 0), (values[2], 8)):
            half = _shuffle(builder, levels, levels, range(first, first + 8))
            _store_bytes(context, builder, array, values[0], element, half)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, f32x16), generate


def _of_three(name: str, order: Sequence[int], meaning: str) -> Any:
    """An intrinsic: lane k of its result is lane order[k] of its three arguments in a row."""
    first = [lane if lane < 32 else 0 for lane in order]
    last = [k if lane < 32 else lane - 16 for k, lane in enumerate(order)]

    def shuffled(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            mixed = _shuffle(builder, values[0], values[1], first)
            return _shuffle(builder, mixed, values[2], last)

        return f32x16(f32x16, f32x16, f32x16), generate

    shuffled.__name__ = shuffled.__qualname__ = name
    shuffled.__doc__ = meaning
    return intrinsic(shuffled)


# Sixteen pixels as three vectors of r g b r g b ..., and as one vector per colour.
vred = _of_three("vred", range(0, 48, 3), "The reds of sixteen pixels.")
vgreen = _of_three("vgreen", range(1, 48, 3), "The greens of sixteen pixels.")
vblue = _of_three("vblue", range(2, 48, 3), "The blues of sixteen pixels.")
vpixels_0, vpixels_1, vpixels_2 = (
    _of_three(
        f"vpixels_{k}",
        [lane % 3 * 16 + lane // 3 for lane in range(16 * k, 16 * k + 16)],
        "A third of sixteen pixels, from their reds, greens and blues.",
    )
    for k in range(3)
)


def _weave(third: int, start: int) -> Any:
    lanes = range(16 * third, 16 * third + 16)
    order = [lane // 6 * 3 + lane % 3 - start + (16 if lane // 3 % 2 else 0) for lane in lanes]

    def woven(typing_context: Any, even: Any, odd: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return _shuffle(builder, values[0], values[1], order)

        return f32x16(f32x16, f32x16), generate

    woven.__name__ = woven.__qualname__ = f"vweave_{third}"
    woven.__doc__ = f"A third of sixteen pixels, from floats {start}... of every other pixel's."
    return intrinsic(woven)


# Of sixteen pixels, the even ones lie in one row of r g b r g b ... and the odd ones in another;
# a third reads both rows from its element here.
WEAVE_STARTS = (0, 7, 15)
vweave_0, vweave_1, vweave_2 = (_weave(k, start) for k, start in enumerate(WEAVE_STARTS))
