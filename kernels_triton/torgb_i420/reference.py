"""The last layer to a picture, and to I420: the definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from kernels_triton.rgb_to_i420.reference import image_to_i420

if TYPE_CHECKING:
    from kernels_triton.torgb_i420.op import ToRgb


def torgb(x: Tensor, to: ToRgb, style: Tensor | None) -> Tensor:
    """See `kernels_triton.torgb_i420.torgb`."""
    weight = to.weight.expand(x.shape[0], -1, -1)  # [N, 3, C]
    if style is not None:
        weight = weight * style[:, None]
    y = x.to(weight.dtype).flatten(1, 2) @ weight.mT + to.bias  # [N, H * W, 3]
    return (y.clamp(-to.clamp, to.clamp) * to.gain).unflatten(1, x.shape[1:3])


def torgb_i420(
    x: Tensor, to: ToRgb, style: Tensor | None, out: Tensor, broken: Tensor | None
) -> Tensor:
    """See `kernels_triton.torgb_i420.torgb_i420`."""
    return image_to_i420(torgb(x, to, style), out, broken)
