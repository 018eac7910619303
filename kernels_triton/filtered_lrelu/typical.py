"""Layers like those of StyleGAN3, for compiling kernels ahead of time and for tests.

Filters are designed as there (Karras et al., Alias-Free Generative Adversarial Networks, NeurIPS
2021, App. C): windowed sinc, or jinc where the downsampling filter is radial.
"""

from __future__ import annotations

import numpy as np

from kernels_triton.filtered_lrelu.resampling import Resampling, Taps

ATTENUATION = 6.0  # of the Kaiser windows, about what a layer of the middle has


def typical(
    up: int, pad: int, terms: int = 1, *, taps: int = 6, clamp: float = 256.0
) -> Resampling:
    """A layer's constants.

    Args:
        terms: 1 for a separable downsampling filter; more keep that many terms of a radial one.
        taps: Per unit of the resampling factor; 6 in published configurations.
    """
    along = _sinc(2 * taps, 0.45)
    down: tuple[tuple[Taps, Taps], ...] = ((_plain(along), _plain(along)),)
    if terms > 1:
        u, s, v = np.linalg.svd(_jinc(2 * taps, 0.45))
        root = np.sqrt(s)
        down = tuple((_plain(u[:, k] * root[k]), _plain(v[k] * root[k])) for k in range(terms))
    rise = _sinc(taps * up, 0.85 / up) * (up * 2**0.25)
    return Resampling(up=up, up_taps=_plain(rise), down_terms=down, pad=pad, clamp=clamp)


def _plain(taps: np.ndarray) -> Taps:
    return tuple(float(tap) for tap in taps)


def _window(taps: int) -> np.ndarray:
    return np.kaiser(taps, ATTENUATION)


def _sinc(taps: int, cutoff: float) -> np.ndarray:
    """Low-pass filter, sum 1; `cutoff` in units of half the sampling rate."""
    t = np.arange(taps) - (taps - 1) / 2
    filtered = np.sinc(cutoff * t) * _window(taps)
    return filtered / filtered.sum()


def _jinc(taps: int, cutoff: float) -> np.ndarray:
    """[taps, taps] radial low-pass filter, sum 1."""
    t = np.arange(taps) - (taps - 1) / 2
    radius = np.hypot(t[:, None], t[None, :]) * cutoff * np.pi
    # The first Bessel function as the mean of its integral's integrand; 64 points are exact here.
    angle = (np.arange(64) + 0.5) * (np.pi / 64)
    bessel = np.cos(angle - radius[..., None] * np.sin(angle)).mean(-1)
    filtered = bessel / radius * np.outer(_window(taps), _window(taps))
    return filtered / filtered.sum()
