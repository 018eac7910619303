"""tune: measures, at warm-up, which tiles a convolution runs fastest with, or whether torch's does.

Nothing is written to disk: a few candidates take some tens of milliseconds per size, once a
process, and a figure kept from another driver or library would be wrong in silence.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

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

CALLS = 10  # in one graph, so that launching costs nothing of what is measured
ROUNDS = 7  # of all graphs in turn, so that a change of clocks meets all of them


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

    graphs: dict[Tiles | None, torch.cuda.CUDAGraph] = {
        None: _graph(lambda: plain_conv2d(x, conv)),
    }
    for tiles in candidates(work):
        try:
            graphs[tiles] = _graph(ours(tiles))
        except (
            kernel.OutOfResources
        ):  # the estimate of what tiles need in shared memory is not exact
            continue
    rounds = [{way: _replay(graph) for way, graph in graphs.items()} for _ in range(ROUNDS)]
    return {way: statistics.median(r[way] for r in rounds) / CALLS for way in graphs}


def _graph(call: Callable[[], Tensor]) -> torch.cuda.CUDAGraph:
    """CALLS calls as one graph; the first one outside it compiles kernels and picks algorithms."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        for _ in range(CALLS):
            call()
    graph.replay()
    return graph


def _replay(graph: torch.cuda.CUDAGraph) -> float:
    """Milliseconds between two events on the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)
