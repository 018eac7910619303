"""One tiny system of each family, as real as the large ones; and a picture of it, compiled.

python tests/realtime/backends/tiny_families.py stylegan3-t inductor
    compiles it as the backend does and prints as JSON how far its pictures are from eager's
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from models import stylegan, stylegan_v
from models.backbones import stylegan2, stylegan3
from models.contracts import System
from models.stylegan_v import networks
from realtime.backends.compile import Compile
from realtime.backends.eager import Eager, EagerRenderer

CPU = torch.device("cpu")
SIDE = 16
SIZES: dict[str, Any] = {"c_dim": 0, "w_dim": 8, "img_resolution": SIDE, "img_channels": 3}
CHANNELS: dict[str, Any] = {"channel_base": 8 * SIDE, "channel_max": 8}
STYLEGAN3: dict[str, Any] = {**SIZES, **CHANNELS, "z_dim": 8, "num_layers": 3, "num_critical": 1}
RADIAL: dict[str, Any] = {"conv_kernel": 1, "use_radial_filters": True}
MOTION: dict[str, Any] = {
    "z_dim": 8,
    "motion": {"z_dim": 8, "v_dim": 8, "kernel_size": 5, "motion_z_distance": 16},
    "time_enc": {"dim": 6, "min_period_len": 16, "max_period_len": 256},
}
NAMES = ("stylegan2", "stylegan3-t", "stylegan3-r", "stylegan-v")


def system(name: str, seed: int = 0) -> System:
    """Weights drawn from the seed; biases too, so that every operator matters."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        if name == "stylegan-v":
            made: Any = networks.Generator(**SIZES, synthesis_kwargs=CHANNELS, cfg=MOTION)
        elif name == "stylegan2":
            made = stylegan2.Generator(**SIZES, **CHANNELS, z_dim=8)
        else:
            made = stylegan3.Generator(**STYLEGAN3, **(RADIAL if name == "stylegan3-r" else {}))
        for parameter in made.parameters():
            if parameter.abs().max() == 0:
                parameter.normal_(std=0.3)
        made.mapping.w_avg.normal_(std=0.2)
    family = stylegan_v if name == "stylegan-v" else stylegan
    return family.System(name, made, trained=False)


def difference(of: System, renderer: EagerRenderer) -> float:
    """The largest, over some codes, of what `renderer` and the plain forward draw."""
    plain = Eager(CPU, "").prepare(of.synthesizer)
    worst = 0.0
    with torch.inference_mode():
        for seed, t in ((1, 0.0), (2, 1.5), (1, -3.25)):
            codes = of.identity(seed=seed), of.motion(seed=seed).sample(t)
            wanted, found = plain._image(*codes).numpy(), renderer._image(*codes).numpy()
            assert np.ptp(wanted) > 0.1  # a picture, not a flat colour
            worst = max(worst, float(np.abs(wanted - found).max()))
    return worst


def main(name: str, compiler: str) -> None:
    of = system(name)
    torch.set_num_threads(1)
    renderer = Compile(CPU, "", compiler).prepare(of.synthesizer)
    found: dict[str, Any] = {"backend": renderer.backend, "why": renderer.why}
    torch.compiler.set_stance("fail_on_recompile")

    def drawn_elsewhere() -> None:  # as the render thread does, which has threads of its own
        torch.set_num_threads(2)
        found["difference"] = difference(of, renderer)

    thread = threading.Thread(target=drawn_elsewhere)
    thread.start()
    thread.join()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
