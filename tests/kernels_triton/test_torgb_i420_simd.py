"""The CPU's torgb and torgb_i420 against the definition in float64."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from kernels_triton.rgb_to_i420.reference import rgb_to_i420
from kernels_triton.torgb_i420 import op, reference, simd_cpu
from kernels_triton.torgb_i420.op import ToRgb

DTYPES = [torch.float32, torch.bfloat16]
# Sixteen pixels make a group, four a quad: sizes on, before and after both.
SIZES = [(1, 1, 1), (2, 3, 5), (1, 2, 16), (1, 1, 19), (2, 5, 34), (1, 2, 64)]
EVEN_SIZES = [(1, 2, 2), (2, 4, 6), (1, 2, 16), (1, 6, 34), (2, 4, 62), (1, 2, 32)]


def _case(size, channels, dtype, styled=True, clamp=1.5):
    generator = torch.Generator().manual_seed(size[1] * 100 + size[2] + channels)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    x = draw(*size, channels).to(dtype)
    to = ToRgb(draw(3, channels) / channels**0.5, draw(3) / 2, clamp, 0.7)
    style = draw(size[0], channels) + 1 if styled else None
    return x, to, style


def _wide(x, to, style):
    """The same in float64: features are taken as they are stored, so that they are exact."""
    to = dataclasses.replace(to, weight=to.weight.double(), bias=to.bias.double())
    return reference.torgb(x.double(), to, None if style is None else style.double())


@pytest.mark.parametrize("styled", [False, True])
@pytest.mark.parametrize("channels", [16, 48])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_picture(size, dtype, channels, styled, threads) -> None:
    x, to, style = _case(size, channels, dtype, styled)
    out = torch.full((*size, 3), math.nan)
    assert simd_cpu.torgb(x, to, style, out) is out
    expected = _wide(x, to, style)
    assert (out - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("styled", [False, True])
@pytest.mark.parametrize("channels", [16, 48])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", EVEN_SIZES)
def test_i420(size, dtype, channels, styled, threads) -> None:
    n, height, width = size
    x, to, style = _case(size, channels, dtype, styled)
    out = torch.full((n, height * 3 // 2, width), 7, dtype=torch.uint8)
    broken = torch.zeros(n, dtype=torch.int32)
    assert simd_cpu.torgb_i420(x, to, style, out, broken) is out
    expected = rgb_to_i420(_wide(x, to, style).permute(0, 3, 1, 2))
    difference = (out.int() - expected.int()).abs()
    assert difference.max() <= 1  # a level of half a step may fall to either side in float32
    assert difference.float().mean() < 0.01
    assert broken.tolist() == [0] * n


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (1, 3, 17), (1, 2, 16), (0, 1, 33)])
def test_broken_pictures_are_told(place, value, threads) -> None:
    x, to, style = _case((2, 4, 34), 16, torch.float32, clamp=math.inf)
    x[place] = value
    out = torch.empty(2, 6, 34, dtype=torch.uint8)
    broken = torch.tensor([0, 0], dtype=torch.int32)
    simd_cpu.torgb_i420(x, to, style, out, broken)
    assert broken.tolist() == [int(place[0] == k) for k in range(2)]
    simd_cpu.torgb_i420(torch.zeros_like(x), to, style, out, broken)
    assert broken.sum() == 1  # nobody takes it back
    simd_cpu.torgb_i420(x, to, style, out, None)


def test_what_has_a_limit_is_not_broken_by_infinity() -> None:
    x, to, _ = _case((1, 2, 2), 16, torch.float32, clamp=256.0)
    x[0, 0, 0, 0] = math.inf
    broken = torch.zeros(1, dtype=torch.int32)
    out = torch.empty(1, 3, 2, dtype=torch.uint8)
    simd_cpu.torgb_i420(x, to, None, out, broken)
    expected = torch.zeros(1, dtype=torch.int32)
    reference.torgb_i420(x, to, None, out, expected)
    assert broken.tolist() == expected.tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_take_the_definition(dtype) -> None:
    x, to, style = _case((1, 2, 4), 16, dtype)
    out, picture = torch.empty(1, 3, 4, dtype=torch.uint8), torch.full((1, 2, 4, 3), math.nan)
    if dtype == torch.float64:
        to = dataclasses.replace(to, weight=to.weight.double(), bias=to.bias.double())
    torch.testing.assert_close(
        simd_cpu.torgb(x, to, style, picture), reference.torgb(x, to, style).float()
    )
    simd_cpu.torgb_i420(x, to, style, out, None)
    assert out.equal(reference.torgb_i420(x, to, style, out.clone(), None))


def test_the_public_ops_come_here(monkeypatch) -> None:
    x, to, style = _case((1, 2, 4), 16, torch.bfloat16)
    monkeypatch.setattr(op, "reference", None)
    assert op.torgb(x, to, style).isfinite().all()
    expected = simd_cpu.torgb_i420(x, to, style, torch.empty(1, 3, 4, dtype=torch.uint8), None)
    out = 255 - expected  # no byte is right before it is written
    assert op.torgb_i420(x, to, style, out=out) is out
    assert torch.equal(out, expected)


def test_allocates_no_picture(allocated_bytes) -> None:
    x, to, style = _case((1, 128, 128), 16, torch.bfloat16)
    out, broken = torch.empty(1, 192, 128, dtype=torch.uint8), torch.zeros(1, dtype=torch.int32)
    picture = torch.empty(1, 128, 128, 3)
    limit = picture.nbytes // 4
    assert allocated_bytes(lambda: simd_cpu.torgb_i420(x, to, style, out, broken)) < limit
    assert allocated_bytes(lambda: simd_cpu.torgb(x, to, style, picture)) < limit
