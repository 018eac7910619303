"""Everything that can only be known on an NVIDIA GPU, unattended and within ten minutes.

    python bench/gpu.py --json gpu.json
    python bench/gpu.py --json gpu.json --against ../stylegan3     beside the published code
    python bench/gpu.py --json gpu.json --stages replays,batch     those again; the rest is kept

Stages, each in a process of its own that is ended when its time is up, so that a crash or a hang
costs that stage alone; after each, the JSON is written anew:

    warm      compile every kernel (all systems side by side), the published extensions too
    tests     tests of kernels and backends, on this GPU
    frames    StyleGAN3-T and -R at 256, 512, 1024: batch 1, codes in host memory to I420 in pinned
              host memory, one CUDA graph; beside it the official order of operators, eager and in a
              graph, the published code likewise, and the engine's own backend
    replays   10,000 frames without drift, leak or hidden wait
    batch     1, 2, 4, 8 pictures at once: sessions per GPU at 512x512 and 30 frames a second
    kernels   each fused op beside the official order

Prints a table and PASS or FAIL of every goal; exit 0 if all passed, 1 if not, 2 without CUDA. Needs
torch, Triton, numba and OpenCV; neither PyAV nor aiortc.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import blocks, harness

LIMIT_S = 590.0
LEAST_S = 5.0  # torch alone takes that long to import on a cold disk
SIZES = (256, 512, 1024)
MUST_MS = {  # must, stretch
    "stylegan3-t-256": (1.25, 1.0),
    "stylegan3-t-512": (1.8, 1.4),
    "stylegan3-t-1024": (2.5, 1.9),
    "stylegan3-r-256": (1.25, 0.9),
    "stylegan3-r-512": (2.05, 1.5),
    "stylegan3-r-1024": (3.4, 2.4),
}
CASES = tuple(MUST_MS)
EAGER = dict(zip(CASES, (4.0, 2.8, 2.1, 4.0, 3.4, 3.5), strict=True))  # times its speed
GRAPH = {case: 1.8 if "-t-" in case else 3.2 for case in CASES}
LEAST_DB = 55.0
TESTS = ("tests/kernels_triton", "tests/models", "tests/realtime/backends")
NO_TESTS = ("test_aot.py",)  # compiles for three architectures; it needs no GPU


@dataclass(frozen=True)
class Job:
    """One process of a stage.

    Args:
        arguments: After `--child STAGE`.
        box_s: It is ended after so long.
    """

    stage: str
    case: str
    box_s: float
    arguments: tuple[str, ...] = ()


STAGES = ("warm", "tests", "frames", "replays", "batch", "kernels")


def jobs(stage: str, against: str | None) -> list[Job]:
    """What a stage consists of, in order."""
    named = ("--against", against) if against else ()
    if stage == "warm":
        made = [Job(stage, case, 150.0) for case in CASES]
        return [*made, Job(stage, "published extensions", 150.0, named)] if against else made
    if stage == "frames":
        return [Job(stage, case, 60.0, named) for case in CASES]
    if stage == "replays":
        return [Job(stage, case, 60.0) for case in ("stylegan3-t-256", "stylegan3-r-256")]
    if stage == "batch":
        return [Job(stage, case, 60.0) for case in ("stylegan3-t-512", "stylegan3-r-512")]
    return [Job(stage, "", {"tests": 170.0, "kernels": 75.0}[stage])]


def in_parallel(stage: str) -> int:
    """How many processes of a stage run at once: compiling wants cores, timing wants silence."""
    return max(1, min(8, harness.usable_cores() - 1)) if stage == "warm" else 1


# ---- a child


def child(job: Job, out: Path, against: str | None) -> None:
    """Run one job here, and write its rows as they come."""
    from bench import gpu_stages

    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        rows.append({"stage": job.stage, **row})
        out.write_text(json.dumps(rows))

    gpu = gpu_stages.Cuda()
    if job.stage == "tests":
        keep(run_tests(job.box_s - 5))
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


def pytest_command(side_by_side: int) -> list[str]:
    """pytest as it runs where neither pytest-asyncio nor half of the packages are."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-rfE", *TESTS]
    command += [f"--ignore-glob=*{name}" for name in NO_TESTS]
    command += ["-p", "no:cacheprovider", "-W", "ignore::pytest.PytestConfigWarning"]
    # torch of some versions warns, once a process, where cuDNN's TF32 is set by its older name;
    # and warnings are errors in these tests.
    command += ["-W", "ignore:Please use the new API", "-p", "no:benchmark"]
    # What needs a GPU, and whatever runs on one where there is one.
    command += ["-m", "gpu or not browser", "--continue-on-collection-errors"]
    if side_by_side > 1 and importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(side_by_side)]
    return command


