"""From light to bytes: the tone curve, as a table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ENTRIES = 2048
STEPS = 511.0  # entries per unit of linear light: the table ends at 4
_SHOULDER = 0.55  # straight up to here
_DEPTH = 0.16  # of the shadows


def curve() -> npt.NDArray[np.uint8]:
    """[2048] sRGB bytes over linear light: straight, then a soft shoulder; shadows a bit deeper."""
    x = np.arange(ENTRIES) / STEPS
    room = 1 - _SHOULDER
    y = np.where(x < _SHOULDER, x, 1 - room * np.exp(-(x - _SHOULDER) / room))
    y = y * (1 - _DEPTH) + _DEPTH * y**1.5
    srgb = np.where(y < 0.0031308, 12.92 * y, 1.055 * np.maximum(y, 1e-9) ** (1 / 2.4) - 0.055)
    return np.clip(srgb * 255 + 0.5, 0, 255).astype(np.uint8)
