"""Pixels reach a frame of PyAV whole, whatever its rows are padded to."""

import av
import numpy as np
import pytest

from realtime.i420 import planes_of
from realtime.pyav import fill_frame


@pytest.mark.parametrize("height, width", [(64, 64), (18, 46)])
def test_padded_rows_are_filled_with_the_picture_alone(height, width):
    i420 = np.random.default_rng(0).integers(0, 256, (height * 3 // 2, width), dtype=np.uint8)
    picture = av.VideoFrame(width, height, "yuv420p")
    fill_frame(picture, planes_of(i420))
    assert np.array_equal(picture.to_ndarray(), i420)
    if width == 46:
        assert picture.planes[0].line_size > width  # there was padding to keep clear of
