"""A 16-lane float32 vector for numba: load, store, splat, multiply-add, minimum, maximum.

Memory holds float32, or bfloat16 as uint16 (numba knows no bfloat16): loads widen, stores round to
nearest even.

numba's auto-vectoriser gives up on register-streaming loops (index wrap-around checks), so the CPU
kernels name their vectors. LLVM legalises <16 x float> to one AVX-512, two AVX2 or four NEON
registers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)
_LANE_0 = ir.Constant(ir.IntType(32), 0)


class VectorType(types.Type):
    """numba's name for the vector; a value never leaves compiled code."""

    def __init__(self) -> None:
        super().__init__(name="f32x16")


f32x16 = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, offset: Any, memory: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    address = builder.gep(data, [offset], inbounds=True)
    return builder.bitcast(address, memory.as_pointer())


def _words(value: int) -> Any:
    return ir.Constant(_WORDS, [value] * LANES)


@intrinsic
def vload(typing_context: Any, array: Any, offset: Any) -> Any:
    """16 consecutive elements of a contiguous 1-D array, from element `offset`; no bounds check.

    The array is float32, or uint16 that is bfloat16.
    """
    narrow = array.dtype == types.uint16

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        memory = _HALVES if narrow else _FLOATS
        value = builder.load(_pointer(context, builder, array, values[0], values[1], memory))
        value.align = 2 if narrow else 4
        if not narrow:
            return value
        return builder.bitcast(builder.shl(builder.zext(value, _WORDS), _words(16)), _FLOATS)

    return f32x16(array, types.intp), generate


@intrinsic
def vstore(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write 16 consecutive elements at element `offset`; no bounds check. See `vload`."""
    narrow = array.dtype == types.uint16

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        memory = _HALVES if narrow else _FLOATS
        address = _pointer(context, builder, array, values[0], values[1], memory)
        if narrow:
            builder.store(_rounded(context, builder, values[2]), address).align = 2
        else:
            builder.store(values[2], address).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, f32x16), generate


def _rounded(context: Any, builder: Any, value: Any) -> Any:
    """float32 to bfloat16, nearest even; NaN stays NaN.

    The instruction of AVX-512 also takes what is below the smallest normal number as zero.
    """
    if _has(context, "avx512bf16"):
        brains = ir.VectorType(_BrainType(), LANES)
        kind = ir.FunctionType(brains, [_FLOATS])
        name = "llvm.x86.avx512bf16.cvtneps2bf16.512"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.bitcast(builder.call(function, [value]), _HALVES)
    word = builder.bitcast(value, _WORDS)
    odd = builder.and_(builder.lshr(word, _words(16)), _words(1))
    nearest = builder.lshr(builder.add(word, builder.add(odd, _words(0x7FFF))), _words(16))
    quiet = builder.or_(builder.lshr(word, _words(16)), _words(0x40))
    is_nan = builder.fcmp_unordered("uno", value, value)
    return builder.trunc(builder.select(is_nan, quiet, nearest), _HALVES)


def _has(context: Any, feature: str) -> bool:
    """Whether numba compiles for a processor that has `feature`."""
    return f"+{feature}" in getattr(context.codegen(), "_tm_features", "").split(",")


class _BrainType(ir.Type):
    """LLVM's bfloat, which llvmlite cannot name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BrainType)

    def __hash__(self) -> int:
        return hash(_BrainType)


@intrinsic
def vsplat(typing_context: Any, scalar: Any) -> Any:
    """One float32 in every lane."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        first = builder.insert_element(undefined, values[0], _LANE_0)
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, undefined, order)

    return f32x16(types.float32), generate


@intrinsic
def vfma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.fma.v16f32")
        return builder.call(function, list(values))

    return f32x16(f32x16, f32x16, f32x16), generate


@intrinsic
def vmul(typing_context: Any, a: Any, b: Any) -> Any:
    """a * b."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fmul(values[0], values[1])

    return f32x16(f32x16, f32x16), generate


@intrinsic
def vadd(typing_context: Any, a: Any, b: Any) -> Any:
    """a + b."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fadd(values[0], values[1])

    return f32x16(f32x16, f32x16), generate


@intrinsic
def vsub(typing_context: Any, a: Any, b: Any) -> Any:
    """a - b."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fsub(values[0], values[1])

    return f32x16(f32x16, f32x16), generate


@intrinsic
def vabs(typing_context: Any, a: Any) -> Any:
    """|a|."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        magnitude = builder.and_(builder.bitcast(values[0], _WORDS), _words(0x7FFFFFFF))
        return builder.bitcast(magnitude, _FLOATS)

    return f32x16(f32x16), generate


# The order of the operands below is that of the machine's own instructions on x86: one instruction
# instead of a comparison and a blend.


@intrinsic
def vmax(typing_context: Any, a: Any, b: Any) -> Any:
    """Lane-wise maximum; NaN in either operand gives `a`, so that a NaN picture stays one."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        larger = builder.fcmp_ordered(">", values[1], values[0])
        return builder.select(larger, values[1], values[0])

    return f32x16(f32x16, f32x16), generate


@intrinsic
def vmin(typing_context: Any, a: Any, b: Any) -> Any:
    """Lane-wise minimum; NaN in either operand gives `a`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        smaller = builder.fcmp_ordered("<", values[1], values[0])
        return builder.select(smaller, values[1], values[0])

    return f32x16(f32x16, f32x16), generate


@intrinsic
def vlargest(typing_context: Any, a: Any) -> Any:
    """The largest lane, as a float32; lanes that are NaN do not count."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [_FLOATS])
        name = "llvm.vector.reduce.fmax.v16f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)

    return types.float32(f32x16), generate
