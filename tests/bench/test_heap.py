"""An allocator that keeps memory costs no page faults: in a process of its own, for good."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from bench import fps, heap, kernels

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import resource, sys
import torch
from bench import heap

kept = sys.argv[1] == "keep"
said = heap.keep() if kept else heap.DEFAULT
for _ in range(12):  # until freed pieces have grown together into large ones
    torch.ones(16 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    torch.ones(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, said)
"""


def faults(how: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    count, said = done.stdout.split(" ", 1)
    return int(count), said.strip()


def test_kept_memory_costs_no_page_faults() -> None:
    kept, said = faults("keep")
    if platform.libc_ver()[0] != "glibc":  # no other can be told, and the run says so
        assert said == heap.DEFAULT
        return
    assert said == heap.KEPT
    given_back, _ = faults("not")
    assert kept * 20 < given_back


def test_both_benchmarks_take_the_wish() -> None:
    for module in (fps, kernels):
        assert module.parser().parse_args(["--keep-memory"]).keep_memory
        assert not module.parser().parse_args([]).keep_memory
