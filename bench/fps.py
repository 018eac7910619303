"""Frames per second of each model by each way of drawing, beside the hardware's limit.

    python bench/fps.py                                 every model and backend, 3 minutes on a CPU
    python bench/fps.py --models default --resolutions 256,512 --seconds 10 --json out.json
    python bench/fps.py --goals                         PASS or FAIL of what a CPU should reach
    python bench/fps.py --against ../stylegan3          beside the published code, from a checkout

A frame goes from "sample the motion at t" to "the I420 picture lies in host memory": motion code,
synthesis, resampling to the sent size, copy from the device, colour conversion (BT.601 limited).
Encoding and sending are not in it; bench/latency.py has those. Beside it runs the official order of
operators: the same network with weights modulated per sample, zeros inserted and every filter a
pass of its own, in this project's reference code; it ends with the float picture on its device.

Pictures are checked against the definition in float32 before anything is timed. Then all take
turns, block by block; a ratio is the median over blocks. Frames run back to back on
time.monotonic_ns(), the device's work included, t advancing by 1/60 s. The roofline is made of
rates measured in the same run. Nothing is downloaded: measured are the shipped models, and every
family with weights drawn from a seed (small ones on a CPU, the published sizes on a GPU), since
speed does not depend on what the weights are.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import blocks, script
from bench.fps_rows import Plan, judge
from bench.fps_tables import goals, published_lines, table
from bench.systems import CPU_CASE, CPU_SIZES, GPU_SIZES, seeded_sizes

BUDGET_S = {"cpu": 170.0, "cuda": 540.0}  # of a run: what would go beyond is left out, and said
NOTE = (
    "A frame includes motion sampling, synthesis, resampling to the sent size and I420 conversion; "
    "encoding is not in it. The official order (weights modulated per sample, zeros inserted, each "
    "filter a pass of its own, in this project's reference code) ends with the float picture. "
    "GFLOP counts convolutions, matrix products and polyphase filters, two per multiply-add; GB "
    "what two kernels per layer must move. The roofline is their time at the matrix, vector and "
    "copy rates measured in the same run. Ratios are medians over interleaved blocks. All cores "
    "that torch was given draw; the server leaves one to the encoder."
)


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
        "--backends",
        metavar="A,B:PREC",
        help="only these, each with a precision or without: cpu:bf16,eager,compile",
    )
    p.add_argument(
        "--resolutions", type=_sizes, default=[], metavar="N,M", help="sent sizes; default: own"
    )
    p.add_argument("--seconds", type=float, default=2.0, help="per row, after the warm-up")
    p.add_argument(
        "--against", metavar="DIR", help="a checkout of the published StyleGAN3, run in here"
    )
    script.add_options(p)
    p.epilog = f"Seeded: {', '.join([*CPU_SIZES, *GPU_SIZES])}."
    return p


def measure(plan: Plan, names: Sequence[str], budget_s: float) -> tuple[list[dict], Any]:
    """Rows of every model that the budget has room for, and the ceilings."""
    from bench import ceilings
    from bench.subjects import DTYPES, parse

    kinds = [DTYPES[word] for _, word in map(parse, plan.ways) if word in DTYPES]
    if plan.device.startswith("cuda"):
        kinds.append(DTYPES["fp16"])
    budget = blocks.Budget(budget_s)
    plan.say("ceilings ...")
    seconds = min(0.3, plan.seconds / 4)
    limits = ceilings.measure(plan.device, kinds, seconds)
    results: list[dict] = []
    for name in names:
        if not budget.begin():
            plan.absent.append(f"{name}: the budget of {budget_s:g} s is spent; name it alone")
            continue
        results += plan.rows(name, deadline_ns=budget.end_ns)
    limits = limits.or_better(ceilings.measure(plan.device, kinds, seconds))
    judge(results, plan.parts, limits, plan.device)
    return results, limits


def wanted(args: argparse.Namespace, run: script.Run) -> tuple[list[str], list[str]]:
    """Ways of drawing, and names of models."""
    from bench.subjects import WAYS
    from models import registry

    if args.backends:
        ways = args.backends.split(",")
    else:
        ways = ["cpu:fp32", "cpu:bf16"] if args.goals else list(WAYS[run.kind])
    if args.models:
        return ways, args.models.split(",")
    return ways, [CPU_CASE] if args.goals else [*seeded_sizes(run.device), *registry.names()]


def _label(row: script.Row) -> str:
    way = f"{row['backend']} {row['precision']}".strip()
    return f"{row['model']}, {way}, {row['resolution']}"


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    run = script.Run(args, __file__, argv, BUDGET_S)
    from models.errors import ModelError

    run.describe()
    print(textwrap.fill(NOTE, 100) + "\n", flush=True)
    ways, names = wanted(args, run)
    plan = Plan(
        run.device,
        ways,
        args.resolutions,
        seconds=args.seconds,
        rounds=args.blocks,
        against=args.against,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    try:
        results, limits = measure(plan, names, run.budget_s)
    except ModelError as error:
        print(f"fps: {error}", file=sys.stderr)
        return 2
    return run.end(
        "fps",
        results,
        note=NOTE,
        limits=limits,
        shown=[table(results), *published_lines(results)],
        label=_label,
        absent=plan.absent,
        wrong=plan.wrong,
        reached=goals(results),
    )


if __name__ == "__main__":
    sys.exit(main())
