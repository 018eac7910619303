"""The command line: flags to configurations, errors to one sentence and a status."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import models.__main__
import realtime.server
from models.errors import BadCheckpoint, BadConfig
from realtime import __main__ as cli
from realtime.config import RenderConfig, ServerConfig
from realtime.engine import resolve
from realtime.errors import RealtimeError

ROOT = Path(cli.__file__).resolve().parents[1]
PATIENCE_S = 30


def ended(name):
    """The thread of that name is gone."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


@pytest.fixture
def served(monkeypatch):
    """The configurations that `serve` was called with; it returns at once."""
    configs = []

    async def serve(config, *, ready):
        configs.append(config)
        ready("http://127.0.0.1:1/")

    monkeypatch.setattr(realtime.server, "serve", serve)
    return configs


def test_serve_without_flags_is_the_default_configuration(served, capsys):
    assert cli.main(["serve"]) == 0
    (config,) = served
    default = ServerConfig()
    assert (config.host, config.port) == ("127.0.0.1", 8080)
    assert config.stream == default.stream
    assert config.render.model != "default"  # its real name, as the page's menu has it
    out = capsys.readouterr().out
    assert out == "Stylewire is ready: http://127.0.0.1:1/\n"


def test_serve_maps_every_flag(served):
    line = (
        "serve --host 0.0.0.0 --port 9 --codec VP8 --max-sessions 3 --fps 24 --resolution 128 "
        "--bitrate 800k --model testcard --backend cpu --device cpu --threads 2"
    )
    assert cli.main(line.split()) == 0
    (config,) = served
    assert (config.host, config.port, config.max_sessions) == ("0.0.0.0", 9, 3)
    stream = config.stream
    assert (stream.fps, stream.resolution, stream.bitrate) == (24.0, 128, 800_000)
    assert stream.codecs == ("VP8",)
    render = config.render
    assert (render.model, render.backend, render.device) == ("testcard", "cpu", "cpu")
    assert render.threads == 2


def test_open_shows_the_page(served, monkeypatch):
    shown = []
    monkeypatch.setattr(cli.webbrowser, "open", shown.append)
    assert cli.main(["serve", "--model", "testcard", "--open"]) == 0
    ended("stylewire-open")
    assert shown == ["http://127.0.0.1:1/"]


def test_a_browser_that_does_not_return_holds_nothing_up(served, monkeypatch):
    gate = threading.Event()
    threading.Timer(PATIENCE_S, gate.set).start()
    monkeypatch.setattr(cli.webbrowser, "open", lambda url: gate.wait())
    assert cli.main(["serve", "--model", "testcard", "--open"]) == 0
    assert not gate.is_set()
    gate.set()
    ended("stylewire-open")


def test_no_browser_is_said_and_the_server_goes_on(served, monkeypatch, capsys):
    def none(url):
        raise webbrowser.Error("no runnable browser")

    monkeypatch.setattr(cli.webbrowser, "open", none)
    assert cli.main(["serve", "--model", "testcard", "--open"]) == 0
    ended("stylewire-open")
    assert "open http://127.0.0.1:1/ yourself" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["aurora", "default", "testcard"])
def test_a_file_in_this_folder_does_not_hide_a_shipped_model(served, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"not a checkpoint")
    wanted = RenderConfig(model=resolve(name))
    assert cli.main(["serve", "--model", name]) == 0
    assert (served[0].render.model, served[0].render.path) == (wanted.model, "")
    Path("face").write_bytes(b"not a checkpoint")
    for file in (f"./{name}", "face"):  # these are the files
        assert cli.main(["serve", "--model", file]) == 0
        assert Path(served[-1].render.path) == Path(file)


def test_a_small_bitrate_lowers_the_floor(served):
    assert cli.main(["serve", "--model", "testcard", "--bitrate", "60000"]) == 0
    assert served[0].stream.bitrate_floor == 60_000


@pytest.mark.parametrize(
    ("text", "value"),
    [("2000000", 2_000_000), ("2M", 2_000_000), ("1.5M", 1_500_000), ("9k", 9000)],
)
def test_bitrates_are_read(text, value):
    assert cli._bitrate(text) == value


