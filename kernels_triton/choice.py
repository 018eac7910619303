"""Which implementation of an op runs.

`reference` is the definition: plain torch, slow and obvious. `torch` is plain torch rearranged for
speed, tested against the reference. `auto` takes the fast one where it may: an op whose fast form
writes into its own buffers asks `needs_gradient` first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

IMPLEMENTATIONS = ("auto", "torch", "reference")

_wanted: ContextVar[str] = ContextVar("kernels_triton_implementation", default="auto")


@contextmanager
def implementation(name: str) -> Iterator[None]:
    """All ops called inside the block, by this thread or task, run the named implementation.

    Args:
        name: "auto", "torch" or "reference".
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


def needs_gradient(*tensors: Tensor | None) -> bool:
    """True if autograd records what is computed from any of these tensors. Never reads their
    values.
    """
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
