"""Each example runs as a script, uninstalled, from elsewhere, and does what it says."""

import subprocess
import sys
from pathlib import Path

import av
import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
REHEARSALS = {  # a tiny real run of each
    "clip_to_file.py": ("--model", "testcard", "--seconds", "0.5", "--resolution", "64"),
    "your_own_system.py": ("--seconds", "0.5"),
}


def run(script, *arguments, cwd):
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_rehearsed_short_and_shadows_nothing():
    assert {script.name for script in EXAMPLES} == set(REHEARSALS)
    for script in EXAMPLES:
        assert len(script.read_text().splitlines()) < 60, script.name
        assert script.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.name)
def test_example_writes_a_film_that_plays(script, tmp_path):
    assert "--out" in run(script, "--help", cwd=tmp_path)
    out = run(script, *REHEARSALS[script.name], "--out", "film.mp4", cwd=tmp_path)
    assert "15 frames" in out
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 15
