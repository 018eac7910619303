"""numba.njit as our hand-written CPU kernels use it: no lock, no checks, machine code on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from torch import Tensor

from kernels_triton import simd, simd_pixels
from kernels_triton.workers import shared

# A kernel divides by nothing that may be zero and indexes nothing that it has not been given.
_OPTIONS: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}

# Numbers that a kernel is through with, after some 0.1 ms, before another thread would be of help.
FEW = 1 << 19

F32 = types.Array(types.float32, 1, "C")
BF16 = types.Array(types.uint16, 1, "C")  # bfloat16 as numba sees it
U8 = types.Array(types.uint8, 1, "C")
I32 = types.Array(types.int32, 1, "C")


def compiled(signatures: Iterable[Any], *uses: ModuleType) -> Callable[[Callable], Callable]:
    """Compile for these signatures now, or load what an earlier start has left on disk.

    Machine code lies beside the source, or in the user's cache where that cannot be written;
    where neither can be, every start compiles.

    Args:
        uses: Modules whose functions the kernel takes in, besides the vectors themselves.
    """

    def decorate(function: Callable) -> Callable:
        # numba looks only at the file that holds the kernel when it asks whether its code is stale;
        # the name, which is part of the file name on disk, brings in the others.
        function.__qualname__ += f"_{_digest(simd, simd_pixels, *uses)}"
        try:
            return numba.njit(list(signatures), cache=True, **_OPTIONS)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            return numba.njit(list(signatures), **_OPTIONS)(function)

    return decorate


def inlined(function: Callable) -> Callable:
    """A part of a kernel: it vanishes into whatever calls it."""
    return numba.njit(forceinline=True, **_OPTIONS)(function)


def _digest(*modules: ModuleType) -> str:
    text = hashlib.sha256()
    text.update(repr(sorted(_OPTIONS.items())).encode())
    for module in modules:
        assert module.__file__ is not None
        text.update(Path(module.__file__).read_bytes())
    return text.hexdigest()[:12]


def known(x: Tensor) -> bool:
    """Whether kernels take these features: [..., C], whole vectors of float32 or bfloat16."""
    return x.dtype in (torch.float32, torch.bfloat16) and x.shape[-1] % simd.LANES == 0


def flat(x: Tensor) -> np.ndarray:
    """The memory of a contiguous tensor as kernels read it; bfloat16 as uint16."""
    x = x.detach().view(-1)
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def spread(kernel: Callable[..., Any], tasks: int, numbers: int, *arguments: Any) -> None:
    """`shared` by several threads where a kernel has at least `FEW` numbers to go through."""
    if numbers < FEW:
        kernel(*arguments, 0, tasks)
    else:
        shared(kernel, tasks, *arguments)
