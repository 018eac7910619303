"""The plain way: one forward pass per frame, on the CPU or a GPU, without graph or compilation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from models.contracts import Identity, MotionCode, Synthesizer
from realtime.backends.renderer import NOT_FINITE, Done, Drawing, FrameBroken, Renderer, levels
from realtime.i420 import chw_to_i420

Forward = Callable[[Identity, MotionCode], Tensor]
log = logging.getLogger(__name__)


class Eager:
    """See `realtime.backends.Backend`. Precision is the model's own."""

    name = "eager"

    def __init__(self, device: torch.device, why: str) -> None:
        self.device = device
        self.why = why

    def prepare(self, synthesizer: Synthesizer) -> EagerRenderer:
        placed = synthesizer.eval().requires_grad_(False).to(self.device)
        return EagerRenderer(placed, self.device, self.name, self.why)


def fall_back(
    synthesizer: Synthesizer, device: torch.device, wanted: str, reason: str
) -> EagerRenderer:
    """Draw this one eagerly, and say so.

    Args:
        wanted: The backend that cannot.
        reason: Why, as a clause.
    """
    why = f"{wanted} cannot draw this model: {reason.rstrip('.')}"
    log.warning("backend: eager, as %s.", why)
    return Eager(device, why).prepare(synthesizer)


class EagerRenderer(Renderer):
    """See `realtime.backends.Renderer`.

    Args:
        forward: Codes on `device` to an image [1, 1 or 3, R, R] there; the synthesizer, or a
            compiled form of it.
    """

    def __init__(self, forward: Forward, device: torch.device, backend: str, why: str) -> None:
        super().__init__(backend, why)
        self._forward = forward
        self._device = device
        self._resampled = np.empty((3, 0, 0), np.float32)  # kept from frame to frame

    @torch.inference_mode()
    def submit(self, items: Sequence[Drawing]) -> Done:
        return Done([self._one(item) for item in items])

    def _one(self, item: Drawing) -> FrameBroken | None:
        try:
            rgb = self._fitted(self._draw(item.identity, item.motion), item.out.shape[1])
        except FrameBroken as broken:
            return broken
        chw_to_i420(rgb, item.out)
        return None

    @torch.inference_mode()
    def picture(self, identity: Identity, motion: MotionCode, size: int) -> np.ndarray:
        rgb = self._fitted(self._draw(identity, motion), size)
        return np.ascontiguousarray(levels(rgb).transpose(1, 2, 0))

    def _draw(self, identity: Identity, motion: MotionCode) -> np.ndarray:
        """The picture at its own size, float32 [3, R, R], contiguous, finite."""
        image = self._forward(self._placed(identity), self._placed_motion(motion))[0]
        if image.shape[0] == 1:  # a grey model
            image = image.expand(3, -1, -1)
        image = image[:3].float()
        # A sum is finite only if every term is (or it overflows, which no picture does), and takes
        # 0.05 ms at 512x512 where isfinite().all() takes 14 ms.
        if not torch.isfinite(image.sum()):
            raise FrameBroken(NOT_FINITE)
        return image.contiguous().cpu().numpy()

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
