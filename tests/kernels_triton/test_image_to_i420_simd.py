"""The CPU's image_to_i420 against the definition in float64."""

from __future__ import annotations

import math

import pytest
import torch

from kernels_triton.rgb_to_i420 import op, simd_cpu
from kernels_triton.rgb_to_i420.reference import rgb_to_i420

# Sixteen pixels make a group: sizes on, before and after it.
SIZES = [(1, 2, 2), (2, 4, 6), (1, 2, 14), (1, 2, 16), (2, 6, 18), (1, 4, 34), (2, 2, 64)]


def _image(size):
    generator = torch.Generator().manual_seed(size[1] * 100 + size[2])
    return torch.rand(*size, 3, generator=generator) * 2.4 - 1.2  # out of range too


@pytest.mark.parametrize("size", SIZES)
def test_levels(size, threads) -> None:
    n, height, width = size
    image = _image(size)
    out = torch.full((n, height * 3 // 2, width), 7, dtype=torch.uint8)
    broken = torch.zeros(n, dtype=torch.int32)
    assert simd_cpu.image_to_i420(image, out, broken) is out
    wide = image.double().clamp(-1, 1).permute(0, 3, 1, 2) / 2 + 0.5
    luma = 16 + torch.einsum("c,nchw->nhw", wide.new_tensor([65.481, 128.553, 24.966]), wide)
    mean = wide.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean([3, 5])
    u = 128 + torch.einsum("c,nchw->nhw", wide.new_tensor([-37.797, -74.203, 112.0]), mean)
    v = 128 + torch.einsum("c,nchw->nhw", wide.new_tensor([112.0, -93.786, -18.214]), mean)
    expected = torch.cat([plane.flatten(1) for plane in (luma, u, v)], dim=1)
    # half a step of rounding, and float32 at a tie
    assert (out.double().flatten(1) - expected).abs().max() < 0.5 + 1e-4
    assert broken.tolist() == [0] * n


def test_agrees_with_the_planar_definition_at_the_ends_of_the_range() -> None:
    corners = torch.tensor([-math.pi, -1.0, 0.0, 1.0, 40.0])
    image = torch.cartesian_prod(corners, corners, corners).repeat_interleave(4, 0)
    image = image.reshape(1, 2, 250, 3)
    out = torch.empty(1, 3, 250, dtype=torch.uint8)
    simd_cpu.image_to_i420(image, out, None)
    expected = rgb_to_i420(image.double().permute(0, 3, 1, 2))
    assert (out.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 3, 33, 2), (1, 2, 16, 1), (0, 1, 31, 0)])
def test_broken_pictures_are_told(place, value, threads) -> None:
    image = _image((2, 4, 34))
    image[place] = value
    out, broken = torch.empty(2, 6, 34, dtype=torch.uint8), torch.tensor([0, 0], dtype=torch.int32)
    simd_cpu.image_to_i420(image, out, broken)
    assert broken.tolist() == [int(place[0] == k) for k in range(2)]
    simd_cpu.image_to_i420(torch.zeros_like(image), out, broken)
    assert broken.sum() == 1  # nobody takes it back
    simd_cpu.image_to_i420(image, out, None)


def test_flags_that_do_not_fit_are_refused() -> None:
    image, out = _image((1, 2, 2)), torch.empty(1, 3, 2, dtype=torch.uint8)
    for broken in (torch.zeros(1), torch.zeros(2, dtype=torch.int32)):
        with pytest.raises(ValueError, match="broken must be"):
            simd_cpu.image_to_i420(image, out, broken)


def test_the_public_op_comes_here(monkeypatch) -> None:
    image = _image((1, 4, 18))
    expected = simd_cpu.image_to_i420(image, torch.empty(1, 6, 18, dtype=torch.uint8), None)
    monkeypatch.setattr(op, "reference", None)
    out = 255 - expected  # no byte is right before it is written
    assert op.image_to_i420(image, out=out) is out
    assert torch.equal(out, expected)


def test_allocates_no_picture(allocated_bytes) -> None:
    image, out = _image((1, 128, 128)), torch.empty(1, 192, 128, dtype=torch.uint8)
    broken = torch.zeros(1, dtype=torch.int32)
    call = lambda: simd_cpu.image_to_i420(image, out, broken)  # noqa: E731
    assert allocated_bytes(call) < image.nbytes // 4
