"""report.py: the README shows exactly what was measured, or the check fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import harness, report

ROOT = Path(__file__).resolve().parents[2]

README = "# Title\n\n<!-- bench:fps -->\nold\n<!-- /bench:fps -->\n\nAfter.\n"
MACHINE = {"cpu": "A | B", "cores": 2, "gpu": None, "python": "3.11.7", "torch": "2.13.0"}


def fps_row(**changes: Any) -> dict[str, Any]:
    row = {
        "model": "aurora",
        "trained": False,
        "backend": "cpu",
        "resolution": 256,
        "fps": 41.26,
        "p50_ms": 23.9,
        "p95_ms": 26.0,
        "p99_ms": 9.123,
        "gflop_per_frame": 2.5,
        "gflop_per_s": 103.2,
        "warnings": [],
    }
    return {**row, **changes}


def envelope(benchmark: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": harness.FORMAT,
        "benchmark": benchmark,
        "command": "python bench/fps.py",
        "date": "2026-01-31",
        "commit": {"id": "0123456789ab", "dirty": False},
        "machine": MACHINE,
        "notes": ["A note."],
        "warnings": [],
        "results": rows,
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(README)
    harness.write_json(tmp_path / "results" / "fps.json", envelope("fps", [fps_row()]))
    return tmp_path


def run(place: Path, *more: str) -> int:
    where = ["--readme", str(place / "README.md"), "--results", str(place / "results")]
    return report.main([*where, *more])


def test_writes_the_table_between_the_markers_and_nothing_else(place: Path) -> None:
    assert run(place) == 0
    text = (place / "README.md").read_text()
    assert text.startswith("# Title\n\n<!-- bench:fps -->\n") and text.endswith("\n\nAfter.\n")
    assert "| aurora † | cpu | 256² | 41.3 | 23.9 / 26.0 / 9.12 | 2.50 | 103 |" in text
    assert "commit 0123456789ab, 2026-01-31." in text and "A note." in text
    assert "† seeded random weights" in text and "unsteady" not in text and "old" not in text


def test_check_fails_until_the_readme_is_written_and_changes_nothing(place: Path) -> None:
    assert run(place, "--check") == 1
    assert (place / "README.md").read_text() == README
    assert run(place) == 0
    assert run(place, "--check") == 0


def test_check_fails_after_a_new_measurement(place: Path) -> None:
    run(place)
    harness.write_json(place / "results" / "fps.json", envelope("fps", [fps_row(fps=1.0)]))
    assert run(place, "--check") == 1


def test_unsteady_rows_and_local_changes_show(place: Path) -> None:
    content = envelope("fps", [fps_row(warnings=["spread"], trained=True)])
    content["commit"]["dirty"] = True
    harness.write_json(place / "results" / "fps.json", content)
    run(place)
    text = (place / "README.md").read_text()
    assert "| 41.3 \\* |" in text and "unsteady" in text and "with local changes" in text
    assert "†" not in text


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"fps": "fps", "other": "kernels"}, "no markers for kernels"),
        ({"odd": "weather"}, "benchmark 'weather'; known are"),
    ],
)
def test_results_without_a_place_are_an_error(
    place: Path, files: dict[str, str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "results" / "fps.json").unlink()
    for name, benchmark in files.items():
        rows = [fps_row()] if benchmark == "fps" else []
        harness.write_json(place / "results" / f"{name}.json", envelope(benchmark, rows))
    assert run(place) == 2
    assert sentence in capsys.readouterr().err


def test_what_was_not_measured_says_so_instead_of_an_old_table(place: Path) -> None:
    run(place)
    (place / "results" / "fps.json").unlink()
    assert run(place, "--check") == 1
    assert run(place) == 0
    text = (place / "README.md").read_text()
    assert "Not measured yet: `python bench/fps.py" in text and "aurora" not in text


def test_a_kernels_error_carries_its_unit(place: Path) -> None:
    common = {"op": "an_op", "case": "1x1", "implementation": "auto", "warnings": []}
    figures = {"p50_ms": 1.0, "gb_per_s": 2.0, "speedup": 3.0}
    errors = [{"error": 2.44e-7, "error_unit": "relative"}, {"error": 1.0, "error_unit": "levels"}]
    rows = [common | figures | error for error in errors]
    (place / "results" / "fps.json").unlink()
    (place / "README.md").write_text(README.replace("bench:fps", "bench:kernels"))
    harness.write_json(place / "results" / "kernels.json", envelope("kernels", rows))
    assert run(place) == 0
    text = (place / "README.md").read_text()
    assert "| auto | 2.4e-07 relative | 1.000 |" in text and "| auto | 1 level | 1.000 |" in text


def latency_row(path: str, round_: int, p50: float, p95: float) -> dict[str, Any]:
    times = {"p50": p50, "p95": p95, "p99": p95, "max": p95}
    stages = {"render": times, "encode": times} if path == "ours" else {"show": times}
    common = {"model": "testcard", "case": "256@30", "codec": "H264", "round": round_}
    counts = {"samples": 300, "missed": 2, "fps": 30.0 - round_, "warnings": []}
    return {**common, **counts, "path": path, "presented": times, "called": None, "stages": stages}


def test_latency_rounds_become_one_row_with_the_baseline_beside_it(place: Path) -> None:
    rows = [latency_row("ours", 0, 4.0, 7.0), latency_row("stock", 0, 30.0, 60.0)]
    rows += [latency_row("ours", 1, 6.0, 9.0), latency_row("stock", 1, 40.0, 50.0)]
    goals = [
        {"case": "H264", "what": "p50", "value": 5.0, "passed": True},
        {"case": "H264", "what": "join, ms", "value": 500.0, "passed": False},
    ]
    content = {**envelope("latency", rows), "goals": goals}
    (place / "results" / "fps.json").unlink()
    (place / "README.md").write_text(README.replace("bench:fps", "bench:latency"))
    harness.write_json(place / "results" / "latency.json", content)
    assert run(place) == 0
    text = (place / "README.md").read_text()
    stages = "5.0 + 5.0 + – + – + –"
    row = f"| testcard 256@30 H264 | 5.0 / 9.0 | 35.0 / 60.0 | 7.0 | – | – | – | {stages} |"
    assert f"{row} 29.5 | 600 | 4 |" in text
    assert "1 of 2 goals reached. Not reached: H264: join, ms 500.0." in text


def test_figures_of_the_fused_way_have_columns_and_empty_columns_do_not(place: Path) -> None:
    ratio = {"median": 12.34, "q1": 11.9, "q3": 13.0}
    common = {"launches": 33, "gb_per_frame": 0.0537, "roofline_percent": 41.2}
    ours = fps_row(precision="bf16", psnr_db=55.3, vs_official=ratio, vs_compile=None, **common)
    plain = fps_row(backend="official order", precision="", psnr_db=302.0, i420_psnr_db=None)
    bytes_only = fps_row(backend="eager", precision="", psnr_db=None, i420_psnr_db=92.0)
    rows = [ours, plain, bytes_only]
    harness.write_json(place / "results" / "fps.json", envelope("fps", rows))
    assert run(place) == 0
    text = (place / "README.md").read_text()
    assert "| cpu bf16 |" in text and "| 33 | 41 | 55 | 12.3 (11.9–13.0) |" in text
    assert "| – | – | – | exact | – |" in text and "92 (I420)" in text
    assert "CUDA graph" not in text and "torch.compile" not in text


def pipeline_row() -> dict[str, Any]:
    stage = {"p50": 0.4, "p95": 0.6, "p99": 0.9, "max": 2.0}
    stages = {name: stage for name in ("whole", "handed", "encoder", "sent", "codec_call")}
    held = {"peak_bytes_p99": 50_000, "picture_bytes": 393_216}
    about = {"codec": "VP8", "size": 512, "packets_per_frame": 7.4, "frames": 1000}
    return {**about, **stages, "memory": held, "warnings": []}


def test_the_way_to_the_socket_has_a_table(place: Path) -> None:
    goal = {"case": "VP8 512", "what": "p50, ms", "value": 0.62, "goal": 0.5, "passed": False}
    content = {**envelope("pipeline", [pipeline_row()]), "goals": [goal]}
    (place / "results" / "fps.json").unlink()
    (place / "README.md").write_text(README.replace("bench:fps", "bench:pipeline"))
    harness.write_json(place / "results" / "pipeline.json", content)
    assert run(place) == 0
    text = (place / "README.md").read_text()
    assert "| VP8 512² | 0.40 / 0.60 / 0.90 | 0.40 | 0.40 | 0.40 | 0.40 | 7 | 50 of 393 |" in text
    assert "Not reached: VP8 512: p50, ms 0.62." in text


def test_a_gpus_frames_have_a_table_and_its_other_stages_do_not(place: Path) -> None:
    ratio = {"median": 4.2, "q1": 4.1, "q3": 4.3}
    frames = {"model": "stylegan3-t-256", "resolution": 256, "must_ms": 1.25, "stretch_ms": 1.0}
    times = {"p50_ms": 1.1, "p95_ms": 1.2, "p99_ms": 1.3, "engine_ms": 1.15, "warnings": []}
    row = {"stage": "frames", **frames, **times, "vs_eager": ratio, "baseline": "official order"}
    content = envelope("gpu", [row, {"stage": "replays", "replays": 10_000, "warnings": []}])
    (place / "results" / "fps.json").unlink()
    (place / "README.md").write_text(README.replace("bench:fps", "bench:gpu"))
    harness.write_json(place / "results" / "gpu.json", content)
    assert run(place) == 0
    text = (place / "README.md").read_text()
    assert "| stylegan3-t-256 | 256² | 1.10 / 1.20 / 1.30 | 1.25 / 1.0 | 1.15 |" in text
    assert "4.2 (4.1–4.3)" in text and "replays" not in text


def test_the_official_order_has_no_error_of_its_own(place: Path) -> None:
    figures = {"p50_ms": 1.0, "gb_per_s": 2.0, "speedup": 1.0, "warnings": []}
    row = {"op": "an_op", "case": "1x1", "implementation": "official order", **figures}
    (place / "results" / "fps.json").unlink()
    (place / "README.md").write_text(README.replace("bench:fps", "bench:kernels"))
    rows = [{**row, "error": None}, {**row, "error": 1.0, "error_unit": "levels"}]
    harness.write_json(place / "results" / "kernels.json", envelope("kernels", rows))
    assert run(place) == 0
    assert "| official order | – | 1.000 |" in (place / "README.md").read_text()


def test_the_projects_readme_shows_the_stored_results() -> None:
    assert report.main(["--check"]) == 0
