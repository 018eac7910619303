"""The rows of bench/kernels.py: the implementations of one op, checked, then timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import blocks, harness
from bench.kernel_cases import Case
from bench.kernel_checks import copied, errors, fused_error, prepared

REPEATS = 20  # calls in a captured graph: launching one takes longer than a small kernel


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
