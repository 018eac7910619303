"""Fused synthesis on the CPU, straight into the frame slot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch

from kernels_triton.rgb_to_i420 import image_to_i420
from models.contracts import Identity, MotionCode, Synthesizer
from models.errors import CannotFuse
from models.fused import Executor, Packed, pack
from realtime.backends.cpu_kernels import compile_beside
from realtime.backends.eager import fall_back, outline
from realtime.backends.renderer import (
    NOT_FINITE,
    Done,
    Drawing,
    FrameBroken,
    Renderer,
    levels,
    settle,
)

log = logging.getLogger(__name__)


class Cpu:
    """See `realtime.backends.Backend`.

    Args:
        dtype: Of activations and convolution weights: float32 or bfloat16.
        batches: How many pictures may be drawn at once. A core gains nothing by more than one.
    """

    name = "cpu"

    def __init__(
        self,
        device: torch.device,
        why: str,
        dtype: torch.dtype = torch.float32,
        batches: tuple[int, ...] = (1,),
    ) -> None:
        self.device = device
        self.why = why
        self._dtype = dtype
        self._batches = batches

    def prepare(
        self, synthesizer: Synthesizer, check: Callable[[], None] = lambda: None
    ) -> Renderer:
        """Packs, compiles in a process of its own where that was never done here, and draws."""
        try:
            packed = pack(synthesizer.eval().requires_grad_(False), self.device, self._dtype)
        except CannotFuse as error:
            return fall_back(synthesizer, self.device, self.name, str(error))
        check()
        compile_beside(packed.resamplings, self._dtype, check)
        check()
        try:
            prove(packed)
        except Exception as error:  # a compiler's errors are of any type
            log.exception("the compiled kernels do not run here")
            reason = f"its kernels do not run here ({outline(error)})"
            return fall_back(synthesizer, self.device, self.name, reason, kernels=False)
        return CpuRenderer(packed, self.name, self.why, self._batches)


def prove(packed: Packed) -> None:
    """One picture, so that what does not compile or fit is known before anyone relies on it."""
    side, device = packed.resolution, packed.device
    executor = packed.executor(1)
    executor.draw(torch.empty(1, side, side, 3, device=device))
    # Both ends: compiled later, the other one would be where nothing else can be drawn.
    i420 = torch.empty(1, side * 3 // 2, side, dtype=torch.uint8, device=device)
    executor.draw_i420(i420, torch.zeros(1, dtype=torch.int32, device=device))
    settle(device)


class CpuRenderer(Renderer):
    """See `realtime.backends.Renderer`. Everything happens in `submit`."""

    def __init__(
        self, packed: Packed, backend: str, why: str, batches: tuple[int, ...] = (1,)
    ) -> None:
        super().__init__(backend, why)
        self._packed = packed
        self._batches = batches
        self._drawn: dict[int, _Drawn] = {}  # by batch
        self._fitted = np.empty((0, 0, 3), np.float32)  # kept from frame to frame

    def batches(self, size: int) -> tuple[int, ...]:
        return self._batches

    @torch.inference_mode()
    def submit(self, items: Sequence[Drawing]) -> Done:
        buffers = self._buffers(len(items))
        for slot, item in enumerate(items):
            buffers.executor.put(slot, item.identity, item.motion)
        buffers.broken.zero_()
        if items[0].out.shape[1] == self._packed.resolution:
            self._draw_own_size(items, buffers)
        else:
            buffers.executor.draw(buffers.image)
            for slot, item in enumerate(items):
                self._draw_resampled(slot, item.out, buffers)
        return Done([FrameBroken(NOT_FINITE) if bad else None for bad in buffers.broken.tolist()])

    def _draw_own_size(self, items: Sequence[Drawing], buffers: _Drawn) -> None:
        if len(items) == 1:
            slot = torch.from_numpy(items[0].out)[None]
            buffers.executor.draw_i420(slot, buffers.broken)
            return
        buffers.executor.draw_i420(buffers.i420, buffers.broken)
        for item, drawn in zip(items, buffers.i420.numpy(), strict=True):
            np.copyto(item.out, drawn)

    def _draw_resampled(self, slot: int, out: np.ndarray, buffers: _Drawn) -> None:
        fitted = torch.from_numpy(self._resampled(buffers.image[slot].numpy(), out.shape[1]))
        broken = buffers.broken[slot : slot + 1]
        image_to_i420(fitted[None], out=torch.from_numpy(out)[None], broken=broken)

    @torch.inference_mode()
    def picture(self, identity: Identity, motion: MotionCode, size: int) -> np.ndarray:
        buffers = self._buffers(1)
        buffers.executor.put(0, identity, motion)
        buffers.executor.draw(buffers.image)
        if not torch.isfinite(buffers.image.sum()):
            raise FrameBroken(NOT_FINITE)
        return levels(self._resampled(buffers.image[0].numpy(), size))

    def _resampled(self, image: np.ndarray, size: int) -> np.ndarray:
        """[R, R, 3] to [size, size, 3], without aliases; NaN and infinity stay."""
        if image.shape[0] == size:
            return image
        if self._fitted.shape[0] != size:
            self._fitted = np.empty((size, size, 3), np.float32)
        way = cv2.INTER_AREA if size < image.shape[0] else cv2.INTER_CUBIC
        cv2.resize(image, (size, size), dst=self._fitted, interpolation=way)
        return self._fitted

    def _buffers(self, batch: int) -> _Drawn:
        if batch not in self._drawn:
            self._drawn[batch] = _Drawn(self._packed.executor(batch))
        return self._drawn[batch]


class _Drawn:
    """What an executor draws into, for a batch."""

    def __init__(self, executor: Executor) -> None:
        batch, side = executor.batch, executor.resolution
        self.executor = executor
        self.image = torch.empty(batch, side, side, 3)
        self.i420 = torch.empty(batch, side * 3 // 2, side, dtype=torch.uint8)
        self.broken = torch.zeros(batch, dtype=torch.int32)
