"""StyleGAN3 packed: styles, Fourier features, then per layer a convolution and one pass more."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels_triton.filtered_lrelu import Resampling, fused_filtered_lrelu
from kernels_triton.fourier_input import FourierTable, fourier_input
from kernels_triton.modulated_conv import PackedConv, packed_conv2d, padded
from kernels_triton.torgb_i420 import ToRgb, torgb, torgb_i420
from models.backbones.stylegan3 import SynthesisInput, SynthesisLayer, SynthesisNetwork
from models.errors import CannotFuse
from models.fused.executor import Executor, Packed
from models.fused.styles import StyleStack, demodulation

# What a sum of separable filters may leave of a radial one: float32 pictures stay within the
# goldens' tolerance, and half precision rounds by more than a thousandth anyway.
EXACT, ROUGH = 3e-6, 1e-3


@dataclass(frozen=True)
class _Layer:
    conv: PackedConv
    bias: Tensor
    how: Resampling
    size: tuple[int, int]  # rows, columns of the result
    conv_size: tuple[int, int]


def pack(network: SynthesisNetwork, device: torch.device, dtype: torch.dtype) -> Packed:
    """`network(w + dw)` packed.

    Raises:
        CannotFuse: A layer resamples otherwise than the published configurations do.
    """
    stack = StyleStack(motion=None)
    layers = [
        _pack_layer(name, layer, stack, row, device, dtype)
        for row, (name, layer) in enumerate(
            zip(network.layer_names[:-1], network.layers()[:-1], strict=True), 1
        )
    ]
    last = network.layers()[-1]
    to = _pack_torgb(last, stack, network, device)
    turn = stack.add(network.input.affine, 0)
    return Packed(
        device=device,
        dtype=dtype,
        resolution=network.img_resolution,
        rows=network.num_ws,
        w_dim=network.w_dim,
        motion="dw",
        motion_dim=network.w_dim,
        affines=stack.affines(device),
        table=stack.table(device),
        make=functools.partial(
            Stylegan3Executor,
            layers=layers,
            to=to,
            table=_fourier(network.input, device),
            turn=turn,
        ),
        resamplings=tuple(layer.how for layer in layers),
    )


def _pack_layer(
    name: str,
    layer: SynthesisLayer,
    stack: StyleStack,
    row: int,
    device: torch.device,
    dtype: torch.dtype,
) -> _Layer:
    if layer.up_filter is None or layer.down_filter is None:
        raise CannotFuse(f"{name} has no filters (up {layer.up_factor}, down {layer.down_factor})")
    if layer.inner_padding[0] != layer.inner_padding[2]:
        raise CannotFuse(f"{name} is padded by {layer.inner_padding}: its axes differ")
    if layer.down_factor != 2 or layer.up_factor not in (2, 4):
        raise CannotFuse(
            f"{name} resamples by {layer.up_factor}, then {layer.down_factor}; not 2 or 4, then 2"
        )
    how = Resampling.of(
        layer.up_filter,
        layer.down_filter,
        up=layer.up_factor,
        pad=layer.inner_padding[0],
        clamp=layer.conv_clamp,
        tolerance=EXACT if dtype == torch.float32 else ROUGH,
    )
    weight = layer.weight.detach().float()
    weight = weight * weight.square().mean([1, 2, 3], keepdim=True).rsqrt()
    weight, squares, epsilon = demodulation(weight)
    gain = float(layer.magnitude_ema.rsqrt())
    stack.add(layer.affine, row, squares=squares, epsilon=epsilon, gain=gain)
    conv = PackedConv.of(weight.to(device), layer.conv_padding, dtype)
    width, height = layer.in_size
    out_width, out_height = layer.out_size
    bias = _padded(layer.bias, padded(layer.out_channels), device)
    return _Layer(conv, bias, how, (out_height, out_width), conv.output_size(height, width))


def _pack_torgb(
    layer: SynthesisLayer, stack: StyleStack, network: SynthesisNetwork, device: torch.device
) -> ToRgb:
    if layer.conv_kernel != 1 or layer.up_factor != 1 or layer.down_factor != 1:
        raise CannotFuse(f"the last layer has a {layer.conv_kernel}x{layer.conv_kernel} kernel")
    gain = float(layer.magnitude_ema.rsqrt()) * layer.in_channels**-0.5
    stack.add(layer.affine, network.num_layers + 1, gain=gain)
    weight, bias = picture_rows(layer.weight[:, :, 0, 0]), picture_rows(layer.bias)
    clamp = float("inf") if layer.conv_clamp is None else layer.conv_clamp
    weight = _padded(weight, padded(layer.in_channels), device)
    return ToRgb(weight, bias.to(device), clamp, network.output_scale)


def picture_rows(rows: Tensor) -> Tensor:
    """The first three of a picture's channels, float32; a grey one three times.

    Raises:
        CannotFuse: There are two.
    """
    rows = rows.detach().float()
    if len(rows) == 2:
        raise CannotFuse("a picture of two channels is neither grey nor RGB")
    return rows.expand(3, *rows.shape[1:]).contiguous() if len(rows) == 1 else rows[:3].contiguous()


def _padded(values: Tensor, width: int, device: torch.device) -> Tensor:
    """float32, the last axis filled up with zeros."""
    values = values.detach().float()
    return F.pad(values, (0, width - values.shape[-1])).to(device)


def _fourier(layer: SynthesisInput, device: torch.device) -> FourierTable:
    extra = padded(layer.channels) - layer.channels
    mixing = F.pad(layer.weight.detach().float().t() * layer.channels**-0.5, (0, extra, 0, extra))
    return FourierTable(
        freqs=layer.freqs.to(device),
        phases=layer.phases.to(device),
        transform=layer.transform.to(device),
        mixing=mixing.contiguous().to(device),
        columns=layer.columns.to(device),
        rows=layer.rows.to(device),
        rate=layer.sampling_rate,
        bandwidth=layer.bandwidth,
    )


class Stylegan3Executor(Executor):
    """See `Executor`. Every activation has a buffer of its own."""

    def __init__(
        self,
        packed: Packed,
        batch: int,
        *,
        layers: list[_Layer],
        to: ToRgb,
        table: FourierTable,
        turn: int,
    ) -> None:
        super().__init__(packed, batch)
        self._layers, self._to, self._table, self._turn = layers, to, table, turn
        # A layer reads one of two pieces of memory and writes the other: both stay in a cache.
        first = (len(table.rows), len(table.columns), table.mixing.shape[1])
        shapes = [first, *((*layer.size, layer.conv.channels[1]) for layer in layers)]
        flats = self._flat(*shapes[::2]), self._flat(*shapes[1::2])
        views = [self._view(flats[k % 2], shape) for k, shape in enumerate(shapes)]
        self._first, self._features = views[0], views[1:]
        # Only a kernel of our own writes where it is told; torch's convolutions bring their memory.
        self._owned = [self._own(x, layer.conv) for x, layer in zip(views, layers, strict=False)]
        convolved = [(*layer.conv_size, layer.conv.channels[1]) for layer in layers]
        flat = self._flat(*(s for s, owned in zip(convolved, self._owned, strict=True) if owned))
        self._convolved = [
            self._view(flat, shape) if owned else None
            for shape, owned in zip(convolved, self._owned, strict=True)
        ]

    @torch.inference_mode()
    def draw(self, out: Tensor) -> None:
        torgb(self._synthesis(), self._to, out=out)

    @torch.inference_mode()
    def draw_i420(self, out: Tensor, broken: Tensor) -> None:
        broken.zero_()
        torgb_i420(self._synthesis(), self._to, out=out, broken=broken)

    def _synthesis(self) -> Tensor:
        """Features before the last layer, already multiplied by its style."""
        self._modulate()
        turn = self._scale_of(self._turn)[:, :4]
        x = fourier_input(turn, self._table, self._scale_of(0), out=self._first)
        for index, layer in enumerate(self._layers):
            demod = self._demod_of(index)
            owned = self._owned[index]
            if owned:
                y = packed_conv2d(
                    x, layer.conv, scale=demod, bias=layer.bias, out=self._convolved[index]
                )
            else:
                y = packed_conv2d(x, layer.conv)
            x = fused_filtered_lrelu(
                y,
                layer.how,
                layer.size,
                scale_in=None if owned else demod,
                bias=None if owned else layer.bias,
                scale_out=self._scale_of(index + 1),
                out=self._features[index],
            )
        return x
