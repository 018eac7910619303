"""Filter design against scipy and against what a low-pass filter must do."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import scipy.special

from models.backbones.filters import design_lowpass_filter, kaiser_beta

# taps, cutoff, width, rate: wide, medium and narrow transitions (all branches of Kaiser's formula)
DESIGNS = [(12, 2.0, 12.0, 32), (24, 5.66, 20.7, 64), (12, 16.0, 7.4, 64), (7, 3.0, 0.5, 16)]


@pytest.mark.parametrize("numtaps, cutoff, width, fs", DESIGNS)
def test_separable_filter_is_that_of_scipy(numtaps, cutoff, width, fs) -> None:
    taps = design_lowpass_filter(numtaps, cutoff, width, fs).numpy()
    expected = scipy.signal.firwin(numtaps, cutoff, width=width, fs=fs)
    np.testing.assert_allclose(taps, expected, atol=1e-7)  # float32 of numbers below 1


@pytest.mark.parametrize("numtaps, cutoff, width, fs", DESIGNS)
def test_window_parameter_is_that_of_scipy(numtaps, cutoff, width, fs) -> None:
    attenuation = scipy.signal.kaiser_atten(numtaps, width / (fs / 2))
    assert kaiser_beta(numtaps, width, fs) == pytest.approx(scipy.signal.kaiser_beta(attenuation))


def test_radial_filter_is_a_windowed_jinc() -> None:
    numtaps, cutoff, width, fs = 12, 5.66, 20.7, 64
    taps = design_lowpass_filter(numtaps, cutoff, width, fs, radial=True).numpy()
    n = (np.arange(numtaps) - 5.5) / fs
    r = np.sqrt(n[:, None] ** 2 + n[None, :] ** 2)
    window = scipy.signal.windows.kaiser(numtaps, kaiser_beta(numtaps, width, fs))
    expected = scipy.special.j1(2 * np.pi * cutoff * r) / (np.pi * r) * np.outer(window, window)
    np.testing.assert_allclose(taps, expected / expected.sum(), atol=1e-7)
    # Nearly round: equal radii have taps that differ by the window only.
    assert taps.shape == (12, 12) and np.array_equal(taps, taps.T)


def test_a_tone_passes_below_the_cutoff_and_not_beyond_the_transition() -> None:
    taps = design_lowpass_filter(24, 8.0, 8.0, 64).double().numpy()
    frequency, response = scipy.signal.freqz(taps, fs=64, worN=512)
    magnitude = np.abs(response)
    assert np.interp(8.0, frequency, magnitude) == pytest.approx(0.5, abs=0.01)
    assert magnitude[frequency < 3.5].min() > 0.99
    assert magnitude[frequency > 12.5].max() < 0.01


def test_one_tap_is_no_filter_and_odd_radial_ones_are_refused() -> None:
    assert design_lowpass_filter(1, 1.0, 1.0, 4.0) is None
    with pytest.raises(ValueError, match="even"):
        design_lowpass_filter(7, 1.0, 1.0, 4.0, radial=True)
