"""Synthesis as inference runs it: weights packed once, modulation on activations, static buffers.

    packed = pack(system.synthesizer, torch.device("cuda"), torch.float16)
    executor = packed.executor(batch=1)
    executor.put(0, identity, motion)
    executor.draw_i420(out, broken)       # reads static buffers only: a CUDA graph may hold it

The networks of `models.backbones` are the definition; an executor computes the same picture with
the fused ops of `kernels_triton`. Only torch's own convolutions bring memory for their results. A
pack is a snapshot: later changes of the network do not reach it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from models.errors import CannotFuse
from models.fused.executor import Executor, Packed

if TYPE_CHECKING:
    from models.contracts import Synthesizer

__all__ = ["CannotFuse", "Executor", "Packed", "pack"]


def pack(synthesizer: Synthesizer, device: torch.device, dtype: torch.dtype) -> Packed:
    """The synthesizer's network with its weights packed for the fused ops.

    Args:
        device: Where it will draw.
        dtype: Of stored activations and convolution weights: float32, bfloat16 or float16. Sums are
            in float32 throughout.
    Raises:
        CannotFuse: The network has a part that the fused ops do not cover; run it as it is.
    """
    with torch.inference_mode():
        return synthesizer.pack(device, dtype)
