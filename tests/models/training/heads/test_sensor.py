"""The sensor: each fault on its own, and that the same draws give the same picture."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import BadConfig
from models.training.heads.sensor import Sensor, random_sensor

SIDE = 64


def picture() -> np.ndarray:
    """A grey ramp with a white square."""
    rgb = np.repeat(np.linspace(40, 200, SIDE, dtype=np.uint8)[None, :, None], SIDE, 0)
    rgb = np.repeat(rgb, 3, 2)
    rgb[28:36, 28:36] = 255
    return rgb


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_perfect_sensor_changes_nothing() -> None:
    assert (Sensor().capture(picture(), rng()) == picture()).all()


def test_noise_is_what_was_asked_for_and_grows_with_light() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    off = Sensor(noise=4).capture(grey, rng()).astype(float) - 128
    assert off.std() == pytest.approx(4 * (0.5 + (128 / 255) ** 0.5), rel=0.03)
    assert abs(off.mean()) < 0.1
    dark = Sensor(noise=4).capture(np.full_like(grey, 20), rng()).astype(float)
    assert dark.std() < 0.75 * off.std()


def test_balance_leans_and_clips() -> None:
    seen = Sensor(balance=(1.2, 1.0, 0.5)).capture(picture(), rng())
    row = picture()[0].astype(float)
    np.testing.assert_allclose(seen[0, :, 2], row[:, 2] / 2, atol=0.5)
    np.testing.assert_allclose(seen[0, :, 0], (row[:, 0] * 1.2).clip(0, 255), atol=0.5)


def test_blur_smears_along_its_direction_only_and_keeps_the_light() -> None:
    dot = np.zeros((SIDE, SIDE, 3), np.uint8)
    dot[30:34, 30:34] = 200
    across = Sensor(blur_px=9, blur_deg=0).capture(dot, rng()).astype(float)[..., 0]
    down = Sensor(blur_px=9, blur_deg=90).capture(dot, rng()).astype(float)[..., 0]
    assert (across.sum(0) > 0).sum() >= 12 and (across.sum(1) > 0).sum() == 4
    np.testing.assert_allclose(across, down.T, atol=1)
    light = [((x / 255) ** 2.2).sum() for x in (dot[..., 0], across)]
    assert light[1] == pytest.approx(light[0], rel=0.03)


def test_softening_and_jpeg_cost_detail_and_keep_size() -> None:
    busy = rng(3).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    for sensor in (Sensor(soften=0.5), Sensor(jpeg=30)):
        seen = sensor.capture(busy, rng())
        assert seen.shape == busy.shape and seen.dtype == np.uint8
        assert np.abs(seen.astype(float) - busy).mean() > 5
        assert abs(seen.astype(float).mean() - busy.mean()) < 4


def test_the_same_draws_give_the_same_picture() -> None:
    one, two = (random_sensor(rng(5)).capture(picture(), rng(6)) for _ in range(2))
    assert (one == two).all()
    assert len({random_sensor(rng(seed)) for seed in range(20)}) == 20


def test_every_random_sensor_leaves_a_picture() -> None:
    for seed in range(60):
        seen = random_sensor(rng(seed)).capture(picture(), rng(seed))
        assert np.corrcoef(seen.mean(2).ravel(), picture().mean(2).ravel())[0, 1] > 0.8


@pytest.mark.parametrize("wrong", [{"jpeg": 101}, {"soften": 0.1}, {"noise": -1}])
def test_impossible_sensors_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadConfig, match="a sensor of"):
        Sensor(**wrong)  # type: ignore[arg-type]
