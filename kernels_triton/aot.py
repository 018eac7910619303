"""Kernels compiled ahead of time, without a GPU: what they need of one, and whether that grew.

Each `kernel.py` names its `variants()`: a kernel with the constants it runs with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """One kernel at one set of constants.

    Args:
        name: Unique; the key of the recorded figures.
        kernel: The `@triton.jit` (or Gluon) function.
        signature: Argument to type: "*fp16", "*fp32", "*u8", "i32", "fp32", "constexpr", ...; a
            tuple of "constexpr" for a tuple of constants.
        constants: Values of the constexpr arguments.
        aligned: Arguments that the launcher always passes divisible by 16; every pointer is.
        registers: The most a thread may use.
        shared: The most shared memory a program may use, bytes. 99 KiB fits every target.
        dot: Whether tensor-core instructions must be in it.
        outputs: Results per lane of one turn of its largest loop (of the whole kernel, if it has
            no loop): issue slots per output are counted by it. 0 counts none.
        gluon: Whether the kernel is Gluon's.
        targets: Compute capabilities that it is compiled for.
    """

    name: str
    kernel: Any
    signature: Mapping[str, Any]
    constants: Mapping[str, Any]
    aligned: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 3
    registers: int = 255
    shared: int = 99 * 1024
    dot: bool = False
    outputs: float = 0
    gluon: bool = False
    targets: tuple[int, ...] = field(default=(80, 89, 90))
