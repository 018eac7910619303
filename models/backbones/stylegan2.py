"""Analyzing and Improving the Image Quality of StyleGAN. Karras, Laine, Aittala, Hellsten,
Lehtinen, Aila, CVPR 2020.
https://arxiv.org/abs/1912.04958

With the half-precision recipe of StyleGAN2-ADA (NeurIPS 2020). Names of arguments, parameters and
buffers are those of the published checkpoints. Different here: `noise_mode` defaults to "const",
and "random" takes its noise (or a generator) from the caller, so that a forward pass never draws a
number of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from kernels_triton.bias_act import bias_act, default_gain
from kernels_triton.modulated_conv import modulated_conv2d_resample
from kernels_triton.upfirdn2d import setup_filter, upsample2d
from models.backbones.layers import Conv2dLayer, FullyConnectedLayer
from models.backbones.mapping import ImageGenerator
from models.errors import BadConfig

NOISE_MODES = ("const", "none", "random")
Taps = Sequence[float] | Sequence[Sequence[float]]


class SynthesisLayer(nn.Module):
    """Modulated convolution, noise, bias, activation. Sec. 2.2, Fig. 2d.

    Args:
        in_channels, out_channels: Of the convolution.
        w_dim: Size of the latent its style comes from.
        resolution: Side of the result, pixels.
        kernel_size: Side of the kernel.
        up: 1 or 2.
        use_noise: Whether there is a noise input.
        activation: A name known to `bias_act`.
        resample_filter: Taps for `up`.
        conv_clamp: Limit of the result's magnitude (times the gain of the call); None is no limit.
        channels_last: Keep the weight in this memory format.
    """

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        kernel_size: int = 3,
        up: int = 1,
        use_noise: bool = True,
        activation: str = "lrelu",
        resample_filter: Taps = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.w_dim = w_dim
        self.resolution = resolution
        self.up = up
        self.use_noise = use_noise
        self.activation = activation
        self.conv_clamp = conv_clamp
        self.padding = kernel_size // 2
        self.act_gain = default_gain(activation)
        self.register_buffer("resample_filter", setup_filter(resample_filter))
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(weight.to(memory_format=layout))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        noise_mode: str = "const",
        noise: Tensor | None = None,
        gain: float = 1.0,
    ) -> Tensor:
        """One layer.

        Args:
            x: [N, in_channels, H, W] with H = resolution / up.
            w: [N, w_dim].
            noise_mode: "const", "none", or "random", which then takes `noise`.
            noise: [N, 1, resolution, resolution], standard normal.
            gain: Scales the result, and the clamp with it.
        Returns:
            [N, out_channels, resolution, resolution], dtype of x.
        Raises:
            ValueError: unknown noise mode, or "random" without noise.
        """
        styles = self.affine(w)
        # Activations that keep a positive factor let the gain go into the convolution's weight.
        early = self.act_gain * gain if self.activation in ("linear", "relu", "lrelu") else 1.0
        x = modulated_conv2d_resample(
            x,
            self.weight,
            styles,
            noise=self._noise(noise_mode, noise),
            up=self.up,
            padding=self.padding,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,
            bias=self.bias,
            gain=early,
        )
        return bias_act(
            x,
            act=self.activation,
            gain=self.act_gain * gain / early,
            clamp=None if self.conv_clamp is None else self.conv_clamp * gain,
            inplace=True,
        )

    def _noise(self, noise_mode: str, noise: Tensor | None) -> Tensor | None:
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode {noise_mode!r} is unknown: use one of {NOISE_MODES}")
        if not self.use_noise or noise_mode == "none":
            return None
        if noise_mode == "const":
            return self.noise_const * self.noise_strength
        if noise is None:
            raise ValueError('noise_mode "random" needs noise: give it, or a generator to draw it')
        return noise.to(self.noise_strength.dtype) * self.noise_strength

    def extra_repr(self) -> str:
        return f"{self.in_channels} -> {self.out_channels}, {self.resolution} px, up {self.up}"


class ToRGBLayer(nn.Module):
    """Features to picture: modulated 1x1 convolution without demodulation, bias, clamp. Sec. 4.1,
    Fig. 7.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        kernel_size: int = 1,
        conv_clamp: float | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.conv_clamp = conv_clamp
        self.padding = kernel_size // 2
        self.weight_gain = 1 / (in_channels * kernel_size**2) ** 0.5
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(weight.to(memory_format=layout))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[N, in_channels, H, W] and [N, w_dim] to [N, out_channels, H, W]."""
        styles = self.affine(w) * self.weight_gain
        x = modulated_conv2d_resample(
            x, self.weight, styles, padding=self.padding, demodulate=False, bias=self.bias
        )
        return bias_act(x, clamp=self.conv_clamp, inplace=True)

    def extra_repr(self) -> str:
        return f"{self.in_channels} -> {self.out_channels}"


class SynthesisBlock(nn.Module):
    """All layers of one resolution. Sec. 4.1, Fig. 7.

    Args:
        in_channels: Features of the block before; 0 makes the first block, which starts from a
            learned constant.
        out_channels: Features of this block.
        w_dim: Size of the latent.
        resolution: Side of the result, pixels.
        img_channels: Of the picture.
        is_last: Whether the picture is finished here.
        architecture: "orig", "skip" or "resnet".
        resample_filter: Taps for enlarging.
        conv_clamp: Limit of every layer's magnitude; None is no limit.
        use_fp16: Half precision on CUDA.
        fp16_channels_last: Memory format of a half-precision block.
        fused_modconv_default: Accepted because published files carry it; both forms give the same
            picture here.
        fed_channels: First block only: features that `forward` is given, in place of the learned
            constant.
        layer_kwargs: For `SynthesisLayer`.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        architecture: str = "skip",
        resample_filter: Taps = (1, 3, 3, 1),
        conv_clamp: float | None = 256,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        fused_modconv_default: bool | str = True,
        fed_channels: int | None = None,
        **layer_kwargs: Any,
    ) -> None:
        super().__init__()
        if architecture not in ("orig", "skip", "resnet"):
            raise BadConfig(f'architecture {architecture!r}: use "orig", "skip" or "resnet"')
        self.in_channels = in_channels
        self.w_dim = w_dim
        self.resolution = resolution
        self.img_channels = img_channels
        self.is_last = is_last
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.register_buffer("resample_filter", setup_filter(resample_filter))
        self.num_conv = 0
        self.num_torgb = 0
        common: dict[str, Any] = {
            "w_dim": w_dim,
            "resolution": resolution,
            "conv_clamp": conv_clamp,
            "channels_last": self.channels_last,
            "resample_filter": resample_filter,
            **layer_kwargs,
        }

        first = in_channels == 0
        self.has_const = first and fed_channels is None
        if self.has_const:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        if not first:
            self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, **common)
            self.num_conv += 1
        conv1_in = fed_channels if first and fed_channels is not None else out_channels
        self.conv1 = SynthesisLayer(conv1_in, out_channels, **common)
        self.num_conv += 1
        if is_last or architecture == "skip":
            self.torgb = ToRGBLayer(
                out_channels,
                img_channels,
                w_dim,
                conv_clamp=conv_clamp,
                channels_last=self.channels_last,
            )
            self.num_torgb += 1
        if not first and architecture == "resnet":
            self.skip = Conv2dLayer(
                in_channels,
                out_channels,
                kernel_size=1,
                bias=False,
                up=2,
                resample_filter=resample_filter,
                channels_last=self.channels_last,
            )

    def forward(
        self,
        x: Tensor | None,
        img: Tensor | None,
        ws: Tensor,
        force_fp32: bool = False,
        noise_mode: str = "const",
        noise: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One block.

        Args:
            x: [N, in_channels, r/2, r/2]; in the first block None, or [N, fed_channels, r, r].
            img: [N, img_channels, r/2, r/2], the picture so far, or None.
            ws: [N, num_conv + num_torgb, w_dim], a row per layer.
            force_fp32: No half precision even on CUDA.
            noise_mode, noise: See `SynthesisLayer`; one tensor per convolution.
        Returns:
            Features [N, out_channels, r, r] and picture [N, img_channels, r, r] (None where there
            is none yet).
        """
        rows = list(ws.unbind(dim=1))
        noises = [None] * self.num_conv if noise is None else list(noise)
        half = self.use_fp16 and not force_fp32 and ws.device.type == "cuda"
        dtype = torch.float16 if half else self.conv1.weight.dtype

        # Input.
        if self.has_const:
            x = self.const[None].expand(ws.shape[0], -1, -1, -1)
        elif x is None:
            raise ValueError(f"block of {self.resolution} px has no constant: give it features")
        x = x.to(dtype)
        if (half and self.channels_last) or x.device.type == "cpu":  # what CPU convolutions want
            x = x.contiguous(memory_format=torch.channels_last)

        # Features.
        gain = 0.5**0.5 if self.architecture == "resnet" and self.in_channels else 1.0
        y = self.skip(x, gain=gain) if gain != 1 else None
        if self.in_channels:
            x = self.conv0(x, rows.pop(0), noise_mode, noises.pop(0))
        x = self.conv1(x, rows.pop(0), noise_mode, noises.pop(0), gain=gain)
        if y is not None:
            x = y + x

        # Picture, never in half precision.
        if img is not None:
            img = upsample2d(img, self.resample_filter)
        if self.num_torgb:
            rgb = self.torgb(x, rows.pop(0)).to(self.torgb.weight.dtype)
            img = rgb if img is None else img + rgb
        return x, img

    def extra_repr(self) -> str:
        return f"{self.resolution} px, {self.architecture}"


def block_resolutions(img_resolution: int) -> list[int]:
    """4, 8, ... `img_resolution`.

    Raises:
        BadConfig: not a power of two, or below 4.
    """
    if img_resolution < 4 or img_resolution & (img_resolution - 1):
        raise BadConfig(f"img_resolution {img_resolution}: must be a power of two, 4 or more")
    return [2**k for k in range(2, img_resolution.bit_length())]


def half_precision_from(img_resolution: int, num_fp16_res: int) -> int:
    """Smallest resolution computed in half precision on CUDA."""
    return max(2 ** (img_resolution.bit_length() - num_fp16_res), 8)


class SynthesisNetwork(nn.Module):
    """ws [N, num_ws, w_dim] to pictures [N, img_channels, R, R], nominally in [-1, 1].

    Args:
        w_dim: Size of the latent.
        img_resolution: Side of the picture, a power of two.
        img_channels: 3 for colour.
        channel_base, channel_max: A block of r pixels has min(channel_base // r, channel_max)
            channels.
        num_fp16_res: How many of the highest resolutions use half precision on CUDA.
        block_kwargs: For `SynthesisBlock` and its layers.
    Raises:
        BadConfig: impossible resolution or architecture.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 4,
        **block_kwargs: Any,
    ) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.num_fp16_res = num_fp16_res
        self.block_resolutions = block_resolutions(img_resolution)
        half_from = half_precision_from(img_resolution, num_fp16_res)
        self.num_ws = 0
        channels = 0
        for resolution in self.block_resolutions:
            before, channels = channels, min(channel_base // resolution, channel_max)
            block = SynthesisBlock(
                before,
                channels,
                w_dim,
                resolution,
                img_channels,
                is_last=resolution == img_resolution,
                use_fp16=resolution >= half_from,
                **block_kwargs,
            )
            self.add_module(f"b{resolution}", block)
            self.num_ws += block.num_conv
        self.num_ws += block.num_torgb

    def blocks(self) -> list[SynthesisBlock]:
        """From 4x4 upwards."""
        return [cast(SynthesisBlock, self._modules[f"b{r}"]) for r in self.block_resolutions]

    def forward(
        self,
        ws: Tensor,
        noise_mode: str = "const",
        noise: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
        force_fp32: bool = False,
        fused_modconv: bool | None = None,
        update_emas: bool = False,
    ) -> Tensor:
        """Pictures.

        Args:
            ws: [N, num_ws, w_dim].
            noise_mode: "const", "none" or "random".
            noise: For "random": standard normal [N, 1, r, r] per convolution, from 4x4 upwards.
            generator: For "random" without `noise`: where it is drawn from.
            force_fp32: No half precision even on CUDA.
            fused_modconv, update_emas: Accepted, without effect.
        Returns:
            [N, img_channels, R, R] in the dtype of the parameters.
        Raises:
            ValueError: misshapen ws, or "random" with neither noise nor generator.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws must be [N, {self.num_ws}, {self.w_dim}], not {list(ws.shape)}")
        blocks = self.blocks()
        ws = ws.to(blocks[0].conv1.affine.weight.dtype)
        if noise_mode == "random" and noise is None and generator is not None:
            noise = self.draw_noise(ws.shape[0], generator)
        x: Tensor | None = None
        img: Tensor | None = None
        row = conv = 0
        for block in blocks:
            # A block's torgb shares its row with the next block's conv0.
            rows = ws[:, row : row + block.num_conv + block.num_torgb]
            noises = None if noise is None else noise[conv : conv + block.num_conv]
            x, img = block(x, img, rows, force_fp32, noise_mode, noises)
            row += block.num_conv
            conv += block.num_conv
        return cast(Tensor, img).contiguous()  # the last block always makes one

    def draw_noise(self, n: int, generator: torch.Generator) -> list[Tensor]:
        """Standard normal [n, 1, r, r] per convolution, from 4x4 upwards, on the generator's
        device.
        """
        sides = [block.resolution for block in self.blocks() for _ in range(block.num_conv)]
        return [
            torch.randn(n, 1, r, r, generator=generator, device=generator.device) for r in sides
        ]

    def extra_repr(self) -> str:
        return f"{self.img_resolution} px, w_dim {self.w_dim}, num_ws {self.num_ws}"


class Generator(ImageGenerator):
    """StyleGAN2: a mapping network of eight layers, and synthesis; see `ImageGenerator`."""

    synthesis_network = SynthesisNetwork
