"""The frame clock: exact, for hours, through stalls and jumps of the wall clock."""

import ast
import random
import time
from fractions import Fraction
from pathlib import Path

import pytest

import realtime
from realtime.clock import NS, FrameClock, exact_fps

ORIGIN = 987_654_321_012_345


def at(seconds):
    return ORIGIN + round(seconds * NS)


def test_ticks_are_due_at_whole_intervals():
    clock = FrameClock(25, ORIGIN)
    ticks = [clock.next_tick(ORIGIN) for _ in range(4)]
    assert [tick.index for tick in ticks] == [0, 1, 2, 3]
    assert [tick.t for tick in ticks] == [0.0, 0.04, 0.08, 0.12]
    assert [tick.pts for tick in ticks] == [0, 3600, 7200, 10800]
    assert [tick.deadline_ns - ORIGIN for tick in ticks] == [0, 40_000_000, 80_000_000, 120_000_000]


def test_first_index_numbers_the_tick_at_the_origin():
    tick = FrameClock(30, ORIGIN, first_index=500).next_tick(ORIGIN)
    assert (tick.index, tick.t, tick.pts, tick.deadline_ns) == (500, 0.0, 0, ORIGIN)


def test_rates_of_television_are_exact():
    assert exact_fps(29.97002997) == Fraction(30000, 1001)
    clock = FrameClock(30000 / 1001, ORIGIN)
    for _ in range(30_000):
        clock.next_tick(ORIGIN)
    assert clock.next_tick(ORIGIN).t == 1001.0


@pytest.mark.parametrize("fps", [0, 0.5, -30, 121, float("nan"), float("inf")])
def test_impossible_rates_are_refused(fps):
    with pytest.raises(ValueError, match="between 1 and 120"):
        FrameClock(fps, ORIGIN)


@pytest.mark.parametrize(
    ("stall_s", "index", "dropped"),
    [
        (0.0, 1, 0),
        (0.08, 1, 0),
        (0.0800001, 2, 1),
        (0.12, 2, 1),
        (0.1200001, 3, 2),
        (10.0, 249, 248),
    ],
)
def test_late_tick_is_skipped_and_counted(stall_s, index, dropped):
    clock = FrameClock(25, ORIGIN)
    clock.next_tick(ORIGIN)
    tick = clock.next_tick(at(stall_s))
    assert (tick.index, clock.counters.dropped) == (index, dropped)
    assert clock.counters.due == 2 + dropped
    # Never older than one interval, and the motion goes on at its pace.
    assert at(stall_s) - tick.deadline_ns <= clock.interval_ns
    assert tick.t == index / 25


def test_four_counters_are_four_things():
    clock = FrameClock(25, ORIGIN)
    on_time, slow = clock.next_tick(ORIGIN), clock.next_tick(ORIGIN)
    assert not clock.finished(on_time, at(0.04))
    assert clock.finished(slow, at(0.0800001))
    clock.next_tick(at(0.2))
    clock.counters.repeated += 1
    assert clock.counters.as_dict() == {"due": 5, "late": 1, "dropped": 2, "repeated": 1}
    assert clock.counters.shown == 2


def test_retime_goes_on_from_the_last_tick():
    clock = FrameClock(10, ORIGIN)
    ticks = [clock.next_tick(ORIGIN) for _ in range(3)]
    clock.retime(50, at(0.21))
    ticks += [clock.next_tick(at(0.21)) for _ in range(3)]
    assert [tick.t for tick in ticks] == [0.0, 0.1, 0.2, 0.22, 0.24, 0.26]
    assert [tick.index for tick in ticks] == list(range(6))


def test_retime_before_the_first_tick_only_changes_the_rate():
    clock = FrameClock(10, ORIGIN)
    clock.retime(20, ORIGIN)
    assert [clock.next_tick(ORIGIN).t for _ in range(2)] == [0.0, 0.05]


def test_retime_after_a_stall_counts_the_stall_at_the_old_rate():
    clock = FrameClock(10, ORIGIN)
    clock.next_tick(ORIGIN)
    clock.retime(100, at(1.05))
    assert clock.counters.dropped == 9  # 0.1 .. 0.9 are more than one interval past
    assert clock.next_tick(at(1.05)).t == pytest.approx(1.04, abs=1e-9)


