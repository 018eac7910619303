"""RGB to I420 on the CPU in one fused pass: BT.601, limited range, 2x2 chroma mean.

Y = 16 + 65.481 R + 128.553 G + 24.966 B with R, G, B in 0..1 (ITU-R BT.601), rounded to nearest;
chroma is that of the mean of four pixels. Compiled on first use, then from numba's cache. The
interpreter lock is given up while it runs, and nothing is allocated.

Constants fold the input's scale into the matrix and are float32: one float64 among them would make
the whole loop run in doubles, at half the speed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types

_F = np.float32
_BYTES_2D = types.Array(types.uint8, 2, "C")
_FLOATS_3D = types.Array(types.float32, 3, "C", readonly=True)

# [-1, 1] -> [0, 1] is x / 2 + 1 / 2; chroma rows sum to zero, so their half drops out.
_YR, _YG, _YB = _F(65.481 / 2), _F(128.553 / 2), _F(24.966 / 2)
_Y_BIAS = _F(16 + (65.481 + 128.553 + 24.966) / 2 + 0.5)
_UR, _UG, _UB = _F(-37.797 / 8), _F(-74.203 / 8), _F(112.0 / 8)  # the mean of four is in it too
_VR, _VG, _VB = _F(112.0 / 8), _F(-93.786 / 8), _F(-18.214 / 8)
_C_BIAS = _F(128.5)
_ONE = _F(1.0)


def _compiled(signature: Any, **options: Any) -> Callable[[Callable], Callable]:
    """`numba.njit`, cached on disk where a place for the cache can be written."""

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(signature, nogil=True, cache=True, **options)(function)
        except RuntimeError:  # "no locator available": neither beside the source nor in the home
            return numba.njit(signature, nogil=True, **options)(function)

    return decorate


@numba.njit(inline="always")
def _clamp(x):  # type: ignore[no-untyped-def]
    return min(max(x, -_ONE), _ONE)


@_compiled([types.void(_FLOATS_3D, _BYTES_2D, _BYTES_2D, _BYTES_2D)], fastmath=True)
def planar_floats(rgb, y, u, v):  # type: ignore[no-untyped-def]
    """float32 [3, H, W] in [-1, 1] (clamped) into y [H, W], u and v [H/2, W/2]."""
    height, width = rgb.shape[1], rgb.shape[2]
    for j in range(0, height, 2):
        for k in range(j, j + 2):
            r, g, b, row = rgb[0, k], rgb[1, k], rgb[2, k], y[k]
            for i in range(width):
                luma = _clamp(r[i]) * _YR + _clamp(g[i]) * _YG + _clamp(b[i]) * _YB + _Y_BIAS
                row[i] = np.uint8(np.int32(luma))
        r0, r1, g0, g1 = rgb[0, j], rgb[0, j + 1], rgb[1, j], rgb[1, j + 1]
        b0, b1, urow, vrow = rgb[2, j], rgb[2, j + 1], u[j >> 1], v[j >> 1]
        for i in range(width >> 1):
            k = 2 * i
            r4 = _clamp(r0[k]) + _clamp(r0[k + 1]) + _clamp(r1[k]) + _clamp(r1[k + 1])
            g4 = _clamp(g0[k]) + _clamp(g0[k + 1]) + _clamp(g1[k]) + _clamp(g1[k + 1])
            b4 = _clamp(b0[k]) + _clamp(b0[k + 1]) + _clamp(b1[k]) + _clamp(b1[k + 1])
            urow[i] = np.uint8(np.int32(r4 * _UR + g4 * _UG + b4 * _UB + _C_BIAS))
            vrow[i] = np.uint8(np.int32(r4 * _VR + g4 * _VG + b4 * _VB + _C_BIAS))
