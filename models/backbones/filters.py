"""Low-pass filters of StyleGAN3: Kaiser-windowed sinc (separable) and jinc (radially symmetric).

Source: Karras et al., Alias-Free Generative Adversarial Networks (NeurIPS 2021), appendix C; the
Kaiser formulas are those of J. F. Kaiser, Nonrecursive digital filter design using the I0-sinh
window function (1974).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def kaiser_beta(numtaps: int, width: float, fs: float) -> float:
    """Window parameter for `numtaps` taps and a transition band of `width`, in the unit of `fs`."""
    attenuation = 2.285 * (numtaps - 1) * math.pi * (width / (fs / 2)) + 7.95  # dB
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0


def design_lowpass_filter(
    numtaps: int, cutoff: float, width: float, fs: float, radial: bool = False
) -> Tensor | None:
    """Taps of a low-pass filter.

    Args:
        numtaps: Per axis. 1 is the identity. Must be even where `radial` (a tap at the centre would
            be 0/0).
        cutoff: Half-amplitude frequency.
        width: Of the transition band.
        fs: Sampling rate, in the unit of the other two.
        radial: A jinc under the separable window, [numtaps, numtaps], in place of a sinc,
            [numtaps].
    Returns:
        float32, summing to 1, computed in float64; None for the identity.
    Raises:
        ValueError: no taps, or an odd number of them for a radial filter.
    """
    if numtaps < 1 or (radial and numtaps > 1 and numtaps % 2):
        raise ValueError(f"numtaps is {numtaps}: use 1 or more, and an even number where radial")
    if numtaps == 1:
        return None
    n = np.arange(numtaps) - (numtaps - 1) / 2
    window = np.kaiser(numtaps, kaiser_beta(numtaps, width, fs))
    if radial:
        r = np.hypot(*np.meshgrid(n, n)) / fs
        bessel = torch.special.bessel_j1(torch.from_numpy(2 * np.pi * cutoff * r)).numpy()
        taps = bessel / (np.pi * r) * np.outer(window, window)
    else:
        taps = 2 * cutoff / fs * np.sinc(2 * cutoff / fs * n) * window
    return torch.from_numpy(taps / taps.sum()).to(torch.float32)
