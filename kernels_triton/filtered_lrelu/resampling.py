"""What is constant about a layer's filtered leaky ReLU: filters, factors, padding, limits.

A kernel is made for one of these, so the taps are plain numbers and the whole is hashable. Gains
are folded into the taps, and a radial filter is a short sum of separable ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

Taps = tuple[float, ...]


@dataclass(frozen=True)
class Resampling:
    """Constants of `fused_filtered_lrelu`.

    Args:
        up: Factor of the upsampling filter, 2 or more.
        up_taps: For each axis, in the order of a correlation; `up` and the root of the gain are in
            them (a leaky ReLU is homogeneous, so a gain may come first).
        down_terms: The downsampling filter as a sum of `outer(along y, along x)`, in the order of
            a correlation. One term for separable filters.
        pad: Samples before both axes on the oversampled grid; negative crops.
        slope: Of the leaky ReLU, from 0 to 1.
        clamp: Limit of the magnitude on the oversampled grid; infinity is none.
        down: Factor of the downsampling filter.
    """

    up: int
    up_taps: Taps
    down_terms: tuple[tuple[Taps, Taps], ...]
    pad: int
    slope: float = 0.2
    clamp: float = math.inf
    down: int = 2

    @classmethod
    def of(
        cls,
        fu: Tensor,
        fd: Tensor,
        *,
        up: int,
        pad: int,
        down: int = 2,
        gain: float = 2**0.5,
        slope: float = 0.2,
        clamp: float | None = None,
        flip_filter: bool = False,
        tolerance: float = 3e-6,
    ) -> Resampling:
        """From the arguments of `filtered_lrelu`.

        Args:
            fu: [taps].
            fd: [taps], or [fh, fw], which becomes a sum of separable filters.
            tolerance: What the sum may leave of a two-dimensional filter: the sum of the
                magnitudes of the difference over that of the filter.
        Raises:
            ValueError: A filter is missing or misshapen, or the gain or slope is out of range.
        """
        if fu.ndim != 1 or fd.ndim not in (1, 2):
            raise ValueError(
                f"filters {list(fu.shape)} and {list(fd.shape)}: upsampling must be separable, "
                "downsampling a vector or a matrix of taps"
            )
        if gain <= 0 or not 0 <= slope <= 1:
            raise ValueError(f"gain {gain} must be positive and slope {slope} from 0 to 1")
        rows = fu.detach().double().cpu().numpy() * (up * gain**0.5)
        taps = fd.detach().double().cpu().numpy()
        if not flip_filter:
            rows, taps = rows[::-1], np.flip(taps)
        return cls(
            up=up,
            up_taps=_plain(rows),
            down_terms=_terms(taps, tolerance),
            pad=pad,
            slope=float(slope),
            clamp=math.inf if clamp is None else float(clamp),
            down=down,
        )

    @property
    def down_taps(self) -> int:
        """Taps of the downsampling filter along each axis."""
        return len(self.down_terms[0][0])

    def largest_output(self, rows: int, columns: int, after: int) -> tuple[int, int]:
        """Outputs per axis of a picture that is padded by `after` behind both axes."""
        reach = self.pad + after - (len(self.up_taps) - 1) - (self.down_taps - 1) + self.down - 1
        return (rows * self.up + reach) // self.down, (columns * self.up + reach) // self.down


def _plain(taps: np.ndarray) -> Taps:
    return tuple(float(tap) for tap in taps)


def _terms(taps: np.ndarray, tolerance: float) -> tuple[tuple[Taps, Taps], ...]:
    """The shortest sum of separable filters that leaves no more than `tolerance`."""
    if taps.ndim == 1:
        return ((_plain(taps), _plain(taps)),)
    u, s, v = np.linalg.svd(taps)
    total = np.abs(taps).sum()
    rest = taps.copy()
    terms = []
    for k in range(len(s)):
        root = s[k] ** 0.5
        along_y, along_x = u[:, k] * root, v[k] * root
        terms.append((_plain(along_y), _plain(along_x)))
        rest -= np.outer(along_y, along_x)
        if np.abs(rest).sum() <= tolerance * total:
            break
    return tuple(terms)
