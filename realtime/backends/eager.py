"""The plain way: one forward pass per frame, on the CPU or a GPU, without graph or compilation."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from models.contracts import Identity, MotionCode, Synthesizer
from realtime.backends import FrameBroken
from realtime.i420 import chw_to_i420


class Eager:
    """See `realtime.backends.Backend`."""

    name = "cpu"

    def __init__(self, device: torch.device, why: str) -> None:
        self.device = device
        self.name = "cpu" if device.type == "cpu" else f"eager-{device.type}"
        self.why = why

    def prepare(self, synthesizer: Synthesizer) -> EagerRenderer:
        return EagerRenderer(synthesizer.eval().requires_grad_(False).to(self.device), self.device)


class EagerRenderer:
    """See `realtime.backends.Renderer`."""

    def __init__(self, synthesizer: Synthesizer, device: torch.device) -> None:
        self._synthesizer = synthesizer
        self._device = device
        self._resampled = np.empty((3, 0, 0), np.float32)  # kept from frame to frame

    @torch.inference_mode()
    def render(self, identity: Identity, motion: MotionCode, out: np.ndarray) -> None:
        chw_to_i420(self._fitted(self._draw(identity, motion), out.shape[1]), out)

    @torch.inference_mode()
    def picture(self, identity: Identity, motion: MotionCode, size: int) -> np.ndarray:
        rgb = self._fitted(self._draw(identity, motion), size)
        levels = np.rint((np.clip(rgb, -1, 1) + 1) * 127.5).astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(1, 2, 0))

    def _draw(self, identity: Identity, motion: MotionCode) -> np.ndarray:
        """The picture at its own size, float32 [3, R, R], contiguous, finite."""
        image = self._synthesizer(self._placed(identity), self._placed_motion(motion))[0]
        if image.shape[0] == 1:  # a grey model
            image = image.expand(3, -1, -1)
        image = image[:3].float()
        # A sum is finite only if every term is (or it overflows, which no picture does), and takes
        # 0.05 ms at 512x512 where isfinite().all() takes 14 ms.
        if not torch.isfinite(image.sum()):
            raise FrameBroken("the model drew NaN or infinity; the last good picture stays.")
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
