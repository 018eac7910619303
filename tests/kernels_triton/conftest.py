"""What the tests of compiled CPU kernels share."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Once with one thread, once with two, however little there is to do."""
    from kernels_triton import compiled

    monkeypatch.setattr(compiled, "FEW", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def allocated_bytes(call: Callable[[], Any]) -> int:
    """The most that `call` holds of numpy's, and all that it asks of torch's, memory.

    Raises:
        AssertionError: A compiled kernel kept what it allocated.
    """
    from numba.core.runtime import _nrt_python, rtsys

    call()  # whatever is made once is made now
    _nrt_python.memsys_enable_stats()
    tracemalloc.start()
    try:
        held = rtsys.get_allocation_stats()
        with torch.autograd.profiler.profile(profile_memory=True) as profile:
            call()
        freed = rtsys.get_allocation_stats()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        _nrt_python.memsys_disable_stats()
    assert freed.alloc - held.alloc == freed.free - held.free, "a kernel keeps memory"
    return peak + sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages())


@pytest.fixture(name="allocated_bytes")
def _allocated_bytes() -> Callable[[Callable[[], Any]], int]:
    return allocated_bytes
