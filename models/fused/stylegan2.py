"""StyleGAN2 and StyleGAN-V packed: per resolution two convolutions, and one pass behind each."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels_triton.bias_act import Epilogue, Skip, bias_act_torgb
from kernels_triton.modulated_conv import PackedConv, packed_conv2d, padded
from kernels_triton.upfirdn2d import fir_bias_act
from models.backbones.stylegan2 import SynthesisBlock, SynthesisLayer, ToRGBLayer
from models.errors import CannotFuse
from models.fused.executor import Executor, Packed
from models.fused.stylegan3 import picture_rows
from models.fused.styles import StyleStack, demodulation


@dataclass(frozen=True)
class _Conv:
    conv: PackedConv
    end: Epilogue
    style: int  # index in the style table


@dataclass(frozen=True)
class _Block:
    resolution: int
    enlarge: _Conv | None  # with `taps` behind it
    keep: _Conv
    skip: Skip
    skip_style: int
    taps: tuple[float, ...]


def pack(
    blocks: Sequence[SynthesisBlock],
    constant: Tensor,
    *,
    motion: str,
    motion_dim: int,
    tiled: bool,
    condition: str,
    rows: int,
    w_dim: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Packed:
    """Blocks of an architecture with skips, packed.

    Args:
        blocks: From 4x4 upwards.
        constant: [C, 4, 4]: what synthesis starts from.
        motion: Name of the motion code's tensor.
        motion_dim: Its size.
        tiled: Whether the code is put beside the constant, as further channels.
        condition: How the code changes the styles: "sum_w" adds it to w, "concat_w" puts it behind
            w, "concat_const" not at all.
        rows, w_dim: Shape of ws.
    Raises:
        CannotFuse: An architecture, activation, kernel or filter that the fused ops do not know.
    """
    behind = {"sum_w": None, "concat_w": motion_dim, "concat_const": 0}[condition]
    stack = StyleStack(motion=behind)
    packed_blocks = []
    row = 0
    for block in blocks:
        packed_blocks.append(_pack_block(block, stack, row, device, dtype))
        row += block.num_conv
    channels = constant.shape[0] + (motion_dim if tiled else 0)
    start = constant.detach().float().permute(1, 2, 0)  # [4, 4, C]
    start = F.pad(start, (0, padded(channels) - constant.shape[0])).to(device)
    return Packed(
        device=device,
        dtype=dtype,
        resolution=blocks[-1].resolution,
        rows=rows,
        w_dim=w_dim,
        motion=motion,
        motion_dim=motion_dim,
        affines=stack.affines(device),
        table=stack.table(device),
        make=functools.partial(
            Stylegan2Executor,
            blocks=packed_blocks,
            start=start,
            tile_at=constant.shape[0] if tiled else None,
        ),
    )


def _pack_block(
    block: SynthesisBlock, stack: StyleStack, row: int, device: torch.device, dtype: torch.dtype
) -> _Block:
    name = f"b{block.resolution}"
    if block.architecture != "skip" or not block.num_torgb:
        raise CannotFuse(f"{name} is of architecture {block.architecture!r}; only skips are known")
    taps = _taps(block.resample_filter, name)
    enlarge = None
    if block.in_channels:
        enlarge = _pack_conv(f"{name}.conv0", block.conv0, stack, row, device, dtype)
        row += 1
    keep = _pack_conv(f"{name}.conv1", block.conv1, stack, row, device, dtype)
    layer: ToRGBLayer = block.torgb
    if layer.weight.shape[2] != 1:
        raise CannotFuse(f"{name}.torgb has a kernel of {layer.weight.shape[2]}")
    style = stack.add(layer.affine, row + 1, gain=layer.weight_gain)
    weight = picture_rows(layer.weight[:, :, 0, 0])
    weight = F.pad(weight, (0, padded(layer.in_channels) - layer.in_channels))
    skip = Skip(
        weight.to(device), picture_rows(layer.bias).to(device), _limit(layer.conv_clamp), taps
    )
    return _Block(block.resolution, enlarge, keep, skip, style, taps)


def _pack_conv(
    name: str,
    layer: SynthesisLayer,
    stack: StyleStack,
    row: int,
    device: torch.device,
    dtype: torch.dtype,
) -> _Conv:
    kernel = layer.weight.shape[2]
    if layer.activation not in ("lrelu", "linear") or kernel != 3:
        raise CannotFuse(f"{name}: activation {layer.activation!r}, kernel {kernel}")
    weight, squares, epsilon = demodulation(layer.weight)
    style = stack.add(layer.affine, row, squares=squares, epsilon=epsilon)
    bias = layer.bias.detach().float()
    noise = None
    if layer.use_noise:
        noise = (layer.noise_const * layer.noise_strength).detach().float().contiguous().to(device)
    end = Epilogue(
        bias=F.pad(bias, (0, padded(layer.out_channels) - layer.out_channels)).to(device),
        noise=noise,
        slope=0.2 if layer.activation == "lrelu" else 1.0,
        gain=layer.act_gain,
        clamp=_limit(layer.conv_clamp),
    )
    return _Conv(PackedConv.of(weight.to(device), layer.padding, dtype, layer.up), end, style)


def _taps(f: Tensor, name: str) -> tuple[float, ...]:
    """One axis of a doubling filter, its gain included, in the order of a correlation.

    Raises:
        CannotFuse: It is no product of one vector with itself, or has other than four taps.
    """
    f = f.detach().double().cpu()
    if f.ndim == 2:
        row = f.sum(0) / f.sum().sqrt()
        if not torch.allclose(torch.outer(row, row), f, atol=1e-7):
            raise CannotFuse(f"{name}: its filter is not separable")
        f = row
    if len(f) != 4:
        raise CannotFuse(f"{name}: its filter has {len(f)} taps; 4 are known")
    return tuple(float(tap) * 2 for tap in f.flip(0))


def _limit(clamp: float | None) -> float:
    return math.inf if clamp is None else clamp


class Stylegan2Executor(Executor):
    """See `Executor`."""

    def __init__(
        self,
        packed: Packed,
        batch: int,
        *,
        blocks: list[_Block],
        start: Tensor,
        tile_at: int | None,
    ) -> None:
        super().__init__(packed, batch)
        self._blocks = blocks
        self._start = start.repeat(batch, 1, 1, 1)  # [batch, 4, 4, C'], float32
        self._tiled = None
        if tile_at is not None:
            self._tiled = self._start[..., tile_at : tile_at + packed.motion_dim]
        # What an enlarging layer writes is read before the next one does, and so for the others.
        entered = [(4, 4, start.shape[2])]
        entered += [(b.resolution, b.resolution, b.keep.conv.channels[0]) for b in blocks[1:]]
        left = [(b.resolution, b.resolution, b.keep.conv.channels[1]) for b in blocks]
        flat = self._flat(*entered)
        self._entered = [self._view(flat, shape) for shape in entered]
        self._owned = [
            self._own(x, block.keep.conv) for x, block in zip(self._entered, blocks, strict=True)
        ]
        flat = self._flat(*(s for s, owned in zip(left, self._owned, strict=True) if owned))
        self._left = [
            self._view(flat, shape) if owned else None
            for shape, owned in zip(left, self._owned, strict=True)
        ]
        self._images = [
            torch.zeros(batch, b.resolution, b.resolution, 3, device=self.device) for b in blocks
        ]

    @torch.inference_mode()
    def draw(self, out: Tensor) -> None:
        self._modulate()
        if self._tiled is not None:
            self._tiled.copy_(self._motion[:, None, None].expand_as(self._tiled))
        style = self._scale_of(self._blocks[0].keep.style)
        x = torch.mul(self._start, style[:, None, None], out=self._entered[0])
        before: Tensor | None = None
        for index, block in enumerate(self._blocks):
            last = index + 1 == len(self._blocks)
            if block.enlarge is not None:
                x = self._enlarge(index, block.enlarge, x)
            image = out if last else self._images[index]
            x = self._keep(index, x, before, image)
            before = image

    def _enlarge(self, index: int, layer: _Conv, x: Tensor) -> Tensor:
        block = self._blocks[index]
        return fir_bias_act(
            packed_conv2d(x, layer.conv),
            block.taps,
            1,
            layer.end,
            scale_in=self._demod_of(layer.style),
            scale_out=self._scale_of(block.keep.style),
            out=self._entered[index],
        )

    def _keep(self, index: int, x: Tensor, before: Tensor | None, image: Tensor) -> Tensor:
        """The second convolution and the picture so far; returns what the next block reads."""
        block = self._blocks[index]
        demod = self._demod_of(block.keep.style)
        own = self._owned[index]
        y = packed_conv2d(x, block.keep.conv, scale=demod if own else None, out=self._left[index])
        following = self._blocks[index + 1].enlarge if index + 1 < len(self._blocks) else None
        bias_act_torgb(
            y,
            block.keep.end,
            block.skip,
            self._scale_of(block.skip_style),
            before,
            image,
            scale_in=None if own else demod,
            scale_out=None if following is None else self._scale_of(following.style),
            out=None if following is None else y,
        )
        return y
