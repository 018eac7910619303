"""Frame sampling against the authors' distribution."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import BadConfig
from models.stylegan_v.sampling import admissible_spans, random_times, uniform_times

LENGTHS = [3, 5, 16, 33, 100, 1024]
DRAWS = 4000


@pytest.mark.parametrize("length", LENGTHS)
def test_spans_and_offsets_are_distributed_as_in_the_golden(golden, length):
    found = golden("train")
    rng = np.random.default_rng(length)
    times = np.array([random_times(rng, length) for _ in range(DRAWS)])
    spans = times[:, 2] - times[:, 0]
    expected = found.arrays[f"samp_L{length}_dist_values"]
    assert admissible_spans(length, 3, 32) == expected.tolist()
    counts = np.array([(spans == span).sum() for span in expected])
    share = DRAWS / len(expected)
    assert counts.sum() == DRAWS
    # Chi-square at p = 1e-3 for up to 4 degrees of freedom; the seed is fixed.
    assert ((counts - share) ** 2 / share).sum() < 18.5
    first = np.histogram(times[:, 0], bins=8, range=(0, length))[0] / DRAWS
    authors = found.arrays[f"samp_L{length}_first_hist"] / found.meta["n_sampling"]
    assert np.abs(first - authors).max() < 0.035  # four standard errors of the greatest bin
    assert times.min() >= 0 and times.max() <= length - 1
    assert (times == np.round(times)).all()
    assert (np.diff(times) >= 1).all()


@pytest.mark.parametrize("length", LENGTHS)
def test_fractional_times_share_their_fraction_and_fit(length):
    rng = np.random.default_rng(1)
    times = np.array([random_times(rng, length, fractional=True) for _ in range(500)])
    differences = np.diff(times)
    np.testing.assert_allclose(differences, np.round(differences), atol=1e-9)
    assert (differences > 0.5).all() and times.min() >= 0 and times.max() <= length - 1
    movable = times[:, 2] - times[:, 0] < length - 1.5
    assert (times[movable, 0] % 1 > 0).all() and (times[~movable, 0] == 0).all()


@pytest.mark.parametrize("frames", [2, 4])
def test_other_numbers_of_frames(frames):
    rng = np.random.default_rng(1)
    times = random_times(rng, 100, frames=frames)
    assert times.shape == (frames,) and (np.diff(times) >= 1).all()
    assert random_times(rng, 100, frames=1).shape == (1,)


@pytest.mark.parametrize("fractional", [False, True])
def test_uniform_times_are_equally_spaced_and_fit(fractional):
    rng = np.random.default_rng(3)
    steps = set()
    for _ in range(500):
        times = uniform_times(rng, 40, frames=4, fractional=fractional)
        assert np.ptp(np.diff(times)) < 1e-9 and times[0] >= 0 and times[-1] <= 39
        steps.add(round(times[1] - times[0]))
    assert steps == set(range(1, 11))


def test_videos_that_are_too_short_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(BadConfig, match="video of 2 frames"):
        random_times(rng, 2)
    with pytest.raises(BadConfig, match="too short"):
        uniform_times(rng, 2)
