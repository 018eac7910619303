"""Arithmetic of one forward pass, counted from the module as it runs.

Counted, as 2 operations per multiply-add: matrix products and convolutions, by torch's own formulas
on the shapes that are dispatched (the plain torch implementation, whose route avoids inserted
zeros), and FIR filters as their polyphase form needs: the taps that meet a sample, for outputs that
are kept, separable filters along x first. Not counted: biases, activations, modulation of weights,
resizing, colour conversion. So GFLOP/s is useful arithmetic over time, whatever ran.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from kernels_triton import implementation
from kernels_triton.upfirdn2d import reference


@dataclass(frozen=True)
class Flops:
    """Operations, not multiply-adds."""

    dense: int  # convolutions and matrix products
    fir: int  # resampling filters

    @property
    def total(self) -> int:
        return self.dense + self.fir


class _Counter(TorchDispatchMode):
    """Adds up what is dispatched, except inside a filter, which is counted by its own formula."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = self.fir = 0
        self.inside_filter = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None and not self.inside_filter:
            self.dense += formula(*args, **kwargs, out_val=out)
        return out


def fir_operations(
    shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    taps: tuple[int, ...],
    up: tuple[int, int],
) -> int:
    """Operations of one polyphase filter.

    Args:
        shape, out_shape: [N, C, H, W] before and after.
        taps: [taps] of a separable filter or [fh, fw].
        up: [x, y]; of the taps, one in x * y meets a sample.
    """
    n, c, height, _ = shape
    _, _, out_height, out_width = out_shape
    if len(taps) == 2:
        per_channel = out_height * out_width * taps[0] * taps[1] / (up[0] * up[1])
    else:
        along_x = height * out_width * taps[0] / up[0]
        per_channel = along_x + out_height * out_width * taps[0] / up[1]
    return round(2 * n * c * per_channel)


@contextmanager
def _filters_counted(counter: _Counter) -> Iterator[None]:
    """Every upfirdn2d in the block goes through its definition, which is put back afterwards."""
    definition: Callable[..., Tensor] = reference.upfirdn2d

    def counted(
        x: Tensor,
        f: Tensor | None,
        up: tuple[int, int],
        down: tuple[int, int],
        padding: tuple[int, int, int, int],
        flip_filter: bool,
        gain: float,
    ) -> Tensor:
        counter.inside_filter = True
        try:
            out = definition(x, f, up, down, padding, flip_filter, gain)
        finally:
            counter.inside_filter = False
        if f is not None:
            counter.fir += fir_operations(tuple(x.shape), tuple(out.shape), tuple(f.shape), up)
        return out

    reference.upfirdn2d = counted
    try:
        yield
    finally:
        reference.upfirdn2d = definition


def count(forward: Callable[[], object]) -> Flops:
    """What one call of `forward` computes. Without gradients; takes longer than the call alone."""
    counter = _Counter()
    # Not inference_mode: under it a convolution reaches the counter before it is one.
    with torch.no_grad(), implementation("torch"), _filters_counted(counter), counter:
        forward()
    return Flops(counter.dense, counter.fir)
