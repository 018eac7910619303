"""The fused passes against the definition of BT.601 in float64, and against a decoder's eyes."""

import av
import numpy as np
import pytest
import torch

from kernels_triton.rgb_to_i420 import rgb_to_i420
from realtime.encoder import open_encoder
from realtime.i420 import chw_to_i420, planes_of


def reference(rgb: np.ndarray) -> np.ndarray:
    """ITU-R BT.601, limited range. rgb: float64 [3, H, W] in [0, 1]; result float [H*3//2, W]."""
    matrix = np.array(
        [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
    )
    _, height, width = rgb.shape
    y = np.tensordot(matrix[0], rgb, 1) + 16
    small = rgb.reshape(3, height // 2, 2, width // 2, 2).mean((2, 4))
    u, v = (np.tensordot(matrix[i], small, 1) + 128 for i in (1, 2))
    return np.concatenate([y.ravel(), u.ravel(), v.ravel()]).reshape(height * 3 // 2, width)


@pytest.mark.parametrize("height, width", [(2, 2), (64, 64), (18, 46), (256, 256)])
def test_floats_agree_with_the_definition(height, width):
    rgb = np.random.default_rng(height).uniform(-1, 1, (3, height, width)).astype(np.float32)
    out = np.full((height * 3 // 2, width), 7, np.uint8)
    chw_to_i420(rgb, out)
    assert np.abs(out - reference(rgb.astype(np.float64) / 2 + 0.5)).max() <= 0.51


def test_floats_agree_with_the_torch_op():
    rgb = np.random.default_rng(5).uniform(-1.2, 1.2, (3, 64, 96)).astype(np.float32)
    out = np.empty((96, 96), np.uint8)
    chw_to_i420(rgb, out)
    theirs = rgb_to_i420(torch.from_numpy(rgb)[None])[0].numpy().reshape(out.shape).astype(int)
    assert np.abs(out - theirs).max() <= 1


def test_values_beyond_the_range_are_clamped():
    wild = np.array([-9.0, -1.0, 1.0, 9.0], np.float32)
    rgb = np.broadcast_to(np.repeat(wild, 2), (3, 2, 8)).copy()
    out = np.empty((3, 8), np.uint8)
    chw_to_i420(rgb, out)
    assert out[0].tolist() == [16] * 4 + [235] * 4
    assert set(out[2].tolist()) == {128}


def test_all_extreme_colours_stay_in_limited_range():
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, 8).astype(np.float32)
    out = np.empty((3, 16), np.uint8)
    chw_to_i420(np.ascontiguousarray(np.repeat(corners[:, None], 2, 1).repeat(2, 2)), out)
    y, u, v = planes_of(out)
    assert y.min() == 16 and y.max() == 235
    assert min(u.min(), v.min()) == 16 and max(u.max(), v.max()) == 240


@pytest.mark.parametrize(
    "rgb, out",
    [
        (np.zeros((3, 4, 4)), (6, 4)),  # float64
        (np.zeros((3, 3, 4), np.float32), (6, 4)),  # odd
        (np.zeros((4, 4, 4), np.float32), (6, 4)),  # four channels
        (np.zeros((3, 4, 4), np.float32), (4, 4)),  # target too small
        (np.zeros((3, 4, 8), np.float32)[:, :, ::2], (6, 4)),  # gaps between pixels
    ],
)
def test_misfits_are_refused(rgb, out):
    with pytest.raises(ValueError):
        chw_to_i420(rgb, np.zeros(out, np.uint8))


def test_target_with_gaps_is_refused():
    with pytest.raises(ValueError, match="memory"):
        chw_to_i420(np.zeros((3, 4, 4), np.float32), np.zeros((6, 8), np.uint8)[:, :4])


PATCHES = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (30, 90, 160), (128, 128, 128)]


@pytest.mark.parametrize("codec, decoder", [("H264", "h264"), ("VP8", "vp8")])
@pytest.mark.parametrize("colour", PATCHES)
def test_flat_colour_comes_out_of_a_decoder_within_three_levels(codec, decoder, colour):
    rgb = np.empty((3, 64, 64), np.float32)
    rgb[:] = np.array(colour, np.float32).reshape(3, 1, 1) / 127.5 - 1
    i420 = np.empty((96, 64), np.uint8)
    chw_to_i420(rgb, i420)
    encoder = open_encoder(codec, 64, 64, 30, 1_000_000, ceiling=1_000_000, floor=100_000)
    context = av.CodecContext.create(decoder, "r")
    frames = []
    for n in range(4):
        frames += context.decode(encoder.encode(i420, n * 3000).packet)
    frames += context.decode(None)
    encoder.close()
    if codec == "H264":
        # VP8 is BT.601 by definition; H.264 says so, or a player guesses from the picture's size.
        assert (frames[-1].colorspace, frames[-1].color_range) == (6, 1)
        assert (frames[-1].color_primaries, frames[-1].color_trc) == (6, 6)
    shown = frames[-1].to_ndarray(format="rgb24").astype(int).mean((0, 1))
    assert np.abs(shown - colour).max() <= 3
