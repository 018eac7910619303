"""rgb_to_i420 against numbers of the standard and against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels_triton import rgb_to_i420

# 100 % colour bars of BT.601, 8 bit: R, G, B and the Y, U, V they make.
BARS = [
    ((1, 1, 1), (235, 128, 128)),
    ((-1, -1, -1), (16, 128, 128)),
    ((1, -1, -1), (81, 90, 240)),
    ((-1, 1, -1), (145, 54, 34)),
    ((-1, -1, 1), (41, 240, 110)),
    ((1, 1, -1), (210, 16, 146)),
]


@pytest.mark.parametrize("rgb, yuv", BARS)
def test_colour_bars(rgb, yuv) -> None:
    picture = torch.tensor(rgb, dtype=torch.float32)[None, :, None, None].expand(1, 3, 4, 6)
    i420 = rgb_to_i420(picture)
    assert i420.shape == (1, 6, 6)
    flat = i420.flatten().tolist()
    assert (set(flat[:24]), set(flat[24:30]), set(flat[30:])) == tuple({v} for v in yuv)


def test_planes_lie_where_an_encoder_looks() -> None:
    generator = torch.Generator().manual_seed(3)
    picture = torch.rand(2, 3, 6, 8, generator=generator) * 2.4 - 1.2  # out of range too
    x = np.clip(picture.double().numpy(), -1, 1) / 2 + 0.5
    y = 16 + np.einsum("c,nchw->nhw", [65.481, 128.553, 24.966], x)
    mean = x.reshape(2, 3, 3, 2, 4, 2).mean((3, 5))
    u = 128 + np.einsum("c,nchw->nhw", [-37.797, -74.203, 112.0], mean)
    v = 128 + np.einsum("c,nchw->nhw", [112.0, -93.786, -18.214], mean)
    expected = np.concatenate([plane.reshape(2, -1) for plane in (y, u, v)], axis=1)

    i420 = rgb_to_i420(picture)

    assert i420.shape == (2, 9, 8)
    # half a step of rounding, and float32 at a tie
    assert np.abs(i420.numpy().reshape(2, -1) - expected).max() < 0.5 + 1e-4


def test_writes_into_the_buffer_it_is_given() -> None:
    out = torch.empty(1, 6, 4, dtype=torch.uint8)
    assert rgb_to_i420(torch.zeros(1, 3, 4, 4), out=out) is out
    assert out[0, 0, 0] == 126
    with pytest.raises(ValueError, match="out must be"):
        rgb_to_i420(torch.zeros(1, 3, 4, 4), out=torch.empty(1, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("shape", [(1, 3, 5, 4), (1, 4, 4, 4), (3, 4, 4)])
def test_odd_sizes_are_refused(shape) -> None:
    with pytest.raises(ValueError, match="even H and W"):
        rgb_to_i420(torch.zeros(shape))
