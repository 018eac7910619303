"""Threads for the CPU kernels: they sleep while there is nothing to do, and never spin."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


@functools.lru_cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="stylewire-kernel")


def shared(kernel: Callable[..., Any], tasks: int, *arguments: Any) -> None:
    """`kernel(*arguments, begin, end)` over [0, tasks), by as many threads as torch has.

    Args:
        kernel: Compiled, gives up the interpreter lock.
    """
    threads = min(torch.get_num_threads(), tasks)
    if threads <= 1:
        kernel(*arguments, 0, tasks)
        return
    edges = [tasks * k // threads for k in range(threads + 1)]
    jobs = [
        _pool(threads - 1).submit(kernel, *arguments, begin, end)
        for begin, end in zip(edges[1:-1], edges[2:], strict=True)
    ]
    try:
        kernel(*arguments, edges[0], edges[1])
    finally:
        for job in jobs:
            job.result()
