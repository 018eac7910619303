"""bias_act: `clamp(gain * act(x + b))`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kernels_triton.bias_act import reference
from kernels_triton.bias_act.reference import ACTIVATIONS
from kernels_triton.choice import fused_way, needs_gradient, reference_wanted, watched


def default_gain(act: str) -> float:
    """Gain of an activation when none is given: sqrt(2) for relu, lrelu and swish, else 1."""
    return ACTIVATIONS[act].gain


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    *,
    inplace: bool = False,
) -> Tensor:
    """Bias, activation, gain, clamp, in this order.

    Args:
        x: Any shape, floating point.
        b: [x.shape[dim]], or None.
        act: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus or swish.
        alpha: Slope of lrelu for negative numbers; None is 0.2.
        gain: None is sqrt(2) for relu, lrelu and swish, else 1.
        clamp: Limit of the magnitude after the gain; None is no limit.
        inplace: The caller has no further use for `x`, so its memory may become the result's.
            Ignored where a gradient is due.
    Returns:
        Shape and dtype of x.
    Raises:
        ValueError: unknown activation, or a bias that does not fit.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"activation {act!r} is unknown: use one of {', '.join(ACTIVATIONS)}")
    if b is not None and (b.ndim != 1 or not -x.ndim <= dim < x.ndim or b.shape[0] != x.shape[dim]):
        raise ValueError(f"bias {list(b.shape)} does not fit axis {dim} of {list(x.shape)}")
    alpha = ACTIVATIONS[act].alpha if alpha is None else alpha
    gain = ACTIVATIONS[act].gain if gain is None else gain
    if fused_way(x, b) == "triton" and not needs_gradient(x, b) and not watched(x):
        from kernels_triton.bias_act import kernel

        if kernel.takes(x, b):
            out = x if inplace else None
            return kernel.bias_act(x, b, dim % x.ndim, act, alpha, gain, clamp, out)
    if (
        inplace
        and act in ("linear", "lrelu")
        and not needs_gradient(x, b)
        and not reference_wanted()
    ):
        return _inplace(x, b, dim % x.ndim, act, alpha, gain, clamp)
    return reference.bias_act(x, b, dim % x.ndim, act, alpha, gain, clamp)


def _inplace(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    """The reference without new memory: one pass per step that does something."""
    if b is not None:
        x = x.add_(b.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)]))
    if act == "lrelu" and alpha != 1:
        x = F.leaky_relu_(x, alpha)
    if gain != 1:
        x = x.mul_(gain)
    return x if clamp is None else x.clamp_(-clamp, clamp)
