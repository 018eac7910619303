"""Motion time: closed forms against rationals and against numerical integration."""

import math
import random
from fractions import Fraction

import pytest

from realtime.timeline import MotionTimeline


def test_at_speed_one_motion_time_is_presentation_time_to_the_bit():
    line = MotionTimeline()
    rng = random.Random(1)
    for _ in range(1000):
        t = rng.uniform(0, 1e6)
        assert line.at(t) == t


def test_a_speed_ramp_is_the_exact_parabola():
    line = MotionTimeline(start_s=2.0, speed=1.0)
    line.set_speed(-3.0, 10.0, ramp_s=0.5)
    for t in (10.0, 10.1, 10.25, 10.4999, 10.5, 11.0, 1e6 + 0.1):
        d = Fraction(t) - 10
        half = Fraction(1, 2)
        x = min(d, half)
        exact = 12 + x + Fraction(-4) * x * x / (2 * half) + (d - x) * -3
        assert line.at(t) == float(exact)
    assert line.speed_at(10.25) == -1.0


def test_pause_stops_and_resume_goes_on_without_a_jump():
    line = MotionTimeline(speed=2.0)
    line.pause(1.0, ramp_s=0.4)
    stand = line.at(1.4)
    assert stand == pytest.approx(2.0 + 0.4)
    assert line.at(100.0) == stand and line.speed_at(100.0) == 0.0
    line.set_speed(-1.0, 50.0)
    assert line.at(100.0) == stand and line.paused and line.speed == -1.0
    line.resume(100.0, ramp_s=0.5)
    assert line.at(100.0) == stand
    assert line.at(101.5) == pytest.approx(stand - 0.25 - 1.0)


def test_pausing_twice_or_resuming_a_running_one_changes_nothing():
    line = MotionTimeline()
    line.resume(1.0)
    assert line.at(5.0) == 5.0
    line.pause(5.0)
    stand = line.at(9.0)
    line.pause(9.0)
    assert line.at(10.0) == stand


def test_scrub_arrives_where_it_should_and_keeps_the_speed():
    line = MotionTimeline()
    line.scrub(100.0, 3.0, ramp_s=0.3)
    assert line.at(3.0) == 3.0
    assert line.at(3.3) == pytest.approx(100.3, abs=1e-12)
    assert line.at(10.0) == pytest.approx(107.0, abs=1e-12)


def test_scrub_without_a_ramp_jumps():
    line = MotionTimeline()
    line.scrub(-7.5, 2.0, ramp_s=0.0)
    assert line.at(2.0) == -7.5 and line.at(3.0) == -6.5


def test_scrub_while_paused_stands_at_its_target():
    line = MotionTimeline()
    line.pause(1.0)
    line.scrub(42.0, 2.0)
    assert line.at(5.0) == 42.0


def test_a_frame_just_before_a_command_keeps_the_old_course():
    line = MotionTimeline(speed=1.0)
    line.set_speed(8.0, 5.0)
    assert line.at(4.99) == pytest.approx(4.99, abs=1e-12)
    line.scrub(1000.0, 6.0)
    assert line.at(5.999) == pytest.approx(line.at(6.0), abs=0.01)


def commands(line, rng, t):
    """One random command at `t`."""
    kind = rng.randrange(5)
    if kind == 0:
        line.set_speed(rng.uniform(-8, 8), t, ramp_s=rng.choice((0.1, 0.4, 1.0)))
    elif kind == 1:
        line.scrub(line.at(t) + rng.uniform(-5, 5), t, ramp_s=0.3)
    elif kind == 2:
        line.pause(t)
    elif kind == 3:
        line.resume(t)
    else:
        line.set_speed(0.0, t)


def test_value_and_slope_are_continuous_through_a_thousand_commands():
    rng = random.Random(5)
    line, t, small = MotionTimeline(), 0.0, 1e-7
    for _ in range(1000):
        t += rng.uniform(0.01, 0.6)  # most commands come in the middle of the last one's ramp
        before, slope = line.at(t), line.speed_at(t)
        commands(line, rng, t)
        assert line.at(t) == pytest.approx(before, abs=1e-12)
        assert line.speed_at(t) == pytest.approx(slope, abs=1e-9)
        # The slope is the derivative: a central difference of the exact curve agrees.
        ahead, here = line.at(t + 2 * small), line.at(t + small)
        assert (ahead - here) / small == pytest.approx(line.speed_at(t + small), abs=1e-2)


def test_position_is_the_integral_of_the_speed():
    rng = random.Random(9)
    line, t = MotionTimeline(), 0.0
    for _ in range(20):
        commands(line, rng, t)
        end = t + rng.uniform(0.05, 1.0)
        steps = 400
        points = [t + (end - t) * (k + 0.5) / steps for k in range(steps)]
        area = math.fsum(line.speed_at(p) for p in points) * (end - t) / steps
        assert line.at(end) - line.at(t) == pytest.approx(area, abs=2e-3)
        t = end


def test_fractions_stay_small_in_a_long_session():
    rng = random.Random(2)
    line, t = MotionTimeline(), 0.0
    for _ in range(5000):
        t += rng.uniform(0.001, 0.1)
        commands(line, rng, t)
    for number in (line._value, line._from, line._glide_offset, line._glide_slope):
        assert number.denominator.bit_length() <= 61
