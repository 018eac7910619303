"""The plain way: one forward pass per frame, on the CPU or a GPU, without graph or compilation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from kernels_triton import implementation
from kernels_triton.rgb_to_i420 import rgb_to_i420
from models.contracts import Identity, MotionCode, Synthesizer
from realtime.backends.renderer import NOT_FINITE, Done, Drawing, FrameBroken, Renderer, levels, on
from realtime.i420 import chw_to_i420

Forward = Callable[[Identity, MotionCode], Tensor]
log = logging.getLogger(__name__)


class Eager:
    """See `realtime.backends.Backend`. Precision is the model's own."""

    name = "eager"

    def __init__(self, device: torch.device, why: str) -> None:
        self.device = device
        self.why = why

    def prepare(
        self, synthesizer: Synthesizer, check: Callable[[], None] = lambda: None
    ) -> EagerRenderer:
        """One stage; `check` is asked before it."""
        check()
        placed = synthesizer.eval().requires_grad_(False).to(self.device)
        return EagerRenderer(placed, self.device, self.name, self.why)


def outline(error: Exception) -> str:
    """A driver's or compiler's error as viewers may see it: its kind. The log has its words, which
    may name files of this machine.
    """
    return f"{type(error).__name__}, see the log"


def fall_back(
    synthesizer: Synthesizer,
    device: torch.device,
    wanted: str,
    reason: str,
    *,
    kernels: bool = True,
) -> EagerRenderer:
    """Draw this one eagerly, and say so.

    Args:
        wanted: The backend that cannot.
        reason: Why, as a clause.
        kernels: Whether ops may still take compiled kernels: not if those are what failed.
    """
    why = f"{wanted} cannot draw this model: {reason.rstrip('.')}"
    log.warning("backend: eager, as %s.", why)
    renderer = Eager(device, why).prepare(synthesizer)
    renderer.ways = "auto" if kernels else "torch"
    return renderer


class EagerRenderer(Renderer):
    """See `realtime.backends.Renderer`.

    Args:
        forward: Codes on `device` to an image [1, 1 or 3, R, R] there; the synthesizer, or a
            compiled form of it.
    """

    def __init__(self, forward: Forward, device: torch.device, backend: str, why: str) -> None:
        super().__init__(backend, why)
        self.ways = "auto"  # see `kernels_triton.implementation`
        self._forward = forward
        self._device = device
        # A GPU sends 1.5 bytes a pixel instead of 12, converted by Triton or else by cupy.
        self._converts_there = device.type == "cuda"
        self._resampled = np.empty((3, 0, 0), np.float32)  # kept from frame to frame

    @torch.inference_mode()
    def submit(self, items: Sequence[Drawing]) -> Done:
        with on(self._device), implementation(self.ways):
            return Done([self._one(item) for item in items])

    def _one(self, item: Drawing) -> FrameBroken | None:
        size = item.out.shape[1]
        try:
            image = self._image(item.identity, item.motion)
        except FrameBroken as broken:
            return broken
        if self._converts_there and image.shape[1] == size:
            np.copyto(item.out, rgb_to_i420(image[None])[0].cpu().numpy())
        else:
            chw_to_i420(self._fitted(image.cpu().numpy(), size), item.out)
        return None

    @torch.inference_mode()
    def picture(self, identity: Identity, motion: MotionCode, size: int) -> np.ndarray:
        with on(self._device), implementation(self.ways):
            rgb = self._fitted(self._image(identity, motion).cpu().numpy(), size)
        return np.ascontiguousarray(levels(rgb).transpose(1, 2, 0))

    def _image(self, identity: Identity, motion: MotionCode) -> Tensor:
        """The picture at its own size, float32 [3, R, R], contiguous, finite; on the device."""
        image = self._forward(self._placed(identity), self._placed_motion(motion))[0]
        if image.shape[0] == 1:  # a grey model
            image = image.expand(3, -1, -1)
        image = image[:3].float()
        # A sum is finite only if every term is (or it overflows, which no picture does), and takes
        # 0.05 ms at 512x512 where isfinite().all() takes 14 ms.
        if not torch.isfinite(image.sum()):
            raise FrameBroken(NOT_FINITE)
        return image.contiguous()

    def _fitted(self, rgb: np.ndarray, size: int) -> np.ndarray:
        """`rgb` resampled to [3, size, size], without aliases.

        OpenCV plane by plane into a kept buffer: 256 -> 512 takes 0.3 ms and 512 -> 256 0.06 ms on
        one core, where torch's antialiased interpolation takes 1.4 and 1.1 ms.
        """
        if rgb.shape[1:] == (size, size):
            return rgb
        if self._resampled.shape[1] != size:
            self._resampled = np.empty((3, size, size), np.float32)
        way = cv2.INTER_AREA if size < rgb.shape[1] else cv2.INTER_CUBIC
        for plane, fitted in zip(rgb, self._resampled, strict=True):
            cv2.resize(plane, (size, size), dst=fitted, interpolation=way)
        return self._resampled

    def _placed(self, identity: Identity) -> Identity:
        if self._device.type == "cpu":
            return identity
        return Identity({k: v.to(self._device) for k, v in identity.tensors.items()})

    def _placed_motion(self, motion: MotionCode) -> MotionCode:
        if self._device.type == "cpu":
            return motion
        return MotionCode({k: v.to(self._device) for k, v in motion.tensors.items()}, motion.t)
