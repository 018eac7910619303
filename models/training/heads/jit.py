"""numba.njit as the renderer of heads uses it: fast arithmetic, no lock, machine code on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba

# Fast arithmetic makes the last bits the machine's own: the same everywhere on one machine. No
# kernel may be given NaN or infinity, or divide by what can be zero and use the quotient.
_OPTIONS: dict[str, Any] = {
    "fastmath": True,
    "error_model": "numpy",
    "nogil": True,
    "boundscheck": False,
}


def kernel(*uses: ModuleType) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile at the first call for the types it is given, or load what an earlier run has left.

    Machine code lies beside the source, or in the user's cache where that cannot be written;
    where neither can be, every process compiles.

    Args:
        uses: Modules whose functions or constants the kernel takes in.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        # numba looks only at the file that holds the kernel when it asks whether its code is stale;
        # the name, which is part of the file name on disk, brings in the others.
        function.__qualname__ += f"_{_digest(*uses)}"
        try:
            return numba.njit(cache=True, **_OPTIONS)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            return numba.njit(**_OPTIONS)(function)

    return decorate


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of a kernel: it vanishes into whatever calls it."""
    return numba.njit(forceinline=True, **_OPTIONS)(function)


def _digest(*modules: ModuleType) -> str:
    text = hashlib.sha256()
    text.update(repr(sorted(_OPTIONS.items())).encode())
    for module in modules:
        assert module.__file__ is not None
        text.update(Path(module.__file__).read_bytes())
    return text.hexdigest()[:12]
