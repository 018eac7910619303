"""Windows, rates of now, and the bottleneck in words."""

import tracemalloc

import numpy as np
import pytest

from realtime.stats import (
    Load,
    Recent,
    StageTimes,
    Window,
    bitrate_words,
    bottleneck,
    on_time_ratio,
    process_numbers,
)


def test_percentiles_are_of_the_last_samples_only() -> None:
    window = Window(100)
    for value in range(1000):
        window.add(value)
    assert window.percentile(50) == pytest.approx(np.percentile(np.arange(900, 1000), 50))
    assert window.summary() == {"p50": 949.5, "p95": 994.05, "p99": 998.01, "max": 999.0, "n": 100}
    assert len(window) == 100 and window.count == 1000


def test_an_empty_window_says_none() -> None:
    window = Window(4)
    assert window.percentile(50) is None
    assert window.summary() == {"p50": None, "p95": None, "p99": None, "max": None, "n": 0}
    window.add(3.0)
    window.clear()
    assert window.summary()["n"] == 0


def test_a_partly_filled_window_does_not_count_empty_places() -> None:
    window = Window(100)
    window.add(7.0)
    assert window.percentile(1) == 7.0


def test_memory_does_not_grow() -> None:
    times = StageTimes(64)
    stamps = {"due": 0, "sampled": 10**6, "rendered": 2 * 10**6, "encoded": 3 * 10**6, "sent": 4}
    times.add(stamps)
    tracemalloc.start()
    for _ in range(20_000):
        times.add(stamps)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000


def test_stages_are_differences_of_stamps_in_ms() -> None:
    times = StageTimes()
    ms = 1_000_000
    times.add(
        {"due": 0, "sampled": 2 * ms, "rendered": 12 * ms, "encoded": 15 * ms, "sent": 16 * ms}
    )
    p50 = {name: window["p50"] for name, window in times.as_dict().items()}
    assert p50 == {"wait": 2, "render": 10, "encode": 3, "send": 1, "total": 16}


def test_a_missing_stamp_leaves_its_stages_out() -> None:
    times = StageTimes()
    times.add({"sampled": 0, "rendered": 10**6})
    assert len(times["render"]) == 1 and len(times["encode"]) == 0


def test_recent_counts_only_the_last_snapshots() -> None:
    recent = Recent(depth=2)
    for second in range(10):
        recent.push(second * 10**9, {"due": 30 * second, "late": second // 9})
    assert recent.since() == (2.0, {"due": 60, "late": 1})
    assert Recent().since() == (0.0, {})


def test_on_time_ratio() -> None:
    assert on_time_ratio({"due": 100, "late": 3, "dropped": 2, "repeated": 1}) == pytest.approx(
        0.94
    )
    assert on_time_ratio({}) == 1.0
    assert on_time_ratio({"due": 1, "late": 5}) == 0.0


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (Load(interval=33.3), "Nothing: every frame is on time."),
        (
            Load(interval=33.3, on_time=0.2, render_p50=41, render_p95=60),
            "Synthesis takes 41 ms of the 33 ms a frame has: "
            "choose a lower frame rate or a lighter model.",
        ),
        (
            Load(interval=33.3, on_time=0.9, render_p50=20, render_p95=45),
            "Synthesis takes 20 ms mostly but 45 ms at times, and a frame has 33 ms: choose a "
            "lower frame rate or a lighter model, or stop what else runs on this machine.",
        ),
        (
            Load(interval=16.7, on_time=0.5, render_p50=5, encode_p50=20, encode_p95=30),
            "Encoding takes 20 ms of the 17 ms a frame has: "
            "choose a lower resolution or frame rate.",
        ),
        (
            Load(interval=33.3, on_time=0.8, wait_p95=50, render_p50=5, render_p95=9),
            "20 % of the frames are late, frames start up to 50 ms late: "
            "the machine is busy with something else.",
        ),
        (
            Load(interval=33.3, on_time=0.8, wait_p95=50, render_p50=5, sessions=2),
            "Frames wait up to 50 ms while another session draws: "
            "end one, or choose a lower resolution or frame rate.",
        ),
        (
            Load(interval=33.3, on_time=0.8, wait_p95=50, render_p50=5, sessions=4),
            "Frames wait up to 50 ms while 3 other sessions draw: "
            "end one, or choose a lower resolution or frame rate.",
        ),
        (
            Load(interval=33.3, on_time=0.8, wait_p95=4, render_p50=5, sessions=2),
            "20 % of the frames are late, frames start up to 4 ms late: "
            "the machine is busy with something else.",
        ),
        (
            Load(interval=33.3, on_time=0.972),
            "Nothing limits it: 97 % of frames are on time.",
        ),
        (
            Load(interval=33.3, on_time=0.9999),
            "Nothing limits it: 99 % of frames are on time.",
        ),
        (
            Load(interval=33.3, ceiling=2_000_000, target=400_000),
            "The network estimate limits the picture to 400 kbit/s.",
        ),
        (
            Load(interval=33.3, loss=0.12, ceiling=2_000_000, target=400_000),
            "The network loses 12 % of the packets: lower the bitrate.",
        ),
        (
            Load(interval=33.3, overflows=2),
            "The connection does not keep up: frames are left out until it recovers.",
        ),
        (
            Load(interval=33.3, starved=True, overflows=2),
            "The connection takes less than the least that is sent: use a faster network.",
        ),
        (
            Load(interval=33.3, ceiling=2_000_000, target=1_900_000),
            "Nothing: every frame is on time.",
        ),
    ],
)
def test_bottleneck_in_words(load: Load, words: str) -> None:
    assert bottleneck(load) == words


def test_bitrate_words() -> None:
    assert [bitrate_words(v) for v in (400_000, 999_400, 1_000_000, 2_540_000)] == [
        "400 kbit/s",
        "999 kbit/s",
        "1 Mbit/s",
        "2.54 Mbit/s",
    ]


async def test_process_numbers() -> None:
    numbers = process_numbers()
    assert numbers["tasks"] == 1 and (numbers["threads"] or 0) >= 1
    assert numbers["fds"] is None or numbers["fds"] > 2
