"""Frames per second of each model on this machine, and how much arithmetic that is.

    python bench/fps.py                                 a row per model, under a minute on a CPU
    python bench/fps.py --models default --resolutions 256,512 --seconds 10 --json out.json

A frame goes from "sample the motion at t" to "the I420 picture lies in host memory": motion code,
synthesis, resampling to the sent size, copy from the device, colour conversion (BT.601 limited).
Encoding and sending are not in it; bench/latency.py has those. Frames run back to back on
time.monotonic_ns() after a warm-up, t advancing by 1/60 s. Nothing is downloaded: measured are the
shipped models, and every family with weights drawn from a seed (small ones on a CPU, the published
sizes on a GPU), since speed does not depend on what the weights are.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import harness

STEP_S = 1 / 60
NOTE = (
    "A frame includes motion sampling, synthesis, resampling to the sent size and I420 conversion; "
    "encoding is not in it. GFLOP counts convolutions, matrix products and polyphase filters, two "
    "per multiply-add. All cores that torch was given draw; the server leaves one to the encoder."
)


@dataclass(frozen=True)
class Seeded:
    """A family at some size, its weights to be drawn from a seed."""

    family: str
    config: Mapping[str, Any]


def _config(size: int, latent: int, base: int, most: int, **more: Any) -> dict[str, Any]:
    sizes = {"z_dim": latent, "c_dim": 0, "w_dim": latent, "img_resolution": size}
    return {**sizes, "img_channels": 3, "channel_base": base, "channel_max": most, **more}


def _video(size: int, latent: int, base: int, most: int) -> dict[str, Any]:
    config = _config(size, latent, base, most)
    channels = {key: config.pop(key) for key in ("channel_base", "channel_max")}
    return {**config, "synthesis_kwargs": channels, "cfg": {"z_dim": latent}}


RADIAL = {"conv_kernel": 1, "use_radial_filters": True}

# Small enough for two cores.
CPU_SIZES = {
    "stylegan2-128": Seeded("stylegan2", _config(128, 64, 2048, 64)),
    "stylegan3-t-128": Seeded("stylegan3", _config(128, 64, 2048, 64, num_layers=8)),
    "stylegan3-r-128": Seeded("stylegan3", _config(128, 64, 2048, 64, num_layers=8, **RADIAL)),
    "stylegan-v-128": Seeded("stylegan_v", _video(128, 64, 2048, 64)),
}

# What the papers published.
GPU_SIZES = {
    **{f"stylegan2-{n}": Seeded("stylegan2", _config(n, 512, 32768, 512)) for n in (256, 1024)},
    **{
        f"stylegan3-t-{n}": Seeded("stylegan3", _config(n, 512, 32768, 512))
        for n in (256, 512, 1024)
    },
    **{
        f"stylegan3-r-{n}": Seeded("stylegan3", _config(n, 512, 65536, 1024, **RADIAL))
        for n in (256, 512, 1024)
    },
    "stylegan-v-256": Seeded("stylegan_v", _video(256, 512, 32768, 512)),
}


def seeded_sizes(device: str) -> dict[str, Seeded]:
    """What the families are measured at on this device."""
    import torch

    on_gpu = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    return GPU_SIZES if on_gpu else CPU_SIZES


def load(name: str) -> Any:
    """A system: shipped, seeded here, or a checkpoint's path. Raises ModelError."""
    from models import registry

    recipe = {**CPU_SIZES, **GPU_SIZES}.get(name)
    if recipe is None:
        return registry.load_model(name)
    import torch

    from models.checkpoint import GENERATORS, Checkpoint

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = importlib.import_module(GENERATORS[recipe.family])
        state = module.Generator(**recipe.config).state_dict()
    made = Checkpoint(recipe.family, recipe.config, state, {"trained": False})
    return registry.build(made, name=name)


def backends(device: str) -> list[Any]:
    """Every way of drawing that runs here, the fastest first, each once."""
    from realtime.backends import choose, report

    found: dict[str, Any] = {}
    for option in report(device):
        if option.available:
            backend = choose(option.name, device)
            found.setdefault(backend.name, backend)
    return list(found.values())


