"""The arithmetic of one filtered leaky ReLU, arranged for a GPU: tables of constants.

A value `u[t, c]` of the oversampled grid lies in a row of phase `t % up` and a column of phase
`c % up`; each phase has its own taps of the upsampling filter. Four changes, none of which alters
the result, save about a third of the multiplications of the plain form:

1. Every phase is divided by its largest tap, so that one tap is 1 and costs nothing. The leaky
   ReLU is homogeneous: the factor moves into the limits of the clamp and into the second filter.
2. Where the second filter has several terms, they are replaced by others of the same sum whose
   horizontal filters are mostly zeros: with `r` terms, each has a 1 at a column of its own and 0
   at those of the others. The columns are chosen so that no tap exceeds 1.
3. Where those filters are symmetric, the two samples of a pair are added first, once for all terms.
4. A filter's sum starts with the tap that is 1.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kernels_triton.filtered_lrelu.resampling import Resampling, Taps

# A phase is not divided by less than this part of the largest tap of all: half precision must hold
# the quotient.
LEAST_SCALE = 1 / 16


@dataclass(frozen=True)
class Schedule:
    """Constants of a kernel. Tables are flat tuples, so that they can be a kernel's arguments.

    Args:
        up: Factor of the upsampling filter; even.
        origin: Sample at the start of the window of oversampled position 0. All else depends on
            the padding modulo `up` only.
        window: Samples that one oversampled value is made of, along an axis.
        steps: [up]: how much later the window of position t begins than that of t - t % up.
        taps: Of the downsampling filter, along an axis; even.
        terms: Separable terms of the downsampling filter.
        rise: [up, window]: taps of the upsampling filter by `t % up`.
        limits: [up, up]: magnitude that a value is clamped to, by `t % up` and `c % up`.
        fold: [up / 2, taps / 2]: what the second sample of a pair (k, taps - 1 - k) is multiplied
            by before they are added, by `output column % (up / 2)`. None where nothing is folded.
        across: [up / 2, terms, taps or taps / 2]: horizontal taps, of pairs where they are folded.
        fall: [up / 2, up, terms, taps / 2]: vertical taps by `output column % (up / 2)` and
            `t % up`; the last axis is the tap number halved.
    """

    up: int
    origin: int
    window: int
    steps: tuple[int, ...]
    taps: int
    terms: int
    rise: Taps
    limits: Taps
    fold: Taps | None
    across: Taps
    fall: Taps

    @property
    def classes(self) -> int:
        """Output columns of one input column: each has its own taps."""
        return self.up // 2

    @property
    def halves(self) -> int:
        """Vertical accumulators of one output column."""
        return self.taps // 2

    def positions(self, columns: int) -> int:
        """Oversampled columns of a tile of output columns."""
        return 2 * columns + self.taps - 2

    def first(self, position: int) -> int:
        """First sample of an oversampled position's window, counted from `origin`."""
        return position // self.up + self.steps[position % self.up]

    def samples(self, columns: int) -> int:
        """Input columns of a tile of output columns."""
        return self.first(self.positions(columns) - 1) + self.window

    def slots(self, columns: int) -> float:
        """Arithmetic instructions per output and lane, as a measure of a tile's width: halo and
        all, without addresses and control.
        """
        per_phase = sum(value != 0 for value in self.rise) / self.up - 1
        width, positions = self.samples(columns), self.positions(columns)
        nonzero = sum(value != 0 for value in self.across) / self.classes - self.terms
        pairs = self.halves if self.fold is not None else 0
        row = width * per_phase + positions * (per_phase + 3)
        row += columns * (pairs + nonzero + self.terms * self.halves)
        return (2 * row + (width + 2 * columns) / self.classes) / columns


