"""fps.py: rows are consistent, the seeded sizes build, and what is random says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import fps, harness, systems
from bench.subjects import Baseline, Subject
from models.checkpoint_config import check_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", list(systems.SEEDED))
def test_every_seeded_size_is_a_configuration_the_loader_accepts(name: str) -> None:
    recipe = systems.SEEDED[name]
    check_config(recipe.family, recipe.config)


@pytest.fixture(scope="module")
def measured() -> tuple[fps.Plan, list[dict]]:
    plan = fps.Plan("cpu", ["eager", "cpu:fp32", "tensorrt"], [64], seconds=0.05)
    results, limits = fps.measure(plan, ["stylegan2-128"], 60.0)
    assert limits.matrix
    return plan, results


def test_rows_are_the_official_order_and_every_way_that_runs_here(measured) -> None:
    plan, rows = measured
    assert [(r["backend"], r["precision"], r["resolution"]) for r in rows] == [
        ("official order", "", 128),
        ("eager", "", 64),
        ("cpu", "fp32", 64),
    ]
    assert plan.wrong == []
    (absent,) = plan.absent
    assert absent.startswith("stylegan2-128: ") and "tensorrt" in absent


def test_a_row_agrees_with_itself(measured) -> None:
    for row in measured[1]:
        assert row["trained"] is False and row["native_resolution"] == 128
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert row["fps_best_block"] >= row["fps"] * 0.99
        assert row["fps"] >= 1000 / row["max_ms"]
        assert row["gflop_per_s"] == pytest.approx(row["gflop_per_frame"] * row["fps"], rel=0.02)
        assert row["frames"] >= 3 * row["blocks"] and row["launches"] > 0
        assert 0 < row["roofline_percent"] and 0 < row["roofline_ms"]


def test_ratios_are_to_the_official_order_and_checks_are_told(measured) -> None:
    base, eager, cpu = measured[1]
    assert base["baseline"] and base["psnr_db"] > 100 and "vs_official" not in base
    for row in (eager, cpu):
        ratio = row["vs_official"]
        assert ratio["q1"] <= ratio["median"] <= ratio["q3"]
        assert row["vs_official_graph"] is None and row["vs_published"] == {}
    assert eager["psnr_db"] is None and eager["i420_psnr_db"] >= 60
    assert cpu["psnr_db"] >= 90
    shown = fps.table(measured[1])
    assert "random weights" in shown and "official order" in shown


def test_what_draws_another_picture_is_named_and_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench import fidelity, subjects

    def wrong(way: str, *rest: object, **more: object) -> Subject:
        raise fidelity.Unfaithful(f"{way}: 12.0 dB")

    monkeypatch.setattr(subjects, "subject", wrong)
    plan = fps.Plan("cpu", ["eager"], seconds=0.02)
    system, bases, made = plan.prepare("stylegan2-128")
    assert made == [] and isinstance(bases[0], Baseline)
    assert plan.wrong == ["stylegan2-128: eager: 12.0 dB"]


def test_no_model_begins_after_the_budget_and_that_is_said() -> None:
    plan = fps.Plan("cpu", ["eager"], seconds=0.01)
    results, _ = fps.measure(plan, ["stylegan2-128", "stylegan3-t-128"], 0.0)
    assert {r["model"] for r in results} == {"stylegan2-128"}
    assert any("budget" in text and "stylegan3-t-128" in text for text in plan.absent)


def test_goals_are_of_the_recommended_configuration_alone() -> None:
    def row(model: str, precision: str, best: float, ratio: float) -> dict:
        times = {"fps_best_block": best, "vs_official": {"median": ratio}}
        return {"model": model, "backend": "cpu", "precision": precision, **times}

    rows = [row("other", "bf16", 1.0, 1.0), row(systems.CPU_CASE, "bf16", 46.0, 7.9)]
    rows.append(row(systems.CPU_CASE, "fp32", 34.0, 9.0))
    found = fps.goals(rows)
    assert [(g.goal, g.passed) for g in found] == [
        (45.0, True),
        (8.0, False),
        (35.0, False),
        (8.0, True),
    ]


def test_sizes_are_parsed_or_refused() -> None:
    assert fps.parser().parse_args(["--resolutions", "256,512"]).resolutions == [256, 512]
    with pytest.raises(SystemExit):
        fps.parser().parse_args(["--resolutions", "255"])


def test_runs_as_a_file_from_elsewhere_and_writes_its_envelope(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "fps.py", "--models", "stylegan2-128", "--seconds", "0.1"]
        + ["--backends", "eager", "--device", "cpu", "--threads", "1", "--json", out],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("machine   ") and "random weights" in done.stdout
    assert "USDT" not in done.stderr  # the profiler's remarks
    content = harness.read_json(out)
    assert content["benchmark"] == "fps" and content["machine"]["torch_threads"] == 1
    assert content["ceilings"]["matrix_tflop_per_s"]["float32"] > 0
    assert content["command"].startswith("python bench/fps.py --models stylegan2-128")
    assert str(tmp_path) not in json.dumps(content)


def test_goals_that_nothing_was_measured_for_are_not_reached(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--goals", "--models", "stylegan2-128", "--backends", "eager"]
    assert fps.main([*arguments, "--device", "cpu", "--seconds", "0.02"]) == 1
    assert "0 of 0 goals reached" in capsys.readouterr().out


def test_an_unknown_model_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert fps.main(["--models", "nobody", "--device", "cpu", "--seconds", "0.01"]) == 2
    assert "nobody" in capsys.readouterr().err