def run_tests(box_s: float) -> dict[str, Any]:
    """pytest on this machine: its last line, and what failed."""
    folders = [f for f in TESTS if (harness.ROOT / f).is_dir()]
    command = [word for word in pytest_command(6) if word not in TESTS] + folders
    try:
        done = subprocess.run(
            command, cwd=harness.ROOT, capture_output=True, text=True, timeout=box_s, check=False
        )
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode(errors="replace") if late.stdout else ""
        return {"passed": False, "summary": f"not over after {box_s:.0f} s", "failed": _bad(said)}
    lines = done.stdout.strip().splitlines()
    summary = lines[-1] if lines else done.stderr.strip()[-300:]
    return {"passed": done.returncode == 0, "summary": summary, "failed": _bad(done.stdout)}


def _bad(output: str) -> list[str]:
    return [line[:200] for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))][:40]


# ---- the parent


def run_job(job: Job, deadline: float) -> dict[str, Any]:
    """A job in a process of its own. Returns what became of it, its rows among it."""
    box = min(job.box_s, deadline - time.monotonic())
    about = {"stage": job.stage, "case": job.case}
    if box < LEAST_S:
        return {**about, "ok": False, "error": "no time was left", "seconds": 0.0, "rows": []}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, str(Path(__file__).resolve()), "--child", job.stage]
        command += ["--case", job.case, "--out", str(out), "--box", str(box), *job.arguments]
        process = subprocess.Popen(
            command,
            cwd=harness.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=box)
            error = "" if process.returncode == 0 else _last_words(said, process.returncode)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its children too: pytest, compilers
            said, _ = process.communicate()
            error = f"not over after {box:.0f} s"
        rows = json.loads(out.read_text()) if out.exists() else []
    seconds = round(time.monotonic() - begun, 1)
    return {**about, "ok": not error, "error": error, "seconds": seconds, "rows": rows}


def _last_words(said: str, code: int) -> str:
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return f"exit {code}: {lines[-1][:300]}" if lines else f"exit {code}"


def goals(results: Sequence[Mapping[str, Any]]) -> list[blocks.Goal]:
    """Of the stages that were run."""
    Goal, found = blocks.Goal, []
    for row in results:
        stage, case = row["stage"], row.get("model", "")
        if stage == "tests":
            found.append(Goal("tests", "failures", float(not row["passed"]), 0.0, False))
        elif stage == "frames":
            found.append(Goal(case, "ms p50", row["p50_ms"], MUST_MS[case][0], False))
            found.append(Goal(case, "PSNR, dB", row["psnr_db"], LEAST_DB, True))
            for what, key, least in (
                (f"times {row['baseline']}", "vs_eager", EAGER[case]),
                ("times that in a CUDA graph", "vs_graph", GRAPH[case]),
            ):
                # Nothing to compare with is a goal that was not reached.
                ratio = row[key]["median"] if row[key] is not None else 0.0
                found.append(Goal(case, what, ratio, least, True))
        elif stage == "replays":
            for key in ("differing_bytes", "allocated_growth", "reserved_growth", "broken"):
                found.append(Goal(case, f"{row['replays']} replays, {key}", row[key], 0.0, False))
            waits = float(bool(row["hidden_sync"]))
            found.append(Goal(case, "hidden waits", waits, 0.0, False))
        elif stage == "batch":
            what = f"batch {row['batch']} draws what batch 1 does"
            found.append(Goal(case, what, float(row["same_as_alone"]), 1.0, True))
        elif stage == "kernels" and "wrong" in row:
            found.append(Goal("kernels", row["wrong"], 1.0, 0.0, False))
    return found


