"""Arithmetic of one forward pass, counted from the module as it runs.

Counted, as two operations per multiply-add: convolutions and matrix products, by torch's own
formulas on the shapes that are dispatched. The pass runs the plain torch implementation, whose
resampling filters are strided and transposed convolutions that meet no inserted zero and make no
dropped sample, so filters count as their polyphase form needs. Not counted: biases, activations,
modulation of weights, resizing, colour conversion. GFLOP/s is therefore useful arithmetic over
time, whatever implementation then ran in that time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from kernels_triton import implementation


@dataclass(frozen=True)
class Flops:
    """Operations, not multiply-adds."""

    dense: int  # convolutions between channels, and matrix products
    fir: int  # filters: convolutions of each channel by itself

    @property
    def total(self) -> int:
        return self.dense + self.fir


class _Counter(TorchDispatchMode):
    """Adds up what is dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = self.fir = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            operations = formula(*args, **kwargs, out_val=out)
            if _is_filter(func, args):
                self.fir += operations
            else:
                self.dense += operations
        return out


def _is_filter(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether this is a convolution with a group for each channel."""
    if func is not torch.ops.aten.convolution.default:
        return False
    channels, groups = args[0].shape[1], args[8]
    return bool(groups > 1 and groups == channels)


def count(forward: Callable[[], object]) -> Flops:
    """What one call of `forward` computes. Without gradients; takes longer than the call alone."""
    counter = _Counter()
    # Not inference_mode: under it a convolution reaches the counter before it is one.
    with torch.no_grad(), implementation("torch"), counter:
        forward()
    return Flops(counter.dense, counter.fir)
