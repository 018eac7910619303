"""CUDA graphs for benchmarks: what is launched once is launched again with one call."""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM_UP = 3  # loads, tunes and chooses whatever there is to choose: none of it may be captured
Capture = Callable[[Callable[[], object]], Callable[[], None]]


def captured(draw: Callable[[], object]) -> Callable[[], None]:
    """A function that replays what `draw` launches; it returns before that has run.

    Raises:
        RuntimeError: It cannot be captured, or there is no CUDA.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            draw()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        draw()
    return graph.replay
