"""The Triton kernels of torgb and torgb_i420 against the definitions in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kernels_triton import implementation
from kernels_triton.rgb_to_i420.reference import BLUE, LUMA, RED
from kernels_triton.torgb_i420 import reference, torgb, torgb_i420
from kernels_triton.torgb_i420.op import ToRgb
from tests.kernels_triton.guarded import (
    DEVICE,
    DTYPES,
    assert_replays,
    assert_rounded,
    drawn,
    guarded,
)

ROUNDING = 64 * 2**-24  # a sum over up to 96 channels, most of it in a tree


def wide(to: ToRgb) -> ToRgb:
    return ToRgb(to.weight.double(), to.bias.double(), to.clamp, to.gain)


def planes(x: Tensor, to: ToRgb, style: Tensor | None) -> Tensor:
    """The unrounded bytes [N, H*3//2, W] in float64."""
    rgb = reference.torgb(x.double(), wide(to), None if style is None else style.double())
    rgb = rgb.permute(0, 3, 1, 2).clamp(-1, 1) * 0.5 + 0.5
    n, _, height, width = rgb.shape
    coarse = rgb.reshape(n, 3, height // 2, 2, width // 2, 2).mean([3, 5])
    found = []
    for picture, row, offset in ((rgb, LUMA, 16), (coarse, BLUE, 128), (coarse, RED, 128)):
        found.append(torch.einsum("nchw,c->nhw", picture, picture.new_tensor(row)) + offset)
    return torch.cat([plane.flatten(1) for plane in found], 1).reshape(n, height * 3 // 2, width)


def assert_bytes(actual: Tensor, unrounded: Tensor) -> None:
    """Rounded half up; float32 may decide a tie within 1e-3 the other way."""
    assert ((actual.double() - unrounded).abs() <= 0.5 + 1e-3).all()
    # What is no tie has one right answer.
    clear = ((unrounded + 0.5) % 1.0 - 0.5).abs() < 0.499
    assert clear.double().mean() > 0.9
    assert torch.equal(actual.double()[clear], (unrounded + 0.5).floor()[clear])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [16, 48])
@pytest.mark.parametrize("styled", [False, True])
def test_bytes_equal_the_definition(dtype, channels, styled) -> None:
    randn = drawn(1)
    x = randn(2, 6, 10, channels).to(dtype)
    to = ToRgb(randn(3, channels) / channels**0.5, randn(3) / 4, clamp=1.5, gain=0.6)
    style = randn(2, channels) if styled else None
    target, broken = (
        guarded(2, 9, 10, dtype=torch.uint8),
        torch.zeros(2, dtype=torch.int32, device=DEVICE),
    )
    with implementation("triton"):
        y = torgb_i420(x, to, style, out=target.out, broken=broken)
    assert y is target.out and not broken.any()
    target.assert_untouched_around()
    assert_bytes(y, planes(x, to, style))


@pytest.mark.parametrize("size", [(2, 2), (2, 68)])
def test_smallest_and_ragged_rows(size) -> None:
    randn = drawn(2)
    x = randn(1, *size, 20)  # 20 channels: no multiple of a block either
    to = ToRgb(randn(3, 20) / 4, randn(3) / 4, math.inf)
    target = guarded(1, size[0] * 3 // 2, size[1], dtype=torch.uint8)
    with implementation("triton"):
        torgb_i420(x, to, out=target.out)
    target.assert_untouched_around()
    assert_bytes(target.out, planes(x, to, None))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("clamp", [1.0, math.inf])
def test_broken_samples_are_reported_and_others_left(bad, clamp) -> None:
    x = torch.zeros(3, 2, 68, 16, device=DEVICE)
    x[1, 1, 67, 5] = bad
    to = ToRgb(torch.ones(3, 16, device=DEVICE), torch.zeros(3, device=DEVICE), clamp)
    broken = torch.tensor([0, 0, 7], dtype=torch.int32, device=DEVICE)
    out = torch.zeros(3, 3, 68, dtype=torch.uint8, device=DEVICE)
    with implementation("triton"):
        torgb_i420(x, to, out=out, broken=broken)
    # A finite clamp mends infinity: that is a picture, too.
    assert broken.tolist() == [0, int(math.isnan(bad) or math.isinf(clamp)), 7]
    assert out[0, 0, 0] == 126 and out[2, 2, 0] == 128


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 5, 7, 48), (1, 1, 1, 20), (1, 3, 50, 16)])
def test_torgb_equals_the_definition(dtype, shape) -> None:
    randn = drawn(3)
    n, height, width, channels = shape
    x = randn(*shape).to(dtype)
    to = ToRgb(randn(3, channels), randn(3), clamp=3.0, gain=0.25)
    table = randn(n, 2 * channels)
    style = table[:, channels:]  # columns of a larger table
    target = guarded(n, height, width, 3)
    with implementation("triton"):
        y = torgb(x, to, style, out=target.out)
    assert y is target.out
    target.assert_untouched_around()
    assert_rounded(y, reference.torgb(x.double(), wide(to), style.double()), ROUNDING)


def test_gaps_are_refused() -> None:
    x = torch.zeros(1, 2, 2, 16, device=DEVICE)
    weight = torch.zeros(3, 32, device=DEVICE)[:, ::2]
    to = ToRgb(weight, torch.zeros(3, device=DEVICE), 1.0)
    with implementation("triton"), pytest.raises(ValueError, match="weight must be contiguous"):
        torgb(x, to)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="a CUDA graph needs a CUDA device")
def test_is_captured_in_a_graph() -> None:
    randn = drawn(4)
    x = randn(2, 64, 64, 32).half()
    to = ToRgb(randn(3, 32), randn(3), 256.0, 0.25)
    out = torch.empty(2, 96, 64, dtype=torch.uint8, device=DEVICE)
    broken = torch.zeros(2, dtype=torch.int32, device=DEVICE)
    assert_replays(lambda: torgb_i420(x, to, out=out, broken=broken), [out])
    picture = torch.empty(2, 64, 64, 3, device=DEVICE)
    assert_replays(lambda: torgb(x, to, out=picture), [picture])
