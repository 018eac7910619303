"""Fused synthesis on CUDA, one graph per frame: what a CPU pays for it is one launch.

A graph holds everything from the static inputs to the I420 picture, for one sent size and one
batch. Identity and motion are copied into the static inputs before the replay, so no change of
them captures anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from kernels_triton.capture import CAPTURING
from models.fused import Packed
from realtime.backends.eager import outline
from realtime.backends.renderer import BATCHES, Renderer
from realtime.backends.triton import HIGH, Canvas, Triton, TritonRenderer

Replay = Callable[[], None]
Capture = Callable[[Callable[[], None], torch.device], Replay]
log = logging.getLogger(__name__)


class Recorder:
    """Captures CUDA work. All graphs of one recorder share a pool of memory: they are replayed in
    one stream, one after the other.
    """

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None  # torch's token

    def __call__(self, draw: Callable[[], None], device: torch.device) -> Replay:
        """Capture what `draw` launches, after it has been launched before: kernels must be loaded
        and chosen by now.

        Returns:
            Launches it again, on the current stream.
        """
        # Should a capture fail, torch leaves its stream as the current one: ours is put back.
        with CAPTURING, torch.cuda.stream(torch.cuda.current_stream(device)):
            if self._stream is None:
                self._stream = torch.cuda.Stream(device, priority=HIGH)
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # thread_local: the render thread may go on allocating and waiting meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                draw()
        return graph.replay


class CudaGraph(Triton):
    """See `realtime.backends.Backend`.

    Args:
        capture: Makes a graph of what it calls.
    """

    name = "cuda-graph"

    def __init__(
        self,
        device: torch.device,
        why: str,
        dtype: torch.dtype = torch.float16,
        batches: tuple[int, ...] = BATCHES,
        capture: Callable[[], Capture] = Recorder,
    ) -> None:
        super().__init__(device, why, dtype, batches)
        self._capture = capture

    def _renderer(self, packed: Packed) -> Renderer:
        return CudaGraphRenderer(packed, self.name, self.why, self._batches, self._capture())


class CudaGraphRenderer(TritonRenderer):
    """See `realtime.backends.Renderer`. Where a capture fails, it launches kernel by kernel."""

    def __init__(
        self,
        packed: Packed,
        backend: str,
        why: str,
        batches: tuple[int, ...],
        capture: Capture,
    ) -> None:
        super().__init__(packed, backend, why, batches)
        self._capture: Capture | None = capture
        self._replays: dict[Canvas, Replay] = {}

    def _finish(self, canvas: Canvas) -> None:
        if self._capture is None:
            return
        try:
            self._replays[canvas] = self._capture(canvas.draw, self._device)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a driver's errors are of any type
            # One failure is enough: what cannot be captured once will not be another time.
            self._capture = None
            self._replays.clear()
            reason = f"cuda-graph cannot capture this model ({outline(error)})"
            log.warning("backend: triton, as %s.", reason, exc_info=error)
            self.backend, self.why = Triton.name, reason

    def _launch(self, canvas: Canvas) -> None:
        replay = self._replays.get(canvas)
        if replay is None:
            canvas.draw()
        else:
            replay()
