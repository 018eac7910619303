"""tune: measures, at warm-up, which tiles a convolution runs fastest with, or whether torch's does.

Nothing is written to disk: a few candidates take some tens of milliseconds per size, once a
process, and a figure kept from another driver or library would be wrong in silence.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from kernels_triton.capture import CAPTURING
from kernels_triton.modulated_conv.packed import PackedConv, plain_conv2d
from kernels_triton.modulated_conv.tiles import (
    LARGEST_KERNEL,
    Tiles,
    Work,
    candidates,
    chosen,
    measured,
    remember,
)

GRAPH_MS = 2.0  # of calls in one graph, so that launching costs nothing of what is measured
MOST_CALLS = 10
ROUNDS = 3  # of all graphs in turn, so that a change of clocks meets all of them


Timed = tuple[torch.cuda.CUDAGraph, int]  # and how many calls are in it


@torch.inference_mode()
def tune(conv: PackedConv, n: int, rows: int, columns: int) -> Tiles | None:
    """Time torch's convolution and our kernel on [n, rows, columns, I'], unless that was done.

    torch's is timed without scale and bias, which the op that reads its result applies on the way;
    ours with both. Takes some seconds where kernels must be compiled.

    Returns:
        Tiles of our kernel if it wins, else None; also where there is nothing to measure.
    Raises:
        RuntimeError: A CUDA graph is being captured: tune before.
    """
    work = Work.of(conv, n, rows, columns)
    device = conv.weight.device
    possible = conv.up == 1 and conv.kernel <= LARGEST_KERNEL and work.device.capability >= (8, 0)
    if device.type != "cuda" or not possible or measured(work):
        return chosen(work) if possible else None
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"convolutions cannot be timed while a CUDA graph is captured: tune {work} before"
        )
    with torch.cuda.device(device):
        return remember(work, fastest(_times(work, conv)))


def fastest(milliseconds: Mapping[Tiles | None, float]) -> Tiles | None:
    """Whose time is least; torch's (None) on a tie."""
    return min(milliseconds, key=lambda way: (milliseconds[way], way is not None))


def _times(work: Work, conv: PackedConv) -> dict[Tiles | None, float]:
    """Median time of one call, per way."""
    from kernels_triton.modulated_conv import kernel

    device = conv.weight.device
    x = torch.randn(work.samples, work.rows, work.columns, work.inputs, device=device)
    x = x.to(work.dtype)
    scale = torch.rand(work.samples, work.outputs, device=device)
    bias = torch.rand(work.outputs, device=device)
    size = conv.output_size(work.rows, work.columns)
    out = torch.empty(work.samples, *size, work.outputs, dtype=work.dtype, device=device)

    def ours(tiles: Tiles) -> Callable[[], Tensor]:
        return lambda: kernel.run(x, conv, scale, bias, out, tiles)

    with _benchmarking():
        graphs: dict[Tiles | None, Timed] = {None: _graph(lambda: plain_conv2d(x, conv))}
    for tiles in candidates(work):
        try:
            graphs[tiles] = _graph(ours(tiles))
        except (
            kernel.OutOfResources
        ):  # the estimate of what tiles need in shared memory is not exact
            continue
    rounds = [
        {way: _between(graph.replay) / calls for way, (graph, calls) in graphs.items()}
        for _ in range(ROUNDS)
    ]
    return {way: statistics.median(r[way] for r in rounds) for way in graphs}


@contextmanager
def _benchmarking() -> Iterator[None]:
    """cuDNN tries its algorithms and keeps the fastest, as a stream's fixed sizes deserve."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _graph(call: Callable[[], Tensor]) -> Timed:
    """Some calls as one graph, and how many; before it, one that compiles kernels and picks
    algorithms, and one that is timed.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with CAPTURING:
        with torch.cuda.stream(stream):
            call()
            calls = max(1, min(MOST_CALLS, round(GRAPH_MS / max(_between(call), 1e-3))))
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            for _ in range(calls):
                call()
    graph.replay()
    return graph, calls


def _between(call: Callable[[], object]) -> float:
    """Milliseconds between two events on the current stream."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)
