"""How many things a frame asks the machine to do.

On CUDA: what the host launches (kernels, copies, fills, graphs), and what the device then runs. On
a CPU: torch operations that compute something, and calls of compiled kernels. Counted while the
real frame runs: a dispatch mode would make the ops take another way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# Views, shapes, and memory that nobody fills.
VIEWS = frozenset(
    "alias as_strided chunk detach empty empty_like empty_strided expand flatten item narrow "
    "new_empty permute reshape resize_ select slice split squeeze t transpose unbind unflatten "
    "unsqueeze view view_as lift_fresh is_nonzero to contiguous _to_copy new_zeros "
    "result_type set_ resolve_conj resolve_neg _reshape_alias _unsafe_view".split()
)
HOST_LAUNCHES = ("LaunchKernel", "GraphLaunch", "MemcpyAsync", "Memcpy2DAsync", "MemsetAsync")


@dataclass(frozen=True)
class Launches:
    """Of one frame."""

    host: int
    device: int  # on a CPU the same: nothing runs that was not asked for one by one


def count(frame: Callable[[], object], device: str, frames: int = 2) -> Launches:
    """Count a frame that is warm; the mean of a few, rounded."""
    if torch.device(device).type == "cuda":
        return _on_cuda(frame, frames)
    with _compiled_calls() as compiled, profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(frames):
            frame()
    operations = sum(1 for event in seen.events() if _computes(event))
    total = round((operations + compiled[0]) / frames)
    return Launches(total, total)


def _on_cuda(frame: Callable[[], object], frames: int) -> Launches:
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(frames):
            frame()
        torch.cuda.synchronize()
    events = list(seen.events())
    host = sum(1 for e in events if any(e.name.endswith(word) for word in HOST_LAUNCHES))
    host += sum(1 for e in events if e.name.endswith(("LaunchKernelExC", "LaunchKernelEx")))
    device = sum(1 for e in events if str(e.device_type).endswith("CUDA"))
    return Launches(round(host / frames), round(device / frames))


def _computes(event: Any) -> bool:
    """Whether this is a torch operation that calls no other one and is not a mere view."""
    if not event.name.startswith("aten::") or event.name.removeprefix("aten::") in VIEWS:
        return False
    return not any(_counted(child) for child in event.cpu_children)


def _counted(event: Any) -> bool:
    """Whether this event or one below it computes."""
    return _computes(event) or any(_counted(child) for child in event.cpu_children)


# Where compiled kernels are called from: each of these functions runs one. The first may call the
# second.
_DOORS: tuple[tuple[str, str], ...] = (
    ("kernels_triton/compiled.py", "spread"),
    ("kernels_triton/workers.py", "shared"),
    ("realtime/i420/__init__.py", "chw_to_i420"),
)


def _is_door(frame: FrameType) -> bool:
    code = frame.f_code
    name = code.co_filename.replace("\\", "/")
    return any(code.co_name == function and name.endswith(file) for file, function in _DOORS)


@contextmanager
def _compiled_calls() -> Iterator[list[int]]:
    """Counts calls of compiled CPU kernels by the functions that call them; gives [how many]."""
    calls = [0]
    before = sys.getprofile()

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and _is_door(frame):
            inner = frame.f_back is not None and _is_door(frame.f_back)
            calls[0] += not inner

    sys.setprofile(look)
    try:
        yield calls
    finally:
        sys.setprofile(before)
