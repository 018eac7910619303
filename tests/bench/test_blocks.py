"""Blocks: everybody has a turn in each, ratios are taken within one, goals say what they ask."""

from __future__ import annotations

import pytest

from bench import blocks
from bench.blocks import Goal, Timed


def test_subjects_take_turns_and_every_frame_is_timed() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    timed = blocks.interleave(calls, frames={"a": 2, "b": 3}, blocks=2)
    assert "".join(order) == "aaabbbb" * 2  # one call more than is timed: caches are another's
    assert [len(block) for block in timed["a"].blocks] == [2, 2]
    assert [len(block) for block in timed["b"].blocks] == [3, 3]


def test_device_and_preparation_surround_each_frame() -> None:
    order: list[str] = []
    blocks.interleave(
        {"a": lambda: order.append("call")},
        frames={"a": 1},
        blocks=1,
        sync=lambda: order.append("sync"),
        before=lambda: order.append("before"),
    )
    assert order == ["before", "sync", "call", "sync"] * 2


def test_after_the_deadline_no_block_begins_but_one_is_there() -> None:
    timed = blocks.interleave({"a": lambda: None}, frames={"a": 2}, blocks=9, deadline_ns=0)
    assert len(timed["a"].blocks) == 1


def test_a_ratio_is_taken_within_a_block_so_that_a_slow_minute_cancels() -> None:
    slow = Timed(((10.0,), (10.0,), (100.0,), (10.0,), (12.0,)))
    fast = Timed(((1.0,), (2.0,), (10.0,), (1.0,), (1.0,)))
    found = blocks.ratio(slow, fast)
    assert (found.low, found.median, found.high) == (10.0, 10.0, 10.0)
    assert found.as_dict() == {"median": 10.0, "q1": 10.0, "q3": 10.0}


def test_the_best_block_counts_all_its_frames() -> None:
    timed = Timed(((10.0, 30.0), (10.0, 15.0)))
    assert timed.best_fps == pytest.approx(80.0)
    figures = blocks.figures(timed)
    assert figures["frames"] == 4 and figures["blocks"] == 2
    assert figures["min_ms"] == 10.0 and figures["max_ms"] == 30.0
    assert figures["fps"] == pytest.approx(1000 / 16.25, abs=0.01)


def test_a_block_has_frames_for_its_time_but_never_fewer_than_three() -> None:
    assert blocks.frames_per_block(lambda: None, 0.0) == blocks.FEWEST
    assert blocks.frames_per_block(lambda: None, 60.0) == blocks.MOST


def test_of_a_very_slow_subject_one_frame_a_block_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "SLOW_MS", 0.0)
    assert blocks.frames_per_block(lambda: None, 0.0) == 1


def test_a_budget_has_room_for_the_first_and_for_what_is_as_long_as_the_longest() -> None:
    now = [0]
    budget = blocks.Budget(100.0, lambda: now[0])
    begun = []
    for seconds in (30, 10, 40, 1):
        begun.append(budget.begin())
        now[0] += int(seconds * 1e9) * begun[-1]
    assert begun == [True, True, True, False]  # at 80 s, the longest took 40
    assert budget.begin() is False
    spent = blocks.Budget(0.0, lambda: now[0])
    assert spent.begin() and not spent.begin()


@pytest.mark.parametrize(("value", "above", "passed"), [(8.0, True, True), (8.1, False, False)])
def test_a_goal_is_reached_at_its_figure(value: float, above: bool, passed: bool) -> None:
    goal = Goal("case", "figure", value, 8.0, above)
    assert goal.passed is passed and goal.as_dict()["passed"] is passed
    assert goal.line().startswith("PASS" if passed else "FAIL")
    missed = "0" if passed else "1"
    assert blocks.goals_text([goal]).endswith(f"{1 - int(missed)} of 1 goals reached")
