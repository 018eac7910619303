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
import functools
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import blocks, harness, heap
from bench.systems import CPU_CASE, CPU_SIZES, GPU_SIZES, load, seeded_sizes

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


class Plan:
    """What is measured, and how long. Says what it does and collects what goes wrong."""

    def __init__(
        self,
        device: str,
        ways: Sequence[str],
        resolutions: Sequence[int] = (),
        *,
        seconds: float = 2.0,
        rounds: int = blocks.BLOCKS,
        against: str | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.device, self.ways, self.resolutions = device, list(ways), list(resolutions)
        self.seconds, self.rounds, self.against, self.say = seconds, rounds, against, say
        self.absent: list[str] = []  # what did not run here, and why
        self.wrong: list[str] = []  # what drew another picture
        self.parts: dict[str, Any] = {}  # by model: its work, None where it is not known

    def prepare(self, name: str) -> tuple[Any, list[Any], list[Any]]:
        """A system, its baselines and its subjects, all checked."""
        import torch

        from bench import fidelity, subjects

        system, place = load(name, self.device), torch.device(self.device)
        truth = fidelity.Truth(system, place)
        makers: list[Callable[[], Any]] = [
            lambda: subjects.official_order(system, truth, place),
            *([lambda: subjects.official_order_graph(system, place)] * (place.type == "cuda")),
        ]
        bases = [base for make in makers if (base := self._made(name, make)) is not None]
        bases += self._published(name, system, truth, place)
        sizes = self.resolutions or [system.resolution]
        made = []
        for way in self.ways:
            draw = functools.partial(
                subjects.subject, way, system, truth, device=self.device, sizes=sizes
            )
            made.append(self._made(name, draw))
        return system, bases, [one for one in made if one is not None]

    def _made(self, name: str, make: Callable[[], Any]) -> Any:
        from bench.fidelity import Unfaithful
        from bench.subjects import Absent

        try:
            return make()
        except Absent as error:
            self.absent.append(f"{name}: {error}")
        except Unfaithful as error:
            self.wrong.append(f"{name}: {error}")
        return None

    def _published(self, name: str, system: Any, truth: Any, place: Any) -> list[Any]:
        against = self.against
        if against is None:
            return []
        from bench.published import published

        self.say(f"{name}: the published code ...")
        theirs = self._made(name, lambda: published(against, name, system, truth, place))
        if theirs is None:
            return []
        graph = self._made(name, theirs.graph) if place.type == "cuda" else None
        return [base for base in (theirs.eager(), graph) if base is not None]

    def rows(self, name: str, deadline_ns: int | None = None) -> list[dict]:
        """Every row of one model, the baselines first; without their rooflines."""
        import torch

        self.say(f"{name}: checking pictures ...")
        system, bases, made = self.prepare(name)
        calls = {base.name: base.frame for base in bases}
        calls |= {f"{s.name} {size}": f for s in made for size, f in s.frames.items()}
        sync = torch.cuda.synchronize if self.device.startswith("cuda") else None
        self.say(f"{name}: timing {', '.join(calls)} ...")
        frames = {
            key: blocks.frames_per_block(call, self.seconds / self.rounds, sync)
            for key, call in calls.items()
        }
        timed = blocks.interleave(
            calls,
            frames=frames,
            blocks=self.rounds,
            sync=sync,
            deadline_ns=deadline_ns,
        )
        about = _About(name, system, self.device, timed)
        self.parts[name] = about.parts
        found = [about.baseline(base) for base in bases]
        found += [about.subject(s, size) for s in made for size in s.frames]
        return found


class _About:
    """What the rows of one model have in common."""

    def __init__(
        self, name: str, system: Any, device: str, timed: Mapping[str, blocks.Timed]
    ) -> None:
        from bench import work

        self.name, self.system, self.device = name, system, device
        self.timed = timed
        self.parts = work.parts_of(system.synthesizer)

    def baseline(self, base: Any) -> dict[str, Any]:
        row = self._row(base.name, base.name, "", self.system.resolution, base.frame)
        return {**row, "baseline": True, "psnr_db": _rounded(base.psnr), "i420_psnr_db": None}

    def subject(self, subject: Any, size: int) -> dict[str, Any]:
        key = f"{subject.name} {size}"
        row = self._row(key, subject.backend, subject.precision, size, subject.frames[size])
        row |= {"psnr_db": _rounded(subject.psnr), "i420_psnr_db": _rounded(subject.i420_psnr)}
        for field, word in (
            ("vs_official", "official order"),
            ("vs_official_graph", "official order, CUDA graph"),
            ("vs_compile", f"compile {size}"),
        ):
            base = self.timed.get(word)
            row[field] = None if base is None or word == key else self._against(base, key)
        row["vs_published"] = {
            word: self._against(base, key)
            for word, base in self.timed.items()
            if word.startswith("published")
        }
        return row

    def _against(self, base: blocks.Timed, key: str) -> dict[str, float]:
        return blocks.ratio(base, self.timed[key]).as_dict()

    def _row(
        self, key: str, backend: str, precision: str, size: int, frame: Callable[[], object]
    ) -> dict[str, Any]:
        from bench import launches, work
        from bench.ceilings import WIDTHS

        dtype = stored_as(precision, self.device)
        timed = self.timed[key]
        times = blocks.figures(timed)
        row: dict[str, Any] = {
            "model": self.name,
            "trained": bool(self.system.trained),
            "backend": backend,
            "precision": precision,
            "baseline": False,
            "resolution": size,
            "native_resolution": self.system.resolution,
            "parameters": sum(p.numel() for p in self.system.synthesizer.parameters()),
            **times,
        }
        counted = launches.count(frame, self.device)
        row |= {"launches": counted.host, "device_operations": counted.device}
        if self.parts is not None:
            sums = work.total(self.parts, WIDTHS[dtype])
            gflop = sums["gflop_dense"] + sums["gflop_filters"]
            row |= {
                "gflop_per_frame": round(gflop, 4),
                "gflop_filters": round(sums["gflop_filters"], 4),
                "gflop_per_s": round(gflop * times["fps"], 2),
                "gb_per_frame": round(sums["gb"], 5),
            }
        return {**row, "warnings": harness.instabilities(timed.samples)}


def stored_as(precision: str, device: str) -> Any:
    """The torch type of a row's activations; where it is the model's own, that of its largest."""
    from bench.subjects import DTYPES

    return DTYPES[precision or ("fp16" if device.startswith("cuda") else "fp32")]


def judge(
    results: Sequence[dict[str, Any]], parts: Mapping[str, Any], limits: Any, device: str
) -> None:
    """Put beside each time what the hardware would need at least."""
    for row in results:
        if parts[row["model"]] is not None:
            floor = limits.floor_ms(parts[row["model"]], stored_as(row["precision"], device))
            row["roofline_ms"] = round(floor, 4)
            row["roofline_percent"] = round(100 * floor / row["p50_ms"], 2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def goals(results: Sequence[Mapping[str, Any]]) -> list[blocks.Goal]:
    """What the recommended CPU configuration should reach on two cores."""
    found = []
    least = {"bf16": 45.0, "fp32": 35.0}
    for row in results:
        if row["model"] != CPU_CASE or row["backend"] != "cpu" or row["precision"] not in least:
            continue
        case = f"{CPU_CASE} {row['precision']}"
        best = row["fps_best_block"]
        found.append(blocks.Goal(case, "frames/s, best block", best, least[row["precision"]], True))
        if row["vs_official"] is not None:
            many = row["vs_official"]["median"]
            found.append(blocks.Goal(case, "times the official order's speed", many, 8.0, True))
    return found


TIMES = {
    "vs_official": "x official",
    "vs_official_graph": "x graph",
    "vs_compile": "x compile",
}


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """For the terminal."""
    head = ["model", "backend", "size", "frames/s", "p50 ms", "p95 ms", "p99 ms", "launches"]
    head += ["GB", "GFLOP", "% roofline", "PSNR dB", *TIMES.values()]
    lines = [
        [
            r["model"] + ("" if r["trained"] else " (random weights)"),
            f"{r['backend']} {r['precision']}".strip(),
            str(r["resolution"]),
            f"{r['fps']:.1f}",
            *(f"{r[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms")),
            str(r["launches"]),
            _cell(r.get("gb_per_frame"), "{:.3f}"),
            _cell(r.get("gflop_per_frame"), "{:.2f}"),
            _cell(r.get("roofline_percent"), "{:.1f}"),
            _cell(r["psnr_db"] or r["i420_psnr_db"], "{:.1f}"),
            *(_times(r.get(key)) for key in TIMES),
        ]
        for r in results
    ]
    return harness.text_table(head, lines)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _times(ratio: Mapping[str, float] | None) -> str:
    """`12.3 (11.9-12.8)`: the median and the quartiles of the blocks."""
    if not ratio:
        return "-"
    return f"{ratio['median']:.1f} ({ratio['q1']:.1f}-{ratio['q3']:.1f})"


def published_lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """One per subject and baseline of the published code."""
    return [
        f"{r['model']}, {r['backend']} {r['precision']}: {_times(ratio)} times the {word}"
        for r in results
        for word, ratio in (r.get("vs_published") or {}).items()
    ]


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
    p.add_argument("--blocks", type=int, default=blocks.BLOCKS, help="that the seconds are cut in")
    p.add_argument(
        "--budget", type=float, metavar="S", help="of the whole; what does not fit is left out"
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda:0")
    p.add_argument("--threads", type=int, default=0, help="of torch on the CPU; 0: its own choice")
    p.add_argument(
        "--against", metavar="DIR", help="a checkout of the published StyleGAN3, run in here"
    )
    p.add_argument("--keep-memory", action="store_true", help=harness.KEEP_MEMORY)
    p.add_argument("--goals", action="store_true", help="only what has goals; exit 1 if one fails")
    p.add_argument("--json", metavar="FILE", help="write the result here as well")
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


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    harness.before_torch()
    allocator = heap.keep() if args.keep_memory else heap.DEFAULT
    about = {**harness.machine(), "allocator": allocator}
    import torch

    from bench.subjects import WAYS
    from models import registry
    from models.errors import ModelError

    if args.threads:
        torch.set_num_threads(args.threads)
        about["torch_threads"] = args.threads
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    print(harness.describe(about, harness.commit()))
    print(f"allocator {allocator}")
    print("\n" + textwrap.fill(NOTE, 100) + "\n", flush=True)
    kind = "cuda" if device.startswith("cuda") else "cpu"
    wanted = args.backends.split(",") if args.backends else WAYS[kind]
    if args.goals and not args.backends:
        wanted = ["cpu:fp32", "cpu:bf16"]
    plan = Plan(
        device,
        wanted,
        args.resolutions,
        seconds=args.seconds,
        rounds=args.blocks,
        against=args.against,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    names = [*seeded_sizes(device), *registry.names()]
    if args.models or args.goals:
        names = args.models.split(",") if args.models else [CPU_CASE]
    try:
        results, limits = measure(plan, names, args.budget or BUDGET_S[kind])
    except ModelError as error:
        print(f"fps: {error}", file=sys.stderr)
        return 2
    reached = goals(results)
    warnings = harness.busy(about)
    print(limits.describe() + "\n")
    print(table(results))
    for line in [*published_lines(results), *(f"not here: {text}" for text in plan.absent)]:
        print(line)
    unsteady = [
        f"{r['model']}, {r['backend']} {r['precision']}: {'; '.join(r['warnings'])}"
        for r in results
        if r["warnings"]
    ]
    for warning in [*warnings, *unsteady]:
        print(f"warning: {warning}")
    for sentence in plan.wrong:
        print(f"WRONG: {sentence}", file=sys.stderr)
    if args.goals:
        print(blocks.goals_text(reached))
    if args.json and not plan.wrong:
        content = harness.envelope(
            "fps",
            results,
            about=about,
            notes=[NOTE],
            warnings=warnings,
            argv=sys.argv if argv is None else [__file__, *argv],
            ceilings=limits.as_dict(),
            absent=plan.absent,
            goals=[goal.as_dict() for goal in reached],
        )
        harness.write_json(args.json, content)
    missed = args.goals and (not reached or not all(goal.passed for goal in reached))
    return 1 if plan.wrong or missed else 0


if __name__ == "__main__":
    sys.exit(main())