def stretch_reached(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Cases that are within the wish beyond the goal."""
    return [
        row["model"]
        for row in results
        if row["stage"] == "frames" and row["p50_ms"] <= MUST_MS[row["model"]][1]
    ]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Frames, then batches, for the terminal."""
    head = ["model", "ms p50", "p95", "p99", "must / stretch", "engine", "% roofline", "PSNR"]
    head += ["x eager", "x graph", "launches"]

    def cell(value: float | None, form: str = "{:.2f}") -> str:
        return "-" if value is None else form.format(value)

    lines = [
        [
            row["model"],
            *(cell(row[key], "{:.3f}") for key in ("p50_ms", "p95_ms", "p99_ms")),
            "{} / {}".format(*MUST_MS[row["model"]]),
            cell(row["engine_ms"], "{:.3f}"),
            cell(row["roofline_percent"], "{:.0f}"),
            cell(row["psnr_db"], "{:.1f}"),
            *(cell((row[key] or {}).get("median")) for key in ("vs_eager", "vs_graph")),
            str(row["launches"]),
        ]
        for row in results
        if row["stage"] == "frames"
    ]
    parts = [harness.text_table(head, lines)] if lines else []
    batches = [
        [row["model"], str(row["batch"]), cell(row["p50_ms"]), cell(row["ms_per_picture"])]
        + [str(row["sessions_at_30"])]
        for row in results
        if row["stage"] == "batch"
    ]
    if batches:
        head = ["model", "batch", "ms p50", "ms a picture", "sessions at 30 frames/s"]
        parts.append(harness.text_table(head, batches))
    ops = [
        [row["op"], row["case"], row["implementation"], f"{row['p50_ms']:.4f}"]
        + [cell(row.get("roofline_percent"), "{:.0f}"), f"{row['speedup']:.1f}x"]
        for row in results
        if row["stage"] == "kernels" and "op" in row
    ]
    if ops:
        head = ["op", "case", "implementation", "ms p50", "% roofline", "vs official order"]
        parts.append(harness.text_table(head, ops))
    return "\n\n".join(parts)


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


def run_all(
    stages: Sequence[str],
    against: str | None,
    limit_s: float,
    results: list[dict],
    outcomes: list[dict],
    written: Any,
) -> None:
    """Every stage in order; `written` is called after each."""
    deadline = time.monotonic() + limit_s
    for stage in stages:
        todo = jobs(stage, against)
        print(f"{stage}: {', '.join(job.case for job in todo if job.case) or '...'}", flush=True)
        with ThreadPoolExecutor(in_parallel(stage)) as pool:
            for done in pool.map(lambda job: run_job(job, deadline), todo):
                results += done.pop("rows")
                outcomes.append(done)
                state = "done" if done["ok"] else f"FAILED: {done['error']}"
                print(f"  {done['case'] or stage}: {state} ({done['seconds']} s)", flush=True)
        written()


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


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    harness.before_torch()
    import torch

    if not torch.cuda.is_available():
        print(
            "gpu: torch finds no CUDA device here. Run it on a machine with an NVIDIA GPU and a "
            "CUDA build of torch; bench/fps.py and bench/kernels.py measure a CPU.",
            file=sys.stderr,
        )
        return 2
    if args.child:
        child(Job(args.child, args.case, float(args.box)), Path(args.out), args.against)
        return 0
    about = harness.machine()
    print(harness.describe(about, harness.commit()) + "\n", flush=True)
    results, outcomes = kept(args.json, args.stages)

    def written() -> None:
        if args.json is not None:
            harness.write_json(args.json, content())

    def content() -> dict[str, Any]:
        frames = [
            {**row, "must_ms": MUST_MS[row["model"]][0], "stretch_ms": MUST_MS[row["model"]][1]}
            if row["stage"] == "frames"
            else row
            for row in results
        ]
        return harness.envelope(
            "gpu",
            frames,
            about=about,
            warnings=harness.busy(about),
            argv=sys.argv if argv is None else [__file__, *argv],
            outcomes=outcomes,
            goals=[goal.as_dict() for goal in goals(results)],
            stretch_reached=stretch_reached(results),
        )

    run_all(args.stages, args.against, args.limit, results, outcomes, written)
    reached = goals(results)
    print("\n" + table(results) + "\n")
    for row in results:
        if row["stage"] == "tests":
            print(f"tests: {row['summary']}")
            print("".join(f"  {line}\n" for line in row["failed"]), end="")
        for text in row.get("absent", []):
            print(f"not here: {row['model']}: {text}")
    failed = [outcome for outcome in outcomes if not outcome["ok"]]
    for outcome in failed:
        print(f"FAIL  stage {outcome['stage']} {outcome['case']}: {outcome['error']}")
    print(blocks.goals_text(reached))
    print(f"stretch reached: {', '.join(stretch_reached(results)) or 'none'}")
    return 0 if not failed and reached and all(goal.passed for goal in reached) else 1


if __name__ == "__main__":
    sys.exit(main())
