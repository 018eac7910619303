"""The affine maps of all layers, stacked: what the identity gives once, and motion every frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels_triton.modulated_conv import padded
from kernels_triton.styles import StyleLayer, StyleTable
from models.backbones.layers import FullyConnectedLayer

EPSILON = 1e-8  # of the demodulation


@dataclass(frozen=True)
class Affines:
    """Raw styles as the identity gives them: `(matrix @ w[row] + bias)[columns]` per piece.

    Args:
        matrix: [S, w_dim] float32.
        bias: [S] float32.
        pieces: Row of ws, columns of the base; in order, without gaps.
    """

    matrix: Tensor
    bias: Tensor
    pieces: tuple[tuple[int, slice], ...]


class StyleStack:
    """Collects layers and becomes a `StyleTable`.

    Args:
        motion: How many of an affine's inputs, its last ones, are motion's; None if motion is added
            to w, so that all of them see it.
    """

    def __init__(self, motion: int | None) -> None:
        self._motion = motion
        self._layers: list[StyleLayer] = []
        self._pieces: list[tuple[int, slice]] = []
        self._own: list[Tensor] = []
        self._biases: list[Tensor] = []
        self._moving: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._epsilon: list[Tensor] = []
        self._width = self._demod = 0

    def add(
        self,
        affine: FullyConnectedLayer,
        row: int,
        *,
        squares: Tensor | None = None,
        epsilon: Tensor | None = None,
        gain: float = 1.0,
    ) -> int:
        """One layer.

        Args:
            row: Of ws.
            squares, epsilon: See `demodulation`; without them the style is neither normalised nor
                demodulated.
            gain: Factor of the style.
        Returns:
            Its index.
        """
        matrix = affine.weight.detach().float() * affine.weight_gain
        bias = matrix.new_zeros(matrix.shape[0])
        if affine.bias is not None:
            bias = affine.bias.detach().float() * affine.bias_gain
        channels = matrix.shape[0]
        width = padded(channels)
        matrix, bias = (
            F.pad(matrix, (0, 0, 0, width - channels)),
            F.pad(bias, (0, width - channels)),
        )
        own = matrix.shape[1] if self._motion is None else matrix.shape[1] - self._motion
        columns = slice(self._width, self._width + width)
        self._pieces.append((row, columns))
        self._own.append(matrix[:, :own])
        self._biases.append(bias)
        self._moving.append(matrix if self._motion is None else matrix[:, own:])
        demod = 0
        if squares is not None and epsilon is not None:
            self._squares.append(squares)
            self._epsilon.append(epsilon)
            demod = len(epsilon)
        layer = StyleLayer(
            start=self._width,
            width=width,
            channels=channels,
            demod_start=self._demod,
            demod_width=demod,
            normalize=demod > 0,
            gain=gain,
        )
        self._layers.append(layer)
        self._width += width
        self._demod += demod
        return len(self._layers) - 1

    def table(self, device: torch.device) -> StyleTable:
        """All layers so far."""
        epsilon = torch.cat([*self._epsilon, torch.empty(0)]).to(device)
        squares = tuple(s.to(device) for s in self._squares)
        matrix = torch.cat(self._moving).contiguous().to(device)
        return StyleTable(matrix, tuple(self._layers), squares, epsilon)

    def affines(self, device: torch.device) -> Affines:
        """What an identity goes through."""
        matrix = torch.cat(self._own).contiguous().to(device)
        return Affines(matrix, torch.cat(self._biases).to(device), tuple(self._pieces))


def demodulation(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A weight that keeps activations near one, and how it is demodulated.

    A convolution's output may be stored before it is demodulated, in half precision. So each
    output channel's weight is scaled to unit norm here; that cancels in the demodulation, epsilon
    included.

    Args:
        weight: [O, I, k, k].
    Returns:
        Weight [O, I, k, k]; squares [O', I'] and epsilon [O'] of its `StyleTable`, padded.
    """
    w = weight.detach().float()
    norm = w.square().sum([1, 2, 3], keepdim=True).clamp_min(1e-30).rsqrt()
    w = w * norm
    o, i = w.shape[:2]
    squares = F.pad(w.square().sum([2, 3]), (0, padded(i) - i, 0, padded(o) - o))
    epsilon = EPSILON * norm.flatten().square()
    return w, squares, F.pad(epsilon, (0, padded(o) - o), value=EPSILON)
