"""The Frechet distance between two sets of feature vectors, of which FVD and FID are special cases.

Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017, Eq. 6, with
covariances by 1/n as StyleGAN-V (https://arxiv.org/abs/2112.14683) computes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import ModelError

F64 = npt.NDArray[np.float64]


class BadFeatures(ModelError):
    """Features of which no distance can be taken."""


@dataclass(frozen=True)
class Moments:
    """A normal distribution fitted to features.

    Args:
        mean: [D].
        covariance: [D, D], with 1/n.
        count: Of the vectors it was fitted to.
    """

    mean: F64
    covariance: F64
    count: int


class MomentSum:
    """Moments of more features than fit into memory: add them batch by batch.

    Sums are kept around the first batch's mean, so that features far from 0 lose no digits.
    """

    def __init__(self) -> None:
        self._origin: F64 | None = None
        self._count = 0
        self._sum = np.zeros(0)
        self._products = np.zeros((0, 0))

    def add(self, features: npt.ArrayLike) -> None:
        """Takes a batch [n, D].

        Raises:
            BadFeatures: Not a matrix, not as wide as those before, or not finite.
        """
        batch = np.asarray(features, np.float64)
        if batch.ndim != 2 or not batch.size:
            raise BadFeatures(f"features are a matrix [n, D], not of shape {list(batch.shape)}")
        if not np.isfinite(batch).all():
            raise BadFeatures(
                "some features are not finite; is the feature network fed as it wants?"
            )
        if self._origin is None:
            self._origin = batch.mean(0)
            self._sum = np.zeros_like(self._origin)
            self._products = np.zeros((batch.shape[1],) * 2)
        elif batch.shape[1] != len(self._origin):
            raise BadFeatures(
                f"{batch.shape[1]} features each after {len(self._origin)};"
                " use one network for both"
            )
        around = batch - self._origin
        self._sum += around.sum(0)
        self._products += around.T @ around
        self._count += len(batch)

    def moments(self) -> Moments:
        """Of everything added.

        Raises:
            BadFeatures: Fewer than two vectors.
        """
        if self._origin is None or self._count < 2:
            raise BadFeatures(f"{self._count} feature vectors have no covariance; need 2 at least")
        mean = self._sum / self._count
        covariance = self._products / self._count - np.outer(mean, mean)
        return Moments(self._origin + mean, covariance, self._count)


def moments(features: npt.ArrayLike) -> Moments:
    """Of features [n, D], n >= 2."""
    total = MomentSum()
    total.add(features)
    return total.moments()


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^1/2), never below 0 but for rounding.

    The trace of the root of A B is that of the root of A^1/2 B A^1/2, which is symmetric: its
    eigenvalues are real and need no library beyond numpy, also where there are fewer vectors than
    features and both matrices are singular.

    Raises:
        BadFeatures: Of different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise BadFeatures(f"{len(a.mean)} features against {len(b.mean)}; use one network for both")
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    between = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(between.clip(0)).sum()
    return float(((a.mean - b.mean) ** 2).sum() + trace)
