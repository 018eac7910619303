"""RGB to I420 (planar YUV 4:2:0, uint8, matrix BT.601, limited range), straight into a frame slot.

The passes are in `numba_cpu`, imported on first use: compiling takes seconds without its cache.
"""

from __future__ import annotations

import cv2
import numpy as np

MATRIX, RANGE = "BT.601", "limited"


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
    _check(rgb, out, np.float32, "float32 [3, H, W]", rgb.shape[1:])
    from realtime.i420 import numba_cpu

    numba_cpu.planar_floats(rgb, *planes_of(out))


def hwc_to_i420(rgb: np.ndarray, out: np.ndarray) -> None:
    """Convert a picture of bytes. Gives up the interpreter lock meanwhile.

    Args:
        rgb: uint8 [H, W, 3], contiguous, even sides.
        out: uint8 [H*3//2, W], contiguous; filled.
    Raises:
        ValueError: shapes, types or layouts do not fit.
    """
    _check(rgb, out, np.uint8, "uint8 [H, W, 3]", rgb.shape[:2])
    from realtime.i420 import numba_cpu

    numba_cpu.planar_bytes(*cv2.split(rgb), *planes_of(out))


def warm_up() -> None:
    """Compile or load both passes now, so that the first picture does not wait for it."""
    from realtime.i420 import numba_cpu  # noqa: F401


def _check(
    rgb: np.ndarray, out: np.ndarray, dtype: type, wanted: str, sides: tuple[int, ...]
) -> None:
    channels = rgb.shape[0] if dtype is np.float32 else rgb.shape[-1]
    if rgb.ndim != 3 or channels != 3 or rgb.dtype != dtype or not rgb.flags.c_contiguous:
        raise ValueError(f"need a contiguous {wanted}, not {rgb.dtype} {rgb.shape}.")
    height, width = sides
    if height % 2 or width % 2:
        raise ValueError(f"I420 needs even sides, not {width}x{height}.")
    if out.shape != (height * 3 // 2, width) or out.dtype != np.uint8:
        raise ValueError(
            f"the target must be uint8 {(height * 3 // 2, width)}, not {out.dtype} {out.shape}."
        )
    if not out.flags.c_contiguous:
        raise ValueError("the target's rows must lie one after the other in memory.")
