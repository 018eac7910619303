"""StyleGAN-V: A Continuous Video Generator with the Price, Image Quality and Perks of StyleGAN2.
Skorokhodov, Tulyakov, Elhoseiny, CVPR 2022.
https://arxiv.org/abs/2112.14683

StyleGAN2 whose 4x4 input carries a motion code, and a discriminator that sees a few frames of a
clip at once. Names of arguments, parameters and buffers are those of the published checkpoints.
Times are in frames of the training data. Where paper and published code differ, the code is
followed; phases are formed in float64 (see `motion_encoder.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.backbones.mapping import MappingNetwork
from models.backbones.stylegan2 import SynthesisBlock, block_resolutions, half_precision_from
from models.errors import BadConfig
from models.stylegan_v.config import GeneratorConfig
from models.stylegan_v.discriminator import Discriminator
from models.stylegan_v.motion_encoder import MotionEncoder
from models.stylegan_v.tracks import TrackEncoder

__all__ = ["Discriminator", "Generator", "SynthesisNetwork"]

SIDE = 4  # of the first feature map, pixels


class TemporalInput(nn.Module):
    """Learned constant, and the motion code tiled beside it. Sec. 3.1.

    Args:
        channels: Of the constant.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.randn(1, channels, SIDE, SIDE))

    def forward(self, motion_v: Tensor) -> Tensor:
        """[N, M] to [N, channels + M, 4, 4]."""
        const = self.const.expand(motion_v.shape[0], -1, -1, -1)
        tiled = motion_v[:, :, None, None].expand(-1, -1, SIDE, SIDE).to(const.dtype)
        return torch.cat([const, tiled], dim=1)


class GenInput(nn.Module):
    """The 4x4 features that synthesis starts from.

    Args:
        channels: Of the constant part.
        motion_dim: Entries of the motion code; 0 for a constant alone.
    """

    def __init__(self, channels: int, motion_dim: int) -> None:
        super().__init__()
        self.total_channels = channels + motion_dim
        self.input: nn.Module | nn.Parameter = (
            TemporalInput(channels)
            if motion_dim
            else nn.Parameter(torch.randn(channels, SIDE, SIDE))
        )

    def forward(self, motion_v: Tensor) -> Tensor:
        """[N, M] to [N, total_channels, 4, 4]."""
        if isinstance(self.input, nn.Module):
            return self.input(motion_v)
        return self.input[None].expand(motion_v.shape[0], -1, -1, -1)


class InputBlock(SynthesisBlock):
    """First block: the input belongs to it, and there is no convolution before `conv1`."""

    def __init__(self, channels: int, motion_dim: int, **block_kwargs: Any) -> None:
        generated = GenInput(channels, motion_dim)
        super().__init__(
            0, channels, fed_channels=generated.total_channels, resolution=SIDE, **block_kwargs
        )
        self.input = generated


