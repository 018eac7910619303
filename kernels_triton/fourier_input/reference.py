"""Fourier features under a rotation and translation: the definition.

A sine of a sum is two products of sines and cosines of one axis each, so that H + W of them are
computed per channel and not H * W.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kernels_triton.fourier_input.op import FourierTable


def motion_of_plane(turn: Tensor, transform: Tensor) -> Tensor:
    """[N, 4] to [N, 2, 3]: where a sample's position is looked up."""
    t = turn * turn[:, :2].square().sum(1, keepdim=True).rsqrt()
    cos, sin, dx, dy = t.unbind(1)
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).reshape(-1, 2, 2)
    shift = rotation @ torch.stack([-dx, -dy], dim=1)[:, :, None]
    return torch.cat([rotation, shift], dim=2) @ transform


def fourier_input(turn: Tensor, table: FourierTable, scale: Tensor | None) -> Tensor:
    """See `kernels_triton.fourier_input.fourier_input`; [N, H, W, C'] float32."""
    motion = motion_of_plane(turn, table.transform)
    phases = table.phases + (table.freqs @ motion[:, :, 2:])[:, :, 0]  # [N, C]
    freqs = table.freqs @ motion[:, :, :2]  # [N, C, 2]
    excess = freqs.square().sum(2).sqrt() - table.bandwidth
    fade = (1 - excess / (table.rate / 2 - table.bandwidth)).clamp(0, 1)  # [N, C]

    along_x = (table.columns[:, None] * freqs[:, None, :, 0]) * math.tau  # [N, W, C]
    along_y = (table.rows[:, None] * freqs[:, None, :, 1] + phases[:, None]) * math.tau
    sin_y, cos_y = along_y.sin() * fade[:, None], along_y.cos() * fade[:, None]
    x = sin_y[:, :, None] * along_x.cos()[:, None]
    x = torch.addcmul(x, cos_y[:, :, None], along_x.sin()[:, None])  # [N, H, W, C]
    x = x @ table.mixing[: x.shape[3]]
    return x if scale is None else x * scale[:, None, None]
