"""Fused synthesis on CUDA, launched kernel by kernel; finished pictures come through a pinned ring.

    compute stream   codes -> static inputs, kernels, result -> device ring [slot]
    copy stream        wait for that, device ring [slot] -> pinned ring [slot]
    who waits            wait for that, pinned ring [slot] -> frame slot

So the copy of one picture runs beside the kernels of the next. A slot of the ring is given back
when its picture has left it, and until then neither stream touches it again: that is the only
thing that anybody has to wait for before drawing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels_triton.rgb_to_i420 import image_to_i420
from models.contracts import Identity, MotionCode, Synthesizer
from models.errors import CannotFuse
from models.fused import Executor, Packed, pack
from realtime.backends.cpu import prove
from realtime.backends.eager import fall_back, outline
from realtime.backends.renderer import (
    BATCHES,
    NOT_FINITE,
    Drawing,
    FrameBroken,
    Renderer,
    levels,
    on,
    settle,
)

SLOTS = 3  # one drawn, one copied, one read
FLAGS = 256  # bytes before the pictures: one int32 each, and the pictures stay aligned
HIGH = -1  # priority of a stream: frames go before another model's preparation
WARM_UP = 2  # the first launch loads and tunes kernels, the second runs as all later ones do
log = logging.getLogger(__name__)


class Triton:
    """See `realtime.backends.Backend`.

    Args:
        dtype: Of activations and convolution weights.
        batches: How many pictures may be drawn at once.
    """

    name = "triton"

    def __init__(
        self,
        device: torch.device,
        why: str,
        dtype: torch.dtype = torch.float16,
        batches: tuple[int, ...] = BATCHES,
    ) -> None:
        self.device = device
        self.why = why
        self._dtype = dtype
        self._batches = batches

    def prepare(
        self, synthesizer: Synthesizer, check: Callable[[], None] = lambda: None
    ) -> Renderer:
        """Packs, then compiles and loads the kernels by drawing once."""
        synthesizer.eval().requires_grad_(False)
        try:
            packed = pack(synthesizer, self.device, self._dtype)
        except CannotFuse as error:
            return fall_back(synthesizer, self.device, self.name, str(error))
        check()
        try:
            with on(self.device):
                prove(packed)
        except Exception as error:  # a compiler's and a driver's errors are of any type
            log.exception("the fused kernels do not run here")
            reason = f"its kernels do not run here ({outline(error)})"
            return fall_back(synthesizer, self.device, self.name, reason, kernels=False)
        return self._renderer(packed)

    def _renderer(self, packed: Packed) -> Renderer:
        return TritonRenderer(packed, self.name, self.why, self._batches)


class TritonRenderer(Renderer):
    """See `realtime.backends.Renderer`.

    On a CPU, where torch's streams and events are there but do nothing, it does the same one after
    the other: that is how its bookkeeping is tested without a GPU.
    """

    asynchronous = True

    def __init__(
        self, packed: Packed, backend: str, why: str, batches: tuple[int, ...] = BATCHES
    ) -> None:
        super().__init__(backend, why)
        self._packed = packed
        self._batches = batches
        self._device = packed.device
        self._streams: Any = torch.get_device_module(packed.device)
        self._compute = self._stream()
        self._copy = self._stream()
        self._executors: dict[int, Executor] = {}
        self._canvases: dict[tuple[int, int], Canvas] = {}  # by size and batch
        self._launching = threading.Lock()  # the executors' buffers and the streams
        self._free: SimpleQueue[int] = SimpleQueue()
        for slot in range(SLOTS):
            self._free.put(slot)

    def batches(self, size: int) -> tuple[int, ...]:
        made = list(self._canvases)  # a copy: the loader thread may be adding to it
        return tuple(b for b in self._batches if (size, b) in made) or (1,)

    def ready(self, size: int) -> bool:
        return (size, self._batches[-1]) in self._canvases

    @torch.inference_mode()
    def warm(self, size: int) -> None:
        with on(self._device):
            self._warm(size)

    def _warm(self, size: int) -> None:
        for batch in self._batches:
            if (size, batch) in self._canvases:
                continue
            try:
                canvas = self._prepared(size, batch)
            except torch.OutOfMemoryError as error:
                if batch == 1:
                    raise
                log.warning("no batches of %d at %dx%d: %s", batch, size, size, error)
                self._executors.pop(batch, None)  # its buffers are what did not fit
                self._batches = tuple(b for b in self._batches if b < batch)
                return
            self._canvases[size, batch] = canvas

    def _prepared(self, size: int, batch: int) -> Canvas:
        """A canvas that draws as fast as it ever will."""
        if size != self._packed.resolution:  # beside the stream: compiling takes a while
            image = torch.zeros(batch, *2 * (self._packed.resolution,), 3, device=self._device)
            flags = torch.zeros(batch, dtype=torch.int32, device=self._device)
            i420 = torch.empty(batch, size * 3 // 2, size, dtype=torch.uint8, device=self._device)
            image_to_i420(fitted(image, size), out=i420, broken=flags)
        with self._launching:
            with self._streams.stream(self._compute):
                canvas = Canvas(self._executor(batch), size, self._streams)
                for _ in range(WARM_UP):
                    canvas.draw()
                # This stream alone: another thread may be capturing in a third.
                settle(self._device)
                self._finish(canvas)
        return canvas

    def _executor(self, batch: int) -> Executor:
        if batch not in self._executors:
            self._executors[batch] = self._packed.executor(batch)
        return self._executors[batch]

    def _finish(self, canvas: Canvas) -> None:
        """The last step of preparation, while nobody launches anything."""

    def _launch(self, canvas: Canvas) -> None:
        """Draw from the static inputs, on the current stream."""
        canvas.draw()

    @torch.inference_mode()
    def submit(self, items: Sequence[Drawing]) -> InFlight:
        key = (items[0].out.shape[1], len(items))
        if key not in self._canvases:  # nobody has warmed it up: the stream stands still meanwhile
            self._canvases[key] = self._prepared(*key)
        canvas = self._canvases[key]
        slot = self._free.get()
        try:
            with self._launching:
                self._enqueue(canvas, slot, items)
        except BaseException:
            self._free.put(slot)
            raise
        return InFlight(canvas, slot, items, self._free)

    def _enqueue(self, canvas: Canvas, slot: int, items: Sequence[Drawing]) -> None:
        """Waits for nothing: all of it goes into the two streams."""
        with self._streams.stream(self._compute):
            for k, item in enumerate(items):
                canvas.executor.put(k, item.identity, item.motion)
            self._launch(canvas)
            canvas.on_device[slot].copy_(canvas.drawn, non_blocking=True)
            canvas.computed[slot].record(self._compute)
        with self._streams.stream(self._copy):
            self._copy.wait_event(canvas.computed[slot])
            canvas.on_host[slot].copy_(canvas.on_device[slot], non_blocking=True)
            canvas.copied[slot].record(self._copy)

    @torch.inference_mode()
    def picture(self, identity: Identity, motion: MotionCode, size: int) -> np.ndarray:
        side = self._packed.resolution
        with self._launching, self._streams.stream(self._compute):
            executor = self._executor(1)
            executor.put(0, identity, motion)
            image = torch.empty(1, side, side, 3, device=self._device)
            executor.draw(image)
            rgb = fitted(image, size)[0].cpu().numpy()
        if not np.isfinite(rgb.sum()):
            raise FrameBroken(NOT_FINITE)
        return levels(rgb)

    def _stream(self) -> Any:
        cuda = self._device.type == "cuda"
        return self._streams.Stream(self._device, priority=HIGH) if cuda else self._streams.Stream()


class Canvas:
    """What an executor draws into for one size, and the ring through which it leaves.

    `drawn`, each slot of `on_device` and each of `on_host` are laid out alike: FLAGS bytes, of
    which the first `batch` int32 say whether a picture is broken, then the pictures as I420.
    """

    def __init__(self, executor: Executor, size: int, streams: Any) -> None:
        batch, device = executor.batch, executor.device
        self.executor = executor
        self.size = size
        length = FLAGS + batch * (size * 3 // 2) * size
        self.drawn = torch.zeros(length, dtype=torch.uint8, device=device)
        self.broken, self.i420 = _views(self.drawn, batch, size)
        own = size == executor.resolution
        shape = (batch, executor.resolution, executor.resolution, 3)
        self._image = None if own else torch.empty(shape, device=device)
        pinned = device.type == "cuda"
        self.on_device = list(torch.zeros(SLOTS, length, dtype=torch.uint8, device=device))
        self.on_host = [
            torch.zeros(length, dtype=torch.uint8, pin_memory=pinned) for _ in range(SLOTS)
        ]
        self.read = [
            (broken.numpy(), i420.numpy())
            for broken, i420 in (_views(host, batch, size) for host in self.on_host)
        ]
        # A blocking event lets the thread that waits for it sleep; others keep a core busy.
        self.computed = [streams.Event() for _ in range(SLOTS)]
        self.copied = [
            streams.Event(**({"blocking": True} if pinned else {})) for _ in self.on_host
        ]

    def draw(self) -> None:
        """Static inputs to `drawn`. Waits for nothing, so that a CUDA graph may hold it."""
        if self._image is None:
            self.executor.draw_i420(self.i420, self.broken)
            return
        self.executor.draw(self._image)
        self.broken.zero_()
        image_to_i420(fitted(self._image, self.size), out=self.i420, broken=self.broken)


def _views(flat: Tensor, batch: int, size: int) -> tuple[Tensor, Tensor]:
    return flat[: 4 * batch].view(torch.int32), flat[FLAGS:].view(batch, size * 3 // 2, size)


class InFlight:
    """See `realtime.backends.Pending`."""

    def __init__(
        self, canvas: Canvas, slot: int, items: Sequence[Drawing], free: SimpleQueue[int]
    ) -> None:
        self._canvas, self._slot, self._items, self._free = canvas, slot, items, free

    def wait(self) -> list[FrameBroken | None]:
        try:
            self._canvas.copied[self._slot].synchronize()
            flags, pictures = self._canvas.read[self._slot]
            for item, picture in zip(self._items, pictures, strict=True):
                np.copyto(item.out, picture)
            return [FrameBroken(NOT_FINITE) if flag else None for flag in flags]
        finally:
            self._free.put(self._slot)


def fitted(image: Tensor, size: int) -> Tensor:
    """[N, R, R, 3] resampled to [N, size, size, 3], without aliases; contiguous.

    As the CPU's: the mean of whole blocks where the sizes divide, cubic upwards.
    """
    side = image.shape[1]
    if side == size:
        return image
    planes = image.permute(0, 3, 1, 2)
    if side % size == 0:
        resampled = F.avg_pool2d(planes, side // size)
    else:
        resampled = F.interpolate(
            planes, (size, size), mode="bicubic", align_corners=False, antialias=size < side
        )
    return resampled.permute(0, 2, 3, 1).contiguous()
