"""Arithmetic in single precision for what runs at every pixel.

numba takes a bare literal for a double and converts whatever meets it; that doubles the time of a
pixel. So the literals of these files are `F(...)`.
"""

from __future__ import annotations

import numpy as np

from models.training.heads.jit import inlined

F = np.float32


@inlined
def smooth(low, high, x):
    """0 below `low`, 1 above `high`, smooth between."""
    t = min(max((x - low) / (high - low), F(0)), F(1))
    return t * t * (F(3) - F(2) * t)
