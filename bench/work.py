"""What a frame has to compute and to move at least, layer by layer, read off the network itself.

Two kernels per layer: a convolution, and one pass of filters with what surrounds them. Each reads
its input once and writes its output once; an oversampled picture never reaches memory. Filters are
counted in their polyphase form, which meets no inserted zero and makes no dropped sample; a radial
filter as the shorter of its matrix of taps and the sum of separable ones that stands for it.
Weights are read once per frame; styles, noise and biases are too small to count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kernels_triton.filtered_lrelu import Resampling


@dataclass(frozen=True)
class Part:
    """One kernel's share of a frame.

    Args:
        name: Layer and what of it.
        dense: Operations on matrix units, two per multiply-add.
        vector: Operations on vector units: filters, and the few sums that make colours.
        elements: Activations and weights that are read or written, in the storage type.
        plain: Bytes beside them: pictures in float32, I420.
    """

    name: str
    dense: float = 0.0
    vector: float = 0.0
    elements: float = 0.0
    plain: float = 0.0

    def bytes(self, width: int) -> float:
        """Moved at least, with `width` bytes per element."""
        return self.elements * width + self.plain


def parts_of(synthesizer: Any) -> list[Part] | None:
    """A frame's work from the codes to I420, or None for a network that is not known here."""
    network = getattr(synthesizer, "synthesis", None)
    if hasattr(network, "layers") and hasattr(network, "input"):
        return list(_stylegan3(network))
    if hasattr(network, "blocks"):
        return list(_stylegan2(network))
    return None


def total(parts: list[Part], width: int) -> dict[str, float]:
    """GFLOP of matrix and of vector work, and GB moved at least."""
    return {
        "gflop_dense": sum(p.dense for p in parts) / 1e9,
        "gflop_filters": sum(p.vector for p in parts) / 1e9,
        "gb": sum(p.bytes(width) for p in parts) / 1e9,
    }


def filter_work(
    rows: int,
    outputs: int,
    up: int,
    up_taps: int,
    down: int,
    down_taps: int,
    terms: int = 1,
    radial: bool = False,
) -> float:
    """Operations per channel of upsampling and downsampling a square picture.

    Args:
        rows: Side of what comes in.
        outputs: Side of what goes out.
        terms: Separable filters that the downsampling one is a sum of.
        radial: It is also a matrix of taps, which counts where that is less.
    """
    grid = (outputs - 1) * down + down_taps  # samples of the nonlinearity that are read
    macs = 0.0
    if up > 1:
        per_sample = up_taps / up
        needed = min(rows, math.ceil((grid + up_taps - 1) / up))
        macs += (needed * grid + grid * grid) * per_sample
    if down > 1:
        separable = terms * (grid * outputs + outputs * outputs) * down_taps
        matrix = outputs * outputs * down_taps**2
        macs += min(separable, matrix) if radial else separable
    return 2 * macs


def _stylegan3(network: Any) -> Iterator[Part]:
    channels, side = network.input.channels, len(network.input.columns)
    yield Part("input", dense=2.0 * channels**2 * side**2, elements=channels * side**2)
    *layers, last = zip(network.layer_names, network.layers(), strict=True)
    for name, layer in layers:
        side, outputs = layer.in_size[0], layer.out_size[0]
        convolved = side + 2 * layer.conv_padding - layer.conv_kernel + 1
        weights = layer.in_channels * layer.out_channels * layer.conv_kernel**2
        yield Part(
            f"{name} convolution",
            dense=2.0 * weights * convolved**2,
            elements=layer.in_channels * side**2 + layer.out_channels * convolved**2 + weights,
        )
        yield Part(
            f"{name} filters",
            vector=layer.out_channels * _layer_filters(layer, convolved, outputs),
            elements=layer.out_channels * (convolved**2 + outputs**2),
        )
    name, layer = last
    yield _picture(name, layer.in_channels, layer.out_size[0])


def _layer_filters(layer: Any, rows: int, outputs: int) -> float:
    fu, fd = layer.up_filter, layer.down_filter
    radial = fd is not None and fd.ndim == 2
    terms = 1
    if radial and fu is not None:
        how = Resampling.of(fu, fd, up=layer.up_factor, pad=0, down=layer.down_factor)
        terms = len(how.down_terms)
    up_taps = 1 if fu is None else fu.shape[-1]
    down_taps = 1 if fd is None else fd.shape[-1]
    return filter_work(
        rows, outputs, layer.up_factor, up_taps, layer.down_factor, down_taps, terms, radial
    )


def _picture(name: str, channels: int, side: int) -> Part:
    """Features to I420 in one pass."""
    return Part(
        f"{name} picture",
        vector=2.0 * 3 * channels * side**2,
        elements=channels * side**2,
        plain=1.5 * side**2,
    )


def _stylegan2(network: Any) -> Iterator[Part]:
    side, blocks = 0, network.blocks()
    for block in blocks:
        side = block.resolution
        if hasattr(block, "conv0"):
            yield from _up_layer(f"b{side} conv0", block.conv0, side)
        layer = block.conv1
        weights = layer.in_channels * layer.out_channels * 9
        yield Part(
            f"b{side} conv1 convolution",
            dense=2.0 * weights * side**2,
            elements=(layer.in_channels + layer.out_channels) * side**2 + weights,
        )
        # The features are written again only where a next block reads them.
        writes = 0 if block is blocks[-1] else layer.out_channels * side**2
        colours = 2.0 * 3 * layer.out_channels * side**2 if block.num_torgb else 0.0
        doubled = 2.0 * 3 * (side * side / 2 + side * side) * 2 if block.in_channels else 0.0
        yield Part(
            f"b{side} bias, activation, picture",
            vector=colours + doubled,
            elements=layer.out_channels * side**2 + writes,
            plain=4.0 * 3 * (side**2 + (side // 2) ** 2) if block.num_torgb else 0.0,
        )
    yield Part("I420", vector=0.0, plain=(4 * 3 + 1.5) * side**2)


def _up_layer(name: str, layer: Any, side: int) -> Iterator[Part]:
    """A convolution of stride 1/2, then a filter over what it gives."""
    half = side // 2
    weights = layer.in_channels * layer.out_channels * 9
    grid, taps = side + 1, layer.resample_filter.shape[-1]
    yield Part(
        f"{name} convolution",
        dense=2.0 * weights * half**2,
        elements=layer.in_channels * half**2 + layer.out_channels * grid**2 + weights,
    )
    yield Part(
        f"{name} filter",
        vector=2.0 * layer.out_channels * (grid * side + side * side) * taps,
        elements=layer.out_channels * (grid**2 + side**2),
    )
