"""Each op: correct first, then its time, bytes per second and distance to the hardware's limit.

    python bench/kernels.py                         every op on this machine
    python bench/kernels.py --ops fused_filtered_lrelu --seconds 2 --json out.json
    python bench/kernels.py --goals                 PASS or FAIL of what a CPU should reach

Timed is one call on tensors that are already where they are used, from before the call to its
result, by time.monotonic_ns(), after a warm-up that compiles. The ops that inference runs (fused,
channels-last) stand beside the official order: what the published networks do in their place,
operator by operator, in this project's reference code. On a GPU both are captured, REPEATS calls a
graph, and synchronised on both sides. The other ops stand beside their definition, called one by
one. All take turns block by block; a ratio is the median over blocks. GB/s is what must be moved at
least (every input read once, every output written once) over the median. Nothing that fails the
check is timed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import blocks, harness, heap
from bench.kernel_cases import Case, Wrong, cases, chosen

# An implementation may err so many times as much as the reference does in the same precision,
# both against the reference in float64: sums in another order, not other sums.
MARGIN = 4.0
FLOOR = 1e-7  # relative; one unit in the last place of float32, where the reference is exact
EXACT = 1e-6  # relative; what the goals ask of float32
REPEATS = 20  # calls in a captured graph: launching one takes longer than a small kernel
BUDGET_S = {"cpu": 140.0, "cuda": 300.0}  # no case begins after it
NOTE = (
    "Errors are against the definition in float64, relative to the largest value; of what makes "
    "I420, in levels of a byte. GB/s counts every input read once and the output written once. "
    "Fused ops stand beside the official order of operators (this project's reference code, "
    "float32 on a CPU), the others beside their definition; ratios are medians over interleaved "
    "blocks. The roofline is made of rates measured in the same run."
)


def prepared(case: Case, name: str, inputs: dict[str, Any]) -> Callable[[], Any]:
    """A call of one implementation, without gradients.

    Raises:
        Wrong: It cannot run here.
    """
    way = case.ways.get(name)
    return way(**inputs) if way else chosen(name, case.call, inputs)


def copied(case: Case, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs, with a scratch copy of the one that a call may overwrite."""
    name = case.overwrites
    return inputs if name is None else {**inputs, name: inputs[name].clone()}


def errors(case: Case, name: str, inputs: dict[str, Any]) -> tuple[float, float]:
    """Largest error of an implementation, and the largest it may have; against float64.

    Relative to the largest value, or in levels of a byte where the case says what is allowed.

    Raises:
        Wrong: It is larger, or shapes differ, or it cannot run here.
    """
    exact = prepared(case, "reference", {k: v.double() for k, v in inputs.items()})().double()
    plain = prepared(case, "reference", copied(case, inputs))().double()
    found = prepared(case, name, copied(case, inputs))().double()
    if found.shape != exact.shape:
        raise Wrong(f"{case.op} ({case.label}), {name}: shape {list(found.shape)}")
    unit = 1.0 if case.absolute is not None else float(exact.abs().max())
    error = float((found - exact).abs().max()) / unit
    own = float((plain - exact).abs().max()) / unit
    allowed = case.absolute if case.absolute is not None else max(MARGIN * own, FLOOR)
    if not error <= allowed:
        raise Wrong(
            f"{case.op} ({case.label}), {name}: error {error:.2e}, {allowed:.2e} is allowed; "
            "it is not timed"
        )
    return error, allowed


def moved_bytes(inputs: dict[str, Any], out: Any) -> int:
    """Every input read once and the output written once."""
    return sum(t.numel() * t.element_size() for t in (*inputs.values(), out))