def frame_of(system: Any, backend: Any, size: int) -> Callable[[], None]:
    """A function that makes the next frame."""
    import numpy as np

    renderer = backend.prepare(system.synthesizer)
    identity, source = system.identity(seed=0, psi=0.7), system.motion(seed=0)
    out = np.empty((size * 3 // 2, size), np.uint8)
    index = 0

    def frame() -> None:
        nonlocal index
        renderer.render(identity, source.sample(index * STEP_S), out)
        index += 1

    return frame


def measure_row(
    name: str, system: Any, backend: Any, size: int, seconds: float, flops: Any
) -> dict[str, Any]:
    """One row of the table."""
    samples = harness.measure(
        frame_of(system, backend, size), seconds=seconds, warmup_s=min(1.0, seconds / 4)
    )
    s = harness.summarize(samples)
    fps = 1000 / s.mean
    return {
        "model": name,
        "trained": bool(system.trained),
        "backend": backend.name,
        "resolution": size,
        "native_resolution": system.resolution,
        "parameters": sum(p.numel() for p in system.synthesizer.parameters()),
        "frames": s.count,
        "fps": round(fps, 2),
        "p50_ms": round(s.p50, 3),
        "p95_ms": round(s.p95, 3),
        "p99_ms": round(s.p99, 3),
        "max_ms": round(s.max, 3),
        "gflop_per_frame": round(flops.total / 1e9, 4),
        "gflop_filters": round(flops.fir / 1e9, 4),
        "gflop_per_s": round(flops.total / 1e9 * fps, 2),
        "warnings": harness.instabilities(samples),
    }


def count_flops(system: Any) -> Any:
    """Arithmetic of one frame's synthesis."""
    from bench import flops

    identity, motion = system.identity(seed=0, psi=0.7), system.motion(seed=0).sample(0.0)
    return flops.count(lambda: system.synthesizer(identity, motion))


def rows(
    names: Sequence[str],
    ways: Sequence[Any],
    resolutions: Sequence[int],
    seconds: float,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Every combination. An empty `resolutions` is each model's own."""
    found = []
    for name in names:
        system = load(name)
        flops = count_flops(system)  # where it was built, before a backend moves it
        for backend in ways:
            for size in resolutions or [system.resolution]:
                say(f"{name}, {backend.name}, {size}x{size} ...")
                found.append(measure_row(name, system, backend, size, seconds, flops))
    return found


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """For the terminal."""
    head = ["model", "backend", "size", "frames/s", "p50 ms", "p95 ms", "p99 ms"]
    head += ["GFLOP/frame", "GFLOP/s", "weights"]
    lines = [
        [
            r["model"],
            r["backend"],
            str(r["resolution"]),
            f"{r['fps']:.1f}",
            *(f"{r[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms")),
            f"{r['gflop_per_frame']:.2f}",
            f"{r['gflop_per_s']:.1f}",
            "trained" if r["trained"] else "random weights",
        ]
        for r in results
    ]
    return harness.text_table(head, lines)


def _sizes(text: str) -> list[int]:
    sizes = [int(word) for word in text.split(",")]
    if any(size % 2 or not 16 <= size <= 4096 for size in sizes):
        raise argparse.ArgumentTypeError("even sizes from 16 to 4096, such as 256,512")
    return sizes


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="bench/fps.py", description="Frames per second of each model on this machine."
    )
    p.add_argument("--models", metavar="A,B", help="only these: names below, or checkpoint paths")
    p.add_argument(
        "--resolutions", type=_sizes, default=[], metavar="N,M", help="sent sizes; default: own"
    )
    p.add_argument("--seconds", type=float, default=4.0, help="per row, after the warm-up")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda:0")
    p.add_argument("--threads", type=int, default=0, help="of torch on the CPU; 0: its own choice")
    p.add_argument("--json", metavar="FILE", help="write the result here as well")
    p.epilog = f"Seeded: {', '.join([*CPU_SIZES, *GPU_SIZES])}."
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    about = harness.machine()
    import torch

    from models import registry
    from models.errors import ModelError

    if args.threads:
        torch.set_num_threads(args.threads)
        about["torch_threads"] = args.threads
    print(harness.describe(about, harness.commit()))
    ways = backends(args.device)
    for way in ways:
        print(f"backend   {way.name}: {way.why}")
    print("\n" + textwrap.fill(NOTE, 100) + "\n", flush=True)
    names = args.models.split(",") if args.models else None
    try:
        results = rows(
            names or [*registry.names(), *seeded_sizes(args.device)],
            ways,
            args.resolutions,
            args.seconds,
            lambda text: print(text, file=sys.stderr, flush=True),
        )
    except ModelError as error:
        print(f"fps: {error}", file=sys.stderr)
        return 2
    warnings = harness.busy(about)
    print(table(results))
    unsteady = [f"{r['model']}: {'; '.join(r['warnings'])}" for r in results if r["warnings"]]
    for warning in [*warnings, *unsteady]:
        print(f"warning: {warning}")
    if args.json:
        content = harness.envelope(
            "fps", results, about=about, notes=[NOTE], warnings=warnings, argv=_typed(argv)
        )
        harness.write_json(args.json, content)
    return 0


def _typed(argv: Sequence[str] | None) -> list[str]:
    return sys.argv if argv is None else [__file__, *argv]


if __name__ == "__main__":
    sys.exit(main())
