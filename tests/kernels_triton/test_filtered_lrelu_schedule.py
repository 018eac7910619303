"""Constants of the GPU kernel: rearranged, the same filters. Tilings cover everything."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kernels_triton.filtered_lrelu.resampling import Resampling
from kernels_triton.filtered_lrelu.schedule import LEAST_SCALE, Schedule, schedule
from kernels_triton.filtered_lrelu.tiling import SCHEDULERS, WARP, tiling, unrolled, widest
from kernels_triton.filtered_lrelu.typical import typical

PHASES = [(2, 8), (2, 9), (4, 16), (4, 17), (4, 18), (4, 19), (4, -3)]


def scale_of(plan: Schedule, how: Resampling, t: int) -> float:
    """What the values of row (or column) t were divided by, from the limit of the clamp."""
    at = t % how.up
    return float((how.clamp / plan.limits[at * how.up + at]) ** 0.5)


@pytest.mark.parametrize(("up", "pad"), PHASES)
def test_upsampling_taps_are_those_of_the_filter(up: int, pad: int) -> None:
    how = typical(up, pad)
    plan = schedule(how)
    for t in range(2 * up):
        row = np.zeros(len(how.up_taps) + 4 * up)  # weight of sample i at i - plan.origin
        for k, tap in enumerate(how.up_taps):
            if (t + k - pad) % up == 0:
                row[(t + k - pad) // up - plan.origin] += tap
        first = plan.first(t)
        taps = plan.rise[t % up * plan.window :][: plan.window]
        assert max(taps) == 1.0
        found = np.zeros_like(row)
        found[first : first + plan.window] = np.array(taps) * scale_of(plan, how, t)
        np.testing.assert_allclose(found, row, atol=1e-12)


@pytest.mark.parametrize("terms", [1, 2, 3, 6])
@pytest.mark.parametrize(("up", "pad"), PHASES)
def test_downsampling_terms_add_up_to_the_filter(up: int, pad: int, terms: int) -> None:
    how = typical(up, pad, terms)
    plan = schedule(how)
    wanted = sum(np.outer(y, x) for y, x in how.down_terms)
    halves, n = plan.halves, plan.taps // (1 if plan.fold is None else 2)
    across = np.array(plan.across).reshape(plan.classes, plan.terms, n)
    fall = np.array(plan.fall).reshape(plan.classes, up, plan.terms, halves)
    assert plan.terms == terms and (plan.fold is None) == (terms == 1)
    assert np.abs(across).max() <= 1 + 1e-9
    assert (across == 1).sum() >= plan.classes * terms  # sums begin there, free of charge
    assert terms < 2 or (across == 0).sum() >= plan.classes * terms * (terms - 1)
    for kind in range(plan.classes):
        horizontal = across[kind]
        if plan.fold is not None:
            ratios = np.array(plan.fold).reshape(plan.classes, halves)[kind]
            horizontal = np.concatenate([horizontal, (horizontal * ratios)[:, ::-1]], axis=1)
        for first_row in range(0, up, 2):
            found = np.zeros((plan.taps, plan.taps))
            for k in range(plan.taps):
                t = (first_row + k) % up
                found[k] = fall[kind, t, :, k // 2] @ horizontal / scale_of(plan, how, t)
            found /= [scale_of(plan, how, 2 * kind + k) for k in range(plan.taps)]
            np.testing.assert_allclose(found, wanted, atol=1e-10 * np.abs(wanted).max())


def test_a_phase_of_small_taps_stays_within_half_precision() -> None:
    how = typical(2, 9)
    small = tuple(tap * (1e-6 if k % 2 else 1) for k, tap in enumerate(how.up_taps))
    plan = schedule(dataclasses.replace(how, up_taps=small))
    least = max(small) * LEAST_SCALE  # of what a phase is divided by
    assert max(plan.limits) == pytest.approx(how.clamp / least**2)


def test_a_filter_of_zeros_is_taken() -> None:
    zeros = (0.0,) * 12
    plan = schedule(dataclasses.replace(typical(2, 9), down_terms=((zeros, zeros),)))
    assert plan.terms == 1 and not any(plan.fall)


@pytest.mark.parametrize(("up", "pad"), PHASES)
@pytest.mark.parametrize("size", [1, 2, 36, 149, 1044])
def test_tilings_cover_the_picture(up: int, pad: int, size: int) -> None:
    plan = schedule(typical(up, pad))
    cut = tiling(plan, (size, size), 32, 1, 132, widest(plan, True))
    assert cut.columns <= widest(plan, True)
    assert cut.columns % plan.classes == 0 and cut.rows % plan.classes == 0 and cut.rows > 0
    assert cut.unroll == unrolled(plan)
    assert cut.turns * cut.unroll * plan.classes >= cut.rows + plan.halves - 1


def test_longer_filters_get_narrower_tiles() -> None:
    usual, longer = schedule(typical(2, 9)), schedule(typical(2, 9, taps=8))
    assert widest(usual, False) < widest(usual, True) and widest(longer, True) < 8
    assert widest(schedule(typical(2, 9, 3)), True) < widest(usual, True)


def test_small_maps_fill_the_gpu_and_large_ones_are_cut_wide() -> None:
    plan = schedule(typical(2, 9))
    cut = tiling(plan, (36, 36), 256, 1, 132, widest(plan, True))
    warps = -(-36 // cut.columns) * 256 // WARP * -(-36 // cut.rows)
    assert warps >= 0.8 * SCHEDULERS * 132
    large = tiling(plan, (1044, 1044), 32, 1, 132, widest(plan, True))
    assert large.columns >= widest(plan, True) - 1 and large.rows >= 40
