"""`stylewire evaluate`: from flags to lines and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.__main__ import main as models_main


def test_from_the_command_line_to_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tide.json"
    arguments = ["evaluate", "tide", "--metrics", "fid", "--clips", "2", "--json", str(out)]
    assert models_main([*arguments, "--data", "heads:cast"]) == 0
    shown = capsys.readouterr().out
    assert "tide, 256 px, not trained" in shown and "fid2" in shown
    assert json.loads(out.read_text())["fid"]["real"] == 2
    assert models_main([*arguments, "--data", str(tmp_path / "none")]) == 78
    assert models_main(["evaluate", "nobody"]) == 65
    assert "no model is called 'nobody'" in capsys.readouterr().err.replace("\n", " ")
