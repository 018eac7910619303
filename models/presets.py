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

# StyleGAN-V for faces, 256x256: content and motion are the numbers of a person and of a moving face
# (`models/faces`). 1.71 million weights, 3.4 MB in half precision; one core of a small machine
# draws it within 15 ms. `models/training/configs/visage_*.toml` train it.
VISAGE: dict[str, Any] = {
    "c_dim": 0,
    "w_dim": 128,
    "img_resolution": 256,
    "img_channels": 3,
    "mapping_kwargs": {"num_layers": 2, "lr_multiplier": 0.3},
    "synthesis_kwargs": {"channel_base": 4096, "channel_max": 128},
    "cfg": {
        "z_dim": 112,
        "content": {"type": "traits", "version": 1, "prior": "narrow"},
        "input": {"type": "const"},
        "motion": {
            "gen_strategy": "tracks",
            "hidden": 128,
            "tracks": {
                "yaw": 34.0,
                "pitch": 16.0,
                "roll": 12.0,
                "energy": 1.0,
                "speech": 1.0,
                "gaze": 1.0,
                "shift": 1.0,
            },
        },
        "time_enc": {"cond_type": "concat_w", "dim": 64},
        "fps": 25.0,
    },
}
