"""Work and rooflines: what the network's own shapes say, held against what torch dispatches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench import ceilings, flops, systems, work
from bench.ceilings import Ceilings
from bench.work import Part


@pytest.mark.parametrize("name", list(systems.CPU_SIZES))
def test_work_read_off_the_network_is_what_torch_dispatches(name: str) -> None:
    system = systems.load(name)
    parts = work.parts_of(system.synthesizer)
    assert parts is not None
    codes = system.identity(seed=0), system.motion(seed=0).sample(0.0)
    counted = flops.count(lambda: system.synthesizer(*codes))
    dense, vector = sum(p.dense for p in parts), sum(p.vector for p in parts)
    # torch counts the colours among the convolutions; affine maps are too small to matter.
    assert dense + vector == pytest.approx(counted.total, rel=0.12)
    assert dense == pytest.approx(counted.dense, rel=0.06)


def test_a_radial_filter_counts_as_the_shorter_of_matrix_and_sum() -> None:
    plain = {"rows": 10, "outputs": 8, "up": 1, "up_taps": 1, "down": 2, "down_taps": 12}
    matrix = 2 * 8 * 8 * 144
    grid = 7 * 2 + 12
    one = 2 * (grid * 8 + 8 * 8) * 12
    assert work.filter_work(**plain) == one
    assert work.filter_work(**plain, terms=2, radial=True) == 2 * one
    assert work.filter_work(**plain, terms=9, radial=True) == matrix


def test_upsampling_meets_no_inserted_zero() -> None:
    # 20 samples at twice the rate from 10: 6 of 12 taps each, along x, then along y.
    counted = work.filter_work(rows=10, outputs=20, up=2, up_taps=12, down=1, down_taps=1)
    assert counted == 2 * (10 * 20 * 6 + 20 * 20 * 6)


def test_an_unknown_network_has_no_work_but_is_no_error() -> None:
    assert work.parts_of(torch.nn.Identity()) is None


def test_the_total_is_in_giga_and_follows_the_storage_type() -> None:
    parts = [Part("a", dense=2e9, vector=1e9, elements=1e9, plain=1e9)]
    assert work.total(parts, 2) == {"gflop_dense": 2.0, "gflop_filters": 1.0, "gb": 3.0}


LIMITS = Ceilings(
    {torch.float32: 100.0, torch.bfloat16: 200.0},
    {torch.float32: 10.0, torch.bfloat16: 10.0},
    ((10, 20.0), (100, 40.0), (1000, 5.0)),
)


def test_bandwidth_is_the_best_that_was_copied_of_that_size_or_more() -> None:
    assert [LIMITS.bandwidth(n) for n in (1, 10, 11, 100, 101, 10**9)] == [40, 40, 40, 40, 5, 5]


def test_of_two_measurements_the_higher_counts() -> None:
    other = Ceilings(
        {torch.float32: 90.0, torch.bfloat16: 250.0},
        {torch.float32: 20.0, torch.bfloat16: 5.0},
        ((10, 10.0), (100, 50.0), (1000, 5.0)),
    )
    best = LIMITS.or_better(other)
    assert best.matrix == {torch.float32: 100.0, torch.bfloat16: 250.0}
    assert best.vector == {torch.float32: 20.0, torch.bfloat16: 10.0}
    assert best.copies == ((10, 20.0), (100, 50.0), (1000, 5.0))


def test_a_part_takes_the_longer_of_arithmetic_and_movement() -> None:
    arithmetic = Part("a", dense=100.0)  # 1 s in float32, half of that in bfloat16
    movement = Part("m", vector=1.0, elements=1000.0)  # 4000 or 2000 bytes at 5 a second
    both = [arithmetic, movement]
    assert LIMITS.floor_ms(both, torch.float32) == pytest.approx(1000 * (1 + 800))
    assert LIMITS.floor_ms(both, torch.bfloat16) == pytest.approx(1000 * (0.5 + 400))


def test_ceilings_are_measured_and_plain() -> None:
    found = ceilings.measure("cpu", [torch.bfloat16], seconds=0.01)
    assert set(found.matrix) == set(found.vector) == {torch.float32, torch.bfloat16}
    assert found.matrix[torch.float32] > 1e8 and all(rate > 1e7 for _, rate in found.copies)
    assert [size for size, _ in found.copies] == sorted(ceilings.COPIES)
    plain = found.as_dict()
    assert set(plain["matrix_tflop_per_s"]) == {"float32", "bfloat16"}
    assert "256 MiB" in found.describe()


def test_the_cpus_chain_of_multiply_adds_does_them_all() -> None:
    from bench import fma_simd

    tasks, width = 3, fma_simd.CHAINS + 2
    start = np.random.default_rng(0).normal(size=(tasks, width, fma_simd.LANES))
    memory = start.astype(np.float32).reshape(-1)
    fma_simd.run(memory, rounds=5)
    chains, factor, step = start[:, : width - 2], start[:, width - 2], start[:, width - 1]
    for _ in range(5):
        chains = chains * factor[:, None] + step[:, None]
    found = memory.reshape(start.shape)
    np.testing.assert_allclose(found[:, : width - 2], chains, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[:, width - 2 :], start[:, width - 2 :].astype(np.float32))


def test_the_chain_of_multiply_adds_does_them_all() -> None:
    from bench.fma_chain import LANES, run

    device = "cuda" if torch.cuda.is_available() else "cpu"
    out = run(torch.full((2 * LANES,), torch.nan, device=device), 0.5, rounds=3)
    step = torch.arange(LANES, device=device) * 1e-6
    chains = torch.stack([step + k for k in range(8)])
    for _ in range(3):
        chains = chains * 0.5 + step
    torch.testing.assert_close(out, chains.sum(0).repeat(2), rtol=1e-5, atol=1e-5)
