"""`python -m models convert | sample`, as a person meets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.__main__ import main
from models.pickle_import import convert
from models.registry import names

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "goldens" / "pickles"
TINY = GOLDENS / "malicious_module_src.pkl"  # a sound network with hostile source text


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, and a cache of its own outside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "here"


def test_convert_prints_what_was_found_and_writes_here(here, capsys):
    assert main(["convert", str(GOLDENS / "pickle_r.pkl")]) == 0
    out, errors = capsys.readouterr()
    assert "stylegan3" in out and "32 x 32" in out and "labels      2" in out
    assert "non-commercial" in out and "pickle_r.json" in out
    assert errors == ""
    assert sorted(path.name for path in here.iterdir()) == [
        "pickle_r.json",
        "pickle_r.safetensors",
    ]


def test_a_folder_that_is_not_there_yet_is_made(here):
    assert main(["convert", str(GOLDENS / "pickle_r.pkl"), "--out", "checkpoints/"]) == 0
    assert sorted(path.name for path in (here / "checkpoints").iterdir()) == [
        "pickle_r.json",
        "pickle_r.safetensors",
    ]


def test_a_refused_file_is_one_line_and_status_65(here, capsys):
    status = main(["convert", str(GOLDENS / "malicious_in_state.pkl"), "--out", "x/y"])
    out, errors = capsys.readouterr()
    assert status == 65 and out == ""
    assert errors.startswith("refused: CKPT_FORBIDDEN_GLOBAL: ") and errors.count("\n") == 1
    assert "Traceback" not in errors
    assert not list(here.iterdir())


def test_the_program_itself_exits_with_65(here):
    done = subprocess.run(
        [sys.executable, "-m", "models", "convert", "none.pkl"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 65
    assert done.stderr.startswith("refused: CKPT_NOT_FOUND: ") and done.stderr.count("\n") == 1


def test_another_network_and_a_limit_can_be_asked_for(here, capsys):
    assert main(["convert", str(TINY), "--max-bytes", "1000"]) == 65
    assert "CKPT_TOO_BIG" in capsys.readouterr().err
    assert main(["convert", str(TINY), "--which", "H"]) == 65
    assert "--which" in capsys.readouterr().err


def test_sample_draws_the_same_frame_twice_and_another_one_later(here, capsys):
    convert(GOLDENS / "snapshot.pkl", here / "v")
    for name, t in (("a", "1.5"), ("b", "1.5"), ("c", "2.5")):
        command = ["sample", "--seed", "3", "--t", t, "--out", f"{name}.png"]
        assert main([*command, "--model", "v.json"]) == 0
    assert "written  c.png (v)" in capsys.readouterr().out
    a, b, c = ((here / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c
    picture = cv2.imread(str(here / "a.png"))
    assert picture.shape == (32, 32, 3) and picture.std() > 5


def test_sample_resizes_and_makes_the_folder(here):
    convert(TINY, here / "net")
    assert main(["sample", "--out", "p/q.png", "--model", "net", "--resolution", "40"]) == 0
    assert cv2.imread("p/q.png").shape == (40, 40, 3)
    assert main(["sample", "--out", "p/r.png", "--model", "net"]) == 0
    small, large = cv2.imread("p/r.png").astype(float), cv2.imread("p/q.png").astype(float)
    assert np.abs(small.mean((0, 1)) - large.mean((0, 1))).max() < 6
    assert sorted(path.name for path in (here / "p").iterdir()) == ["q.png", "r.png"]


def test_sample_converts_a_pickle_once(here, capsys):
    for _ in range(2):
        assert main(["sample", "--out", "a.png", "--model", str(TINY)]) == 0
    errors = capsys.readouterr().err
    assert errors.count("converting it once") == 1
    assert errors.count("using its conversion") == 1
    assert [path.name for path in here.iterdir()] == ["a.png"]


def test_sample_uses_truncation(here):
    convert(GOLDENS / "pickle_t.pkl", here / "net")
    for psi in ("0.2", "1"):
        assert main(["sample", "--out", f"{psi}.png", "--model", "net", "--psi", psi]) == 0
    assert Path("0.2.png").read_bytes() != Path("1.png").read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "a.jpg"], ".png"),
        (["--out", "a.png", "--resolution", "5"], "8 to 4096"),
        (["--out", "a.png", "--t", "nan"], "finite"),
        (["--out", "a.png", "--model", "nobody"], "nobody"),
        (["--out", "a.png", "--seed", "-1"], "seed"),
    ],
)
def test_sample_says_what_is_wrong_in_one_line(here, capsys, options, words):
    convert(TINY, here / "net")
    model = [] if "--model" in options else ["--model", "net"]
    assert main(["sample", *model, *options]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("failed: ") and words in errors and errors.count("\n") == 1
    assert not list(here.glob("a.*"))


@pytest.mark.parametrize(
    "options",
    [
        ["sample", "--model", "net", "--out", "afile/x.png"],
        ["sample", "--model", "net", "--out", "folder.png"],
        ["convert", str(TINY), "--out", "afile/y"],
        ["convert", str(TINY), "--out", "afile/y/z"],
        ["convert", str(TINY), "--out", "n" * 300],
    ],
)
def test_what_cannot_be_written_is_one_line(here, capsys, options):
    convert(TINY, here / "net")
    (here / "afile").touch()
    (here / "folder.png").mkdir()
    before = sorted(here.rglob("*"))
    assert main(options) == 1
    out, errors = capsys.readouterr()
    assert errors.startswith("failed: ") and errors.count("\n") == 1 and out == ""
    assert sorted(here.rglob("*")) == before


def test_what_the_machine_refuses_is_one_line(here, capsys, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", "cache")

    monkeypatch.setattr("models.__main__.cached", refuse)
    (here / "a.pkl").touch()
    assert main(["sample", "--model", "a.pkl", "--out", "a.png"]) == 1
    assert capsys.readouterr().err == "failed: cache: Permission denied\n"


def test_a_shipped_model_wins_over_a_file_of_its_name(here, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("models.sample.draw", lambda model, *rest: shown.append(model) or "drawn")
    for name in (names()[0], "default", "other"):
        (here / name).write_bytes(TINY.read_bytes())
        assert main(["sample", "--model", name, "--out", "a.png"]) == 0
    assert shown[:2] == [names()[0], "default"] and shown[2].endswith("other.json")


def test_help_is_there(capsys):
    for command in ([], ["convert"], ["sample"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
        assert ended.value.code == 0
    assert "--psi" in capsys.readouterr().out