@pytest.mark.parametrize(
    "line",
    [
        "",
        "dance",
        "serve --bitrate fast",
        "serve --bitrate infM",
        "serve --codec AV1",
        "serve --resolution 300",
        "record",
    ],
)
def test_wrong_usage_ends_with_2(line, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(line.split())
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        ("serve --model testcard --fps 500", 2, "fps"),
        ("serve --model testcard --bitrate 1", 2, "bitrate"),
        ("serve --model testcard --port 70000", 2, "port"),
        ("record --out a.mp4 --model testcard --seconds -1", 2, "seconds"),
        ("record --out a.mp4 --model testcard --psi nan", 2, "psi"),
        ("record --out a.mp4 --model no-such-model", 65, "no-such-model"),
        ("record --out no/such/folder/a.mp4 --model testcard", 69, "cannot be written"),
        ("record --out a.mp4 --model testcard --backend tensorrt", 69, "tensorrt"),
    ],
)
def test_errors_are_one_sentence_and_a_status(line, status, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == status
    err = capsys.readouterr().err.strip()
    assert err.startswith("stylewire: ") and says in err and err.count("\n") == 0
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadCheckpoint("CKPT_X", "damaged"), 65),
        (BadConfig("w_dim is -1"), 78),
        (RealtimeError("the port is taken"), 69),
        (PermissionError(13, "Permission denied"), 69),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_kind_of_error_has_its_status(error, status, monkeypatch, capsys):
    async def serve(config, *, ready):
        raise error

    monkeypatch.setattr(realtime.server, "serve", serve)
    assert cli.main(["serve", "--model", "testcard"]) == status
    assert capsys.readouterr().err.count("\n") == (0 if status == 130 else 1)


def test_convert_and_sample_are_handed_on(monkeypatch):
    given = []
    monkeypatch.setattr(models.__main__, "main", lambda argv, _: given.append(list(argv)) or 7)
    assert cli.main(["convert", "a.pkl", "--out", "b"]) == 7
    assert cli.main(["sample", "--help"]) == 7
    assert given == [["convert", "a.pkl", "--out", "b"], ["sample", "--help"]]


@pytest.mark.parametrize("flags", ["--backend cpu --precision fp32", "--backend eager"])
def test_a_sample_is_drawn_by_the_backend_asked_for(flags, tmp_path, capsys):
    line = "sample --model ember --seed 3 --t 1.5"
    assert cli.main([*line.split(), "--out", str(tmp_path / "plain.png")]) == 0
    assert "drawn by" not in capsys.readouterr().err
    for size, added in ((256, []), (128, ["--resolution", "128"])):
        out = tmp_path / f"{size}.png"
        assert cli.main([*line.split(), "--out", str(out), *flags.split(), *added]) == 0
        assert f"drawn by {flags.split()[1]}: " in capsys.readouterr().err
        assert cv2.imread(str(out)).shape == (size, size, 3)
    plain, found = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("plain", "256"))
    assert np.abs(plain.astype(int) - found).max() <= 2 and plain.std() > 5


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--backend tensorrt --device cpu", "tensorrt"),
        ("--backend magic", "magic"),
        ("--precision fp16 --device cpu", "fp16"),
        ("--device moon", "moon"),
    ],
)
def test_a_backend_that_cannot_draw_a_sample_is_one_sentence(flags, says, tmp_path, capsys):
    out = tmp_path / "a.png"
    assert cli.main(["sample", "--model", "ember", "--out", str(out), *flags.split()]) == 69
    err = capsys.readouterr().err
    assert err.startswith("stylewire: ") and says in err and err.count("\n") == 1
    assert not out.exists()


def test_a_foreign_file_is_converted_and_its_checkpoint_served(served, tmp_path, monkeypatch):
    import models.convert_file

    pickle_file = tmp_path / "face.pkl"
    pickle_file.write_bytes(b"\x80\x04")
    monkeypatch.setattr(
        models.convert_file, "cached", lambda path, *, say, report: tmp_path / "cached.json"
    )
    assert cli.main(["serve", "--model", str(pickle_file)]) == 0
    assert served[0].render.path == str(tmp_path / "cached.json")
    assert served[0].render.model == "cached"  # what viewers see is a name, not a path


