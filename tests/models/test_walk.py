"""The walk in W: smooth, of the right spread, the same in any order, exact in a loop."""

import math

import numpy as np
import pytest
import torch

from models.errors import BadConfig
from models.walk import Walk

W_DIM = 24


def linear_mapping(z_dim: int = 8, seed: int = 0):
    matrix = torch.randn(z_dim, W_DIM, generator=torch.Generator().manual_seed(seed))
    return lambda z: z @ matrix + 0.25


def walk(**settings) -> Walk:
    settings = {"seed": 5, "speed": 1.0, "radius": 1.0} | settings
    return Walk(linear_mapping(), torch.full((W_DIM,), 0.25), 8, **settings)


def dw(source: Walk, t: float) -> np.ndarray:
    return source.sample(t).tensors["dw"][0].numpy()


def test_code_has_the_shape_of_one_w():
    code = walk().sample(1.5)
    assert code.t == 1.5
    assert code.tensors["dw"].shape == (1, W_DIM)
    assert code.tensors["dw"].dtype == torch.float32


def test_any_order_gives_the_bits_of_play():
    times = [i / 7 - 20 for i in range(300)]
    played = {t: dw(source, t) for source in [walk()] for t in times}
    order = np.random.default_rng(0).permutation(times)
    jumping = walk()
    for t in order:
        np.testing.assert_array_equal(dw(jumping, float(t)), played[float(t)])
    for t in times[::50]:  # nothing but this time was ever asked of it
        np.testing.assert_array_equal(dw(walk(), t), played[t])


def test_a_faster_output_rate_contains_the_slower_one():
    slow, fast = walk(), walk()
    at_60 = [dw(fast, i / 60) for i in range(240)]
    for i in range(120):
        np.testing.assert_array_equal(dw(slow, i / 30), at_60[2 * i])


def test_position_speed_and_acceleration_are_continuous_at_knots():
    source = walk()
    h = 1e-2
    # Third differences of a C2 function shrink as h^3 across a knot; those of a function whose
    # second derivative jumps, as h^2.
    for scale_of_smooth in (h, h / 2):
        points = np.array([dw(source, 3 + k * scale_of_smooth) for k in (-1.5, -0.5, 0.5, 1.5)])
        third = np.abs(np.diff(points.astype(np.float64), 3, axis=0)).max()
        assert third < 40 * scale_of_smooth**3 + 1e-5


def test_the_jump_of_the_second_derivative_would_be_seen():
    # The measure of the test above, on a C1 curve through the same kind of points.
    h = 1e-2
    kink = np.array([max(0.0, k * h) ** 2 * 10 for k in (-1.5, -0.5, 0.5, 1.5)])
    assert abs(np.diff(kink, 3)[0]) > 40 * h**3 + 1e-5


@pytest.mark.parametrize("radius", [1.0, 0.3])
def test_spread_at_every_time_is_that_of_w(radius):
    mapping = linear_mapping()
    z = torch.randn(20000, 8, generator=torch.Generator().manual_seed(9))
    spread = (mapping(z) - 0.25).pow(2).mean().item()
    for phase in (0.0, 0.25, 0.5):  # unnormalised, the variance would be 0.5, 0.47, 0.46
        codes = [
            dw(walk(seed=s, radius=radius), 8 * k + phase) for s in range(12) for k in range(40)
        ]
        measured = np.square(codes).mean() / spread
        assert measured == pytest.approx(radius**2, rel=0.15)  # 480 independent codes


@pytest.mark.parametrize("speed", [0.25, 2.0])
def test_speed_scales_time(speed):
    for t in (-3.5, 0.0, 1.25):
        np.testing.assert_array_equal(dw(walk(speed=speed), t), dw(walk(), t * speed))


def test_speed_zero_and_radius_zero_stand_still():
    still = walk(speed=0.0)
    np.testing.assert_array_equal(dw(still, 0.0), dw(still, 1e6))
    assert not dw(walk(radius=0.0), 3.3).any()


def test_a_loop_repeats_exactly_and_a_walk_does_not():
    loop, free = walk(loop=6), walk()
    for t in (0.0, 0.5, 3.75, 5.25):
        for turns in (-3, 1, 1000):
            np.testing.assert_array_equal(dw(loop, t + 6 * turns), dw(loop, t))
        assert np.abs(dw(free, t + 6) - dw(free, t)).max() > 0.1
    # The seam is as smooth as any knot.
    points = np.array([dw(loop, 6 + k * 1e-2) for k in (-1.5, -0.5, 0.5, 1.5)])
    assert np.abs(np.diff(points, 3, axis=0)).max() < 40 * 1e-6 + 1e-5


def test_memory_is_bounded_and_a_knot_is_mapped_once_in_play():
    mapped = []
    mapping = linear_mapping()

    def counting(z):
        mapped.append(z.shape)
        return mapping(z)

    source = Walk(counting, torch.zeros(W_DIM), 8, seed=1, speed=1.0)
    for i in range(3000):
        source.sample(i / 30)
    assert len(mapped) == 100 + 3  # 100 s at one knot per second, and the reach of the spline
    assert set(mapped) == {(1, 8)}
    assert len(source._knots) <= 16


def test_far_and_negative_times_move_too():
    source = walk()
    for t in (1e9, -1e9):
        here, later = dw(source, t), dw(source, t + 0.25)
        assert np.isfinite(here).all() and np.abs(later - here).max() > 1e-3


@pytest.mark.parametrize(
    ("setting", "value"),
    [("seed", -1), ("seed", 2**64), ("speed", math.inf), ("radius", -0.1), ("loop", 3)],
)
def test_impossible_settings_are_named(setting, value):
    with pytest.raises(BadConfig, match=setting):
        walk(**{setting: value})


def test_a_time_that_is_no_number_is_refused():
    with pytest.raises(BadConfig, match="finite"):
        walk().sample(math.nan)
