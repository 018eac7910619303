"""`stylewire heads`: each task from its flags to its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.__main__ import main as models_main
from models.commands.heads import main, parser
from models.training.heads import check

SMALL = ["--size", "64", "--samples", "1"]


def test_render_writes_clips_and_a_second_call_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["render", "--seconds", "0.12", "--out", str(tmp_path / "clips"), *SMALL]
    assert main([*arguments, "--clips", "1", "--seed", "4"]) == 0
    assert "1 clips written, 0 were there" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "clips").iterdir()}
    assert names == {"clip-00000.mp4", "clip-00000.npz", "labels.json"}
    assert json.loads((tmp_path / "clips/labels.json").read_text())["recipe"]["seed"] == 4
    assert main([*arguments, "--clips", "1", "--seed", "4"]) == 0
    assert "0 clips written, 1 were there" in capsys.readouterr().out


def test_check_counts_faults_and_its_status_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--frames", "6"]) == 0
    assert "6 frames of 1 people, 0 faults" in capsys.readouterr().out
    monkeypatch.setattr(check, "_LEAST_SKIN", 0.99)  # no head is so near
    assert main(["check", "--frames", "3", *SMALL]) == 65
    out = capsys.readouterr().out
    assert "3 frames of 1 people, 3 faults" in out
    assert "person 0, moment 2: too little or too much skin" in out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["render", "--kind", "heads:all", "--out", "OUT"], 78, "heads are heads:open"),
        (["render", "--seconds", "0", "--out", "OUT"], 78, "0 frames each"),
        (["check", "--frames", "0"], 78, "--frames is 0"),
        (["check", "--facekit", "OUT/none.npz"], 65, "none.npz"),
        (["pack", "OUT/none", "--out", "OUT/kit.npz"], 65, "none"),
    ],
)
def test_trouble_is_one_sentence_and_a_status(
    arguments: list[str],
    status: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [word.replace("OUT", str(tmp_path)) for word in arguments]
    assert models_main(["heads", *given]) == status
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_every_task_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for task in ("pack", "render", "sheet", "check"):
        with pytest.raises(SystemExit) as ended:
            parser().parse_args([task, "--help"])
        assert ended.value.code == 0
        assert "--out" in capsys.readouterr().out or task == "check"
