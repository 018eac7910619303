"""How fast models are trained: whole steps of shipped configurations, and where their time goes.

Measured from before a step's clips are handed over to after its last optimiser and average, by the
monotonic clock, after one step untimed (lazy regularisation is due in it, and buffers are made).
Clips are noise in memory, made from a seed: reading or rendering is not in these figures. A state
is written to a folder of its own, flushed and read back, as a run does at every tick.

    python bench/training.py --cases tiny,heads_64 --json bench/results/training.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import harness

CASES = ("tiny", "heads_64")
VIDEOS, LENGTH = 8, 64


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--cases", default=",".join(CASES), help="configurations, by name or file")
    p.add_argument("--seconds", type=float, default=20.0, help="of steps for each case (20)")
    p.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of all cases")
    p.add_argument("--json", metavar="FILE", help="write the result here as well")
    return p


def noise_source(config: Any) -> Any:
    """Clips of noise, as a `ClipSource`."""
    import numpy as np
    import torch

    from models.training.contracts import ClipBatch, DataInfo

    side, frames = config.data.resolution, config.batch.frames
    random = torch.Generator().manual_seed(0)
    shape = (config.batch.micro, frames, 3, side, side)
    pictures = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)

    class Noise:
        info = DataInfo("noise", side, 25.0, 0, np.full(VIDEOS, LENGTH), np.zeros((VIDEOS, 0)))

        def clips(self, requests: Any) -> ClipBatch:
            times = torch.tensor([r.times for r in requests], dtype=torch.float64)
            return ClipBatch(pictures, times, torch.zeros(len(requests), 0))

        def close(self) -> None:
            pass

    return Noise()


def row(name: str, seconds: float, changes: Sequence[str], device: str) -> dict[str, Any]:
    """Figures of one configuration."""
    import torch

    from models.registry import build_trainer
    from models.training import config as configs
    from models.training import run_state
    from models.training.distributed import joined
    from models.training.draws import Draws
    from models.training.step import Stepper, parameters_of

    config = configs.load(name, changes)
    with joined(device) as ranks:
        source = noise_source(config)
        trainer = build_trainer(config, source.info, ranks.device)
        sync = torch.cuda.synchronize if ranks.device.type == "cuda" else None
        spent: dict[str, float] = defaultdict(float)
        accumulate = trainer.accumulate

        def timed(phase: Any, *rest: Any) -> Any:
            start = time.monotonic_ns()
            found = accumulate(phase, *rest)
            if sync is not None:
                sync()
            spent[phase.name] += (time.monotonic_ns() - start) / 1e6
            return found

        trainer.accumulate = timed  # type: ignore[method-assign]
        seed, micros = config.seed, config.batch.micros
        fetch = lambda step, micro: source.clips(trainer.requests(Draws(seed, step, micro)))  # noqa: E731
        stepper = Stepper(trainer, fetch, seed, micros, ranks)
        stepper.take(0)
        spent.clear()
        steps = iter(range(1, 1 << 30))
        samples = harness.measure(
            lambda: stepper.take(next(steps)), seconds=seconds, warmup_s=0, least=4, sync=sync
        )
        taken = next(steps) - 1
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic_ns()
            run_state.save(Path(folder), trainer, run_state.Progress(taken), {})
            save_ms = (time.monotonic_ns() - start) / 1e6
        state = sum(t.nbytes for t in run_state.collect(trainer).values())
    found = harness.summarize(samples)
    return {
        "case": name,
        "resolution": config.data.resolution,
        "clips": config.batch.size,
        "frames": config.batch.frames,
        "parameters": parameters_of(trainer.networks),
        "device": ranks.device.type,
        "step_ms": found.as_dict(2),
        "frames_per_second": round(1000 * config.images_per_step / found.p50, 2),
        "phase_ms_per_step": {phase: round(ms / taken, 2) for phase, ms in spent.items()},
        "state_mb": round(state / 1e6, 2),
        "state_ms": round(save_ms, 1),
        "warnings": harness.instabilities(samples),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    given = parser().parse_args(argv)
    harness.before_torch()
    about = harness.machine()
    import torch

    if given.threads:
        torch.set_num_threads(given.threads)
    about["torch_threads"] = torch.get_num_threads()
    print(harness.describe(about))
    rows = [row(case, given.seconds, given.set, given.device) for case in given.cases.split(",")]
    head = ["case", "px", "parameters", "p50 ms", "p95 ms", "frames/s", "phases, ms", "state"]
    table = [
        [
            r["case"],
            str(r["resolution"]),
            f"{r['parameters']:,}",
            f"{r['step_ms']['p50']:.1f}",
            f"{r['step_ms']['p95']:.1f}",
            f"{r['frames_per_second']:.1f}",
            "  ".join(f"{name} {ms:.1f}" for name, ms in r["phase_ms_per_step"].items()),
            f"{r['state_mb']:.1f} MB, {r['state_ms']:.0f} ms",
        ]
        for r in rows
    ]
    print(harness.text_table(head, table))
    for r in rows:
        for warning in r["warnings"]:
            print(f"warning: {r['case']}: {warning}")
    if given.json:
        notes = ["clips of noise in memory; weights are fresh"]
        script = ["bench/training.py", *(sys.argv[1:] if argv is None else argv)]
        content = harness.envelope("training", rows, about=about, notes=notes, argv=script)
        harness.write_json(given.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
