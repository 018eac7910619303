"""`stylewire train` as people use it: run, interrupt, kill, resume, run out of disk, mistype."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.__main__ import main
from models.training import run_state
from models.training.report import Terminal
from models.training.run_dir import RunDir

ROOT = Path(__file__).resolve().parents[3]
STEP_KIMG = 8 * 3 / 1000  # of tiny: 8 clips of 3 frames


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Four videos of a disc that swings."""
    root = tmp_path_factory.mktemp("data") / "clips"
    for video in range(4):
        folder = root / f"v{video}"
        folder.mkdir(parents=True)
        for n in range(24):
            frame = np.full((16, 16, 3), 40 * video, np.uint8)
            place = int(8 + 4 * np.sin(n / 4 + video)), 8
            cv2.circle(frame, place, 3, (255, 200, 60 * video), -1)
            assert cv2.imwrite(str(folder / f"{n:03d}.png"), frame)
    return root


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def command(clips, run_dir, *more: str, steps: int = 8, each_step: bool = False) -> list[str]:
    """Arguments of a run of tiny; with `each_step` every step writes its figures and a state."""
    settings = {
        "data.source": clips,
        "run.total_kimg": steps * STEP_KIMG,
        "run.tick_s": 1000.0,
        "run.snapshot_s": 1000.0,
        **({"run.tick_kimg": 0.001} if each_step else {}),
    }
    sets = [part for k, v in settings.items() for part in ("--set", f"{k}={v}")]
    return ["train", "tiny", "--run-dir", str(run_dir), *sets, *more]


def log(run_dir) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def tensors(run_dir):
    progress, _, found = run_state.load(run_dir)
    return progress.step, found


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    """A run in one piece, figures of each step."""
    where = tmp_path_factory.mktemp("whole") / "run"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main(command(clips, where, each_step=True)) == 0
    torch.set_num_threads(before)
    return where


def test_a_run_leaves_what_was_promised(whole):
    names = {p.name for p in whole.iterdir()}
    assert {"config.toml", "log.jsonl", "samples", "model-00000008.json"} <= names
    assert {"state-00000007.json", "state-00000008.json"} <= names
    assert len([n for n in names if n.startswith("events.out.tfevents.")]) == 1
    assert {p.name for p in (whole / "samples").iterdir()} == {
        "grid-00000008.png",
        "clip-00000008.mp4",
    }
    assert not [n for n in names if n.endswith(".part")]
    lines = log(whole)
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[-1]["images"] == 192
    assert {"Gmain/loss", "Dmain/loss", "frames_per_second"} <= set(lines[0]["figures"])
    from models.registry import load_model

    made = load_model(str(whole / "model-00000008.json"))
    assert made.trained and made.resolution == 16


def test_a_killed_run_goes_on_bit_for_bit(clips, whole, tmp_path):
    arguments = command(clips, tmp_path / "run", each_step=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "models", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("state-*[3-6].json")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    step, _ = tensors(tmp_path / "run")
    assert 3 <= step < 8
    assert main([*arguments, "--resume"]) == 0
    (last, found), (_, wanted) = tensors(tmp_path / "run"), tensors(whole)
    assert last == 8 and found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    # Steps after the last state were taken twice, with equal figures.
    for line in log(tmp_path / "run"):
        other = log(whole)[line["step"] - 1]
        for figures in (line["figures"], other["figures"]):
            figures.pop("frames_per_second", None)
        assert line["figures"] == other["figures"]


def test_an_interrupted_run_saves_and_says_how_to_go_on(clips, tmp_path, monkeypatch, capsys):
    advance = Terminal.advance

    def interrupting(self, progress):
        advance(self, progress)
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Terminal, "advance", interrupting)
        assert main(command(clips, tmp_path, steps=5)) == 130
    said = capsys.readouterr().err
    assert "SIGINT: finishing this step" in said
    assert "interrupted at step 3 and saved; go on with --resume" in said
    assert tensors(tmp_path)[0] == 3
    assert main(command(clips, tmp_path, "--resume", steps=5)) == 0
    assert "going on from step 3" in capsys.readouterr().err
    assert tensors(tmp_path)[0] == 5


def test_two_processes_train_as_one(clips, tmp_path):
    """Sums over processes are added in another order, in float32: relative 1e-5 of each of the
    first losses, 1e-4 of parameters.
    """
    four = ("--set", "batch.micro=2")  # micro-batches: two for each process
    assert main(command(clips, tmp_path / "one", *four, steps=5, each_step=True)) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = ["--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    arguments = command(clips, tmp_path / "two", *four, steps=5, each_step=True)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *launch, "-m", "models", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("2 process(es)") == 1
    one, two = log(tmp_path / "one"), log(tmp_path / "two")
    assert len(one) == len(two) == 5
    compared = 0
    for a, b in zip(one, two, strict=True):
        assert a["figures"].keys() == b["figures"].keys()
        for name in a["figures"]:
            if name.endswith(("loss", "r1")):
                assert b["figures"][name] == pytest.approx(a["figures"][name], rel=1e-5), name
                compared += 1
    assert compared >= 12  # Gmain and Dmain each step, Dreg in two of five
    found, wanted = tensors(tmp_path / "two")[1], tensors(tmp_path / "one")[1]
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        if key.startswith(("net/", "ema/")):
            torch.testing.assert_close(found[key], tensor, rtol=1e-4, atol=1e-4)


def test_a_full_disk_stops_with_advice_and_keeps_what_there_is(clips, tmp_path, capsys):
    assert main(command(clips, tmp_path, steps=2)) == 0
    capsys.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # a state has 1.1 MB
        status = main(command(clips, tmp_path, "--resume", steps=8, each_step=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert status == 69
    assert said.count("NOT saved") == 3 and "File too large" in said
    assert "free 2 MB in" in said and "--resume" in said
    assert tensors(tmp_path)[0] == 2
    assert not list(tmp_path.glob(".state*"))
    assert main(command(clips, tmp_path, "--resume", steps=8)) == 0
    assert tensors(tmp_path)[0] == 8


def test_a_run_directory_is_not_taken_twice(clips, whole, tmp_path, capsys):
    assert main(command(clips, whole)) == 65
    assert "holds a run; add --resume" in capsys.readouterr().err
    from models.training.config import load

    with RunDir(tmp_path, print).opened(load("tiny"), resume=False):
        assert main(command(clips, tmp_path)) == 65
    assert "another process trains here" in capsys.readouterr().err


def test_other_settings_are_refused_on_resuming(clips, whole, capsys):
    assert main(command(clips, whole, "--resume", "--set", "optim.lr=0.5")) == 78
    assert "another optim: lr was 0.0025 and is 0.5 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ("batch.sise=4", 78, "has no 'sise'"),
        ("data.source=nowhere", 78, "no folder, zip or video file"),
        ("generator.w_dimm=3", 78, "w_dimm"),
        ("system=stylegan9", 78, "nothing trains 'stylegan9'"),
    ],
)
def test_mistakes_are_one_sentence_and_a_status(clips, tmp_path, capsys, change, status, said):
    assert main(command(clips, tmp_path, "--set", change)) == status
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_a_folder_without_clips_is_refused_data(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("x")
    assert main(command(tmp_path, tmp_path / "run")) == 65
    assert "holds no video to train on: notes.txt" in capsys.readouterr().err


def test_resuming_nothing_starts(clips, tmp_path, capsys):
    assert main(command(clips, tmp_path / "new", "--resume", steps=1)) == 0
    assert "holds no state to go on from; starting" in capsys.readouterr().err
