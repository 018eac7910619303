"""fourier_input: StyleGAN3's first features, mixed and scaled by the first style."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kernels_triton.choice import fused_way
from kernels_triton.fourier_input import reference


@dataclass(frozen=True)
class FourierTable:
    """Constants of the input.

    Args:
        freqs: [C, 2] float32, cycles per unit length.
        phases: [C] float32, turns.
        transform: [3, 3] float32: the user's motion of the plane, inverse of what the picture does.
        mixing: [C', C'] float32, rows are inputs; padding is zero.
        columns, rows: [W] and [H] float32: positions of the samples; the picture has length 1.
        rate: Samples per unit length.
        bandwidth: Frequencies beyond it fade; at half the rate nothing is left.
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor
    mixing: Tensor
    columns: Tensor
    rows: Tensor
    rate: float
    bandwidth: float

    @cached_property
    def mixing_half(self) -> Tensor:
        """`mixing` in float16, for tensor cores; sines have no use for bfloat16's range."""
        return self.mixing.to(torch.float16)


def fourier_input(
    turn: Tensor, table: FourierTable, scale: Tensor | None = None, *, out: Tensor
) -> Tensor:
    """Fourier features under a rotation and translation.

    1. Divide `turn` = (cos, sin, dx, dy) by the length of (cos, sin).
    2. Rotate and shift the plane by it and by `table.transform`: new frequencies and phases; what
       leaves the band fades linearly.
    3. `sin(2 pi (position . frequency + phase)) * amplitude`, then `@ mixing`.
    4. Multiply by `scale`.

    Args:
        turn: [N, 4] float32; rows may be strided.
        scale: [N, C'] float32; None is 1.
        out: [N, H, W, C'], contiguous: float32, bfloat16 or float16.
    Returns:
        `out`.
    Raises:
        ValueError: Shapes do not fit.
    Source: Karras et al., Alias-Free Generative Adversarial Networks (NeurIPS 2021), Sec. 3.2,
    appendix F.
    """
    n = turn.shape[0]
    channels = table.mixing.shape[1]
    wanted = (n, len(table.rows), len(table.columns), channels)
    if turn.shape != (n, 4) or out.shape != wanted or not out.is_contiguous():
        raise ValueError(
            f"turn {list(turn.shape)} and out {list(out.shape)} must be [N, 4] and {list(wanted)}"
        )
    if scale is not None and scale.shape != (n, channels):
        raise ValueError(f"scale must be {[n, channels]}, not {list(scale.shape)}")
    way = fused_way(turn, scale)
    if way == "triton":
        from kernels_triton.fourier_input import kernel

        return kernel.run(turn, table, scale, out)
    if way == "cpu":
        from kernels_triton.fourier_input import simd_cpu

        return simd_cpu.run(turn, table, scale, out)
    return out.copy_(reference.fourier_input(turn, table, scale))
