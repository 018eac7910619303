"""Each fused op: correct first, then its time, bytes per second and ratio to its definition.

    python bench/kernels.py                         every op on this machine
    python bench/kernels.py --ops filtered_lrelu --seconds 2 --json out.json

Timed is one call on tensors that are already where they are used, from before the call to its
result (on a GPU with a synchronisation on both sides), by time.monotonic_ns(), after a warm-up that
compiles. An implementation and the reference take turns, so a ratio compares neighbours in time.
GB/s is what must be moved at least (every input read once, every output written once) over the
median, so it says how far the memory's own speed is. Nothing that fails the check is timed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import harness
from bench.kernel_cases import Case, Wrong, cases, chosen

ROUNDS = 3  # in each of which every implementation has its turn
# An implementation may err so many times as much as the reference does in the same precision,
# both against the reference in float64: sums in another order, not other sums.
MARGIN = 4.0
NOTE = (
    "Errors are against the reference in float64, relative to the largest value; of rgb_to_i420 in "
    "levels of a byte. GB/s counts every input read once and the output written once."
)
FLOOR = 1e-7  # relative; one unit in the last place of float32, where the reference is exact


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


def measure_case(case: Case, device: str, seconds: float) -> list[dict[str, Any]]:
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

    sync = torch.cuda.synchronize if device.startswith("cuda") else None
    samples: dict[str, list[float]] = {name: [] for name in case.names}
    for turn in range(ROUNDS):
        for name, call in calls.items():
            samples[name] += harness.measure(
                call,
                seconds=seconds / ROUNDS,
                warmup_s=seconds / 4 if turn == 0 else 0.0,
                least=harness.MIN_SAMPLES // ROUNDS + 1,
                sync=sync,
                before=refill if case.overwrites else None,
            )
    base = harness.percentile(samples["reference"], 50)
    found = []
    for name in case.names:
        s = harness.summarize(samples[name])
        found.append(
            {
                "op": case.op,
                "case": case.label,
                "implementation": name,
                "device": device,
                "error": checked[name][0],
                "error_unit": "relative" if case.absolute is None else "levels",
                "allowed_error": checked[name][1],
                "count": s.count,
                "p50_ms": round(s.p50, 4),
                "p95_ms": round(s.p95, 4),
                "p99_ms": round(s.p99, 4),
                "gb_per_s": round(moved / s.p50 / 1e6, 2),
                "speedup": round(base / s.p50, 2),
                "warnings": harness.instabilities(samples[name]),
            }
        )
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """For the terminal."""
    head = ["op", "case", "implementation", "error", "p50 ms", "p95 ms", "GB/s", "vs reference"]
    lines = [
        [
            r["op"],
            r["case"],
            r["implementation"],
            harness.error_text(r["error"], r["error_unit"]),
            f"{r['p50_ms']:.3f}",
            f"{r['p95_ms']:.3f}",
            f"{r['gb_per_s']:.1f}",
            f"{r['speedup']:.1f}x",
        ]
        for r in results
    ]
    return harness.text_table(head, lines)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="bench/kernels.py", description="Correctness, then speed, of each fused op."
    )
    p.add_argument("--ops", metavar="A,B", help="only these")
    p.add_argument("--seconds", type=float, default=1.0, help="per implementation and case")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda:0")
    p.add_argument("--threads", type=int, default=0, help="of torch on the CPU; 0: its own choice")
    p.add_argument("--json", metavar="FILE", help="write the result here as well")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    about = harness.machine()
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
        about["torch_threads"] = args.threads
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    picked = cases(device)
    if args.ops:
        wanted = args.ops.split(",")
        known = list(dict.fromkeys(case.op for case in picked))
        if unknown := [op for op in wanted if op not in known]:
            print(f"kernels: no op {', '.join(unknown)}; there are {', '.join(known)}.")
            return 2
        picked = [case for case in picked if case.op in wanted]
    print(harness.describe(about, harness.commit()), end="\n\n", flush=True)
    results: list[dict[str, Any]] = []
    wrong: list[str] = []
    for case in picked:
        print(f"{case.op}, {case.label} ...", file=sys.stderr, flush=True)
        try:
            results += measure_case(case, device, args.seconds)
        except Wrong as error:
            wrong.append(str(error))
    warnings = harness.busy(about)
    print(table(results))
    unsteady = [
        f"{r['op']}, {r['case']}, {r['implementation']}: {'; '.join(r['warnings'])}"
        for r in results
        if r["warnings"]
    ]
    for warning in [*warnings, *unsteady]:
        print(f"warning: {warning}")
    for sentence in wrong:
        print(f"WRONG: {sentence}", file=sys.stderr)
    if args.json and not wrong:
        typed = sys.argv if argv is None else [__file__, *argv]
        harness.write_json(
            args.json,
            harness.envelope(
                "kernels", results, about=about, notes=[NOTE], warnings=warnings, argv=typed
            ),
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
