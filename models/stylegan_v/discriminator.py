"""StyleGAN-V's discriminator: a few frames of a clip, and how far apart they are. Sec. 3.2, Fig. 4.

Each frame passes the first blocks alone; at `concat_res` the frames of a clip are stacked along
channels and go on as one. The verdict is a projection on the embedded time differences, so that a
clip has to look right for its own spacing. Absolute time is invisible to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.backbones.discriminator import DiscriminatorBlock, DiscriminatorEpilogue
from models.backbones.mapping import MappingNetwork
from models.backbones.stylegan2 import block_resolutions, half_precision_from
from models.errors import BadConfig
from models.stylegan_v.config import DiscriminatorConfig

TABLE_DIM = 256  # learned entries per whole number of frames


class FixedTimeEncoder(nn.Module):
    """Sines and cosines of a time difference, from one turn per `max_num_frames` * 2 up by octaves.

    Args:
        max_num_frames: Longest difference to tell apart, frames.
    """

    fourier_coefs: Tensor

    def __init__(self, max_num_frames: int) -> None:
        super().__init__()
        octaves = math.ceil(math.log2(max_num_frames)) if max_num_frames > 1 else 1
        coefs = 2.0 ** torch.arange(octaves) * (math.pi / 2**octaves)
        self.register_buffer("fourier_coefs", coefs.float()[None])

    def forward(self, delta: Tensor) -> Tensor:
        """float32 [M, 1] to [M, 2 * octaves]."""
        angle = delta * self.fourier_coefs
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class TemporalDifferenceEncoder(nn.Module):
    """Time code of a clip: for each difference of neighbouring times a learned row and waves.

    Args:
        max_num_frames: Rows of the table.
        differences: How many of a clip's differences are encoded.
    """

    def __init__(self, max_num_frames: int, differences: int) -> None:
        super().__init__()
        self.differences = differences
        self.const_embed = nn.Embedding(max_num_frames, TABLE_DIM)
        self.time_encoder = FixedTimeEncoder(max_num_frames)
        octaves = self.time_encoder.fourier_coefs.shape[1]
        self.dim = differences * (TABLE_DIM + 2 * octaves)

    def forward(self, t: Tensor) -> Tensor:
        """Times [B, k], frames, to codes [B, dim], difference after difference."""
        delta = (t[:, 1:] - t[:, :-1]).float()[:, : self.differences].reshape(-1, 1)
        learned = self.const_embed(delta[:, 0].round().long())
        return torch.cat([learned, self.time_encoder(delta)], dim=1).view(t.shape[0], -1)


class Discriminator(nn.Module):
    """Clips to logits.

    Args:
        c_dim: Entries of the label; 0 is unconditional.
        img_resolution, img_channels: Of a frame.
        architecture: Only "resnet" was published.
        channel_base, channel_max: A block of r pixels has min(channel_base // r, channel_max)
            channels.
        num_fp16_res: How many of the highest resolutions use half precision on CUDA.
        conv_clamp: Limit of every layer's magnitude; None is no limit.
        cmap_dim: Size of the embedded condition; None is the channels at 4x4.
        cfg: Nested dict in published key names: sampling, concat_res, num_frames_div_factor,
            dummy_c. See `DiscriminatorConfig.from_published`.
        block_kwargs: For `DiscriminatorBlock`.
        mapping_kwargs: For the `MappingNetwork` that embeds the condition; 2 layers unless told.
        epilogue_kwargs: For `DiscriminatorEpilogue`, e.g. `mbstd_group_size`, counted in clips.
    Raises:
        BadConfig: A setting is impossible.
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
        cfg: Mapping[str, Any] | None = None,
        block_kwargs: Mapping[str, Any] | None = None,
        mapping_kwargs: Mapping[str, Any] | None = None,
        epilogue_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config = DiscriminatorConfig.from_published(cfg or {})
        self.c_dim = c_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.block_resolutions = block_resolutions(img_resolution)[:0:-1]  # R ... 8
        if architecture != "resnet":
            raise BadConfig(f'architecture {architecture!r}: a video discriminator is "resnet"')
        if config.concat_res not in self.block_resolutions[1:]:
            raise BadConfig(
                f"concat_res is {config.concat_res}; with {img_resolution} px it must be one of"
                f" {self.block_resolutions[1:]}"
            )
        channels = {r: min(channel_base // r, channel_max) for r in [*self.block_resolutions, 4]}
        half_from = half_precision_from(img_resolution, num_fp16_res)

        # What the verdict is conditioned on.
        total_c = c_dim
        if config.frames > 1:
            self.time_encoder = TemporalDifferenceEncoder(config.max_num_frames, config.differences)
            total_c += self.time_encoder.dim
        self.cmap_dim = 0 if total_c == 0 else channels[4] if cmap_dim is None else cmap_dim

        # Blocks. What a frame brings to the meeting is thinned by `frames_div`.
        common: dict[str, Any] = {"img_channels": img_channels, "conv_clamp": conv_clamp}
        thin = channels[config.concat_res] // config.frames_div
        layers = 0
        for r in self.block_resolutions:
            fan_in = 0 if r == img_resolution else channels[r]
            block = DiscriminatorBlock(
                config.frames * thin if r == config.concat_res else fan_in,
                channels[r],
                thin if r == 2 * config.concat_res else channels[r // 2],
                resolution=r,
                first_layer_idx=layers,
                use_fp16=r >= half_from,
                **(block_kwargs or {}),
                **common,
            )
            self.add_module(f"b{r}", block)
            layers += block.num_layers
        if self.cmap_dim:
            mapping_settings = {"num_layers": 2, **(mapping_kwargs or {})}
            self.mapping = MappingNetwork(
                0, total_c, self.cmap_dim, num_ws=None, w_avg_beta=None, **mapping_settings
            )
        self.b4 = DiscriminatorEpilogue(
            channels[4], self.cmap_dim, resolution=4, **(epilogue_kwargs or {}), **common
        )

    def blocks(self) -> Iterator[DiscriminatorBlock]:
        """From the picture downwards, without `b4`."""
        return (cast(DiscriminatorBlock, self._modules[f"b{r}"]) for r in self.block_resolutions)

    def condition(self, c: Tensor, t: Tensor) -> Tensor | None:
        """The embedded condition [B, cmap_dim] of labels [B, c_dim] and times [B, k]."""
        if not self.cmap_dim:
            return None
        parts = [c] if self.c_dim > 0 else []
        if self.config.frames > 1:
            parts.append(self.time_encoder(t))
        whole = torch.cat(parts, dim=1)
        return self.mapping(None, whole * 0 if self.config.dummy_c else whole)

    def forward(self, img: Tensor, c: Tensor, t: Tensor, force_fp32: bool = False) -> Tensor:
        """Logits.

        Args:
            img: [B * k, img_channels, R, R] in [-1, 1], frame index fastest.
            c: Labels [B, c_dim].
            t: Times [B, k], frames, rising; differences must be below `max_num_frames`.
            force_fp32: No half precision even on CUDA.
        Returns:
            [B, 1].
        Raises:
            ValueError: The number of frames does not fit the times.
        """
        clips, frames = t.shape
        if frames != self.config.frames or img.shape[0] != clips * frames:
            raise ValueError(
                f"{img.shape[0]} frames with times {list(t.shape)}: this discriminator takes"
                f" clips of {self.config.frames}"
            )
        x: Tensor | None = None
        picture: Tensor | None = img
        for block in self.blocks():
            if x is not None and block.resolution == self.config.concat_res:
                x = x.reshape(clips, -1, *x.shape[2:])  # [B, k * C, r, r], frame after frame
            x, picture = block(x, picture, force_fp32)
        assert x is not None  # there are at least two blocks
        return self.b4(x, None, self.condition(c, t))

    def extra_repr(self) -> str:
        return f"{self.img_resolution} px, {self.config.frames} frames, c_dim {self.c_dim}"
