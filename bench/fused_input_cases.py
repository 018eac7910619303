"""More cases of bench/kernels.py: Fourier features, styles, and the convolution between them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bench.fused_cases import FusedCase, Maker, Trial, double, planar, referred, trial_of
from bench.work import Part


def fourier_case(channels: int, size: int) -> FusedCase:
    """StyleGAN3's input; the published one computes a sine for each channel of each sample."""

    def make(m: Maker) -> Trial:
        from kernels_triton.fourier_input import FourierTable, fourier_input
        from models.backbones.stylegan3 import SynthesisInput

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = SynthesisInput(64, channels, size, size - 20.0, 2.0).to(m.device)
            layer.affine.weight.data.normal_(0, 0.1)
        layer.requires_grad_(False)
        w = m.plain(1, 64)
        with torch.inference_mode():
            turn = layer.affine(w)
        table = FourierTable(
            layer.freqs,
            layer.phases,
            layer.transform,
            (layer.weight.t() * channels**-0.5).contiguous(),
            layer.columns,
            layer.rows,
            layer.sampling_rate,
            layer.bandwidth,
        )
        out = m.empty(1, size, size, channels)
        part = Part(
            "input", dense=2.0 * channels**2 * size**2, elements=channels * size**2 + channels**2
        )
        scale = 1 + m.plain(1, channels, spread=0.1)
        return trial_of(m, fourier_input, (turn, table, scale), out, referred(layer, w), part)

    return FusedCase("fourier_input", f"{channels}x{size}x{size}", make)


def styles_case(channels: int, layers: int, w_dim: int) -> FusedCase:
    """The styles of all layers; the published order rewrites every weight of every layer."""

    def make(m: Maker) -> Trial:
        from kernels_triton.styles import style_scales
        from models.backbones.layers import FullyConnectedLayer
        from models.fused.styles import StyleStack, demodulation

        stack, weights, affines = StyleStack(motion=None), [], []
        for row in range(layers):
            affine = FullyConnectedLayer(w_dim, channels, bias_init=1).requires_grad_(False)
            affine.weight.data = m.plain(channels, w_dim).cpu()
            weight = m.plain(channels, channels, 3, 3).cpu()
            _, squares, epsilon = demodulation(weight)
            stack.add(affine, row, squares=squares, epsilon=epsilon)
            weights.append(weight.to(m.device))
            affines.append(affine.to(m.device))
        table = stack.table(torch.device(m.device))
        base, motion = 1 + m.plain(1, table.widths[0], spread=0.5), m.plain(1, w_dim)
        scale, demod = (m.empty(1, width, dtype=torch.float32) for width in table.widths)

        def order() -> list[Tensor]:
            return [
                _modulated(weight, affine(motion), m.official_dtype)
                for weight, affine in zip(weights, affines, strict=True)
            ]

        def call() -> Tensor:
            with torch.inference_mode():
                return style_scales(base, motion, table, scale=scale, demod=demod)[1]

        wide = [double(value) for value in (base, motion, table)]
        elements = table.matrix.numel() + sum(s.numel() for s in table.squares)
        part = Part("styles", vector=2.0 * elements, plain=4.0 * elements)
        return Trial(
            call,
            demod,
            referred(lambda: style_scales(*wide)[1]),
            referred(lambda: style_scales(base, motion, table)[1]),
            referred(order),
            part,
        )

    return FusedCase(
        "style_scales", f"{layers} layers of {channels}, w {w_dim}", make, halves=False
    )


def _modulated(weight: Tensor, style: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight of one sample, as StyleGAN3 makes it for each frame and layer."""
    weight = weight * weight.square().mean([1, 2, 3], keepdim=True).rsqrt()
    style = style * style.square().mean().rsqrt()
    mine = weight[None] * style[:, None, :, None, None]
    mine = mine * (mine.square().sum([2, 3, 4], keepdim=True) + 1e-8).rsqrt()
    return mine.to(dtype)


def packed_conv_case(channels: int, size: int, kernel: int) -> FusedCase:
    """A layer's convolution; the published one modulates its weight first."""

    def make(m: Maker) -> Trial:
        from kernels_triton.modulated_conv import (
            PackedConv,
            modulated_conv2d,
            own_kernel,
            packed_conv2d,
        )

        weight = m.plain(channels, channels, kernel, kernel, spread=1 / math.sqrt(channels))
        stored = weight.to(m.dtype).float()
        x = m.stored(1, size, size, channels)
        conv = PackedConv.of(stored, kernel // 2, m.dtype)
        wide = PackedConv.of(stored, kernel // 2, torch.float64)
        style, dtype = 1 + m.plain(1, channels, spread=0.1), m.official_dtype
        planes = planar(x, dtype)
        out = m.empty(1, size, size, channels)

        def run(x: Tensor, conv: Any, out: Tensor) -> Tensor:
            return packed_conv2d(x, conv, out=out)

        def call() -> Tensor:
            # Where torch convolves, its own memory is the result: no copy is part of the time.
            with torch.inference_mode():
                return packed_conv2d(x, conv, out=out) if ours else packed_conv2d(x, conv)

        ours = own_kernel(x, conv)
        official = referred(modulated_conv2d, planes, weight, style, padding=kernel // 2)
        part = Part(
            "convolution",
            dense=2.0 * weight.numel() * size**2,
            elements=2 * channels * size**2 + weight.numel(),
        )
        exact = referred(run, x.double(), wide, torch.empty_like(out, dtype=torch.float64))
        plain = referred(run, x, conv, torch.empty_like(out))
        return Trial(call, out, exact, plain, official, part)

    label = f"{kernel}x{kernel}, {channels}x{size}x{size}"
    return FusedCase("packed_conv2d", label, make)
