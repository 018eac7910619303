"""bench/latency.py: its arithmetic, its verdicts, and one tiny run of the real thing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import latency
from bench.latency_figures import (
    Shown,
    Stamps,
    browser_rows,
    clock_offset_ms,
    doubts,
    figures,
    our_stamps,
    rate_kbit_s,
    stock_stamps,
    unsteady,
    verdicts,
)

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 7.0  # of the 8 that 200 ticks last: 5 s without the warm-up, 125 frames


def ticks(count: int, interval: float = 40.0) -> dict[int, Stamps]:
    """Frames sampled 1 ms after they were due, rendered in 3, encoded in 2, sent in 1."""
    return {
        n: Stamps(
            n * interval, n * interval + 1, n * interval + 4, n * interval + 6, n * interval + 7
        )
        for n in range(count)
    }


def seen(stamps: dict[int, Stamps], latency_ms: float = 10.0) -> list[Shown]:
    """Each presented `latency_ms` after its sample, received 1 ms before, called 2 ms after."""
    return [
        Shown(n, at.start + latency_ms, at.start + latency_ms - 1, at.start + latency_ms + 2)
        for n, at in stamps.items()
    ]


def test_the_clock_offset_comes_from_the_shortest_trips() -> None:
    good = [[t, t + 1, t + 0.5 + 1000] for t in range(0, 300, 10)]
    late = [[t, t + 50, t + 49 + 1000] for t in range(0, 3000, 100)]  # waited on the way back
    assert clock_offset_ms(good + late) == pytest.approx(1000)
    with pytest.raises(ValueError, match="no ping"):
        clock_offset_ms([])


def test_page_times_are_moved_to_the_servers_clock() -> None:
    row = {"number": 3, "presented": 5.0, "received": None, "called": 7.0}
    assert browser_rows([row], 100.0) == [Shown(3, 105.0, None, 107.0)]


def test_rows_become_stamps() -> None:
    assert our_stamps([[9, 5, 1.0, 2.0, 3.0, 4.0, 5.0, 800, 0]]) == {5: Stamps(1, 2, 3, 4, 5)}
    assert stock_stamps([[5, 1_000_000, 3_000_000]]) == {5: Stamps(1, 3)}


def test_latency_runs_from_the_sample_and_from_due() -> None:
    stamps = ticks(200)
    found = figures(seen(stamps), stamps, SECONDS)
    assert found["presented"]["p50"] == found["presented"]["max"] == 10
    assert found["from_due"]["p50"] == 11
    assert found["called"]["p99"] == 12
    stages = {name: values["p50"] for name, values in found["stages"].items()}
    assert stages == {"render": 3, "encode": 2, "publish": 1, "wire": 3, "show": 1}
    assert found["missed"] == found["undrawn"] == found["unreadable"] == 0
    assert found["fps"] == pytest.approx(25)


def test_the_first_two_seconds_are_left_out() -> None:
    stamps = ticks(200)
    rows = [
        row if row.number >= 50 else Shown(row.number, row.presented + 500) for row in seen(stamps)
    ]
    rows.sort(key=lambda row: row.presented)
    assert figures(rows, stamps, SECONDS)["samples"] <= 150
    assert figures(rows, stamps, SECONDS)["presented"]["p50"] == 10


def test_what_is_never_seen_is_counted_whoever_lost_it() -> None:
    stamps = ticks(200)
    del stamps[120]  # the server skipped it
    rows = [row for row in seen(stamps) if row.number not in (130, 131)]  # lost on the way
    rows[100] = Shown(-1, rows[100].presented)  # seen, and unreadable
    found = figures(rows, stamps, SECONDS)
    assert (found["missed"], found["undrawn"], found["unreadable"]) == (4, 1, 1)


def test_a_picture_that_stops_before_the_end_counts_against_it() -> None:
    stamps = ticks(200)
    rows = [row for row in seen(stamps) if row.number < 100]
    found = figures(rows, stamps, SECONDS)
    assert found["fps"] == pytest.approx(25 * found["samples"] / 125) and found["fps"] < 11
    assert found["missed"] == 125 - found["samples"] > 70


def test_the_rate_is_that_between_two_reports() -> None:
    start = {"timestamp": 5_000.0, "bytesReceived": 900_000}  # the warm-up's are not in it
    end = {"timestamp": 9_000.0, "bytesReceived": 1_900_000}
    assert rate_kbit_s(start, end) == 2000
    with pytest.raises(ValueError, match="apart"):
        rate_kbit_s(start, start)


def test_a_repeated_picture_is_no_second_sample() -> None:
    stamps = ticks(200)
    rows = seen(stamps)
    again = [Shown(row.number, row.presented + 20) for row in rows[100:110]]
    found = figures(sorted(rows + again, key=lambda row: row.presented), stamps, SECONDS)
    assert found["samples"] == 125 and found["fps"] == pytest.approx(25)
    assert found["presented"]["max"] == 10


def test_the_baseline_has_two_stages() -> None:
    stamps = {n: Stamps(at.due, at.start) for n, at in ticks(200).items()}
    stages = figures(seen(ticks(200)), stamps, SECONDS)["stages"]
    assert {name: values["p50"] for name, values in stages.items()} == {"to_receive": 9, "show": 1}


def test_without_a_browser_the_way_and_the_decoder_are_one_stage() -> None:
    stamps = ticks(200)
    rows = [Shown(row.number, row.presented) for row in seen(stamps)]
    found = figures(rows, stamps, SECONDS)
    assert found["called"] is None
    assert found["stages"]["wire_decode"]["p50"] == 4


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(ValueError, match="no frame"):
        figures([], {}, SECONDS)
    with pytest.raises(ValueError, match="bears a number"):
        figures(seen(ticks(100)), {}, SECONDS)


def row(path: str, p50: float, p95: float, **more: object) -> dict:
    base = {"path": path, "codec": "H264", "case": "512@30", "model": "testcard", "browser": True}
    both = {"presented": {"p50": p50, "p95": p95}, "called": {"p50": p50 + 8, "p95": p95 + 16}}
    counts = {"samples": 300, "missed": 0, "undrawn": 0, "unreadable": 0, "keyframes": 1}
    rates = {"fps": 30.0, "kbit_s": 2000.0, "target_kbit_s": 2000, "join_ms": 100.0}
    return {**base, **both, **counts, **rates, **more}


def judged(*results: dict) -> dict[str, bool]:
    return {v.what: v.passed for v in verdicts(results)}


def test_goals_are_judged_by_the_median_p50_and_the_worst_p95() -> None:
    results = [row("ours", p50, p95) for p50, p95 in ((4, 7), (9, 19), (5, 8))]
    results += [row("stock", 30, 50), row("stock", 24, 40), row("stock", 26, 60)]
    found = {v.what: (v.value, v.passed) for v in verdicts(results)}
    assert found["presented p50, ms"] == (5, True)
    assert found["presented p95, ms"] == (19, True)
    assert found["stock p50 / ours, presented"] == (pytest.approx(5.2), True)
    assert found["stock p50 / ours, called"] == (pytest.approx(34 / 13), True)
    assert found["join, ms"] == (100, True)
    assert all(passed for _, passed in found.values()) and len(found) == 10


@pytest.mark.parametrize(
    ("what", "wrong"),
    (
        ("presented p50, ms", {"presented": {"p50": 8.1, "p95": 19}}),
        ("presented p95, ms", {"presented": {"p50": 4, "p95": 20.1}}),
        ("stock p50 / ours, presented", {"presented": {"p50": 7.6, "p95": 19}}),
        ("stock p50 / ours, called", {"called": {"p50": 35, "p95": 40}}),
        ("frames/s", {"fps": 29.0}),
        ("missed, %", {"samples": 290, "missed": 10}),
        ("unreadable, %", {"unreadable": 4}),
        ("keyframes", {"keyframes": 2}),
        ("rate / target", {"kbit_s": 2250.0}),
        ("join, ms", {"join_ms": 401.0}),
    ),
)
def test_each_missed_goal_fails_alone(what: str, wrong: dict) -> None:
    beside = [row("stock", 30, 50)] if "stock" in what else []
    found = judged(row("ours", 4, 7, **wrong), *beside)
    assert [name for name, passed in found.items() if not passed] == [what]


def test_one_bad_round_is_not_hidden_by_a_good_one() -> None:
    bad = row("ours", 4, 7, missed=30, unreadable=9, keyframes=3, kbit_s=2500.0)
    found = judged(row("ours", 4, 7), bad, row("ours", 4, 7))
    failed = {name for name, passed in found.items() if not passed}
    assert failed == {"missed, %", "unreadable, %", "keyframes", "rate / target"}


def test_vp8_may_have_a_second_keyframe() -> None:
    assert judged(row("ours", 4, 7, codec="VP8", keyframes=2))["keyframes"]
    assert not judged(row("ours", 4, 7, codec="VP8", keyframes=3))["keyframes"]


def test_a_model_is_judged_by_what_comes_after_its_render() -> None:
    model = {"model": "default", "stages": {"render": {"p50": 11.0}}, "fps": 24.5}
    slow = {"samples": 245, "missed": 55, "undrawn": 50}  # what it skips, frames/s judges
    found = judged(row("ours", 22.9, 40, **model, **slow))
    assert list(found) == [
        "presented - render p50, ms",
        "frames/s",
        "drawn and not seen, %",
        "unreadable, %",
        "keyframes",
        "rate / target",
        "join, ms",
    ]
    assert all(found.values())
    late = judged(row("ours", 23.1, 40, **{**model, "fps": 23.9}, **{**slow, "undrawn": 40}))
    assert [name for name, passed in late.items() if not passed] == list(found)[:3]


def test_another_receiver_is_not_judged() -> None:
    assert verdicts([row("ours", 4, 7, browser=False)]) == []


def test_doubtful_results_say_why() -> None:
    assert doubts(row("ours", 4, 7)) == []
    assert len(doubts(row("ours", 4, 7, samples=20, missed=5, unreadable=9))) == 3
    assert unsteady([row("ours", 4, 7), row("ours", 5, 7)]) == []
    assert "4.0 and 6.0" in unsteady([row("ours", 4, 7), row("ours", 6, 7)])[0]


def test_paths_are_interleaved_and_take_turns_in_being_first() -> None:
    given = latency.arguments(["--rounds", "2", "--cases", "256@30", "--codecs", "VP8"])
    assert [(round_, path) for round_, path, _ in latency.plan(given)] == [
        (0, "ours"),
        (0, "stock"),
        (1, "stock"),
        (1, "ours"),
    ]


def test_only_the_test_picture_has_a_baseline() -> None:
    plan = latency.plan(latency.arguments(["--model", "default"]))
    assert {path for _, path, _ in plan} == {"ours"}
    assert {case.name for _, _, case in plan} == {"256@30"}


@pytest.mark.parametrize("wrong", (["--cases", "big"], ["--codecs", "AV1"]))
def test_a_wrong_case_or_codec_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        latency.arguments(wrong)


def test_a_tiny_run_without_a_browser(tmp_path: Path) -> None:
    """The real server and the baseline, each watched by an aiortc client, as a bare script."""
    out = tmp_path / "latency.json"
    command = [sys.executable, str(ROOT / "bench" / "latency.py"), "--quick", "--no-browser"]
    options = ["--codecs", "VP8", "--seconds", "1.5", "--json", str(out)]
    child = subprocess.Popen(
        [*command, *options], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        printed = child.communicate(timeout=150)[0].decode()
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)  # it ends its servers; killed, it would leave them
            child.communicate(timeout=60)
    assert child.returncode == 0, printed
    assert "machine" in printed and "only" in printed  # a warning: few samples
    content = json.loads(out.read_text())
    assert content["benchmark"] == "latency"
    ours, stock = content["results"]
    assert (ours["path"], stock["path"]) == ("ours", "stock")
    for result in (ours, stock):
        assert result["samples"] > 10 and result["unreadable"] <= 2
        assert 0 < result["presented"]["p50"] < 1000
    assert set(ours["stages"]) >= {"render", "encode", "publish"}