def test_a_file_named_like_a_shipped_model_does_not_hide_it(served, tmp_path, monkeypatch):
    import models.convert_file

    (tmp_path / "x.pkl").write_bytes(b"\x80\x04")
    monkeypatch.setattr(
        models.convert_file, "cached", lambda path, *, say, report: tmp_path / "aurora.json"
    )
    assert cli.main(["serve", "--model", str(tmp_path / "x.pkl")]) == 0
    assert served[0].render.model == "aurora (file)"


def test_record_writes_a_film_and_says_so(tmp_path, capsys):
    out = tmp_path / "a.mp4"
    line = f"record --out {out} --model testcard --seconds 0.5 --fps 20 --resolution 64 --seed 9"
    assert cli.main(line.split()) == 0
    assert "10 frames, 0.50 s" in capsys.readouterr().out
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10


def test_record_of_seeded_weights_says_so(tmp_path, capsys):
    line = f"record --out {tmp_path / 'a.mp4'} --seconds 0.1 --fps 20 --resolution 64"
    assert cli.main(line.split()) == 0
    assert "seeded, not trained" in capsys.readouterr().out


def test_doctor_prints_json(capsys):
    status = cli.main(["doctor", "--json", "--seconds", "0"])
    report = json.loads(capsys.readouterr().out)
    assert status == 0 and report["well"]
    assert report["models"] and all(model["ok"] for model in report["models"])


def command(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "realtime", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_serve_answers_and_ends_quietly():
    child = command("serve", "--port", "0", "--model", "testcard")
    try:
        url = child.stdout.readline().removeprefix("Stylewire is ready: ").strip()
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}livez", timeout=30) as answer:
            assert answer.status == 200
        os.kill(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait(30)
    assert child.returncode == 0
    assert "Traceback" not in err and "Error" not in err


def test_an_interrupted_recording_is_kept(tmp_path):
    out = tmp_path / "a.mp4"
    child = command(
        *f"record --out {out} --model testcard --seconds 36000 --resolution 64".split(),
    )
    try:
        while not out.exists() or out.stat().st_size < 200_000:
            assert child.poll() is None
            try:
                child.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        os.kill(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait(30)
    assert child.returncode == 130
    assert "is kept and plays" in err and "Traceback" not in err
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 30


@pytest.mark.parametrize(
    ("line", "status"), [("serve --port 0", 0), ("record --out {out} --seconds 5", 130)]
)
def test_an_interrupt_ends_the_command_while_a_model_is_being_built(line, status, tmp_path):
    out = tmp_path / "a.mp4"
    code = (
        "import sys, time; from models import registry; from realtime.__main__ import main\n"
        "def load(name): print('building', flush=True); time.sleep(600)\n"
        "registry.load_model = load; sys.argv = ['stylewire', *sys.argv[1:]]; sys.exit(main())"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, *line.format(out=out).split()],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "building\n"
        begin = time.monotonic()
        os.kill(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait(30)
    assert child.returncode == status and time.monotonic() - begin < 20
    assert "Traceback" not in err and "kept" not in err and not out.exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for children")
@pytest.mark.parametrize(
    ("line", "status"), [("serve --port 0", 0), ("record --out {out} --seconds 5", 130)]
)
def test_an_interrupt_ends_the_command_while_kernels_are_compiled(line, status, tmp_path):
    """On a machine that has compiled none before: by a child, which ends too."""
    out = tmp_path / "a.mp4"
    child = command(
        *f"{line.format(out=out)} --device cpu --backend cpu".split(),
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    try:
        while "compiling kernels" not in (said := child.stderr.readline()):
            assert said, child.poll()
        begin = time.monotonic()
        while not (compilers := children_of(child.pid)):
            assert time.monotonic() - begin < PATIENCE_S
        os.kill(child.pid, signal.SIGINT)
        begin = time.monotonic()
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait(30)
    assert child.returncode == status and time.monotonic() - begin < 20
    assert "Traceback" not in err and "no kernels" not in err and not out.exists()
    assert not [pid for pid in compilers if Path(f"/proc/{pid}").exists()]


def children_of(pid):
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in lists for child in file.read_text().split()]


def test_help_and_version_cost_no_torch():
    code = (
        "import sys; from realtime.__main__ import main\n"
        "try: main(['--version'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'aiortc', 'cv2', 'av'} & set(sys.modules), 'heavy imports'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("stylewire ")
