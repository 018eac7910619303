"""Which implementation of an op runs.

`reference` is the definition: plain torch, slow and obvious. `torch` is plain torch rearranged for
speed, tested against the reference. `triton` is a Triton kernel, or an error. `auto` takes the
fastest there is: on a CPU that may be a compiled kernel, on CUDA a Triton one. Compiled kernels
know no gradient and no tracer looks into them, so `needs_gradient` and `watched` are asked first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

IMPLEMENTATIONS = ("auto", "triton", "torch", "reference")

_wanted: ContextVar[str] = ContextVar("kernels_triton_implementation", default="auto")


@contextmanager
def implementation(name: str) -> Iterator[None]:
    """All ops called inside the block, by this thread or task, run the named implementation.

    Args:
        name: One of IMPLEMENTATIONS.
    Raises:
        ValueError: there is no such implementation.
    """
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"implementation {name!r} does not exist: use one of {IMPLEMENTATIONS}")
    token = _wanted.set(name)
    try:
        yield
    finally:
        _wanted.reset(token)


def reference_wanted() -> bool:
    """True inside `implementation("reference")`."""
    return _wanted.get() == "reference"


def torch_wanted() -> bool:
    """True inside `implementation("torch")`."""
    return _wanted.get() == "torch"


def triton_wanted() -> bool:
    """True inside `implementation("triton")`."""
    return _wanted.get() == "triton"


def watched(x: Tensor) -> bool:
    """True while something records torch's calls: compiling, exporting, counting, fake tensors."""
    return (
        type(x) not in (Tensor, torch.nn.Parameter)
        or torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
    )


def needs_gradient(*tensors: Tensor | None) -> bool:
    """True if autograd records what is computed from any of these tensors. Never reads their
    values.
    """
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


@lru_cache
def triton_installed() -> bool:
    """Whether there is a Triton to import; imports nothing."""
    return find_spec("triton") is not None


@lru_cache
def _new_enough(device: torch.device) -> bool:
    """Whether Triton compiles for this GPU: compute capability 8.0 is the least."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def fused_way(x: Tensor, *others: Tensor | None) -> str:
    """How a fused op is to be computed: "triton", "cpu" or "reference".

    "cpu" is a wish: the op falls back to its reference where no compiled kernel takes the case.
    """
    wanted = _wanted.get()
    if wanted == "triton":
        return "triton"
    if wanted != "auto" or needs_gradient(x, *others) or watched(x):
        return "reference"
    if x.device.type == "cuda":
        return "triton" if triton_installed() and _new_enough(x.device) else "reference"
    return "cpu" if x.device.type == "cpu" else "reference"
