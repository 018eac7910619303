"""The tests of kernels and backends, run by bench/gpu.py where there may be nothing but pytest."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

from bench import harness

TESTS = ("tests/kernels_triton", "tests/models", "tests/realtime/backends")
NO_TESTS = ("test_aot.py",)  # compiles for three architectures; it needs no GPU


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
