"""The vector that numba lacks: each operation against numpy, bfloat16 against torch."""

import numba
import numpy as np
import pytest
import torch

from kernels_triton import simd, simd_memory
from kernels_triton.simd import (
    LANES,
    vabs,
    vadd,
    vfma,
    vlargest,
    vload,
    vmax,
    vmin,
    vmul,
    vsplat,
    vstore,
    vsub,
)

NAN, INF = float("nan"), float("inf")


@numba.njit
def operations(x, out, number):
    a, b, c = vload(x, 0), vload(x, LANES), vload(x, 2 * LANES)
    vstore(out, 0, vadd(a, b))
    vstore(out, LANES, vsub(a, b))
    vstore(out, 2 * LANES, vmul(a, b))
    vstore(out, 3 * LANES, vfma(a, b, c))
    vstore(out, 4 * LANES, vmax(a, b))
    vstore(out, 5 * LANES, vmin(a, b))
    vstore(out, 6 * LANES, vabs(a))
    vstore(out, 7 * LANES, vsplat(number))
    return vlargest(a)


def _copy(source, target, begin, count):
    for k in range(begin, begin + count, LANES):
        vstore(target, k, vload(source, k))


copy = numba.njit(_copy)


@pytest.fixture(params=["as this processor does", "without the instruction"])
def converting(request, monkeypatch):
    if request.param == "as this processor does":
        return copy
    monkeypatch.setattr(simd, "_has", lambda context, feature: False)
    return numba.njit(_copy)


def run(x):
    out = np.full(8 * LANES, NAN, np.float32)
    return operations(x, out, np.float32(2.5)), out.reshape(8, LANES)


def test_every_operation():
    x = np.random.default_rng(0).standard_normal(3 * LANES).astype(np.float32)
    a, b, c = x.reshape(3, LANES)
    largest, out = run(x)
    exact = (a.astype(np.float64) * b + c).astype(np.float32)  # rounded once
    expected = [a + b, a - b, a * b, exact, np.maximum(a, b), np.minimum(a, b), np.abs(a)]
    for k, values in enumerate(expected):
        assert np.array_equal(out[k], values), k
    assert (out[7] == 2.5).all() and largest == a.max()


def test_not_a_number_takes_the_first_operand():
    x = np.zeros(3 * LANES, np.float32)
    x[:4], x[LANES : LANES + 4] = [NAN, 1, NAN, INF], [1, NAN, NAN, 2]
    largest, out = run(x)
    assert np.isnan(out[4][0]) and out[4][1] == 1 and np.isnan(out[4][2]) and out[4][3] == INF
    assert np.isnan(out[5][0]) and out[5][1] == 1 and np.isnan(out[5][2]) and out[5][3] == 2
    assert largest == INF  # what is no number is not counted
    x[3] = 0.5
    assert run(x)[0] == 1


def test_memory_need_not_be_aligned():
    x = np.arange(3 * LANES, dtype=np.float32)
    y = np.zeros(3 * LANES, np.float32)
    copy(x, y, 5, LANES)
    assert np.array_equal(y[5 : 5 + LANES], x[5 : 5 + LANES])
    assert not y[:5].any() and not y[5 + LANES :].any()


def test_bfloat16_is_rounded_to_nearest_even(converting):
    random = np.random.default_rng(1).integers(0, 1 << 32, 1 << 14, np.uint32)
    halfway = (random & 0xFFFF0000) | 0x8000
    beside = np.concatenate([halfway - 1, halfway + 1])
    special = np.array([0, -0.0, INF, -INF, 3.4e38, -3.4e38, 1e-38, 1] * 2, np.float32)
    words = np.concatenate([random, halfway, beside, special.view(np.uint32)])
    x = words.view(np.float32)
    x = x[np.abs(x) >= 2.0**-126]  # NaN and what is below the normal numbers: see the next test
    x = x[: len(x) // LANES * LANES]
    out = np.zeros(len(x), np.uint16)
    converting(x, out, 0, len(x))
    expected = torch.from_numpy(x).bfloat16().view(torch.uint16).numpy()
    assert np.array_equal(out, expected)
    back = np.zeros(len(x), np.float32)
    converting(out, back, 0, len(x))
    assert np.array_equal(back, torch.from_numpy(out).view(torch.bfloat16).float().numpy())


def test_bfloat16_of_what_is_not_normal(converting):
    x = np.array([NAN, -NAN, 1e-39, -1e-39] * 4, np.float32)
    x.view(np.uint32)[4] = 0x7F800001  # a NaN that plain truncation would make infinite
    out = np.zeros(LANES, np.uint16)
    converting(x, out, 0, LANES)
    y = torch.from_numpy(out).view(torch.bfloat16).float().numpy()
    assert np.isnan(y[np.isnan(x)]).all()
    assert (np.abs(y[~np.isnan(x)]) <= 2.0**-126).all()  # a processor may take them as zero


@numba.njit
def at_addresses(floats, halves, counter):
    x, y = simd_memory.floats_at(floats), simd_memory.halves_at(halves)
    simd_memory.prefetch(floats)
    simd_memory.prefetch(0)  # a hint: no address is wrong
    vstore(y, 0, vload(x, LANES))
    simd_memory.integers_at(counter)[1] = simd_memory.next_task(counter)
    return simd_memory.next_task(counter)


def test_memory_by_address():
    x = torch.arange(2 * LANES, dtype=torch.float32)
    y = torch.zeros(LANES, dtype=torch.bfloat16)
    counter = torch.tensor([7, 0])
    assert at_addresses(x.data_ptr(), y.data_ptr(), counter.data_ptr()) == 8
    assert counter.tolist() == [9, 7]
    assert torch.equal(y.float(), x[LANES:])


@pytest.mark.parametrize("features", ["", "+avx512f", "+avx512f,+avx512bf16"])
def test_the_instruction_is_asked_of_processors_that_have_it(features):
    class Context:
        def codegen(self):
            return type("Library", (), {"_tm_features": features})()

    assert simd._has(Context(), "avx512bf16") == ("bf16" in features)
