"""What generated kernels need of memory: arrays at addresses, prefetching, a counter of tasks.

A kernel that takes addresses costs its caller nothing to prepare: no array object per tensor and
call, and one signature for every layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_WORD, _LONG = ir.IntType(32), ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()


def _array_at(name: str, element: Any) -> Any:
    def at(typing_context: Any, address: Any) -> Any:
        kind = types.Array(element, 1, "C")

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            array = context.make_array(kind)(context, builder)
            memory = context.get_data_type(element).as_pointer()
            size = context.get_constant(types.intp, context.get_abi_sizeof(memory.pointee))
            context.populate_array(
                array,
                data=builder.inttoptr(values[0], memory),
                shape=[context.get_constant(types.intp, np.iinfo(np.int64).max)],
                strides=[size],
                itemsize=size,
                meminfo=None,
            )
            return array._getvalue()

        return kind(types.int64), generate

    at.__name__ = name
    at.__doc__ = f"The {element} array that begins at an address; it owns nothing, has no end."
    return intrinsic(at)


floats_at = _array_at("floats_at", types.float32)
halves_at = _array_at("halves_at", types.uint16)
integers_at = _array_at("integers_at", types.int64)


@intrinsic
def prefetch(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address; a hint, so the address may lie behind the data."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_BYTES, _WORD, _WORD, _WORD])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # To be read, into the nearest cache, as data.
        hints = [ir.Constant(_WORD, value) for value in (0, 3, 1)]
        builder.call(function, [builder.inttoptr(values[0], _BYTES), *hints])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def next_task(typing_context: Any, counter: Any) -> Any:
    """The number at an address, which grows by one; threads that share it never get the same."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        memory = builder.inttoptr(values[0], _LONG.as_pointer())
        return builder.atomic_rmw("add", memory, ir.Constant(_LONG, 1), "monotonic")

    return types.int64(types.int64), generate
