"""Configurations that this project recommends, beside the published ones."""

from __future__ import annotations

from typing import Any

# StyleGAN3-T at 256x256 for machines without a GPU: 1.1 GFLOP of convolutions and 0.6 of filters a
# frame, ten layers, channels that fill whole vectors. Two cores draw it well above 30 frames/s.
CPU_DEFAULT: dict[str, Any] = {
    "z_dim": 64,
    "c_dim": 0,
    "w_dim": 64,
    "img_resolution": 256,
    "img_channels": 3,
    "mapping_kwargs": {"num_layers": 2},
    "channel_base": 2048,
    "channel_max": 32,
    "num_layers": 10,
}