def test_a_pause_is_neither_due_nor_dropped_and_time_goes_on():
    clock = FrameClock(10, ORIGIN)
    before = [clock.next_tick(ORIGIN) for _ in range(3)][-1]
    clock.resume(at(7.03))
    after = clock.next_tick(at(7.03))
    assert (before.index, after.index) == (2, 71)
    assert (after.t, after.pts, after.deadline_ns) == (7.1, 639_000, at(7.1))
    assert clock.counters.as_dict() == {"due": 4, "late": 0, "dropped": 0, "repeated": 0}
    clock.retime(20, at(7.11))
    assert clock.next_tick(at(7.11)).t == 7.15


def test_a_pause_shorter_than_an_interval_skips_nothing():
    clock = FrameClock(10, ORIGIN)
    clock.next_tick(ORIGIN)
    clock.resume(at(0.1))
    assert clock.next_tick(at(0.1)).index == 1
    clock.resume(ORIGIN)  # never back
    assert clock.next_tick(at(0.1)).index == 2


def test_ten_hours_of_stalls_rate_changes_and_wall_clock_jumps(monkeypatch):
    """Every presentation time equals an independent rational evaluation; PTS strictly rises."""
    wall = {"read": 0}

    def jumping_wall_clock():
        wall["read"] += 1
        return 3600.0 * random.choice((-1, 1))

    monkeypatch.setattr(time, "time", jumping_wall_clock)
    rng = random.Random(20_251_121)
    hours, now, end = 10, ORIGIN, ORIGIN + 10 * 3600 * NS
    fps, clock = Fraction(24), FrameClock(24, ORIGIN)
    anchor, anchor_index = Fraction(0), 0  # the independent account of the schedule
    last, ticks, stalls_ns, changes, drawn = None, 0, 0, 0, 0
    while now < end:
        if rng.random() < 0.0005:
            new = exact_fps(rng.choice((1.5, 12, 15, 23.976, 24, 25, 29.97002997, 30, 48)))
            clock.retime(new, now)
            if new != fps:
                # What the rule says: the last tick handed out or skipped, on whole nanoseconds.
                k = max(last.index, first_kept(anchor, anchor_index, fps, now) - 1)
                since = anchor + (k - anchor_index) / fps
                anchor, anchor_index, fps = Fraction(int(since * NS), NS), k, new
                changes += 1
        tick = clock.next_tick(now)
        exact = anchor + (tick.index - anchor_index) / fps
        assert tick.t == exact.numerator / exact.denominator  # the error of the motion time is 0
        assert tick.pts == exact.numerator * 90_000 // exact.denominator
        if last is not None:
            assert tick.index > last.index and tick.t > last.t and tick.pts > last.pts
        assert now - tick.deadline_ns <= NS / fps + 1
        now = max(now, tick.deadline_ns) + rng.randrange(2_000_000, 30_000_000)
        if rng.random() < 0.002:
            stall = rng.randrange(6 * NS)
            now, stalls_ns = now + stall, stalls_ns + stall
        last, ticks, drawn = tick, ticks + 1, drawn + 1
    assert clock.counters.due == last.index + 1
    assert clock.counters.due - clock.counters.dropped == drawn
    assert last.t > hours * 3600 - 10
    assert changes > 100 and stalls_ns > 1800 * NS and ticks > 300_000
    assert wall["read"] == 0


def first_kept(anchor, anchor_index, fps, now):
    """Index of the first tick that is at most one interval past at `now`, by search."""
    k = int((Fraction(now - ORIGIN, NS) - anchor) * fps) + anchor_index - 2
    while anchor + (k + 1 - anchor_index) / fps < Fraction(now - ORIGIN, NS):
        k += 1
    return k


def test_nothing_in_realtime_reads_the_wall_clock():
    """`time.time` and `datetime.now` jump with the wall clock; every stamp here is monotonic."""
    files = list(Path(realtime.__file__).parent.rglob("*.py"))
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used = f"{node.value.id}.{node.attr}"
                assert used not in ("time.time", "time.time_ns", "datetime.now"), f"{file}: {used}"
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                names = {alias.name for alias in node.names}
                assert not names & {"time", "time_ns"}, f"{file}: from time import {names}"
