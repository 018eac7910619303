"""Bias, activation, gain, clamp: the definition. Differentiable to any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from kernels_triton.bias_act.epilogue import Epilogue
    from kernels_triton.bias_act.fused import Skip


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


def bias_act_torgb(
    x: Tensor,
    end: Epilogue,
    skip: Skip,
    style: Tensor,
    before: Tensor | None,
    image: Tensor,
    scale_in: Tensor | None,
    scale_out: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    """See `kernels_triton.bias_act.bias_act_torgb`. Computed in float32, or in float64 where x is
    that.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    y = end.apply(x.to(wide), scale_in)
    weight = (skip.weight.to(wide) * style.to(wide)[:, None]).mT  # [N, C, 3]
    rgb = y.flatten(1, 2) @ weight + skip.bias.to(wide)
    rgb = rgb.clamp(-skip.clamp, skip.clamp).reshape(image.shape)
    image.copy_(rgb if before is None else rgb + doubled(before.to(wide), skip.taps))
    if out is not None:
        out.copy_(y if scale_out is None else y * scale_out.to(wide)[:, None, None])
    return image


def doubled(image: Tensor, taps: tuple[float, ...]) -> Tensor:
    """[N, h, w, 3] to [N, 2 h, 2 w, 3]: zeros after every sample, then `taps` on both axes."""
    n, height, width, colours = image.shape
    x = image.permute(0, 3, 1, 2).reshape(n * colours, 1, height, 1, width, 1)
    x = F.pad(x, [0, 1, 0, 0, 0, 1]).reshape(n * colours, 1, 2 * height, 2 * width)
    before, after = len(taps) // 2, len(taps) // 2 - 1
    x = F.pad(x, [before, after, before, after])
    f = x.new_tensor(taps)
    x = F.conv2d(F.conv2d(x, f[None, None, None]), f[None, None, :, None])
    return x.reshape(n, colours, 2 * height, 2 * width).permute(0, 2, 3, 1)
