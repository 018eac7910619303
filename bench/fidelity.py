"""Whether a picture is right, before anybody says how fast it came.

Both the float picture, where a way of drawing has one, and the I420 that is sent are held against
the definition in float32. Output memory is poisoned first, so that what nobody wrote is seen.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels_triton import implementation
from kernels_triton.rgb_to_i420 import reference as i420_reference

# dB of the float picture, by storage type. Rounding each stored activation, and nothing else wrong,
# gives float16 70 to 76 and bfloat16 48 (the shipped StyleGAN2) to 65.
GATES = {torch.float32: 90.0, torch.float16: 55.0, torch.bfloat16: 45.0}
# dB of the bytes. Rounding to a level adds noise of its own: an error of 1 % of a level still flips
# one byte in a hundred.
BYTE_GATES = {torch.float32: 60.0, torch.float16: 48.0, torch.bfloat16: 43.0}
POISON = 0xA5
SPAN = 6.0  # standard deviations from the darkest to the brightest that a display would show
MOMENTS = (0.0, 0.4, 1.7, 31.3)  # seconds at which pictures are compared


class Unfaithful(Exception):
    """A picture is not the one that the definition draws: its time would mean nothing."""


def psnr(found: Tensor, exact: Tensor) -> float:
    """dB, where a span of +-3 standard deviations of `exact` is full scale.

    So defined it does not depend on how bright random weights happen to be. NaN in `found` gives
    minus infinity.
    """
    difference = (found.double() - exact.double()).square().mean().item()
    if not math.isfinite(difference):
        return -math.inf
    full = (SPAN * exact.double().std().item()) ** 2
    return 10 * math.log10(full / max(difference, 1e-30))


def byte_psnr(found: np.ndarray, exact: np.ndarray) -> float:
    """dB of 8-bit levels, full scale 255; 100 for equal ones."""
    difference = float(np.mean((found.astype(np.float64) - exact.astype(np.float64)) ** 2))
    return 100.0 if difference == 0 else min(100.0, 10 * math.log10(255**2 / difference))


@contextmanager
def full_precision() -> Iterator[None]:
    """Without the shortened products that CUDA would take for float32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


class Truth:
    """The definition's pictures of a system, in float32 throughout.

    Args:
        system: Whose pictures.
        device: Where they are computed; the network itself is left alone.
    """

    def __init__(self, system: Any, device: torch.device) -> None:
        source = system.motion(seed=0)
        self.identity = system.identity(seed=0, psi=0.7)
        self.motions = [source.sample(t) for t in MOMENTS]
        network = copy.deepcopy(system.synthesizer).float().to(device).eval()
        for module in network.modules():
            if hasattr(module, "use_fp16"):
                module.use_fp16 = False
        with torch.inference_mode(), implementation("reference"), full_precision():
            self.images = [self._image(network, motion, device) for motion in self.motions]
        self.i420 = [_i420(image) for image in self.images]

    def _image(self, network: Any, motion: Any, device: torch.device) -> Tensor:
        codes = [placed(code, device) for code in (self.identity, motion)]
        image = network(*codes)[0]
        image = image.expand(3, -1, -1) if image.shape[0] == 1 else image[:3]
        return image.permute(1, 2, 0).float().cpu().contiguous()


def placed(code: Any, device: torch.device) -> Any:
    """An identity or a motion code with its tensors on the device."""
    return dataclasses.replace(code, tensors={k: v.to(device) for k, v in code.tensors.items()})


def _i420(image: Tensor) -> np.ndarray:
    size = image.shape[0]
    out = torch.empty(1, size * 3 // 2, size, dtype=torch.uint8)
    return i420_reference.image_to_i420(image[None], out, None)[0].numpy()


def gate(
    name: str,
    found: Sequence[float],
    dtype: torch.dtype,
    gates: dict[torch.dtype, float] = GATES,
) -> float:
    """The worst of several; raises Unfaithful below what the type is allowed."""
    worst = min(found)
    if not worst >= gates[dtype]:
        kind = str(dtype).removeprefix("torch.")
        raise Unfaithful(
            f"{name}: {worst:.1f} dB against the definition in float32; {kind} must reach "
            f"{gates[dtype]:g}. It is not timed"
        )
    return worst
