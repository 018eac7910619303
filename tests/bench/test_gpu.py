"""gpu.py: says at once where there is no GPU; its stages work, fail alone and are resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import gpu, gpu_goals, gpu_jobs, gpu_stages, gpu_tests, harness
from bench.gpu_jobs import Children, Job

ROOT = Path(__file__).resolve().parents[2]
SMALL = "stylegan2-128"
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


class OnCpu(gpu_stages.Cuda):
    """The stages' device where there is no GPU: whatever is launched is done at once."""

    name = "cpu"
    dtype = torch.float32
    way = "cpu:fp32"

    def sync(self) -> None:
        pass

    def pinned(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.uint8)

    def captured(self, draw: Callable[[], object]) -> Callable[[], None]:
        draw()

        def replay() -> None:
            draw()

        return replay

    def event(self) -> Any:
        return torch.cpu.Event()

    def held(self) -> tuple[int, int]:
        return 0, 0

    @contextmanager
    def strict(self) -> Iterator[None]:
        yield


@no_gpu
def test_without_cuda_it_says_so_and_exits_with_two(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "gpu.py", "--json", out],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and not out.exists()
    assert done.stderr.startswith("gpu: torch finds no CUDA device here. Run it on a machine")


def test_it_needs_neither_av_nor_aiortc() -> None:
    program = (
        "import sys\n"
        "for name in ('av', 'aiortc', 'aiohttp', 'pytest_asyncio'): sys.modules[name] = None\n"
        "from bench import gpu, gpu_stages, kernels, fps, published\n"
        "from realtime.backends import choose, cuda_graph, triton, cpu, eager\n"
        "choose('cpu', 'cpu', 'fp32')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def frames() -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    gpu_stages.FRAMES, before = 25, gpu_stages.FRAMES
    try:
        gpu_stages.frames(SMALL, None, 0.1, rows.append, OnCpu())
    finally:
        gpu_stages.FRAMES = before
    (row,) = rows
    return row


def test_frames_are_checked_timed_and_compared(frames: dict[str, Any]) -> None:
    json.dumps(frames, allow_nan=False)
    assert frames["frames"] >= 25 and frames["resolution"] == 128
    assert frames["psnr_db"] >= 90 and frames["i420_psnr_db"] >= 60
    assert 0 < frames["p50_ms"] <= frames["p99_ms"] and frames["roofline_percent"] > 0
    assert frames["baseline"] == "official order" and frames["engine_ms"] > 0
    assert frames["absent"] == [] and "official order, CUDA graph" in frames["baselines"]
    assert frames["vs_graph"] is not None
    assert frames["vs_eager"] == frames["baselines"]["official order"]["ratio"]


def test_a_published_baseline_counts_only_with_its_own_extensions() -> None:
    from bench.subjects import Baseline

    def pair(*names: str) -> tuple[str | None, str | None]:
        return gpu_stages._pair([Baseline(name, lambda: None) for name in names])

    ours = ("official order", "official order, CUDA graph")
    fast = (
        "published code, its CUDA extensions",
        "published code, its CUDA extensions, CUDA graph",
    )
    slow = ("published code, its plain path (x)", "published code, its plain path (x), CUDA graph")
    assert pair(*fast, *ours) == fast
    assert pair(*slow, *ours) == ours
    assert pair("official order") == ("official order", None)


def test_replays_end_where_they_began() -> None:
    rows: list[dict[str, Any]] = []
    gpu_stages.replays(SMALL, 7, rows.append, OnCpu())
    (row,) = rows
    assert row["replays"] == 7 and row["differing_bytes"] == 0 and row["broken"] == 0
    assert row["hidden_sync"] == ""


def test_a_hidden_wait_and_a_leak_are_told() -> None:
    class Bad(OnCpu):
        grown = 0

        def held(self) -> tuple[int, int]:
            self.grown += 64
            return self.grown, 0

        @contextmanager
        def strict(self) -> Iterator[None]:
            yield
            raise RuntimeError("called a synchronizing CUDA operation\nmore")

    rows: list[dict[str, Any]] = []
    gpu_stages.replays(SMALL, 2, rows.append, Bad())
    assert rows[0]["hidden_sync"] == "called a synchronizing CUDA operation"
    assert rows[0]["allocated_growth"] == 64
    missed = [g.what for g in gpu_goals.goals([{"stage": "replays", **rows[0]}]) if not g.passed]
    assert missed == ["2 replays, allocated_growth", "hidden waits"]


def test_every_picture_of_a_batch_is_the_one_drawn_alone() -> None:
    rows: list[dict[str, Any]] = []
    gpu_stages.batch(SMALL, 0.05, rows.append, OnCpu())
    assert [row["batch"] for row in rows] == [1, 2, 4, 8]
    assert all(row["same_as_alone"] for row in rows)
    for row in rows:
        assert row["sessions_at_30"] == row["batch"] * int(1000 / 30 // row["p95_ms"])


def row_of(case: str, **more: Any) -> dict[str, Any]:
    ratio = {"median": 5.0, "q1": 4.9, "q3": 5.1}
    times = {"p50_ms": 1.1, "p95_ms": 1.2, "p99_ms": 1.3, "engine_ms": None}
    about = {"roofline_percent": 50.0, "psnr_db": 70.0, "launches": 1, "baseline": "official order"}
    row = {"stage": "frames", "model": case, **times, **about, "vs_eager": ratio}
    return {**row, "vs_graph": None, "absent": [], **more}


def test_goals_are_those_of_the_table_and_of_stages_that_ran() -> None:
    found = gpu_goals.goals([row_of("stylegan3-t-256"), row_of("stylegan3-r-1024", p50_ms=3.5)])
    assert [(g.case, g.goal, g.passed) for g in found] == [
        ("stylegan3-t-256", 1.25, True),
        ("stylegan3-t-256", 55.0, True),
        ("stylegan3-t-256", 4.0, True),
        ("stylegan3-t-256", 1.8, False),  # no graph to compare with: not reached
        ("stylegan3-r-1024", 3.4, False),
        ("stylegan3-r-1024", 55.0, True),
        ("stylegan3-r-1024", 3.5, True),
        ("stylegan3-r-1024", 3.2, False),
    ]
    assert gpu_goals.stretch_reached([row_of("stylegan3-t-256", p50_ms=0.99)]) == [
        "stylegan3-t-256"
    ]
    assert gpu_goals.goals([]) == []
    shown = gpu_goals.table([row_of("stylegan3-t-256")])
    assert "1.25 / 1.0" in shown and "5.00" in shown


def test_stages_have_jobs_and_only_warming_runs_side_by_side() -> None:
    for stage in gpu.STAGES:
        assert gpu_jobs.jobs(stage, None)
        assert (gpu_jobs.in_parallel(stage) > 1) <= (stage == "warm")
    assert [job.case for job in gpu_jobs.jobs("frames", "x")] == list(gpu_goals.CASES)
    assert all(job.arguments == ("--against", "x") for job in gpu_jobs.jobs("frames", "x"))
    assert gpu_jobs.jobs("warm", "x")[0].arguments == ("--against", "x")
    with pytest.raises(SystemExit):
        gpu.parser().parse_args(["--stages", "frames,lunch"])
    assert gpu.parser().parse_args(["--stages", "batch,warm"]).stages == ["warm", "batch"]


@pytest.mark.parametrize("cores", [1, 2, 16])
@pytest.mark.parametrize("against", [None, "x"])
def test_all_boxes_fit_the_limit(
    cores: int, against: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "usable_cores", lambda: cores)
    total = 0.0
    for stage in gpu.STAGES:
        todo = gpu_jobs.jobs(stage, against)
        longest = gpu_jobs.rounds(stage, len(todo)) * max(job.box_s for job in todo)
        assert longest <= gpu_jobs.BOX_S[stage] * 1.0001
        total += longest
    assert total <= gpu.parser().parse_args([]).limit * 1.0001 <= 600


def test_a_box_grows_by_what_is_left_over_and_takes_nothing_from_later_ones() -> None:
    job = Job("frames", "x", 30.0)
    assert gpu_jobs.seconds_for(job, 100.0, 70.0) == 30.0
    assert gpu_jobs.seconds_for(job, 100.0, 20.0) == 80.0
    assert gpu_jobs.seconds_for(job, 100.0, 500.0) == 30.0  # the more important one has its box
    assert gpu_jobs.seconds_for(job, 20.0, 500.0) == 20.0
    assert gpu_jobs.seconds_for(job, 14.0, 0.0) is None


@no_gpu
def test_a_job_that_fails_is_reported_with_its_last_words() -> None:
    done = gpu_jobs.run_job(Job("replays", "stylegan3-t-256", 60.0), 60.0, Children())
    assert not done["ok"] and done["rows"] == []
    assert done["error"].startswith("exit 2: gpu: torch finds no CUDA device")


HANGING = """#!/bin/sh
while [ "$1" != --out ]; do shift; done
echo '[{"stage": "batch", "batch": 1}]' > "$2"
sleep 60 &
echo $$ $! > FOLDER/pids.part; mv FOLDER/pids.part FOLDER/pids
wait
"""


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    """Stands for Python; writes a row, starts a process of its own, and waits for it."""
    program = tmp_path / "python"
    program.write_text(HANGING.replace("FOLDER", str(tmp_path)))
    program.chmod(0o755)
    return program


def begun(folder: Path) -> list[int]:
    """Numbers of the hanging program and of what it started, once it has."""
    end = time.monotonic() + 30
    while not (folder / "pids").exists():
        assert time.monotonic() < end, "the child did not begin"
        time.sleep(0.02)
    return [int(word) for word in (folder / "pids").read_text().split()]


def alive(pid: int) -> bool:
    """Whether it runs; one that nobody has waited for yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def assert_gone(pids: list[int]) -> None:
    end = time.monotonic() + 10
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end, "a process was left behind"
        time.sleep(0.02)


def test_a_job_that_hangs_is_ended_and_its_rows_are_kept(
    hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(hanging))
    done = gpu_jobs.run_job(Job("batch", "x", 1.0), 1.0, Children())
    assert not done["ok"] and done["error"] == "not over after 1 s"
    assert done["rows"] == [{"stage": "batch", "batch": 1}]
    assert done["seconds"] < 20
    assert_gone(begun(hanging.parent))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_behind(hanging: Path, number: signal.Signals) -> None:
    program = (
        "import signal, sys\n"
        "from bench import gpu, gpu_jobs\n"
        "sys.executable = sys.argv[1]\n"
        "signal.signal(signal.SIGTERM, gpu._terminated)\n"
        "gpu_jobs.run_all(['replays', 'batch'], None, 540.0, print)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program, str(hanging)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # as from another terminal: only the run itself is told
    )
    pids = begun(hanging.parent)
    assert all(alive(pid) for pid in pids)
    run.send_signal(number)
    said, _ = run.communicate(timeout=20)
    assert run.returncode != 0 and "KeyboardInterrupt" in said
    assert "batch: " not in said  # nothing more was begun
    assert_gone(pids)


def test_no_process_begins_after_the_end() -> None:
    with Children() as children:
        pass
    with pytest.raises(gpu_jobs.Interrupted):
        children.begin([sys.executable, "-c", "pass"])


def test_what_does_not_fit_is_said_and_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_jobs, "run_job", None)  # nothing may be begun
    found: list[dict[str, Any]] = []
    gpu_jobs.run_all(["kernels"], None, 3.0, found.extend)
    (outcome,) = found
    assert outcome["error"] == "did not fit: 3 s left, 50 wanted" and not outcome["ok"]
    assert "kernels: FAILED: did not fit" in capsys.readouterr().out
    run = gpu.Run(None, ["kernels"], ["bench/gpu.py"])
    run.add([*found, {**outcome, "stage": "frames", "ok": True, "rows": [reached()]}])
    assert [g.passed for g in gpu_goals.goals(run.results)] == [True] * 4
    assert not run.report()
    assert "FAIL  stage kernels : did not fit: 3 s left" in capsys.readouterr().out


def reached() -> dict[str, Any]:
    return row_of("stylegan3-t-256", vs_graph={"median": 2.0, "q1": 1.9, "q3": 2.1})


def test_stages_run_again_replace_theirs_and_keep_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gpu.json"
    earlier = [row_of("stylegan3-t-256"), {"stage": "batch", "model": "m", "batch": 1}]
    outcomes = [{"stage": "frames", "ok": True}, {"stage": "batch", "ok": False}]
    about = harness.machine()
    harness.write_json(path, harness.envelope("gpu", earlier, about=about, outcomes=outcomes))
    kept = gpu.kept(str(path), ["batch"])
    assert kept == ([row_of("stylegan3-t-256")], [{"stage": "frames", "ok": True}])

    def fake(job: Job, seconds: float, children: Children) -> dict[str, Any]:
        failed = job.case.endswith("r-256")
        rows = [] if failed else [{"stage": job.stage, "model": job.case, "failed": []}]
        about = {"stage": job.stage, "case": job.case, "seconds": 0.0, "rows": rows}
        return {**about, "ok": not failed, "error": "exit 1: boom" if failed else ""}

    monkeypatch.setattr(gpu_jobs, "run_job", fake)
    monkeypatch.setattr(gpu, "goals", lambda results: [])
    run = gpu.Run(str(path), ["batch"], ["bench/gpu.py"])
    calls: list[int] = []

    def told(outcomes: list[dict[str, Any]]) -> None:
        run.add(outcomes)
        calls.append(len(harness.read_json(path)["results"]))

    gpu_jobs.run_all(["warm", "replays"], None, 540.0, told)
    assert calls == [1 + 5, 1 + 5 + 1]  # the failing one cost nothing but itself
    assert [o["ok"] for o in run.outcomes].count(False) == 2


def test_pytest_runs_here_as_it_would_there(tmp_path: Path) -> None:
    """Without pytest-asyncio, and without the files that want a server."""
    few = ["tests/realtime/backends", "tests/kernels_triton"]
    command = [word for word in gpu_tests.pytest_command(1) if word not in gpu_tests.TESTS] + few
    command += ["-p", "no:asyncio", "--collect-only"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "error" not in done.stdout.splitlines()[-1], done.stdout[-2000:]
    assert "test_backends_gpu.py" in done.stdout and "test_aot.py" not in done.stdout
