"""The camera: what falls where, and that lenses keep the face's size."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import BadConfig
from models.training.heads.camera import FRAME_CM, Camera


def test_the_middle_of_the_world_is_the_middle_of_the_picture():
    at, near = Camera().project(np.array([[0.0, 0.0, 5.0]]), 256)
    assert at[0] == pytest.approx([128, 128])
    assert 1 / near[0] == pytest.approx(FRAME_CM / 2 / np.tan(np.radians(14)))


@pytest.mark.parametrize("fov", [20.0, 28.0, 60.0])
def test_the_picture_shows_its_height_at_the_face_whatever_the_lens(fov):
    edge = np.array([[0, FRAME_CM / 2, 5.0], [FRAME_CM / 2, 0, 5.0]])
    at, _ = Camera(fov_deg=fov).project(edge, 100)
    assert at == pytest.approx(np.array([[50, 0], [100, 50]]), abs=1e-9)  # y down, left is right


def test_near_things_grow_more_under_a_wide_lens():
    nose, ear = np.array([[1.0, 0, 13.0]]), np.array([[1.0, 0, -1.0]])
    ratios = [
        (c.project(nose, 100)[0][0, 0] - 50) / (c.project(ear, 100)[0][0, 0] - 50)
        for c in (Camera(20.0), Camera(60.0))
    ]
    assert 1.1 < ratios[0] < 1.3 < ratios[1]


def test_zoom_and_fit_scale_the_face():
    edge = np.array([[0.0, 4.0, 5.0]])
    plain, near, fitted = (
        50 - c.project(edge, 100, fit)[0][0, 1]
        for c, fit in ((Camera(), 1.0), (Camera(zoom=2.0), 1.0), (Camera(), 0.5))
    )
    assert near == pytest.approx(2 * plain) and fitted == pytest.approx(plain / 2)


@pytest.mark.parametrize(
    "numbers",
    [{"fov_deg": 19.0}, {"fov_deg": 61.0}, {"fov_deg": np.nan}, {"zoom": 0.0}, {"zoom": np.nan}],
)
def test_impossible_cameras_are_refused(numbers):
    with pytest.raises(BadConfig, match=next(iter(numbers))):
        Camera(**numbers)


def test_what_labels_say_of_a_camera():
    assert Camera(35.0, 1.5).vector().tolist() == [35.0, 1.5]
