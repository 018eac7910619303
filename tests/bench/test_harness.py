"""The harness: exact statistics, warnings that speak, results that carry their machine."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench import harness


@pytest.mark.parametrize("q", [0, 1, 37.5, 50, 95, 99, 100])
def test_percentile_equals_numpys(q: float) -> None:
    samples = np.random.default_rng(1).exponential(size=101).tolist()
    assert harness.percentile(samples, q) == pytest.approx(np.percentile(samples, q), rel=1e-12)


def test_percentile_of_one_sample_is_it_and_of_none_is_refused() -> None:
    assert harness.percentile([3.0], 99) == 3.0
    with pytest.raises(ValueError, match="no samples"):
        harness.percentile([], 50)
    with pytest.raises(ValueError, match="101"):
        harness.percentile([1.0], 101)


def test_steady_samples_give_no_warning() -> None:
    samples = [10 + 0.1 * (i % 3) for i in range(100)]
    assert harness.instabilities(samples) == []
    assert harness.instabilities([*samples * 10, 99.0]) == []  # one preemption among a thousand


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        ([10.0] * 5, "only 5 samples"),
        ([5.0, 15.0] * 30, "spread"),
        ([10.0] * 196 + [25.0] * 4, "tail"),
        ([10.0] * 50 + [11.0] * 50, "drift"),
    ],
)
def test_each_kind_of_unstable_result_is_named(samples: list[float], word: str) -> None:
    assert any(word in warning for warning in harness.instabilities(samples))


def test_a_busy_machine_is_said() -> None:
    assert harness.busy({"cores_busy": 0.1, "cores": 2}) == []
    assert harness.busy({"cores_busy": None, "cores": 2}) == []
    (warning,) = harness.busy({"cores_busy": 0.5, "cores": 2})
    assert "50% of 2 cores" in warning


def test_what_others_use_of_the_cores_is_a_share() -> None:
    about = harness.machine()
    assert about["cores_busy"] is None or 0 <= about["cores_busy"] <= 1


class Clock:
    """A clock that moves only when what is timed moves it."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def test_measure_times_each_call_including_the_device() -> None:
    clock = Clock()
    order = []

    def call() -> None:
        order.append("call")
        clock.now += 2_000_000

    def sync() -> None:
        order.append("sync")
        clock.now += 500_000

    samples = harness.measure(call, seconds=0.05, warmup_s=0, least=3, sync=sync, clock=clock)
    assert samples == [2.5] * len(samples)
    assert len(samples) == 17  # 3 ms a round, and a round begun before 50 ms is finished
    assert order[3:6] == ["sync", "call", "sync"]  # after three warm-up calls


def test_measure_leaves_what_goes_before_a_call_out_of_its_time() -> None:
    clock, order = Clock(), []

    def put_back() -> None:
        order.append("before")
        clock.now += 5_000_000

    def call() -> None:
        order.append("call")
        clock.now += 2_000_000

    samples = harness.measure(call, seconds=0, warmup_s=0, least=3, before=put_back, clock=clock)
    assert samples == [2.0] * 3
    assert order == ["before", "call"] * (len(order) // 2)


def test_measure_takes_the_least_samples_however_slow_and_never_more_than_the_most() -> None:
    clock = Clock()

    def slow() -> None:
        clock.now += 10**10

    assert len(harness.measure(slow, seconds=1, warmup_s=0, least=4, clock=clock)) == 4
    assert len(harness.measure(lambda: None, seconds=1, warmup_s=0, most=7, clock=clock)) == 7


def test_threads_sleep_here_as_they_do_in_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from realtime.__main__ import let_threads_sleep

    def set_by(begin: Callable[[], None], environment: dict[str, str]) -> dict[str, str]:
        monkeypatch.setattr(os, "environ", environment)
        begin()
        monkeypatch.undo()
        return environment

    server, here = set_by(let_threads_sleep, {}), set_by(harness.before_torch, {})
    assert server and server.items() <= here.items()
    assert set_by(harness.before_torch, {"OMP_WAIT_POLICY": "x"})["OMP_WAIT_POLICY"] == "x"


def test_collector_is_off_inside_and_as_before_after() -> None:
    with harness.quiet_collector():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_machine_names_processor_versions_and_nothing_private() -> None:
    about = harness.machine()
    assert about["cpu"] and about["cores"] >= 1 and about["python"] and about["torch"]
    assert len(about["load_average"]) == 3
    text = json.dumps(about)
    assert str(Path.home()) not in text and str(harness.ROOT) not in text
    shown = harness.describe(about, {"id": "abc", "dirty": True})
    assert about["cpu"] in shown and "abc with local changes" in shown


def test_command_line_holds_no_path_of_this_machine(tmp_path: Path) -> None:
    argv = [
        str(harness.ROOT / "bench" / "fps.py"),
        "--json",
        str(tmp_path / "out.json"),
        f"--extra={harness.ROOT / 'a b'}",
        "--seconds",
        "2",
    ]
    shown = harness.command_line(argv)
    assert shown == "python bench/fps.py --json out.json '--extra=a b' --seconds 2"


def test_envelope_survives_a_round_trip_with_its_machine_and_commit(tmp_path: Path) -> None:
    about = harness.machine()
    row = {"system": "x", **harness.summarize([1.0, 2.0, 3.0]).as_dict()}
    content = harness.envelope("fps", [row], about=about, argv=["bench/fps.py"], rounds=3)
    path = tmp_path / "deep" / "fps.json"
    harness.write_json(path, content)
    assert harness.read_json(path) == content
    assert content["results"][0]["p50"] == 2.0 and content["rounds"] == 3
    assert set(content["commit"]) == {"id", "dirty"}
    assert [p.name for p in path.parent.iterdir()] == ["fps.json"]


def test_what_is_no_envelope_is_refused_by_file_name(tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    for text, word in [("{", "not JSON"), ("[]", "no format"), ('{"format": 1}', "no benchmark")]:
        path.write_text(text)
        with pytest.raises(ValueError, match=f"odd.json.*{word}"):
            harness.read_json(path)


def test_not_a_number_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        harness.write_json(tmp_path / "x.json", {"value": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_text_table_lines_up() -> None:
    assert harness.text_table(["a", "b"], [["long", "1"], ["x", "22"]]) == (
        "a      b\nlong   1\nx     22"
    )
