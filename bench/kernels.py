"""Each op: correct first, then its time, bytes per second and distance to the hardware's limit.

    python bench/kernels.py                         every op on this machine
    python bench/kernels.py --ops fused_filtered_lrelu --seconds 2 --json out.json
    python bench/kernels.py --goals                 PASS or FAIL of what a CPU should reach

Timed is one call on tensors that are already where they are used, from before the call to its
result, by time.monotonic_ns(), after a warm-up that compiles. The ops that inference runs (fused,
channels-last) stand beside the official order: what the published networks do in their place,
operator by operator, in this project's reference code. On a GPU both are captured, twenty
calls a graph, and synchronised on both sides. The other ops stand beside their definition, called
one by one. All take turns block by block; a ratio is the median over blocks. GB/s is what must be
moved at least (every input read once, every output written once) over the median. Nothing that
fails the check is timed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import blocks, harness, script
from bench.kernel_cases import Case, Wrong, cases
from bench.kernel_rows import judge, measure_case, measure_fused

EXACT = 1e-6  # relative; what the goals ask of float32
BUDGET_S = {"cpu": 140.0, "cuda": 300.0}  # no case begins after it
NOTE = (
    "Errors are against the definition in float64, relative to the largest value; of what makes "
    "I420, in levels of a byte. GB/s counts every input read once and the output written once. "
    "Fused ops stand beside the official order of operators (this project's reference code, "
    "float32 on a CPU), the others beside their definition; ratios are medians over interleaved "
    "blocks. The roofline is made of rates measured in the same run."
)


def goals(results: Sequence[Mapping[str, Any]], picked: Sequence[Any]) -> list[blocks.Goal]:
    """What the fused ops should reach, where a case says so."""
    least = {(c.op, c.label): c.goal for c in picked if getattr(c, "goal", None)}
    found = []
    for row in results:
        goal = least.get((row["op"], row["case"]))
        if goal is None or not row["implementation"].startswith("fused"):
            continue
        case = f"{row['op']} {row['case']}, {row['implementation']}"
        found.append(
            blocks.Goal(case, "times the official order's speed", row["speedup"], goal, True)
        )
        if row["implementation"] == "fused float32":
            found.append(blocks.Goal(case, "relative error", row["error"], EXACT, False))
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """For the terminal."""
    head = ["op", "case", "implementation", "error", "p50 ms", "p95 ms", "GB/s", "% roofline"]
    head += ["vs official order or reference"]
    lines = [
        [
            r["op"],
            r["case"],
            r["implementation"],
            "-" if r["error"] is None else harness.error_text(r["error"], r["error_unit"]),
            f"{r['p50_ms']:.3f}",
            f"{r['p95_ms']:.3f}",
            f"{r['gb_per_s']:.1f}",
            f"{r['roofline_percent']:.0f}" if "roofline_percent" in r else "-",
            f"{r['speedup']:.1f}x",
        ]
        for r in results
    ]
    return harness.text_table(head, lines)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="bench/kernels.py", description="Correctness, then speed, of each op."
    )
    p.add_argument("--ops", metavar="A,B", help="only these")
    p.add_argument("--seconds", type=float, default=1.0, help="per implementation and case")
    script.add_options(p)
    return p


def registry(device: str) -> list[Any]:
    """Every case of this device, the fused ops first."""
    from bench.fused_cases import fused_cases

    return [*fused_cases(device), *cases(device)]


def _picked(device: str, ops: str | None, only_goals: bool) -> list[Any]:
    """Raises Wrong for an op that is not there."""
    picked = registry(device)
    if only_goals:
        return [case for case in picked if getattr(case, "goal", None)]
    if ops is None:
        return picked
    wanted, known = ops.split(","), list(dict.fromkeys(case.op for case in picked))
    if unknown := [op for op in wanted if op not in known]:
        raise Wrong(f"no op {', '.join(unknown)}; there are {', '.join(known)}.")
    return [case for case in picked if case.op in wanted]


def measure(
    picked: Sequence[Any], device: str, seconds: float, rounds: int, budget_s: float
) -> tuple[list[dict[str, Any]], list[str], list[str], Any]:
    """Rows, what was wrong, what was left out, and the ceilings."""
    import torch

    from bench import ceilings
    from bench.fused_cases import HALF

    half = HALF["cuda" if device.startswith("cuda") else "cpu"]
    limits = ceilings.measure(device, [half], min(0.3, seconds / 4))
    end = time.monotonic_ns() + int(budget_s * 1e9)
    results: list[dict[str, Any]] = []
    wrong, left = [], []
    for case in picked:
        if results and time.monotonic_ns() > end:
            left.append(f"{case.op}, {case.label}: the budget of {budget_s:g} s is spent")
            continue
        print(f"{case.op}, {case.label} ...", file=sys.stderr, flush=True)
        try:
            with torch.random.fork_rng(devices=[]):
                if isinstance(case, Case):
                    results += measure_case(case, device, seconds, rounds)
                else:
                    results += measure_fused(case, device, seconds, rounds)
        except Wrong as error:
            wrong.append(str(error))
    limits = limits.or_better(ceilings.measure(device, [half], min(0.3, seconds / 4)))
    judge(results, limits)
    return results, wrong, left, limits


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    run = script.Run(args, __file__, argv, BUDGET_S)
    try:
        picked = _picked(run.device, args.ops, args.goals)
    except Wrong as error:
        print(f"kernels: {error}")
        return 2
    run.describe()
    results, wrong, left, limits = measure(
        picked, run.device, args.seconds, args.blocks, run.budget_s
    )
    return run.end(
        "kernels",
        results,
        note=NOTE,
        limits=limits,
        shown=[table(results)],
        label=lambda row: f"{row['op']}, {row['case']}, {row['implementation']}",
        absent=left,
        wrong=wrong,
        reached=goals(results, picked),
    )


if __name__ == "__main__":
    sys.exit(main())
