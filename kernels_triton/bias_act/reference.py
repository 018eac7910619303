"""Bias, activation, gain, clamp: the definition. Differentiable to any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """One activation: its function of (x, alpha) and what it takes when nothing is said."""

    function: Callable[[Tensor, float], Tensor]
    alpha: float
    gain: float


ACTIVATIONS = {
    "linear": Activation(lambda x, alpha: x, 0.0, 1.0),
    "relu": Activation(lambda x, alpha: F.relu(x), 0.0, 2**0.5),
    "lrelu": Activation(lambda x, alpha: F.leaky_relu(x, alpha), 0.2, 2**0.5),
    "tanh": Activation(lambda x, alpha: torch.tanh(x), 0.0, 1.0),
    "sigmoid": Activation(lambda x, alpha: torch.sigmoid(x), 0.0, 1.0),
    "elu": Activation(lambda x, alpha: F.elu(x), 0.0, 1.0),
    "selu": Activation(lambda x, alpha: F.selu(x), 0.0, 1.0),
    "softplus": Activation(lambda x, alpha: F.softplus(x), 0.0, 1.0),
    "swish": Activation(lambda x, alpha: x * torch.sigmoid(x), 0.0, 2**0.5),
}


def bias_act(
    x: Tensor,
    b: Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    """See `kernels_triton.bias_act.bias_act`; arguments are already checked and completed here."""
    if b is not None:
        x = x + b.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])
    x = ACTIVATIONS[act].function(x, alpha)
    x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)
