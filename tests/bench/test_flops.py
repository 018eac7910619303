"""Counted arithmetic equals what a pencil gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bench import flops
from kernels_triton.filtered_lrelu import filtered_lrelu
from kernels_triton.modulated_conv import modulated_conv2d_resample
from kernels_triton.upfirdn2d import setup_filter, upfirdn2d


def test_linear_and_convolution_are_two_per_multiply_add() -> None:
    x, w = torch.zeros(2, 8, 10, 10), torch.zeros(4, 8, 3, 3)
    assert flops.count(lambda: F.conv2d(x, w)) == flops.Flops(2 * 2 * 4 * 8 * 8 * 8 * 9, 0)
    a, b = torch.zeros(5, 6), torch.zeros(7, 6)
    assert flops.count(lambda: F.linear(a, b)) == flops.Flops(2 * 5 * 6 * 7, 0)


def test_upsampling_filter_counts_only_taps_that_meet_a_sample() -> None:
    x, f = torch.zeros(1, 3, 16, 16), setup_filter([1.0] * 8)
    counted = flops.count(lambda: upfirdn2d(x, f, up=2, padding=[4, 3, 4, 3]))
    along_x = 16 * 32 * 4  # 16 rows, 4 of 8 taps
    along_y = 32 * 32 * 4
    assert counted == flops.Flops(0, 2 * 3 * (along_x + along_y))


def test_downsampling_filter_counts_only_kept_outputs() -> None:
    x, f = torch.zeros(1, 3, 16, 16), setup_filter([1.0, 3, 3, 1])
    assert f.ndim == 2
    counted = flops.count(lambda: upfirdn2d(x, f, down=2, padding=[1, 1, 1, 1]))
    assert counted == flops.Flops(0, 2 * 3 * 8 * 8 * 16)


def test_filters_inside_other_ops_are_counted_apart_from_convolutions() -> None:
    x, w, s = torch.zeros(1, 8, 16, 16), torch.zeros(8, 8, 3, 3), torch.ones(1, 8)
    f = setup_filter([1.0, 3, 3, 1])
    counted = flops.count(
        lambda: modulated_conv2d_resample(
            x, w, s, up=2, padding=1, resample_filter=f, demodulate=False
        )
    )
    assert counted.dense == 2 * 8 * 8 * 9 * 16 * 16  # the shortest route: no inserted zeros
    assert counted.fir == 2 * 8 * 32 * 32 * 16
    assert counted.total == counted.dense + counted.fir
    fu, fd = setup_filter([1.0] * 12), setup_filter([1.0] * 12)
    fused = flops.count(lambda: filtered_lrelu(x, fu, fd, up=2, down=2, padding=10))
    # 32 samples and 20 of padding make 41; these make 15. Taps on the padding cost nothing.
    up = 16 * 41 * 6 + 41 * 41 * 6
    down = 41 * 15 * 12 + 15 * 15 * 12
    assert fused.dense == 0
    assert fused.fir == pytest.approx(2 * 8 * (up + down), rel=0.15)