class SynthesisNetwork(nn.Module):
    """Styles and motion to frames.

    Args:
        w_dim: Size of the intermediate latent.
        img_resolution: Side of the picture, a power of two.
        img_channels: 3 for colour.
        c_dim: Entries of the label, which the motion encoder sees.
        config: Motion, and where it enters.
        channel_base, channel_max: A block of r pixels has min(channel_base // r, channel_max)
            channels.
        num_fp16_res: How many of the highest resolutions use half precision on CUDA.
        block_kwargs: For `SynthesisBlock`, e.g. `conv_clamp`.
    Raises:
        BadConfig: An impossible size.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        c_dim: int,
        config: GeneratorConfig,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 4,
        **block_kwargs: Any,
    ) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.condition = config.condition
        self.motion_dim = config.motion.embedding_dim
        if self.condition == "sum_w" and self.motion_dim != w_dim:
            raise BadConfig(
                f"time_enc.cond_type 'sum_w' needs 2 * time_enc.dim ({self.motion_dim}) to be"
                f" w_dim ({w_dim})"
            )
        self.motion_encoder: MotionEncoder | TrackEncoder = (
            TrackEncoder(config.motion)
            if config.motion.strategy == "tracks"
            else MotionEncoder(c_dim, config.motion)
        )
        self.block_resolutions = block_resolutions(img_resolution)
        half_from = half_precision_from(img_resolution, num_fp16_res)
        block_kwargs |= {
            "w_dim": w_dim + (self.motion_dim if self.condition == "concat_w" else 0),
            "img_channels": img_channels,
            "use_noise": config.use_noise,
        }
        self.num_ws = 1
        before = 0
        for resolution in self.block_resolutions:
            channels = min(channel_base // resolution, channel_max)
            common = {"is_last": resolution == img_resolution, **block_kwargs}
            block = (
                SynthesisBlock(
                    before,
                    channels,
                    resolution=resolution,
                    use_fp16=resolution >= half_from,
                    **common,
                )
                if before
                else InputBlock(channels, self.motion_dim * config.temporal_input, **common)
            )
            setattr(self, f"b{resolution}", block)
            self.num_ws += block.num_conv
            before = channels

    def blocks(self) -> list[SynthesisBlock]:
        """From 4x4 upwards."""
        return [getattr(self, f"b{resolution}") for resolution in self.block_resolutions]

    def start(self) -> tuple[Tensor, bool]:
        """The constant [C, 4, 4] that synthesis starts from, and whether the motion code is tiled
        beside it.
        """
        source = cast(InputBlock, self._modules["b4"]).input.input
        if isinstance(source, TemporalInput):
            return source.const[0], True
        return cast(Tensor, source), False

    def forward(
        self,
        ws: Tensor,
        t: Tensor | None = None,
        c: Tensor | None = None,
        motion_z: Tensor | None = None,
        motion_v: Tensor | None = None,
        noise_mode: str = "const",
        force_fp32: bool = False,
        upto: int | None = None,
    ) -> Tensor:
        """Frames.

        Args:
            ws: [B, num_ws, w_dim], one row of styles per clip.
            t: Times [B, F], frames of the training data, not negative. Unused with `motion_v`.
            c: Labels [B, c_dim]. Unused with `motion_v` or where c_dim is 0.
            motion_z: Motion noise, see `MotionEncoder`; None draws it afresh.
            motion_v: Motion codes [B * F, 2 * frequencies], frame index fastest, in place of the
                four above; whatever their times are.
            noise_mode: "const" or "none", for networks with noise inputs.
            force_fp32: No half precision even on CUDA.
            upto: The picture as it stands after the block of so many pixels, R then; what comes
                behind is not run. For training from small pictures to large ones.
        Returns:
            [B * F, img_channels, R, R], RGB, nominally in [-1, 1], frame index fastest.
        Raises:
            ValueError: An input is missing or misshapen, or there is no block of `upto` pixels.
        """
        if upto is not None and upto not in self.block_resolutions:
            raise ValueError(f"upto is {upto}; there are blocks of {self.block_resolutions} pixels")
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws must be [B, {self.num_ws}, {self.w_dim}], not {list(ws.shape)}")
        if motion_v is None:
            motion_v = self._motion(ws, t, c, motion_z)
        frames, rest = divmod(motion_v.shape[0], ws.shape[0])
        if motion_v.shape[1:] != (self.motion_dim,) or rest or not frames:
            raise ValueError(
                f"motion_v must be [{ws.shape[0]} * F, {self.motion_dim}],"
                f" not {list(motion_v.shape)}"
            )

        # Styles, one row of each per frame.
        ws = ws.repeat_interleave(frames, dim=0, output_size=motion_v.shape[0])
        motion_v = motion_v.to(ws.dtype)
        if self.condition == "concat_w":
            ws = torch.cat([ws, motion_v[:, None].expand(-1, self.num_ws, -1)], dim=2)
        elif self.condition == "sum_w":
            ws = ws + motion_v[:, None]

        # Blocks. A block's torgb shares its row with the next block's conv0.
        x: Tensor = cast(InputBlock, self._modules["b4"]).input(motion_v)
        img: Tensor | None = None
        row = 0
        for block in self.blocks():
            rows = ws[:, row : row + block.num_conv + block.num_torgb]
            x, img = block(x, img, rows, force_fp32, noise_mode)
            row += block.num_conv
            if block.resolution == upto:
                break
        assert img is not None  # every block of a "skip" network draws
        return img

    def _motion(
        self, ws: Tensor, t: Tensor | None, c: Tensor | None, motion_z: Tensor | None
    ) -> Tensor:
        if t is None or t.ndim != 2 or t.shape[0] != ws.shape[0]:
            found = None if t is None else list(t.shape)
            raise ValueError(f"t must be [{ws.shape[0]}, F], not {found}; or give motion_v")
        if isinstance(self.motion_encoder, TrackEncoder):
            raise ValueError(
                "motion of tracks is no function of t and noise: give motion_v, which"
                " motion_encoder makes of the numbers of a face"
            )
        if c is None:
            c = ws.new_zeros(ws.shape[0], 0)
        return self.motion_encoder(t, c, motion_z)


class Generator(nn.Module):
    """StyleGAN-V's generator.

    Args:
        c_dim, w_dim: Sizes of label (0: none) and intermediate latent.
        img_resolution, img_channels: Of the picture.
        mapping_kwargs: For `MappingNetwork`; 2 layers unless told.
        synthesis_kwargs: channel_base, channel_max, num_fp16_res, conv_clamp, ...
        cfg: Nested dict in published key names: z_dim, motion, time_enc, input, sampling,
            use_noise, and `fps` of the training data. See `GeneratorConfig.from_published`.
        z_dim: As in `cfg`; may be left out.
    Raises:
        BadConfig: A setting is impossible.
    """

    def __init__(
        self,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: Mapping[str, Any] | None = None,
        synthesis_kwargs: Mapping[str, Any] | None = None,
        cfg: Mapping[str, Any] | None = None,
        z_dim: int | None = None,
    ) -> None:
        super().__init__()
        cfg = dict(cfg or {})
        if z_dim is not None and cfg.setdefault("z_dim", z_dim) != z_dim:
            raise BadConfig(f"z_dim is {z_dim}, but cfg says {cfg['z_dim']}")
        self.config = GeneratorConfig.from_published(cfg)
        self.z_dim = self.config.z_dim
        if c_dim and self.config.content == "traits":
            raise BadConfig(f"c_dim is {c_dim}; content of type 'traits' has no labels besides")
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.synthesis = SynthesisNetwork(
            w_dim, img_resolution, img_channels, c_dim, self.config, **(synthesis_kwargs or {})
        )
        self.num_ws = self.synthesis.num_ws
        mapping_settings = {"num_layers": 2, "w_avg_beta": 0.995, **(mapping_kwargs or {})}
        self.mapping = MappingNetwork(self.z_dim, c_dim, w_dim, self.num_ws, **mapping_settings)

    def forward(
        self,
        z: Tensor,
        c: Tensor,
        t: Tensor,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        motion_z: Tensor | None = None,
        update_emas: bool = False,
        **synthesis_kwargs: Any,
    ) -> Tensor:
        """Frames of clips.

        Args:
            z: Content, [B, z_dim].
            c: Labels, [B, c_dim].
            t: Times, [B, F], frames of the training data.
            truncation_psi, truncation_cutoff: Of content; nothing truncates motion.
            motion_z: Motion noise, [B, n, motion z_dim]; None draws it afresh.
            update_emas: Training: move `w_avg` towards this batch first.
            synthesis_kwargs: For `SynthesisNetwork.forward`.
        Returns:
            [B * F, img_channels, R, R], frame index fastest.
        """
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, t=t, c=c, motion_z=motion_z, **synthesis_kwargs)
