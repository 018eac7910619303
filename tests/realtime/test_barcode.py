"""The number in the picture: exact when untouched, refused when torn, kept at 300 kbit/s."""

import av
import cv2
import numpy as np
import pytest

from realtime import barcode
from realtime.encoder import open_encoder
from realtime.test_card import TestCard


@pytest.mark.parametrize("width", [64, 256, 512, 1024])
@pytest.mark.parametrize("number", [0, 1, 0x555555, 0xAAAAAA, 2**24 - 1])
def test_number_comes_back(width, number):
    luma = np.full((width, width), 77, np.uint8)
    barcode.stamp(luma, number)
    assert barcode.read(luma) == number
    assert (luma[width // 32 :] == 77).all()


def test_number_is_counted_modulo_24_bits():
    luma = np.zeros((64, 64), np.uint8)
    barcode.stamp(luma, 2**24 + 5)
    assert barcode.read(luma) == 5


@pytest.mark.parametrize("level", [0, 16, 128, 235, 255])
def test_plain_pictures_hold_no_number(level):
    assert barcode.read(np.full((256, 256), level, np.uint8)) is None


def test_every_single_wrong_bit_is_noticed():
    luma = np.zeros((256, 256), np.uint8)
    barcode.stamp(luma, 123_456)
    for bit in range(barcode.BLOCKS):
        torn = luma.copy()
        torn[:8, bit * 8 : bit * 8 + 8] = 255 - torn[:8, bit * 8 : bit * 8 + 8]
        assert barcode.read(torn) is None


def test_number_survives_scaling():
    luma = np.full((512, 512), 90, np.uint8)
    barcode.stamp(luma, 987_654)
    for side in (128, 300, 640):
        assert barcode.read(cv2.resize(luma, (side, side), interpolation=cv2.INTER_AREA)) == 987_654


@pytest.mark.parametrize("shape", [(64, 65), (64, 16), (1, 128)])
def test_unsuitable_planes_are_refused(shape):
    with pytest.raises(ValueError, match="multiple of 32"):
        barcode.stamp(np.zeros(shape, np.uint8), 1)


@pytest.mark.parametrize("codec, decoder", [("H264", "h264"), ("VP8", "vp8")])
@pytest.mark.parametrize("size", [256, 512])
def test_number_survives_300_kbit_s(codec, decoder, size):
    encoder = open_encoder(codec, size, size, 30, 300_000, ceiling=2_000_000, floor=150_000)
    context = av.CodecContext.create(decoder, "r")
    card, i420 = TestCard(size), np.empty((size * 3 // 2, size), np.uint8)
    seen = []
    for index in range(60):
        card.draw(index / 30, i420)
        barcode.stamp(i420[:size], 4_000_000 + index)
        coded = encoder.encode(i420, index * 3000)
        for frame in context.decode(coded.packet):
            seen.append(barcode.read(frame.to_ndarray()[:size]))
    encoder.close()
    assert seen == [4_000_000 + index for index in range(60)]
