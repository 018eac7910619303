"""The Triton kernel of rgb_to_i420 and image_to_i420 against the definition and the standard."""

from __future__ import annotations

import math

import pytest
import torch

from kernels_triton import implementation, rgb_to_i420
from kernels_triton.rgb_to_i420 import image_to_i420, reference
from tests.kernels_triton.guarded import DEVICE, DTYPES, assert_replays, drawn, guarded

# 100 % colour bars of BT.601, 8 bit: R, G, B and the Y, U, V they make.
BARS = [
    ((1, 1, 1), (235, 128, 128)),
    ((-1, -1, -1), (16, 128, 128)),
    ((1, -1, -1), (81, 90, 240)),
    ((-1, 1, -1), (145, 54, 34)),
    ((-1, -1, 1), (41, 240, 110)),
]


@pytest.mark.parametrize("rgb, yuv", BARS)
def test_colour_bars(rgb, yuv) -> None:
    picture = torch.tensor(rgb, device=DEVICE).float()[None, :, None, None].expand(1, 3, 4, 6)
    with implementation("triton"):
        flat = rgb_to_i420(picture).flatten().tolist()
    assert (set(flat[:24]), set(flat[24:30]), set(flat[30:])) == tuple({v} for v in yuv)


def assert_bytes(actual, expected) -> None:
    """float32 in another order may decide a tie the other way: seldom, and by one level."""
    difference = (actual.int() - expected.int()).abs()
    assert difference.max() <= 1 and difference.double().mean() < 0.002


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("size", [(2, 2), (6, 10), (4, 260)])
def test_equals_the_definition(dtype, size) -> None:
    rgb = drawn(1)(2, 3, *size).to(dtype)  # out of range, too
    target = guarded(2, size[0] * 3 // 2, size[1], dtype=torch.uint8)
    with implementation("triton"):
        assert rgb_to_i420(rgb, out=target.out) is target.out
    target.assert_untouched_around()
    assert_bytes(target.out, reference.rgb_to_i420(rgb))


def test_any_strides_go_in_and_out() -> None:
    rgb = drawn(2)(2, 12, 16, 4)[..., ::2, 1:].permute(0, 3, 1, 2)  # [2, 3, 12, 8]
    assert not rgb.is_contiguous() and not rgb.permute(0, 2, 3, 1).is_contiguous()
    out = torch.zeros(2, 18, 16, dtype=torch.uint8, device=DEVICE)
    with implementation("triton"):
        made = rgb_to_i420(rgb)
        rgb_to_i420(rgb, out=out[..., 4:12])
    assert_bytes(made, reference.rgb_to_i420(rgb))
    assert torch.equal(out[..., 4:12], made)
    assert not out[..., :4].any() and not out[..., 12:].any()


@pytest.mark.parametrize("size", [(2, 2), (4, 260)])
def test_images_equal_the_definition(size) -> None:
    image = drawn(3)(2, *size, 3)
    target = guarded(2, size[0] * 3 // 2, size[1], dtype=torch.uint8)
    broken = torch.tensor([0, 5], dtype=torch.int32, device=DEVICE)
    with implementation("triton"):
        assert image_to_i420(image, out=target.out, broken=broken) is target.out
    target.assert_untouched_around()
    assert broken.tolist() == [0, 5]
    assert_bytes(target.out, reference.rgb_to_i420(image.permute(0, 3, 1, 2)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [(0, 0, 0), (1, 3, 2), (0, 259, 1)])
def test_broken_images_are_reported(bad, at) -> None:
    image = torch.zeros(2, 2, 260, 3, device=DEVICE)
    image[(1, *at)] = bad
    broken = torch.zeros(2, dtype=torch.int32, device=DEVICE)
    out = torch.zeros(2, 3, 260, dtype=torch.uint8, device=DEVICE)
    with implementation("triton"):
        image_to_i420(image, out=out, broken=broken)
    assert broken.tolist() == [0, 1]
    assert (out[0, :2] == 126).all() and (out[0, 2:] == 128).all()


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="a CUDA graph needs a CUDA device")
def test_is_captured_in_a_graph() -> None:
    image = drawn(4)(2, 64, 64, 3)
    out = torch.empty(2, 96, 64, dtype=torch.uint8, device=DEVICE)
    broken = torch.zeros(2, dtype=torch.int32, device=DEVICE)
    assert_replays(lambda: image_to_i420(image, out=out, broken=broken), [out])
