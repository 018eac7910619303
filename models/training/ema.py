"""The moving average of a network's weights, which is what gets shipped."""

from __future__ import annotations

import torch
from torch import nn


def decay(batch: int, half_life_clips: float) -> float:
    """Factor per step, from the batch in clips and the half-life in clips."""
    return 0.5 ** (batch / max(half_life_clips, 1e-8))


@torch.no_grad()
def update(average: nn.Module, network: nn.Module, beta: float) -> None:
    """Moves the average's parameters towards the network's; buffers are copied.

    Args:
        beta: What is kept of the average.
    """
    for kept, new in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, 1 - beta)
    for still, now in zip(average.buffers(), network.buffers(), strict=True):
        still.copy_(now)
