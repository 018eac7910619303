"""A moving test picture without a network: the model named `testcard`.

It measures the transport alone, so it must be honest work for a codec (pure noise and a still
picture both lie): texture that pans, an object that moves the other way, and light grain. It is a
function of `t` and `seed` only, drawn straight into I420 (BT.601, limited range); a solid block in
the lower left carries a colour that belongs to the seed, by which a test can tell one session's
pictures from another's.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np

from realtime.i420 import planes_of

_SCENE_SEED = 7
_GRAIN = 5  # levels of luma noise
_LUMA_LOW, _LUMA_HIGH = 16, 235 - _GRAIN  # grain is added later and stays inside limited range
_CHROMA_RADIUS = 72.0  # of the seed's colour; far enough from grey for any codec to keep
_GOLDEN_ANGLE = math.pi * (
    3 - math.sqrt(5)
)  # neighbouring seeds lie far apart on the colour circle


_Planes = tuple[np.ndarray, np.ndarray, np.ndarray]  # Y, U, V


@dataclass(frozen=True)
class _Scene:
    """What the picture is cut from, at one size S. All uint8."""

    canvas: _Planes  # Y [2S, 2S], U [S, S], V [S, S]: twice the picture's size, to pan over
    object: _Planes  # Y [S/2, S/2], U [S/4, S/4], V [S/4, S/4]
    grain: np.ndarray  # [2S, 2S], 0.._GRAIN-1


def _texture(rng: np.random.Generator, side: int, weights: dict[int, float]) -> np.ndarray:
    """Weighted smooth noises of so many bumps a side; float32 [side, side] around 0.5."""
    total = np.zeros((side, side), np.float32)
    for cells, weight in weights.items():
        coarse = rng.random((cells, cells), dtype=np.float32)
        total += weight * cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return total


def _planes(rng: np.random.Generator, side: int, weights: dict[int, float]) -> _Planes:
    luma = _texture(rng, side, weights) * (_LUMA_HIGH - _LUMA_LOW) + _LUMA_LOW
    u, v = (_texture(rng, side // 2, {9: 0.7, 40: 0.3}) * 176 + 40 for _ in range(2))
    return (
        np.clip(luma, _LUMA_LOW, _LUMA_HIGH).astype(np.uint8),
        np.clip(u, 16, 240).astype(np.uint8),
        np.clip(v, 16, 240).astype(np.uint8),
    )


@functools.lru_cache(maxsize=5)  # one per resolution on offer
def _scene(size: int) -> _Scene:
    rng = np.random.default_rng(_SCENE_SEED)
    return _Scene(
        canvas=_planes(rng, 2 * size, {12: 0.55, 60: 0.3, 240: 0.15}),
        object=_planes(rng, size // 2, {6: 0.6, 40: 0.4}),
        grain=rng.integers(0, _GRAIN, (2 * size, 2 * size), dtype=np.uint8),
    )


def colour_of(seed: int) -> tuple[int, int, int]:
    """(Y, U, V) of the block that marks `seed`."""
    angle = seed * _GOLDEN_ANGLE
    u = round(128 + _CHROMA_RADIUS * math.cos(angle))
    v = round(128 + _CHROMA_RADIUS * math.sin(angle))
    return 126, u, v


def colour_in(i420: np.ndarray) -> tuple[float, float, float]:
    """Mean (Y, U, V) in the middle of the seed's block of a picture [H*3//2, W], also decoded."""
    y, u, v = planes_of(i420)
    size = y.shape[0]
    low, high, left, right = size - 3 * size // 16, size - size // 16, size // 16, 3 * size // 16
    middle = (
        y[low:high, left:right],
        *(plane[low // 2 : high // 2, left // 2 : right // 2] for plane in (u, v)),
    )
    first, second, third = (float(part.mean()) for part in middle)
    return first, second, third


class TestCard:
    """Draws the picture of one size. Nothing in it depends on what was drawn before."""

    __test__ = False  # not a test class, whatever its name says to pytest

    def __init__(self, size: int) -> None:
        """Prepare pictures of `size` x `size` pixels, a multiple of 16; 0.1 s at 1024, once."""
        if size < 16 or size % 16:
            raise ValueError(f"the test card's side must be a multiple of 16 pixels, not {size}.")
        self.size = size
        self._scene = _scene(size)

    def draw(self, t: float, i420: np.ndarray, seed: int = 0) -> None:
        """Draw the picture of time `t` over the whole of `i420`.

        Args:
            t: Seconds; any sign.
            i420: uint8 [size*3//2, size], contiguous; Y, then U, then V.
            seed: Decides the colour of the block in the lower left, nothing else.
        Raises:
            ValueError: `i420` has another shape.
        """
        size = self.size
        if i420.shape != (size * 3 // 2, size):
            raise ValueError(f"expected an array {(size * 3 // 2, size)}, not {i420.shape}.")
        y, u, v = planes_of(i420)
        self._background(t, y, u, v)
        half = size // 2
        left = _even(half * (0.5 - 0.4 * math.sin(1.7 * t)))
        top = _even(half * (0.55 + 0.35 * math.sin(2.3 * t)))
        _paste((y, u, v), self._scene.object, left, top)
        for plane, level, cut in zip((y, u, v), colour_of(seed), (4, 8, 8), strict=True):
            plane[plane.shape[0] - size // cut :, : size // cut] = level

    def _background(self, t: float, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
        size, scene = self.size, self._scene
        span = size - 2
        left = _even(span * (0.5 + 0.45 * math.sin(0.9 * t)))
        top = _even(span * (0.5 + 0.45 * math.cos(0.7 * t)))
        # Grain jumps from frame to frame without a state: its place is a hash of t in 90 kHz ticks.
        ticks = math.floor(t * 90_000)
        grain_left, grain_top = ticks * 7919 // 3000 % span, ticks * 104_729 // 3000 % span
        grain = scene.grain[grain_top : grain_top + size, grain_left : grain_left + size]
        np.add(scene.canvas[0][top : top + size, left : left + size], grain, out=y)
        half = size // 2
        for plane, source in zip((u, v), scene.canvas[1:], strict=True):
            plane[:] = source[top // 2 : top // 2 + half, left // 2 : left // 2 + half]


def _even(position: float) -> int:
    """Chroma has half the resolution: only even offsets keep it under its luma."""
    return int(position) & ~1


def _paste(planes: _Planes, picture: _Planes, left: int, top: int) -> None:
    for plane, part, shift in zip(planes, picture, (0, 1, 1), strict=True):
        rows, columns = part.shape
        plane[top >> shift : (top >> shift) + rows, left >> shift : (left >> shift) + columns] = (
            part
        )
