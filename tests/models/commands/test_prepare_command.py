"""`stylewire prepare` on what people have in their folders: nothing is lost, nothing is touched."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from training.footage import damaged, film, frames, number_of

from models.__main__ import main
from models.errors import BadConfig
from models.training import prepare as prepare_module
from models.training.config import DataConfig
from models.training.data.open import open_source
from models.training.prepare import prepare
from models.training.prepare_checks import Cut

CUT = Cut(resolution=16, least_frames=20)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """A folder as a new user would have it."""
    root = tmp_path_factory.mktemp("user") / "videos"
    (root / "deeper").mkdir(parents=True)
    film(root / "good.mp4", 50)
    film(root / "tall.mov", 40, width=24, height=40)
    film(root / "deeper" / "good.mp4", 30)
    film(root / "deeper" / "good.mkv", 30)
    film(root / "fast.mp4", 60, fps=50)
    film(root / "slow.mp4", 40, fps=10)
    film(root / "short.mp4", 10)
    film(root / "small.mp4", 30, width=32, height=12)
    film(root / "phone.mkv", 40, times=np.cumsum([0] + [40, 40, 70] * 13).tolist()[:40])
    damaged(root / "damaged.mp4", root / "good.mp4")
    whole = (root / "good.mp4").read_bytes()
    (root / "truncated.mp4").write_bytes(whole[: len(whole) // 3])
    whole = film(root / "whole.mkv", 60).read_bytes()
    (root / "half.mkv").write_bytes(whole[: len(whole) * 7 // 10])
    (root / "whole.mkv").unlink()
    (root / "cut off.mkv").write_bytes((root / "phone.mkv").read_bytes()[:60])
    (root / "notes.txt").write_text("not a video")
    (root / "empty.mp4").write_bytes(b"")
    frames(root / "stills", 2)
    (root / ".DS_Store").write_bytes(b"x")
    return root


@pytest.fixture(scope="module")
def prepared(footage, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "clips"
    return prepare(footage, out, CUT), out


def digest(folder: Path) -> str:
    hashes = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        about = path.stat()
        hashes.update(f"{path} {about.st_mtime_ns} {about.st_mode}".encode())
        if path.is_file():
            hashes.update(path.read_bytes())
    return hashes.hexdigest()


EXPECTED = {
    "good.mp4": ("written", ""),
    "tall.mov": ("written", ""),
    "deeper/good.mp4": ("written", ""),
    "deeper/good.mkv": ("written", ""),
    "fast.mp4": ("written", ""),
    "slow.mp4": ("skipped", "frame rate too low"),
    "short.mp4": ("skipped", "too short"),
    "small.mp4": ("skipped", "too small"),
    "phone.mkv": ("skipped", "variable frame rate"),
    "damaged.mp4": ("failed", "corrupt"),
    "truncated.mp4": ("failed", "unreadable"),
    "half.mkv": ("failed", "corrupt"),
    "cut off.mkv": ("failed", "unreadable"),
    "empty.mp4": ("failed", "unreadable"),
    "notes.txt": ("skipped", "no video"),
    "stills/0000.png": ("skipped", "a picture"),
    "stills/0001.png": ("skipped", "a picture"),
}


def test_every_file_ends_in_one_way_with_its_reason(prepared):
    report, _ = prepared
    assert {e.source: (e.status, e.reason) for e in report.entries} == EXPECTED
    assert report.found == len(EXPECTED)
    counts = [report.count(status) for status in ("written", "skipped", "failed")]
    assert counts == [5, 7, 5] and sum(counts) == report.found
    details = {e.source: e.detail for e in report.entries}
    assert "10 frames; 20 are needed" in details["short.mp4"]
    assert "12 pixels for 16" in details["small.mp4"]
    assert "frame" in details["damaged.mp4"]


def test_sources_are_not_touched(footage, tmp_path):
    before = digest(footage)
    prepare(footage, tmp_path / "out", CUT)
    assert digest(footage) == before


def test_clips_are_the_frames_cropped_and_resized(prepared):
    report, out = prepared
    assert report.fps == pytest.approx(25)
    by_source = {e.source: e for e in report.entries}
    assert by_source["good.mp4"].frames == 50 and by_source["fast.mp4"].frames == 30
    for source, step in (("good.mp4", 1), ("fast.mp4", 2), ("tall.mov", 1)):
        files = sorted((out / by_source[source].clip).glob("*.png"))
        assert len(files) == by_source[source].frames
        for number in (0, 7, len(files) - 1):
            picture = cv2.imread(str(files[number]))[..., ::-1]
            assert picture.shape == (16, 16, 3)
            assert number_of(picture) == number * step
    # The middle of 32 columns that brighten by 2 each: columns 4 to 27.
    files = sorted((out / by_source["good.mp4"].clip).glob("*.png"))
    assert cv2.imread(str(files[0]))[..., 0].mean() == pytest.approx(60 + 2 * 15.5, abs=3)


def test_equal_stems_are_told_apart(prepared):
    report, out = prepared
    clips = {e.source: e.clip for e in report.entries if e.status == "written"}
    assert len(set(clips.values())) == 5
    assert clips["deeper/good.mp4"].startswith("deeper-good")
    assert {p.name for p in out.iterdir()} == {*clips.values(), "prepare.json"}


def test_the_report_is_a_file_too(prepared):
    report, out = prepared
    found = json.loads((out / "prepare.json").read_text())
    assert found["found"] == found["written"] + found["skipped"] + found["failed"] == 17
    assert found["fps"] == pytest.approx(25) and len(found["files"]) == 17
    assert report.reasons("skipped")["a picture"] == 2


def test_what_is_written_can_be_trained_on(prepared):
    report, out = prepared
    said: list[str] = []
    source = open_source(DataConfig(str(out), 16, workers=0), say=said.append)
    assert sorted(source.info.lengths) == [30, 30, 30, 40, 50]
    assert source.info.fps == pytest.approx(25)
    assert said == [f"data: {out}: 5 videos, 0 files left out"]


def test_a_second_call_writes_nothing_anew(footage, tmp_path):
    out = tmp_path / "out"
    prepare(footage, out, CUT)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    again = prepare(footage, out, CUT)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.png")} == times
    assert again.reasons("written") == {"done before": 5}


def test_an_interrupted_call_leaves_no_half_clip_and_goes_on(footage, tmp_path, monkeypatch):
    out, put, calls = tmp_path / "out", prepare_module._put_frame, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 70:
            raise KeyboardInterrupt
        put(*args)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_put_frame", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(footage, out, CUT)
    for clip in out.iterdir():
        assert (clip / "source.json").exists() and not clip.name.startswith(".")
    (out / ".good.part").mkdir()  # what kill -9 leaves
    assert prepare(footage, out, CUT).count("written") == 5
    assert not (out / ".good.part").exists()


def test_a_full_disk_is_said_and_leaves_whole_clips(footage, tmp_path, monkeypatch, capsys):
    out, put, calls = tmp_path / "out", prepare_module._put_frame, []

    def full(*args):
        calls.append(1)
        if len(calls) > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(*args)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_put_frame", full)
        flags = ["--resolution", "16", "--least-frames", "20"]
        status = main(["prepare", str(footage), "--out", str(out), *flags])
    assert status == 69
    assert "No space left on device; free space and run the same" in capsys.readouterr().err
    assert all((clip / "source.json").exists() for clip in out.iterdir())


def test_a_strange_folder_in_the_way_is_not_overwritten(footage, tmp_path):
    out = tmp_path / "out"
    (out / "tall").mkdir(parents=True)
    (out / "tall" / "mine.txt").write_text("precious")
    report = prepare(footage, out, CUT)
    assert {e.source: e.reason for e in report.entries}["tall.mov"] == "in the way"
    assert (out / "tall" / "mine.txt").read_text() == "precious"


def test_other_settings_want_another_folder(footage, prepared):
    _, out = prepared
    with pytest.raises(BadConfig, match="resolution 16, not 32"):
        prepare(footage, out, Cut(resolution=32))


def test_a_box_is_kept_instead_of_the_middle(footage, tmp_path):
    report = prepare(footage, tmp_path / "out", Cut(16, None, (0, 0, 16), 20))
    clip = next(e.clip for e in report.entries if e.source == "good.mp4")
    blue = cv2.imread(str(tmp_path / "out" / clip / "000000.png"))[..., 0]
    assert blue.mean() == pytest.approx(60 + 2 * 7.5, abs=3)
    far = prepare(footage, tmp_path / "far", Cut(16, None, (20, 0, 16), 20))
    assert "not within it" in {e.source: e.detail for e in far.entries}["good.mp4"]


def test_the_command_prints_what_it_did(footage, tmp_path, capsys):
    out = tmp_path / "out"
    status = main(
        ["prepare", str(footage), "--out", str(out), "--resolution", "16", "--least-frames", "20"]
    )
    shown = capsys.readouterr()
    assert status == 0
    assert "17 files found in all" in shown.out
    assert "5 written" in shown.out and "7 skipped: 2 a picture" in shown.out
    assert "5 failed: 2 corrupt, 3 unreadable" in shown.out
    assert f"--set data.source={out}" in shown.out
    for name in EXPECTED:
        assert name in shown.err


@pytest.mark.parametrize(
    ("flags", "status"),
    [(["--resolution", "100"], 78), (["--least-frames", "2"], 78), (["--fps", "0"], 78)],
)
def test_impossible_settings_are_refused(footage, tmp_path, flags, status, capsys):
    assert main(["prepare", str(footage), "--out", str(tmp_path / "x"), *flags]) == status


def test_a_folder_without_videos_is_refused_data(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    assert main(["prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 65
    assert "0 files found" in capsys.readouterr().out
    assert main(["prepare", str(tmp_path / "no"), "--out", str(tmp_path / "out")]) == 78
