"""style_scales: the styles of all layers as one product, and their demodulation factors as another.

What an identity contributes is constant and comes in as `base`; per frame only the motion's part is
computed. Activations are multiplied by `scale`, convolution outputs by `demod`, weights by nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kernels_triton.choice import fused_way
from kernels_triton.styles import reference

PIECE = 16  # columns of one row of `StyleTable.pieces`


@dataclass(frozen=True)
class StyleLayer:
    """One layer's piece of the table.

    Args:
        start, width: Its columns of `scale`; `channels` of them are real, the rest is padding.
        demod_start, demod_width: Its columns of `demod`; 0 wide without demodulation.
        normalize: Scale the style to unit mean square first (cancels in `demod`).
        gain: Factor of `scale`; does not enter `demod`.
    """

    start: int
    width: int
    channels: int
    demod_start: int = 0
    demod_width: int = 0
    normalize: bool = False
    gain: float = 1.0


@dataclass(frozen=True)
class StyleTable:
    """All layers of a network.

    Args:
        matrix: [S, D] float32: what a motion vector adds to the raw styles; zero rows for padding.
        layers: In order; starts are multiples of 16, pieces are adjacent.
        squares: Per layer with demodulation [demod_width, width] float32: the sum over the kernel
            of the squared weight. Padding is zero.
        epsilon: [T] float32: added under the root, per column of `demod`.
    """

    matrix: Tensor
    layers: tuple[StyleLayer, ...]
    squares: tuple[Tensor, ...]
    epsilon: Tensor

    @property
    def widths(self) -> tuple[int, int]:
        """Columns (S, T) of `scale` and `demod`."""
        return self.matrix.shape[0], self.epsilon.shape[0]

    @cached_property
    def flat_squares(self) -> Tensor:
        """All `squares`, one after the other, for a kernel that does all layers."""
        return torch.cat([self.epsilon.new_empty(0), *(s.reshape(-1) for s in self.squares)])

    @cached_property
    def pieces(self) -> Tensor:
        """[P, 8] int32: PIECE columns of a layer's `scale` and `demod` per row, for a kernel that
        does all layers. Start, width, channels; start and width in `demod`; where its `squares`
        start; the first of the PIECE columns within the layer; whether it is normalised.
        """
        rows, place = [], 0
        for layer in self.layers:
            for first in range(0, max(layer.width, layer.demod_width), PIECE):
                style = (layer.start, layer.width, layer.channels)
                demod = (layer.demod_start, layer.demod_width, place)
                rows.append((*style, *demod, first, int(layer.normalize)))
            place += layer.demod_width * layer.width
        return torch.tensor(rows, dtype=torch.int32, device=self.matrix.device)

    @cached_property
    def gains(self) -> Tensor:
        """[P] float32: the gain of each of `pieces`."""
        counts = [-(-max(x.width, x.demod_width) // PIECE) for x in self.layers]
        gains = [x.gain for x, n in zip(self.layers, counts, strict=True) for _ in range(n)]
        return torch.tensor(gains, dtype=torch.float32, device=self.matrix.device)

    @cached_property
    def widest(self) -> int:
        """The largest width of a layer."""
        return max(layer.width for layer in self.layers)


def style_scales(
    base: Tensor,
    motion: Tensor | None,
    table: StyleTable,
    *,
    scale: Tensor | None = None,
    demod: Tensor | None = None,
    raw: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Per sample and layer:

    1. `s = base + matrix @ motion`.
    2. If `normalize`: divide by the root of the mean of `s^2` over the real channels (plus 1e-20).
    3. `demod = (squares @ s^2 + epsilon) ** -0.5`.
    4. `scale = s * gain`.

    Args:
        base: [N, S] float32.
        motion: [N, D] float32; None is zero.
        scale: [N, S] float32 to write into, or None.
        demod: [N, T] float32 to write into, or None.
        raw: [N, S] float32, scratch of a kernel; without it each call with motion allocates one.
    Returns:
        `scale` and `demod`.
    Raises:
        ValueError: Shapes do not fit.
    Source: the factored form of Karras et al., StyleGAN2 (CVPR 2020), Sec. 2.2.
    """
    s, t = table.widths
    n = base.shape[0]
    if base.shape != (n, s) or (motion is not None and motion.shape != (n, table.matrix.shape[1])):
        found = None if motion is None else list(motion.shape)
        raise ValueError(
            f"base {list(base.shape)} and motion {found} do not fit [N, {s}] and "
            f"[N, {table.matrix.shape[1]}]"
        )
    scale = base.new_empty(n, s) if scale is None else scale
    demod = base.new_empty(n, t) if demod is None else demod
    if scale.shape != (n, s) or demod.shape != (n, t):
        raise ValueError(f"scale and demod must be {[n, s]} and {[n, t]}")
    if fused_way(base, motion) == "triton":
        from kernels_triton.styles import kernel

        return kernel.run(base, motion, table, scale, demod, raw)
    return reference.style_scales(base, motion, table, scale, demod)
