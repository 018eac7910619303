"""The CPU's bias_act_torgb against the definition in float64."""

from __future__ import annotations

import math

import pytest
import torch

from kernels_triton.bias_act import Epilogue, Skip, reference, simd_cpu
from kernels_triton.bias_act.fused import op

# The features of the result: float32, or half a step of rounding relative to the largest. The
# picture is float32 either way: its sums see features that were not rounded.
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8}
FIRST_SIZES = [(1, 1, 1), (2, 3, 5), (1, 2, 16), (2, 5, 35)]  # no picture before
SIZES = [(1, 2, 2), (2, 4, 6), (1, 4, 16), (2, 6, 34), (1, 2, 62)]


def _case(size, channels, dtype, *, first=False, plain=False, taps=4):
    n, height, width = size
    generator = torch.Generator().manual_seed(height * 100 + width + channels)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    x = draw(n, height, width, channels).to(dtype)
    end = Epilogue(draw(channels))
    if not plain:
        end = Epilogue(draw(channels), draw(height, width), slope=0.3, gain=1.2, clamp=2.0)
    limit = math.inf if plain else 2.5
    # Asymmetric taps: a mirrored filter shows.
    skip = Skip(draw(3, channels) / channels**0.5, draw(3), limit, tuple(draw(taps).tolist()))
    before = None if first else draw(n, height // 2, width // 2, 3)
    scales = (None, None) if plain else (draw(n, channels) / 4 + 1, draw(n, channels) / 4 + 1)
    return x, end, skip, draw(n, channels) + 1, before, *scales


def _assert_equals_the_definition(case, keep=True, inplace=False) -> None:
    x, end, skip, style, before, scale_in, scale_out = case
    image = torch.full((*x.shape[:3], 3), math.nan)
    expected_image, expected = image.double(), x.double()
    reference.bias_act_torgb(
        x.double(), end, skip, style, before, expected_image, scale_in, scale_out, expected
    )
    source = x.clone()
    out = (source if inplace else torch.full_like(x, math.nan)) if keep else None
    got = simd_cpu.bias_act_torgb(source, end, skip, style, before, image, scale_in, scale_out, out)
    assert got is image
    assert (image - expected_image).abs().max() <= 1e-6 * expected_image.abs().max()
    if out is not None:
        assert (out - expected).abs().max() <= ROUNDING[x.dtype] * expected.abs().max()
    if not inplace:
        assert source.equal(x)


@pytest.mark.parametrize("channels", [16, 48])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("size", SIZES)
def test_with_a_picture_before(size, dtype, channels, threads) -> None:
    _assert_equals_the_definition(_case(size, channels, dtype))


@pytest.mark.parametrize("channels", [16, 48])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("size", FIRST_SIZES)
def test_the_first_picture(size, dtype, channels, threads) -> None:
    _assert_equals_the_definition(_case(size, channels, dtype, first=True))


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("size", SIZES)
def test_in_place(size, dtype, threads) -> None:
    _assert_equals_the_definition(_case(size, 32, dtype), inplace=True)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_the_last_features_are_not_written(dtype) -> None:
    _assert_equals_the_definition(_case((2, 4, 18), 16, dtype), keep=False)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_nothing_but_a_bias(dtype) -> None:
    _assert_equals_the_definition(_case((2, 4, 18), 16, dtype, plain=True))


@pytest.mark.parametrize("taps", [2, 4, 6, 8, 12])
@pytest.mark.parametrize("size", [(1, 2, 2), (2, 6, 34)])
def test_every_doubling_filter(size, taps) -> None:
    _assert_equals_the_definition(_case(size, 16, torch.float32, taps=taps))


def test_nan_stays() -> None:
    x, end, skip, style, before, scale_in, scale_out = _case((1, 4, 18), 16, torch.bfloat16)
    x[0, 1, 17, 3] = math.nan
    image = torch.zeros(1, 4, 18, 3)
    simd_cpu.bias_act_torgb(x, end, skip, style, before, image, scale_in, scale_out, x)
    assert image.isnan().nonzero().tolist() == [[0, 1, 17, colour] for colour in range(3)]
    assert x.isnan().nonzero().tolist() == [[0, 1, 17, 3]]


def test_float16_takes_the_definition() -> None:
    x, end, skip, style, before, scale_in, scale_out = _case((1, 4, 6), 16, torch.float16)
    image, expected = torch.full((1, 4, 6, 3), math.nan), torch.full((1, 4, 6, 3), math.nan)
    simd_cpu.bias_act_torgb(x, end, skip, style, before, image, scale_in, scale_out, None)
    reference.bias_act_torgb(x, end, skip, style, before, expected, scale_in, scale_out, None)
    assert image.equal(expected)


def test_the_public_op_comes_here(monkeypatch) -> None:
    x, end, skip, style, before, scale_in, scale_out = _case((1, 4, 6), 16, torch.bfloat16)
    monkeypatch.setattr(op, "reference", None)
    image = torch.full((1, 4, 6, 3), math.nan)
    op.bias_act_torgb(x, end, skip, style, before, image, scale_in=scale_in, out=x)
    assert image.isfinite().all()


def test_allocates_no_picture(allocated_bytes) -> None:
    x, end, skip, style, before, scale_in, scale_out = _case((1, 128, 128), 16, torch.float32)
    image, out = torch.empty(1, 128, 128, 3), torch.empty_like(x)
    arguments = (x, end, skip, style, before, image, scale_in, scale_out, out)
    assert allocated_bytes(lambda: simd_cpu.bias_act_torgb(*arguments)) < image.nbytes // 4
