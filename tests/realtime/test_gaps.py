"""The gaps between frames, with times given by hand."""

import math

import pytest

from realtime.gaps import IDLE_S, NS, PATIENCE_S, Gaps
from realtime.messages import Tick

MS = 1_000_000


def frames(gaps, session, *dues_ms, first=0):
    """Frames of a session that came back, due at these times."""
    for index, due in enumerate(dues_ms, first):
        gaps.begun()
        gaps.ended(session, Tick(index, 0.0, 0, due * MS))


def test_the_next_frame_follows_from_the_last_two():
    gaps = Gaps()
    assert gaps.until_next_ns(7) == math.inf
    frames(gaps, "a", 1000, 1033)
    assert gaps.until_next_ns(1040 * MS) == 26 * MS
    assert gaps.room(25 * MS, 1040 * MS, 1040 * MS)
    assert not gaps.room(27 * MS, 1040 * MS, 1040 * MS)


def test_each_session_has_its_own_pace_and_the_earliest_counts():
    gaps = Gaps()
    # Two sessions of 10 frames/s, 50 ms apart: half of the differences between any two is 50 ms,
    # but the next frame is always due 100 ms after that session's own last one.
    frames(gaps, "a", 1000, 1100)
    frames(gaps, "b", 1050, 1150)
    assert gaps.until_next_ns(1160 * MS) == 40 * MS
    frames(gaps, "a", 1200, first=2)
    assert gaps.until_next_ns(1205 * MS) == 45 * MS
    gaps.forget("b")
    assert gaps.until_next_ns(1205 * MS) == 95 * MS


def test_dropped_ticks_do_not_stretch_the_interval():
    gaps = Gaps()
    for index, due in ((0, 0), (5, 500), (6, 600)):
        gaps.begun()
        gaps.ended("a", Tick(index, 0.0, 0, due * MS))
        assert index == 0 or gaps.until_next_ns(due * MS) == 100 * MS


def test_there_is_no_gap_while_a_frame_is_drawn_or_overdue():
    gaps = Gaps()
    frames(gaps, "a", 0, 100)
    assert not gaps.room(MS, 0, 201 * MS)
    gaps.begun()
    assert gaps.in_flight == 1 and not gaps.room(0, 150 * MS, 150 * MS)


def test_a_session_that_draws_no_more_is_not_waited_for():
    gaps = Gaps()
    frames(gaps, "a", 0, 100)
    assert not gaps.room(MS, 400 * MS, 400 * MS)
    later = 200 * MS + round(IDLE_S * NS)
    assert gaps.room(NS, later, later)


@pytest.mark.parametrize("cost_ms", [50, 5000])
def test_patience_ends_and_then_once_in_a_while(cost_ms):
    gaps, patience = Gaps(), round(PATIENCE_S * NS)
    gaps.begun()  # frames back to back
    assert not gaps.room(cost_ms * MS, NS, NS + patience)
    assert gaps.room(cost_ms * MS, NS, NS + patience + 1)
    assert not gaps.room(cost_ms * MS, NS, NS + 2 * patience)  # another one that waits as long
    assert gaps.room(cost_ms * MS, NS, NS + 2 * patience + 2)