@lru_cache(maxsize=256)
def schedule(how: Resampling) -> Schedule:
    """Arrange the constants.

    Raises:
        ValueError: The factors are not even and 2, or the slope is not from 0 to 1.
    """
    if how.up < 2 or how.up % 2 or how.down != 2:
        raise ValueError(
            f"up {how.up} and down {how.down}: the GPU kernel takes an even up and a down of 2; "
            'run this layer inside implementation("reference")'
        )
    if not 0 <= how.slope <= 1:
        raise ValueError(f"slope {how.slope} must be from 0 to 1")
    up, phase = how.up, how.pad % how.up
    window = -(-len(how.up_taps) // up)
    taps = np.zeros(window * up)
    taps[: len(how.up_taps)] = how.up_taps
    first_tap = [(phase - t) % up for t in range(up)]  # the first that meets a sample, at t
    rise = np.stack([taps[first::up] for first in first_tap])
    largest = np.abs(rise).max(1)
    at = np.maximum(largest, max(LEAST_SCALE * largest.max(), np.finfo(np.float64).tiny))
    limits = [how.clamp / (at[t] * at[c]) for t in range(up) for c in range(up)]
    down = _matrix(how)
    fold, across, fall = [], [], []
    for first in range(0, up, 2):  # the first oversampled column of an output, modulo up
        columns = np.array([at[(first + k) % up] for k in range(down.shape[1])])
        ratios, vertical, horizontal = _factor(down * columns, columns)
        fold.append(ratios)
        across.append(horizontal)
        for t in range(up):
            fall.append(vertical[t % 2 :: 2].T * at[t])
    return Schedule(
        up=up,
        origin=(phase - how.pad) // up,
        window=window,
        steps=tuple((t + first_tap[t] - phase) // up for t in range(up)),
        taps=down.shape[0],
        terms=len(across[0]),
        rise=_flat(rise / at[:, None]),
        limits=_flat(limits),
        fold=None if fold[0] is None else _flat(fold),
        across=_flat(across),
        fall=_flat(fall),
    )


def _flat(table: object) -> Taps:
    return tuple(float(value) for value in np.asarray(table, np.float64).ravel())


def _matrix(how: Resampling) -> np.ndarray:
    """The downsampling filter [taps along y, taps along x] with an even number of taps."""
    sum_of_terms = sum(np.outer(along_y, along_x) for along_y, along_x in how.down_terms)
    odd = how.down_taps % 2
    return np.pad(np.asarray(sum_of_terms), ((0, odd), (0, odd)))


def _factor(down: np.ndarray, columns: np.ndarray) -> tuple[Taps | None, np.ndarray, np.ndarray]:
    """`down` as vertical [taps, r] times horizontal [r, taps or pairs].

    Args:
        down: The filter for values that were divided by `columns`.
        columns: What the phases of its columns were divided by.
    Returns:
        Ratios of the folded pairs or None, vertical taps, horizontal taps.
    """
    rank = int(np.linalg.matrix_rank(down, tol=1e-12 * np.linalg.norm(down)))
    pairs = down.shape[1] // 2
    plain = down / columns
    symmetric = np.allclose(plain, plain[:, ::-1], rtol=0, atol=1e-12 * np.abs(plain).max())
    if rank < 2 or not symmetric:  # with one term there is nothing to share
        vertical, horizontal = _skeleton(down, max(rank, 1))
        return None, vertical, horizontal
    ratios = _flat(columns[::-1][:pairs] / columns[:pairs])
    vertical, horizontal = _skeleton(down[:, :pairs], rank)
    return ratios, vertical, horizontal


def _skeleton(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """[m, n] as [m, rank] times [rank, n], where the first are columns of the matrix and the
    second holds the identity at those columns and nothing above 1 elsewhere.

    The columns that span the largest volume have that property: by Cramer's rule each coefficient
    is a ratio of volumes. With one column it is the largest.
    """
    u, s, v = np.linalg.svd(matrix)
    span = s[:rank, None] * v[:rank]  # [rank, n]: the columns in the basis of the first rank of u
    if rank == 1:
        chosen: tuple[int, ...] = (int(np.abs(span[0]).argmax()),)
    else:
        every = itertools.combinations(range(matrix.shape[1]), rank)
        chosen = max(every, key=lambda of: abs(np.linalg.det(span[:, of])))
    picked = list(chosen)
    if not s[0]:
        return np.zeros((matrix.shape[0], 1)), np.eye(1, matrix.shape[1])
    horizontal = np.linalg.solve(span[:, picked], span)
    horizontal[:, picked] = np.eye(rank)
    return u[:, :rank] @ span[:, picked], horizontal
