"""The Frechet distance against the published evaluation's number, scipy, and closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from models.metrics.frechet import BadFeatures, MomentSum, frechet_distance, moments

GOLDEN = Path(__file__).parents[2] / "goldens" / "stylegan_v" / "train.npz"


def normal(seed: int, count: int, width: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    mix = random.normal(size=(width, width))
    return random.normal(size=(count, width)) @ mix + random.normal(size=width)


def test_the_published_evaluations_number() -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        found = frechet_distance(moments(golden["fvd_real"]), moments(golden["fvd_fake"]))
        assert found == pytest.approx(float(golden["fvd"]), rel=1e-4)


def test_the_root_of_the_product_as_scipy_takes_it() -> None:
    a, b = moments(normal(0, 300, 12)), moments(normal(1, 200, 12))
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    truth = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root.real)
    assert frechet_distance(a, b) == pytest.approx(float(truth), rel=1e-9)


def test_covariances_divide_by_n() -> None:
    x = normal(2, 7, 3)
    np.testing.assert_allclose(moments(x).covariance, np.cov(x.T, ddof=0), rtol=1e-10)


def test_of_a_set_to_itself_is_0_and_to_a_moved_one_the_square_of_the_way() -> None:
    x = normal(3, 400, 5)
    way = np.array([1.0, -2.0, 0.0, 0.5, 3.0])
    assert frechet_distance(moments(x), moments(x)) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(moments(x), moments(x + way)) == pytest.approx(float(way @ way))


def test_fewer_vectors_than_features_are_no_trouble() -> None:
    x, y = normal(4, 6, 40), normal(5, 9, 40)
    forth, back = frechet_distance(moments(x), moments(y)), frechet_distance(moments(y), moments(x))
    assert forth > 0
    assert forth == pytest.approx(back, rel=1e-6)


def test_batches_add_up_to_the_whole_even_far_from_0() -> None:
    x = normal(6, 500, 4) + 1e7
    total = MomentSum()
    for batch in np.array_split(x, [3, 100, 101, 350]):
        total.add(batch)
    found, truth = total.moments(), np.cov((x - 1e7).T, ddof=0)
    assert found.count == 500
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, truth, rtol=1e-6)


def test_impossible_features_are_refused() -> None:
    total = MomentSum()
    with pytest.raises(BadFeatures, match="0 feature vectors"):
        total.moments()
    with pytest.raises(BadFeatures, match="matrix"):
        total.add(np.zeros(4))
    with pytest.raises(BadFeatures, match="not finite"):
        total.add(np.full((2, 4), np.nan))
    total.add(np.zeros((2, 4)))
    with pytest.raises(BadFeatures, match="5 features each after 4"):
        total.add(np.zeros((2, 5)))
    with pytest.raises(BadFeatures, match="4 features against 3"):
        frechet_distance(total.moments(), moments(normal(0, 4, 3)))
