"""Everything that can only be known on an NVIDIA GPU, unattended and within ten minutes.

    python bench/gpu.py --json gpu.json
    python bench/gpu.py --json gpu.json --against ../stylegan3     beside the published code
    python bench/gpu.py --json gpu.json --stages replays,batch     those again; the rest is kept

Stages, the most important first, in processes of their own that are ended when their time is up, so
that a crash or a hang costs that part alone; after each stage, the JSON is written anew:

    warm      compile every kernel (all systems side by side), the published extensions too
    frames    StyleGAN3-T and -R at 256, 512, 1024: batch 1, codes in host memory to I420 in pinned
              host memory, one CUDA graph; beside it the official order of operators, eager and in a
              graph, the published code likewise, and the engine's own backend
    tests     tests of kernels and backends, on this GPU
    replays   10,000 frames without drift, leak or hidden wait
    batch     1, 2, 4, 8 pictures at once: sessions per GPU at 512x512 and 30 frames a second
    kernels   each fused op beside the official order

All share --limit seconds. What did not fit in is said, and is a failure as others are. Ctrl-C ends
every process. Prints a table and PASS or FAIL of every goal; exit 0 if all passed, 1 if not, 2
without CUDA. Needs torch, Triton, numba and OpenCV; neither PyAV nor aiortc.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import blocks, harness
from bench.gpu_goals import CASES, MUST_MS, goals, stretch_reached, table
from bench.gpu_jobs import LIMIT_S, STAGES, Job, run_all

NO_CUDA = (
    "gpu: torch finds no CUDA device here. Run it on a machine with an NVIDIA GPU and a CUDA build "
    "of torch; bench/fps.py and bench/kernels.py measure a CPU."
)


def child(job: Job, out: Path, against: str | None) -> None:
    """Run one job here, and write its rows as they come."""
    from bench import gpu_stages, gpu_tests

    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        rows.append({"stage": job.stage, **row})
        out.write_text(json.dumps(rows))

    gpu = gpu_stages.Cuda()
    if job.stage == "tests":
        keep(gpu_tests.run_tests(job.box_s - 5))
    elif job.stage == "warm" and job.case not in CASES:
        assert against is not None
        gpu_stages.extensions(against, keep, gpu)
    elif job.stage == "warm":
        gpu_stages.warm(job.case, keep, gpu)
    elif job.stage == "frames":
        gpu_stages.frames(job.case, against, 2.5, keep, gpu)
    elif job.stage == "replays":
        gpu_stages.replays(job.case, 10_000, keep, gpu)
    elif job.stage == "batch":
        gpu_stages.batch(job.case, 1.0, keep, gpu)
    else:
        gpu_stages.kernels(0.2, job.box_s - 15, keep, gpu)


def kept(path: str | None, stages: Sequence[str]) -> tuple[list[dict], list[dict]]:
    """Results and outcomes of an earlier run's other stages."""
    if path is None or not Path(path).exists():
        return [], []
    content = harness.read_json(path)
    if content.get("commit") != harness.commit():
        print(f"{path} was measured at another commit: its rows are left out.")
        return [], []
    earlier = [dict(row) for row in content["results"] if row["stage"] not in stages]
    return earlier, [o for o in content.get("outcomes", []) if o["stage"] not in stages]


def _stages(text: str) -> list[str]:
    words = text.split(",")
    if unknown := [word for word in words if word not in STAGES]:
        raise argparse.ArgumentTypeError(f"no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    return [stage for stage in STAGES if stage in words]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="bench/gpu.py", description="All that needs an NVIDIA GPU, unattended."
    )
    p.add_argument("--json", metavar="FILE", help="write the result here, after every stage")
    p.add_argument("--stages", type=_stages, default=list(STAGES), metavar="A,B")
    p.add_argument("--against", metavar="DIR", help="a checkout of the published StyleGAN3")
    p.add_argument("--limit", type=float, default=LIMIT_S, metavar="S", help="of the whole run")
    for hidden in ("--child", "--case", "--out", "--box"):
        p.add_argument(hidden, default="", help=argparse.SUPPRESS)
    return p


class Run:
    """Results and outcomes, those of an earlier run's other stages among them.

    Args:
        path: Of the JSON, or None.
        stages: What is run now.
        argv: As the command is told in the JSON.
    """

    def __init__(self, path: str | None, stages: Sequence[str], argv: Sequence[str]) -> None:
        self._path, self._argv = path, argv
        self._about = harness.machine()
        self.results, self.outcomes = kept(path, stages)

    def describe(self) -> str:
        return harness.describe(self._about, harness.commit())

    def add(self, outcomes: Sequence[dict[str, Any]]) -> None:
        """Of a stage that is over; the JSON is written anew."""
        for outcome in outcomes:
            self.results += outcome["rows"]
            self.outcomes.append({k: v for k, v in outcome.items() if k != "rows"})
        if self._path is not None:
            harness.write_json(self._path, self._content())

    def _content(self) -> dict[str, Any]:
        return harness.envelope(
            "gpu",
            [_with_goals(row) for row in self.results],
            about=self._about,
            warnings=harness.busy(self._about),
            argv=self._argv,
            outcomes=self.outcomes,
            goals=[goal.as_dict() for goal in goals(self.results)],
            stretch_reached=stretch_reached(self.results),
        )

    def report(self) -> bool:
        """Print all of it; whether everything ran and every goal was reached."""
        reached = goals(self.results)
        print("\n" + table(self.results) + "\n")
        for row in self.results:
            if row["stage"] == "tests":
                print(f"tests: {row['summary']}")
                print("".join(f"  {line}\n" for line in row["failed"]), end="")
            for text in row.get("absent", []):
                print(f"not here: {row['model']}: {text}")
        failed = [outcome for outcome in self.outcomes if not outcome["ok"]]
        for outcome in failed:
            print(f"FAIL  stage {outcome['stage']} {outcome['case']}: {outcome['error']}")
        print(blocks.goals_text(reached))
        print(f"stretch reached: {', '.join(stretch_reached(self.results)) or 'none'}")
        return not failed and bool(reached) and all(goal.passed for goal in reached)


def _with_goals(row: Mapping[str, Any]) -> dict[str, Any]:
    if row["stage"] != "frames":
        return dict(row)
    must, stretch = MUST_MS[row["model"]]
    return {**row, "must_ms": must, "stretch_ms": stretch}


def _terminated(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    harness.before_torch()
    import torch

    if not torch.cuda.is_available():
        print(NO_CUDA, file=sys.stderr)
        return 2
    if args.child:
        child(Job(args.child, args.case, float(args.box)), Path(args.out), args.against)
        return 0
    signal.signal(signal.SIGTERM, _terminated)  # ends the children too, as Ctrl-C does
    run = Run(args.json, args.stages, sys.argv if argv is None else [__file__, *argv])
    print(run.describe() + "\n", flush=True)
    try:
        run_all(args.stages, args.against, args.limit, run.add)
    except KeyboardInterrupt:
        print("gpu: interrupted; stages that were over are kept", file=sys.stderr)
        return 130
    return 0 if run.report() else 1


if __name__ == "__main__":
    sys.exit(main())
