"""The CPU's fir_bias_act against the definition in float64."""

from __future__ import annotations

import math

import pytest
import torch

from kernels_triton.bias_act import Epilogue
from kernels_triton.upfirdn2d import reference, simd_cpu
from kernels_triton.upfirdn2d.fused import op

# float32: one sum of up to 64 products. bfloat16: half a step of rounding, relative to the largest.
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8}
SIZES = [(1, 1, 1), (2, 3, 5), (1, 2, 16), (1, 9, 34)]


def _case(size, taps, pad, channels, dtype, plain=False):
    n, height, width = size
    generator = torch.Generator().manual_seed(height * 100 + width + taps + channels)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    grow = 2 * pad - taps + 1
    x = draw(n, height, width, channels).to(dtype)
    f = draw(taps)  # asymmetric: a mirrored filter shows
    f = tuple((f / f.square().sum().sqrt()).tolist())
    if plain:
        return x, f, Epilogue(draw(channels)), None, None
    noise = draw(height + grow, width + grow)
    end = Epilogue(draw(channels), noise, slope=0.3, gain=1.2, clamp=2.0)
    return x, f, end, draw(n, channels) / 4 + 1, draw(n, channels) / 4 + 1


def _assert_equals_the_definition(case, pad, dtype) -> None:
    x, taps, end, scale_in, scale_out = case
    expected = reference.fir_bias_act(x.double(), taps, pad, end, scale_in, scale_out)
    out = torch.full(expected.shape, math.nan, dtype=dtype)
    assert simd_cpu.fir_bias_act(x, taps, pad, end, scale_in, scale_out, out) is out
    assert (out - expected).abs().max() <= ROUNDING[dtype] * expected.abs().max()


@pytest.mark.parametrize("channels", [16, 48])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("size", SIZES)
def test_four_taps_as_stylegan2_has_them(size, dtype, channels, threads) -> None:
    _assert_equals_the_definition(_case(size, 4, 2, channels, dtype), 2, dtype)
    if min(size[1:]) > 1:
        _assert_equals_the_definition(_case(size, 4, 1, channels, dtype), 1, dtype)


@pytest.mark.parametrize("taps", range(2, 9))
@pytest.mark.parametrize("pad", [0, 3, 9])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_every_number_of_taps_and_padding(taps, pad, dtype) -> None:
    _assert_equals_the_definition(_case((2, 9, 11), taps, pad, 16, dtype), pad, dtype)


@pytest.mark.parametrize("taps, pad", [(4, 1), (8, 3)])
def test_rows_of_several_stretches(taps, pad, threads) -> None:
    size = (1, 4, 2 * simd_cpu._STRETCH // 64 + 7)
    _assert_equals_the_definition(_case(size, taps, pad, 64, torch.float32), pad, torch.float32)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_nothing_but_a_bias(dtype) -> None:
    _assert_equals_the_definition(_case((2, 5, 6), 4, 1, 32, dtype, plain=True), 1, dtype)


def test_nan_stays_and_spreads_no_further_than_the_filter() -> None:
    x, taps, end, scale_in, scale_out = _case((1, 12, 12), 4, 2, 16, torch.float32)
    x[0, 5, 5, 3] = math.nan
    out = torch.zeros(1, 13, 13, 16)
    simd_cpu.fir_bias_act(x, taps, 2, end, scale_in, scale_out, out)
    expected = torch.zeros(1, 13, 13, 16, dtype=torch.bool)
    expected[0, 4:8, 4:8, 3] = True
    assert out.isnan().equal(expected)


def test_float16_takes_the_definition() -> None:
    x, taps, end, scale_in, scale_out = _case((1, 5, 5), 4, 1, 16, torch.float16)
    out = torch.full((1, 4, 4, 16), math.nan, dtype=torch.float16)
    simd_cpu.fir_bias_act(x, taps, 1, end, scale_in, scale_out, out)
    assert out.equal(reference.fir_bias_act(x, taps, 1, end, scale_in, scale_out).half())


def test_the_public_op_comes_here(monkeypatch) -> None:
    x, taps, end, scale_in, scale_out = _case((1, 5, 5), 4, 1, 16, torch.bfloat16)
    monkeypatch.setattr(op, "reference", None)
    y = op.fir_bias_act(x, taps, 1, end, scale_in=scale_in, scale_out=scale_out)
    assert y.isfinite().all()


def test_allocates_no_picture(allocated_bytes) -> None:
    x, taps, end, scale_in, scale_out = _case((1, 129, 129), 4, 1, 16, torch.float32)
    out = torch.empty(1, 128, 128, 16)
    call = lambda: simd_cpu.fir_bias_act(x, taps, 1, end, scale_in, scale_out, out)  # noqa: E731
    assert allocated_bytes(call) < out.nbytes // 16
