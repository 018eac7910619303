"""The training benchmark: a tiny real run, and what its rows say."""

from __future__ import annotations

import json

import pytest

from bench import training


def test_a_short_run_measures_steps_phases_and_states(tmp_path, capsys):
    out = tmp_path / "training.json"
    flags = ["--cases", "tiny", "--seconds", "0.1", "--set", "batch.size=4", "--json", str(out)]
    assert training.main(flags) == 0
    shown = capsys.readouterr().out
    assert "machine" in shown and "only" in shown and "samples" in shown  # too few: it says so
    (row,) = json.loads(out.read_text())["results"]
    assert row["case"] == "tiny" and row["clips"] == 4 and row["parameters"] == 78577
    phases = row["phase_ms_per_step"]
    assert {"Gmain", "Dmain"} <= set(phases) and all(ms > 0 for ms in phases.values())
    assert sum(phases.values()) < 1.5 * row["step_ms"]["max"]
    assert row["frames_per_second"] == pytest.approx(12e3 / row["step_ms"]["p50"], rel=0.01)
    assert 1.0 < row["state_mb"] < 1.3 and row["state_ms"] > 0
