"""Analyzing and Improving the Image Quality of StyleGAN. Karras et al., CVPR 2020.
https://arxiv.org/abs/1912.04958

The discriminator of StyleGAN2 and of StyleGAN3, with the projection of StyleGAN2-ADA (NeurIPS 2020)
for labels. Names of arguments, parameters and buffers are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from kernels_triton.upfirdn2d import downsample2d, setup_filter
from models.backbones.layers import Conv2dLayer, FullyConnectedLayer
from models.backbones.mapping import MappingNetwork
from models.backbones.stylegan2 import block_resolutions, half_precision_from
from models.errors import BadConfig

Taps = Sequence[float] | Sequence[Sequence[float]]


class DiscriminatorBlock(nn.Module):
    """All layers of one resolution; the result has half of it. Sec. 4.1, Fig. 7.

    Args:
        in_channels: Features that come in; 0 makes the first block, which reads the picture only.
        tmp_channels: Features of the inner convolution.
        out_channels: Features that go out.
        resolution: Side of what comes in, pixels.
        img_channels: Of the picture.
        first_layer_idx: How many layers lie before this block, counted for `freeze_layers`.
        architecture: "orig", "skip" or "resnet".
        activation: A name known to `bias_act`.
        resample_filter: Taps for reducing.
        conv_clamp: Limit of every layer's magnitude; None is no limit.
        use_fp16: Half precision on CUDA.
        fp16_channels_last: Memory format of a half-precision block.
        freeze_layers: How many layers of the whole network do not learn.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        tmp_channels: int,
        out_channels: int,
        resolution: int,
        img_channels: int,
        first_layer_idx: int = 0,
        architecture: str = "resnet",
        activation: str = "lrelu",
        resample_filter: Taps = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        freeze_layers: int = 0,
    ) -> None:
        super().__init__()
        if architecture not in ("orig", "skip", "resnet"):
            raise BadConfig(f'architecture {architecture!r}: use "orig", "skip" or "resnet"')
        self.in_channels = in_channels
        self.resolution = resolution
        self.img_channels = img_channels
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.num_layers = 0
        self.register_buffer("resample_filter", setup_filter(resample_filter))

        def layer(fan_in: int, fan_out: int, kernel_size: int, **kwargs: Any) -> Conv2dLayer:
            trainable = first_layer_idx + self.num_layers >= freeze_layers
            self.num_layers += 1
            return Conv2dLayer(
                fan_in,
                fan_out,
                kernel_size,
                trainable=trainable,
                resample_filter=resample_filter,
                channels_last=self.channels_last,
                **kwargs,
            )

        act: dict[str, Any] = {"activation": activation, "conv_clamp": conv_clamp}
        if in_channels == 0 or architecture == "skip":
            self.fromrgb = layer(img_channels, tmp_channels, 1, **act)
        inner_in = in_channels or tmp_channels
        self.conv0 = layer(inner_in, tmp_channels, 3, **act)
        self.conv1 = layer(tmp_channels, out_channels, 3, down=2, **act)
        if architecture == "resnet":
            self.skip = layer(inner_in, out_channels, 1, bias=False, down=2)

    def forward(
        self, x: Tensor | None, img: Tensor | None, force_fp32: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """One block.

        Args:
            x: [N, in_channels, r, r]; None in the first block.
            img: [N, img_channels, r, r] where there is a `fromrgb`, else anything.
            force_fp32: No half precision even on CUDA.
        Returns:
            Features [N, out_channels, r/2, r/2] and, for "skip", the picture at r/2 (else None).
        Raises:
            ValueError: what this block reads is missing.
        """
        device_type = self.resample_filter.device.type
        half = self.use_fp16 and not force_fp32 and device_type == "cuda"
        dtype = torch.float16 if half else self.conv0.weight.dtype
        last = device_type == "cpu" or (half and self.channels_last)  # CPU convolutions want it
        layout = torch.channels_last if last else torch.contiguous_format

        # Input.
        if x is not None:
            x = x.to(dtype=dtype, memory_format=layout)
        if self.in_channels == 0 or self.architecture == "skip":
            if img is None:
                raise ValueError(f"block of {self.resolution} px reads the picture: give `img`")
            img = img.to(dtype=dtype, memory_format=layout)
            y = self.fromrgb(img)
            x = y if x is None else x + y
            img = downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if x is None:
            raise ValueError(f"block of {self.resolution} px reads features: give `x`")

        # Features.
        if self.architecture == "resnet":
            y = self.skip(x, gain=0.5**0.5)
            x = y + self.conv1(self.conv0(x), gain=0.5**0.5)
        else:
            x = self.conv1(self.conv0(x))
        return x, img

    def extra_repr(self) -> str:
        return f"{self.resolution} px, {self.architecture}"


class MinibatchStdLayer(nn.Module):
    """Appends how much a group of samples differs. Karras et al., Progressive Growing of GANs (ICLR
    2018), Sec. 3.

    Args:
        group_size: Samples compared with each other (at most the batch); None is the whole batch.
        num_channels: Channels appended.
    """

    def __init__(self, group_size: int | None, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size = group_size
        self.num_channels = num_channels

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C + num_channels, H, W].

        Raises:
            ValueError: N is not a multiple of the group.
        """
        n, c, h, w = x.shape
        group = n if self.group_size is None else min(self.group_size, n)
        if n % group or c % self.num_channels:
            raise ValueError(
                f"batch {n} must be a multiple of the group {group}, and channels {c} of "
                f"{self.num_channels}"
            )
        # Members of a group are n, n + N/G, n + 2N/G, ...: a stride, not neighbours.
        y = x.reshape(group, -1, self.num_channels, c // self.num_channels, h, w)
        y = y - y.mean(0)
        y = (y.square().mean(0) + 1e-8).sqrt()
        y = y.mean([2, 3, 4])  # [N/G, F]
        y = y[:, :, None, None].repeat(group, 1, h, w)
        return torch.cat([x, y], dim=1)

    def extra_repr(self) -> str:
        return f"group_size {self.group_size}, num_channels {self.num_channels}"


class DiscriminatorEpilogue(nn.Module):
    """4x4 features to logits, or to the projection on an embedded label. Never in half precision.

    Args:
        in_channels: Features that come in.
        cmap_dim: Size of the embedded label; 0 is unconditional.
        resolution: Side of what comes in, pixels.
        img_channels: Of the picture ("skip" reads it).
        architecture: "orig", "skip" or "resnet".
        mbstd_group_size, mbstd_num_channels: Of `MinibatchStdLayer`; 0 channels leave it out.
        activation: A name known to `bias_act`.
        conv_clamp: Limit of the convolution's magnitude; None is no limit.
    """

    def __init__(
        self,
        in_channels: int,
        cmap_dim: int,
        resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,
        activation: str = "lrelu",
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.cmap_dim = cmap_dim
        self.architecture = architecture
        if architecture == "skip":
            self.fromrgb = Conv2dLayer(img_channels, in_channels, 1, activation=activation)
        self.mbstd = (
            MinibatchStdLayer(mbstd_group_size, mbstd_num_channels)
            if mbstd_num_channels > 0
            else None
        )
        self.conv = Conv2dLayer(
            in_channels + mbstd_num_channels,
            in_channels,
            3,
            activation=activation,
            conv_clamp=conv_clamp,
        )
        self.fc = FullyConnectedLayer(in_channels * resolution**2, in_channels, activation)
        self.out = FullyConnectedLayer(in_channels, 1 if cmap_dim == 0 else cmap_dim)

    def forward(self, x: Tensor, img: Tensor | None, cmap: Tensor | None) -> Tensor:
        """Features [N, in_channels, 4, 4], picture ("skip") and embedded label [N, cmap_dim] to
        [N, 1].
        """
        dtype = self.fc.weight.dtype
        x = x.to(dtype=dtype, memory_format=torch.contiguous_format)
        if self.architecture == "skip":
            if img is None:
                raise ValueError("the last block reads the picture: give `img`")
            x = x + self.fromrgb(img.to(dtype=dtype, memory_format=torch.contiguous_format))
        if self.mbstd is not None:
            x = self.mbstd(x)
        x = self.conv(x)
        x = self.fc(x.flatten(1))
        x = self.out(x)
        if self.cmap_dim == 0:
            return x
        if cmap is None:
            raise ValueError("a conditional discriminator needs the embedded label")
        return (x * cmap).sum(1, keepdim=True) * self.cmap_dim**-0.5


class Discriminator(nn.Module):
    """Pictures [N, img_channels, R, R] (and labels) to logits [N, 1].

    Args:
        c_dim: Size of the label; 0 is unconditional.
        img_resolution: Side of the picture, a power of two.
        img_channels: Of the picture.
        architecture: "orig", "skip" or "resnet".
        channel_base, channel_max: A block of r pixels has min(channel_base // r, channel_max)
            channels.
        num_fp16_res: How many of the highest resolutions use half precision on CUDA.
        conv_clamp: Limit of every layer's magnitude; None is no limit.
        cmap_dim: Size of the embedded label; None is the channels at 4x4.
        block_kwargs: For `DiscriminatorBlock`.
        mapping_kwargs: For the `MappingNetwork` that embeds labels.
        epilogue_kwargs: For `DiscriminatorEpilogue`.
    Raises:
        BadConfig: impossible resolution or architecture.
    """

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        architecture: str = "resnet",
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 4,
        conv_clamp: float | None = 256,
        cmap_dim: int | None = None,
        block_kwargs: Mapping[str, Any] | None = None,
        mapping_kwargs: Mapping[str, Any] | None = None,
        epilogue_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.block_resolutions = block_resolutions(img_resolution)[:0:-1]  # R ... 8
        if not self.block_resolutions:
            raise BadConfig(f"img_resolution {img_resolution}: a discriminator needs 8 or more")
        half_from = half_precision_from(img_resolution, num_fp16_res)
        channels = {r: min(channel_base // r, channel_max) for r in [*self.block_resolutions, 4]}
        cmap_dim = channels[4] if cmap_dim is None else cmap_dim
        cmap_dim = cmap_dim if c_dim > 0 else 0
        common: dict[str, Any] = {
            "img_channels": img_channels,
            "architecture": architecture,
            "conv_clamp": conv_clamp,
        }
        layers = 0
        for r in self.block_resolutions:
            block = DiscriminatorBlock(
                0 if r == img_resolution else channels[r],
                channels[r],
                channels[r // 2],
                resolution=r,
                first_layer_idx=layers,
                use_fp16=r >= half_from,
                **(block_kwargs or {}),
                **common,
            )
            self.add_module(f"b{r}", block)
            layers += block.num_layers
        if c_dim > 0:
            self.mapping = MappingNetwork(
                0, c_dim, cmap_dim, num_ws=None, w_avg_beta=None, **(mapping_kwargs or {})
            )
        self.b4 = DiscriminatorEpilogue(
            channels[4], cmap_dim, resolution=4, **(epilogue_kwargs or {}), **common
        )

    def blocks(self) -> Iterator[DiscriminatorBlock]:
        """From the picture downwards, without `b4`."""
        return (cast(DiscriminatorBlock, self._modules[f"b{r}"]) for r in self.block_resolutions)

    def forward(
        self,
        img: Tensor,
        c: Tensor | None = None,
        update_emas: bool = False,
        force_fp32: bool = False,
    ) -> Tensor:
        """Logits.

        Args:
            img: [N, img_channels, R, R] in [-1, 1].
            c: [N, c_dim]; ignored where c_dim is 0.
            update_emas: Accepted, without effect.
            force_fp32: No half precision even on CUDA.
        Returns:
            [N, 1].
        """
        x: Tensor | None = None
        picture: Tensor | None = img
        for block in self.blocks():
            x, picture = block(x, picture, force_fp32)
        cmap = self.mapping(None, c) if self.c_dim > 0 else None
        return self.b4(x, picture, cmap)

    def extra_repr(self) -> str:
        return f"{self.img_resolution} px, c_dim {self.c_dim}"
