"""What follows a convolution of StyleGAN2: noise, bias, leaky ReLU, gain, clamp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Epilogue:
    """Constants of it.

    Args:
        bias: [C] float32.
        noise: [H, W] float32, its strength in it; None is none.
        slope: Of the leaky ReLU, from 0 to 1; 1 is linear.
        gain: Positive, after the leaky ReLU.
        clamp: Limit of the magnitude after the gain; infinity is none.
    """

    bias: Tensor
    noise: Tensor | None = None
    slope: float = 0.2
    gain: float = 2**0.5
    clamp: float = math.inf

    def apply(self, y: Tensor, scale_in: Tensor | None) -> Tensor:
        """The definition: `y` is [N, H, W, C] in the precision that it is computed in."""
        if scale_in is not None:
            y = y * scale_in.to(y.dtype)[:, None, None]
        if self.noise is not None:
            y = y + self.noise.to(y.dtype)[:, :, None]
        y = y + self.bias.to(y.dtype)
        return (torch.where(y < 0, y * self.slope, y) * self.gain).clamp(-self.clamp, self.clamp)


def check_epilogue(
    x: Tensor,
    wanted: Sequence[int],
    end: Epilogue,
    scale_in: Tensor | None,
    scale_out: Tensor | None,
) -> None:
    """Raises ValueError unless all of it fits a picture x [N, H, W, C] that becomes `wanted`."""
    if x.ndim != 4 or x.shape[3] % 16 or not x.is_contiguous():
        raise ValueError(
            f"x {list(x.shape)} with strides {list(x.stride())} must be contiguous [N, H, W, C], "
            "C a multiple of 16"
        )
    n, channels = x.shape[0], x.shape[3]
    for name, scale in (("scale_in", scale_in), ("scale_out", scale_out)):
        if scale is not None and scale.shape != (n, channels):
            raise ValueError(f"{name} must be {[n, channels]}, not {list(scale.shape)}")
    if end.bias.shape != (channels,):
        raise ValueError(f"bias must be {[channels]}, not {list(end.bias.shape)}")
    if end.noise is not None and end.noise.shape != tuple(wanted[1:3]):
        raise ValueError(f"noise must be {list(wanted[1:3])}, not {list(end.noise.shape)}")
