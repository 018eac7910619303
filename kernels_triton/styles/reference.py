"""Styles and demodulation factors of all layers: the definition, fast enough for a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kernels_triton.styles.op import StyleTable

TINY = 1e-20  # a style of nothing but zeros stays zero


def style_scales(
    base: Tensor, motion: Tensor | None, table: StyleTable, scale: Tensor, demod: Tensor
) -> tuple[Tensor, Tensor]:
    """See `kernels_triton.styles.style_scales`; arguments are already checked here."""
    if motion is None:
        scale.copy_(base)
    else:
        torch.addmm(base, motion, table.matrix.t(), out=scale)
    squares = iter(table.squares)
    for layer in table.layers:
        s = scale[:, layer.start : layer.start + layer.width]
        if layer.normalize:
            s.mul_((s.square().sum(1, keepdim=True) / layer.channels + TINY).rsqrt_())
        if layer.demod_width:
            columns = slice(layer.demod_start, layer.demod_start + layer.demod_width)
            total = torch.addmm(table.epsilon[columns], s.square(), next(squares).t())
            torch.rsqrt(total, out=demod[:, columns])
        if layer.gain != 1:
            s.mul_(layer.gain)
    return scale, demod
