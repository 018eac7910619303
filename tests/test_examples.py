"""Each example runs as a script, uninstalled, from elsewhere, and does what it says."""

import http.client
import importlib
import re
import signal
import subprocess
import sys
from pathlib import Path

import av
import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
SERVER = EXAMPLES[0].with_name("stream_to_browser.py")
FILMS = {  # a tiny real run of each
    "clip_to_file.py": ("--model", "testcard", "--seconds", "0.5", "--resolution", "64"),
    "your_own_system.py": ("--seconds", "0.5"),
}
OTHERS = {"train_tiny.py"}  # with tests of their own


def run(script, *arguments, cwd):
    """What it prints; it has nothing to warn of."""
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_example_is_rehearsed_short_and_shadows_nothing():
    assert {script.name for script in EXAMPLES} == {SERVER.name, *FILMS, *OTHERS}
    for script in EXAMPLES:
        assert len(script.read_text().splitlines()) < 60, script.name
        assert script.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("name", FILMS)
def test_example_writes_a_film_that_plays(name, tmp_path):
    script = SERVER.with_name(name)
    assert "--out" in run(script, "--help", cwd=tmp_path)
    out = run(script, *FILMS[name], "--out", "film.mp4", cwd=tmp_path)
    assert "15 frames" in out
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 15


@pytest.mark.parametrize(
    ("arguments", "interrupt"),
    [(("--model", "testcard", "--seconds", "2"), False), (("--model", "rings"), True)],
    ids=["for a while", "until Ctrl-C"],
)
def test_example_serves_a_browser_and_ends_cleanly(arguments, interrupt, tmp_path):
    server = subprocess.Popen(
        [sys.executable, str(SERVER), "--port", "0", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = server.stdout.readline()  # empty if it ended early
        found = re.search(r"at http://([\d.]+):(\d+)/", said)
        assert found, said + server.communicate(timeout=60)[1]
        connection = http.client.HTTPConnection(found[1], int(found[2]), timeout=30)
        statuses = []
        for path in ("/livez", "/"):
            connection.request("GET", path)
            answer = connection.getresponse()
            statuses.append(answer.status)
            page = answer.read().decode()
        connection.close()
        assert statuses == [200, 200] and "<video" in page
        if interrupt:
            server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
        assert (server.returncode, errors) == (0, "")
    finally:
        if server.poll() is None:
            server.kill()
            server.communicate()


def test_a_system_of_ones_own_draws_where_its_codes_are(monkeypatch):
    """On a GPU the codes are there: here the device without memory stands for it."""
    monkeypatch.syspath_prepend(SERVER.parent)
    system = importlib.import_module("your_own_system").Rings()
    identity, motion = system.identity(seed=1), system.sample(0.5)
    for code in (identity, motion):
        code.tensors.update({name: value.to("meta") for name, value in code.tensors.items()})
    image = system.synthesizer(identity, motion)
    assert (image.device.type, tuple(image.shape)) == ("meta", (1, 3, 256, 256))


def test_example_trains_and_draws_what_it_trained(tmp_path):
    script = SERVER.with_name("train_tiny.py")
    done = subprocess.run(
        [sys.executable, str(script), "--out", "tiny", "--steps", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tiny" / "run" / "model-00000003.json").is_file()
    assert (tmp_path / "tiny" / "sample.png").stat().st_size > 500