def measure_case(
    case: Case, device: str, seconds: float, rounds: int = blocks.BLOCKS
) -> list[dict[str, Any]]:
    """A row per implementation, the reference first. Raises Wrong before anything is timed."""
    import torch

    made = case.inputs(torch.Generator().manual_seed(0))
    inputs = {k: v.to(device) for k, v in made.items()}
    checked = {name: errors(case, name, inputs) for name in case.names}
    used = copied(case, inputs)
    calls = {name: prepared(case, name, used) for name in case.names}
    moved = moved_bytes(inputs, calls["reference"]())

    def refill() -> None:
        if case.overwrites is not None:
            used[case.overwrites].copy_(inputs[case.overwrites])

    timed = _turns(calls, device, seconds, rounds, refill if case.overwrites else None)
    unit = "relative" if case.absolute is None else "levels"
    return [
        {
            "op": case.op,
            "case": case.label,
            "implementation": name,
            "device": device,
            "error": checked[name][0],
            "error_unit": unit,
            "allowed_error": checked[name][1],
            **_times(timed[name], moved, timed["reference"]),
        }
        for name in case.names
    ]


def _turns(
    calls: Mapping[str, Callable[[], Any]],
    device: str,
    seconds: float,
    rounds: int,
    before: Callable[[], object] | None = None,
) -> dict[str, blocks.Timed]:
    import torch

    sync = torch.cuda.synchronize if device.startswith("cuda") else None
    frames = {}
    for name, call in calls.items():
        frames[name] = blocks.frames_per_block(call, seconds / rounds, sync, before)
        if frames[name] > blocks.FEWEST:  # a slow one is sampled less: its time goes on the others
            frames[name] = max(frames[name], harness.MIN_SAMPLES // rounds + 1)
    return blocks.interleave(calls, frames=frames, blocks=rounds, sync=sync, before=before)


def _times(
    timed: blocks.Timed, moved: float, base: blocks.Timed, repeats: int = 1
) -> dict[str, Any]:
    """What a row says of time; `repeats` calls made one sample."""
    s = harness.summarize([ms / repeats for ms in timed.samples])
    faster = blocks.ratio(base, timed)
    return {
        "count": s.count,
        "min_ms": round(s.min, 5),
        "p50_ms": round(s.p50, 5),
        "p95_ms": round(s.p95, 5),
        "p99_ms": round(s.p99, 5),
        "gb_per_s": round(moved / s.p50 / 1e6, 2),
        "speedup": round(faster.median, 2),
        "speedup_quartiles": [round(faster.low, 2), round(faster.high, 2)],
        "warnings": harness.instabilities(timed.samples),
    }


def fused_error(trial: Any, name: str) -> tuple[float, float]:
    """As `errors`, of a fused op that writes into poisoned memory. Raises Wrong."""
    trial.out.fill_(0xA5 if trial.levels else float("nan"))
    found = trial.call().double().clone()
    exact, plain = trial.exact().double(), trial.plain().double()
    if found.shape != exact.shape:
        raise Wrong(f"{name}: shape {list(found.shape)}, not {list(exact.shape)}")
    unit = 1.0 if trial.levels else float(exact.abs().max())
    error = float((found - exact).abs().max()) / unit
    own = float((plain - exact).abs().max()) / unit
    allowed = 1.0 if trial.levels else max(MARGIN * own, FLOOR)
    if not error <= allowed:
        raise Wrong(f"{name}: error {error:.2e}, {allowed:.2e} is allowed; it is not timed")
    return error, allowed


def measure_fused(
    case: Any, device: str, seconds: float, rounds: int = blocks.BLOCKS
) -> list[dict[str, Any]]:
    """The official order, then the fused op in each storage type, without rooflines.

    Raises:
        Wrong: An error is too large; nothing is timed then.
    """
    import torch

    from bench.fused_cases import HALF, Maker

    on_gpu = device.startswith("cuda")
    half = HALF["cuda" if on_gpu else "cpu"]
    trials, checked = {}, {}
    for dtype in (torch.float32, half) if case.halves else (torch.float32,):
        kind = str(dtype).removeprefix("torch.")
        trials[kind] = case.make(Maker(device, dtype, torch.Generator().manual_seed(0)))
        checked[kind] = fused_error(trials[kind], f"{case.op} ({case.label}), {kind}")
    last = next(reversed(trials))  # on a GPU the published networks compute in half precision
    calls = {"official order": trials[last].official}
    calls |= {f"fused {kind}": trial.call for kind, trial in trials.items()}
    if on_gpu:
        calls = {name: _repeated(call) for name, call in calls.items()}
    timed = _turns(calls, device, seconds, rounds)
    repeats = REPEATS if on_gpu else 1
    common = {"op": case.op, "case": case.label, "device": device}
    found = []
    for name in calls:
        kind = name.removeprefix("fused ") if name.startswith("fused ") else last
        part = trials[kind].part
        dtype = getattr(torch, kind)
        row = _times(timed[name], part.bytes(dtype.itemsize), timed["official order"], repeats)
        if name == "official order":
            error: dict[str, Any] = {"error": None, "error_unit": None, "allowed_error": None}
        else:
            unit = "levels" if trials[kind].levels else "relative"
            values = checked[kind]
            error = {"error": values[0], "error_unit": unit, "allowed_error": values[1]}
            row["part"] = part
        found.append({**common, "implementation": name, **error, **row})
    return found


def judge(results: Sequence[dict[str, Any]], limits: Any) -> None:
    """Put beside each fused op's time what the hardware would need at least."""
    import torch

    for row in results:
        part = row.pop("part", None)
        if part is not None:
            kind = row["implementation"].removeprefix("fused ")
            floor = limits.floor_ms([part], getattr(torch, kind))
            row["roofline_percent"] = round(100 * floor / row["p50_ms"], 1)


def _repeated(call: Callable[[], Any]) -> Callable[[], Any]:
    """REPEATS calls in a CUDA graph, replayed."""
    from bench.graphs import captured

    def calls() -> None:
        for _ in range(REPEATS):
            call()

    return captured(calls)


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
    p.add_argument("--blocks", type=int, default=blocks.BLOCKS, help="that the seconds are cut in")
    p.add_argument("--budget", type=float, metavar="S", help="no case begins after so long")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda:0")
    p.add_argument("--threads", type=int, default=0, help="of torch on the CPU; 0: its own choice")
    p.add_argument("--keep-memory", action="store_true", help=harness.KEEP_MEMORY)
    p.add_argument("--goals", action="store_true", help="only what has goals; exit 1 if one fails")
    p.add_argument("--json", metavar="FILE", help="write the result here as well")
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
    harness.before_torch()
    allocator = heap.keep() if args.keep_memory else heap.DEFAULT
    about = {**harness.machine(), "allocator": allocator}
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
        about["torch_threads"] = args.threads
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        picked = _picked(device, args.ops, args.goals)
    except Wrong as error:
        print(f"kernels: {error}")
        return 2
    print(harness.describe(about, harness.commit()))
    print(f"allocator {allocator}\n", flush=True)
    budget = args.budget or BUDGET_S["cuda" if device.startswith("cuda") else "cpu"]
    results, wrong, left, limits = measure(picked, device, args.seconds, args.blocks, budget)
    reached = goals(results, picked)
    warnings = harness.busy(about)
    print(limits.describe() + "\n")
    print(table(results))
    unsteady = [
        f"{r['op']}, {r['case']}, {r['implementation']}: {'; '.join(r['warnings'])}"
        for r in results
        if r["warnings"]
    ]
    for line in [*(f"not here: {text}" for text in left)]:
        print(line)
    for warning in [*warnings, *unsteady]:
        print(f"warning: {warning}")
    for sentence in wrong:
        print(f"WRONG: {sentence}", file=sys.stderr)
    if args.goals:
        print(blocks.goals_text(reached))
    if args.json and not wrong:
        content = harness.envelope(
            "kernels",
            results,
            about=about,
            notes=[NOTE],
            warnings=warnings,
            argv=sys.argv if argv is None else [__file__, *argv],
            ceilings=limits.as_dict(),
            absent=left,
            goals=[goal.as_dict() for goal in reached],
        )
        harness.write_json(args.json, content)
    missed = args.goals and not (reached and all(goal.passed for goal in reached))
    return 1 if wrong or missed else 0


if __name__ == "__main__":
    sys.exit(main())
