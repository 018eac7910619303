"""Mapping network: z (and a label) to w, with truncation; and the generator it is a half of.

Sources: Karras et al., A Style-Based Generator Architecture (CVPR 2019), Sec. 2 and appendix B
(truncation); Karras et al., Alias-Free Generative Adversarial Networks (NeurIPS 2021), appendix D
(two layers).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from models.backbones.layers import FullyConnectedLayer


def normalize_second_moment(x: Tensor) -> Tensor:
    """Each row of [N, D] scaled to unit mean square."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def truncate(ws: Tensor, w_avg: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
    """`w_avg + psi * (w - w_avg)` for the first `cutoff` rows (None: all) of [N, num_ws, w_dim] or
    of [N, w_dim].
    """
    if psi == 1 or cutoff == 0:
        return ws
    if cutoff is None or ws.ndim == 2:
        return w_avg + psi * (ws - w_avg)
    return torch.cat([w_avg + psi * (ws[:, :cutoff] - w_avg), ws[:, cutoff:]], dim=1)


class MappingNetwork(nn.Module):
    """z [N, z_dim] and c [N, c_dim] to ws [N, num_ws, w_dim].

    Args:
        z_dim: 0 leaves z out.
        c_dim: 0 is unconditional; `c` is then ignored.
        w_dim: Size of the intermediate latent.
        num_ws: How often w is repeated; None gives [N, w_dim].
        num_layers: Dense layers. StyleGAN2 has 8, StyleGAN3 has 2.
        embed_features: Size of the embedded label; None is w_dim.
        layer_features: Width of the hidden layers; None is w_dim.
        activation: Of every layer but the embedding.
        lr_multiplier: Of every layer but the embedding.
        w_avg_beta: Decay of the running average of w; None keeps none, and then nothing can be
            truncated.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = "lrelu",
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.998,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        embed_features = (w_dim if embed_features is None else embed_features) if c_dim > 0 else 0
        layer_features = w_dim if layer_features is None else layer_features
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, embed_features)
        widths = [z_dim + embed_features, *[layer_features] * (num_layers - 1), w_dim]
        for index, (fan_in, fan_out) in enumerate(pairwise(widths)):
            layer = FullyConnectedLayer(fan_in, fan_out, activation, lr_multiplier=lr_multiplier)
            self.add_module(f"fc{index}", layer)
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
    ) -> Tensor:
        """Latents.

        Args:
            z: [N, z_dim]; None only where z_dim is 0.
            c: [N, c_dim]; ignored where c_dim is 0.
            truncation_psi: 1 is none.
            truncation_cutoff: How many of the num_ws entries are truncated; None is all.
            update_emas: Training: move `w_avg` towards this batch first.
        Returns:
            [N, num_ws, w_dim], or [N, w_dim] where num_ws is None.
        Raises:
            ValueError: a needed input is missing or misshapen, or there is no average to truncate
                towards.
        """
        x = self._inputs(z, c)
        for layer in self.layers():
            x = layer(x)
        if update_emas and self.w_avg_beta is not None:
            batch = x.detach().mean(0).to(self.w_avg.dtype)
            self.w_avg.copy_(batch + self.w_avg_beta * (self.w_avg - batch))
        if self.num_ws is not None:
            x = x[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi == 1:
            return x
        if self.num_ws is None or self.w_avg_beta is None:
            raise ValueError(
                f"truncation_psi is {truncation_psi}, but this mapping keeps no average of w: use 1"
            )
        return truncate(x, self.w_avg, truncation_psi, truncation_cutoff)

    def layers(self) -> list[FullyConnectedLayer]:
        """fc0, fc1, ..."""
        return [cast(FullyConnectedLayer, self._modules[f"fc{k}"]) for k in range(self.num_layers)]

    def _inputs(self, z: Tensor | None, c: Tensor | None) -> Tensor:
        """[N, z_dim + embed_features], each part with unit mean square."""
        dtype = self.layers()[0].weight.dtype  # float32, or float64 in a network made so
        parts = []
        if self.z_dim > 0:
            if z is None or z.ndim != 2 or z.shape[1] != self.z_dim:
                found = None if z is None else list(z.shape)
                raise ValueError(f"z must be [N, {self.z_dim}], not {found}")
            parts.append(normalize_second_moment(z.to(dtype)))
        if self.c_dim > 0:
            if c is None or c.ndim != 2 or c.shape[1] != self.c_dim:
                found = None if c is None else list(c.shape)
                raise ValueError(f"c must be [N, {self.c_dim}], not {found}: give a label per z")
            parts.append(normalize_second_moment(self.embed(c.to(dtype))))
        return torch.cat(parts, dim=1)

    def extra_repr(self) -> str:
        return f"z_dim {self.z_dim}, c_dim {self.c_dim}, w_dim {self.w_dim}, num_ws {self.num_ws}"


class ImageGenerator(nn.Module):
    """A mapping network and a synthesis network: what StyleGAN2 and StyleGAN3 have in common.

    A family's generator names its `synthesis_network`, and what its `MappingNetwork` is built with
    unless told otherwise. Names and order of the two are those of the published checkpoints.

    Args:
        z_dim, c_dim, w_dim: Sizes of latent, label (0: none) and intermediate latent.
        img_resolution, img_channels: Of the picture.
        mapping_kwargs: For `MappingNetwork`.
        synthesis_kwargs: For the synthesis network.
    """

    synthesis_network: ClassVar[type[nn.Module]]
    mapping_defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: Mapping[str, Any] | None = None,
        **synthesis_kwargs: Any,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.c_dim = c_dim
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.synthesis = self.synthesis_network(
            w_dim, img_resolution, img_channels, **synthesis_kwargs
        )
        self.num_ws = cast(int, self.synthesis.num_ws)
        mapping = {**self.mapping_defaults, **(mapping_kwargs or {})}
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **mapping)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
        **synthesis_kwargs: Any,
    ) -> Tensor:
        """Pictures [N, img_channels, R, R] of z [N, z_dim] and c [N, c_dim].

        See `MappingNetwork` and the family's `SynthesisNetwork`.
        """
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff, update_emas)
        return self.synthesis(ws, update_emas=update_emas, **synthesis_kwargs)
