"""bench/heads.py: what it prints and writes."""

from __future__ import annotations

import json

import pytest

from bench import heads


def test_a_run_writes_a_row_for_each_case(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(heads, "PEOPLE", 1)
    monkeypatch.setattr(heads, "FRAMES_EACH", 3)
    status = heads.main(["--goals", "--json", str(tmp_path / "out.json")])
    written = json.loads((tmp_path / "out.json").read_text())
    assert [row["case"] for row in written["results"]] == ["128/1", "256/2", "person"]
    assert all(row["p50_ms"] > 0 for row in written["results"])
    assert [goal["goal"] for goal in written["goals"]] == [150.0, 45.0]
    assert status == int(not all(goal["passed"] for goal in written["goals"]))
    assert "goals reached" in capsys.readouterr().out


def test_help_says_what_is_timed(capsys):
    with pytest.raises(SystemExit):
        heads.main(["--help"])
    assert "process_time" in capsys.readouterr().out
