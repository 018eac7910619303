"""gpu.py: says at once where there is no GPU; its stages work, fail alone and are resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import gpu, gpu_stages, harness
from bench.gpu import Job

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
    missed = [g.what for g in gpu.goals([{"stage": "replays", **rows[0]}]) if not g.passed]
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
    found = gpu.goals([row_of("stylegan3-t-256"), row_of("stylegan3-r-1024", p50_ms=3.5)])
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
    assert gpu.stretch_reached([row_of("stylegan3-t-256", p50_ms=0.99)]) == ["stylegan3-t-256"]
    assert gpu.goals([]) == []
    shown = gpu.table([row_of("stylegan3-t-256")])
    assert "1.25 / 1.0" in shown and "5.00" in shown


def test_stages_have_jobs_and_only_warming_runs_side_by_side() -> None:
    for stage in gpu.STAGES:
        assert gpu.jobs(stage, None)
        assert (gpu.in_parallel(stage) > 1) <= (stage == "warm")
    assert [job.case for job in gpu.jobs("frames", "x")] == list(gpu.CASES)
    assert all(job.arguments == ("--against", "x") for job in gpu.jobs("frames", "x"))
    with pytest.raises(SystemExit):
        gpu.parser().parse_args(["--stages", "frames,lunch"])
    assert gpu.parser().parse_args(["--stages", "batch,warm"]).stages == ["warm", "batch"]


@no_gpu
def test_a_job_that_fails_is_reported_with_its_last_words() -> None:
    done = gpu.run_job(Job("replays", "stylegan3-t-256", 60.0), deadline=float("inf"))
    assert not done["ok"] and done["rows"] == []
    assert done["error"].startswith("exit 2: gpu: torch finds no CUDA device")


def test_a_job_that_hangs_is_ended_and_its_rows_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = tmp_path / "python"
    hanging.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != --out ]; do shift; done\n'
        """echo '[{"stage": "batch", "batch": 1}]' > "$2"\n"""
        "sleep 60\n"
    )
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))
    monkeypatch.setattr(gpu, "LEAST_S", 0.1)
    done = gpu.run_job(Job("batch", "x", 1.0), deadline=float("inf"))
    assert not done["ok"] and done["error"] == "not over after 1 s"
    assert done["rows"] == [{"stage": "batch", "batch": 1}]
    assert done["seconds"] < 20


def test_without_time_nothing_is_begun() -> None:
    done = gpu.run_job(Job("batch", "x", 60.0), deadline=0.0)
    assert done["error"] == "no time was left" and done["seconds"] == 0.0


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

    def fake(job: Job, deadline: float) -> dict[str, Any]:
        failed = job.case.endswith("r-256")
        rows = [] if failed else [{"stage": job.stage, "model": job.case}]
        about = {"stage": job.stage, "case": job.case, "seconds": 0.0, "rows": rows}
        return {**about, "ok": not failed, "error": "exit 1: boom" if failed else ""}

    monkeypatch.setattr(gpu, "run_job", fake)
    results, said = kept
    calls: list[int] = []
    gpu.run_all(["warm", "replays"], None, 60.0, results, said, lambda: calls.append(len(results)))
    assert calls == [1 + 5, 1 + 5 + 1]  # the failing one cost nothing but itself
    assert [o["ok"] for o in said].count(False) == 2


def test_pytest_runs_here_as_it_would_there(tmp_path: Path) -> None:
    """Without pytest-asyncio, and without the files that want a server."""
    few = ["tests/realtime/backends", "tests/kernels_triton"]
    command = [word for word in gpu.pytest_command(1) if word not in gpu.TESTS] + few
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
