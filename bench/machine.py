"""The machine and the checkout that a measurement belongs to, in plain values."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MAX_BUSY = 0.15  # of the cores, before the run begins
LOOK_S = 0.5  # how long that is looked at
BEFORE_TORCH = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "KINETO_LOG_LEVEL": "99"}


def before_torch() -> None:
    """Environment that torch reads when it is imported; what is set already stays.

    Idle CPU threads sleep, as the server's do: spinning, they take the cores that the compiled
    kernels run on, and medians get five times as long. (The server's own function for it is beside
    its command line, which needs packages that a machine with nothing but a GPU lacks.) The
    profiler, which counts launches, keeps its remarks to itself.
    """
    for name, value in BEFORE_TORCH.items():
        os.environ.setdefault(name, value)


def machine() -> dict[str, Any]:
    """This machine and checkout, in plain values: no host name, no user, no path."""
    import torch

    gpu = _gpu()
    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gib": _memory_gib(),
        "gpu": gpu.get("name"),
        "driver": gpu.get("driver"),
        "cuda": torch.version.cuda,
        "os": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "numpy": _version("numpy"),
        "av": _version("av"),
        "aiortc": _version("aiortc"),
        "torch_threads": torch.get_num_threads(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "cores_busy": _cores_busy(),
    }


def commit() -> dict[str, Any]:
    """`id` (12 digits, None outside a git checkout) and `dirty`: tracked files differ from it."""
    head = _output("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    if head is None:
        return {"id": None, "dirty": None}
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    # A run rewrites its own results: they are not what was measured.
    lines = [line for line in (changed or "").splitlines() if "bench/results/" not in line]
    return {"id": head, "dirty": bool(lines)}


def describe(about: Mapping[str, Any], at: Mapping[str, Any] | None = None) -> str:
    """The machine, and the commit where it is given, in three lines for a person."""
    gpu = about["gpu"] or "no GPU"
    if about["driver"]:
        gpu += f" (driver {about['driver']}, CUDA {about['cuda']})"
    busy = "" if about["cores_busy"] is None else f"; {about['cores_busy']:.0%} busy"
    lines = [
        f"machine   {about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB; {gpu}; "
        f"{about['os']}{busy}",
        f"software  Python {about['python']}, torch {about['torch']} "
        f"({about['torch_threads']} threads), triton {about['triton'] or 'absent'}, "
        f"numpy {about['numpy']}",
    ]
    if at is not None:
        state = {True: " with local changes", False: "", None: ""}[at["dirty"]]
        lines.append(f"commit    {at['id'] or 'unknown (not a git checkout)'}{state}")
    return "\n".join(lines)


def usable_cores() -> int:
    """Cores this process may run on, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> int | None:
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    return None


def _cores_busy() -> float | None:
    """How much of all cores others use now, 0 to 1; None where the system does not say.

    Not the load average: for a minute after a benchmark that is the benchmark's own.
    """

    def ticks() -> tuple[int, int]:
        numbers = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]  # all, and idle or waiting for a disk

    try:
        total, idle = ticks()
        time.sleep(LOOK_S)
        total_after, idle_after = ticks()
    except (OSError, ValueError, IndexError):
        return None
    return round(1 - (idle_after - idle) / max(1, total_after - total), 2)


def _gpu() -> dict[str, str]:
    line = _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if not line:
        return {}
    name, driver = (part.strip() for part in line.splitlines()[0].rsplit(",", 1))
    return {"name": name, "driver": driver}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """What a command prints, None where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def busy(about: Mapping[str, Any]) -> list[str]:
    """A warning where the machine had other work before the benchmark began."""
    busy = about["cores_busy"]
    if busy is None or busy <= MAX_BUSY:
        return []
    return [
        f"the machine was busy before the run: {busy:.0%} of {about['cores']} cores; "
        "close what else runs and repeat"
    ]
