"""RGB to I420 (planar YUV 4:2:0, uint8, matrix BT.601, limited range), straight into a frame slot.

The pass is in `numba_cpu`, imported on first use: compiling takes seconds without its cache.
"""

from __future__ import annotations

import numpy as np


def planes_of(i420: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views Y [H, W], U [H/2, W/2], V [H/2, W/2] of a contiguous array [H*3//2, W]."""
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    flat, luma, chroma = i420.reshape(-1), height * width, height * width // 4
    half = (height // 2, width // 2)
    return (
        flat[:luma].reshape(height, width),
        flat[luma : luma + chroma].reshape(half),
        flat[luma + chroma : luma + 2 * chroma].reshape(half),
    )


def chw_to_i420(rgb: np.ndarray, out: np.ndarray) -> None:
    """Convert what a generator gives. Gives up the interpreter lock meanwhile.

    Args:
        rgb: float32 [3, H, W] in [-1, 1], contiguous, even sides; clamped. Not a number is not
            caught: it gives an arbitrary level.
        out: uint8 [H*3//2, W], contiguous; filled.
    Raises:
        ValueError: shapes, types or layouts do not fit.
    """
    _check(rgb, out)
    from realtime.i420 import numba_cpu

    numba_cpu.planar_floats(rgb, *planes_of(out))


def _check(rgb: np.ndarray, out: np.ndarray) -> None:
    if rgb.ndim != 3 or rgb.shape[0] != 3 or rgb.dtype != np.float32 or not rgb.flags.c_contiguous:
        raise ValueError(f"need a contiguous float32 [3, H, W], not {rgb.dtype} {rgb.shape}.")
    height, width = rgb.shape[1:]
    if height % 2 or width % 2:
        raise ValueError(f"I420 needs even sides, not {width}x{height}.")
    if out.shape != (height * 3 // 2, width) or out.dtype != np.uint8:
        raise ValueError(
            f"the target must be uint8 {(height * 3 // 2, width)}, not {out.dtype} {out.shape}."
        )
    if not out.flags.c_contiguous:
        raise ValueError("the target's rows must lie one after the other in memory.")
