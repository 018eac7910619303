"""Recording: exact times, a file that survives kill -9 and a full disk."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import realtime
from realtime import barcode
from realtime.backends import FrameBroken
from realtime.config import ConfigError, RenderConfig
from realtime.engine import Engine
from realtime.frame import FramePool
from realtime.messages import Tick
from realtime.record import RecordConfig, record
from realtime.sinks.video_file import FileFailed, VideoFile, cut_torn_end
from realtime.test_card import TestCard
from tests.realtime.tiny_system import TinySystem

ROOT = Path(realtime.__file__).resolve().parents[1]
CARD = RenderConfig(model="testcard")


def decoded(path):
    """(pts in seconds, picture [H*3//2, W]) of every frame that decodes."""
    frames = []
    with av.open(str(path)) as container:
        try:
            for frame in container.decode(video=0):
                frames.append((Fraction(frame.pts) * frame.time_base, frame.to_ndarray()))
        except av.error.InvalidDataError:  # a torn tail
            pass
    return frames


def boxes(path):
    """The kinds of the top-level boxes."""
    data, at, kinds = path.read_bytes(), 0, []
    while at < len(data):
        kinds.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    assert at == len(data)
    return kinds


async def test_a_recording_has_every_frame_at_its_exact_time(tmp_path):
    progress = []
    config = RecordConfig(tmp_path / "a.mp4", seconds=1.9, fps=24, resolution=64, render=CARD)
    done = await record(config, progress=lambda *p: progress.append(p))
    frames = decoded(done.path)
    assert len(frames) == done.frames == 46  # every t below 1.9 s
    assert [pts for pts, _ in frames] == [Fraction(k, 24) for k in range(46)]
    assert progress[-1] == (46, 46) and len(progress) == 47
    assert done.seconds == 46 / 24 and done.bytes == done.path.stat().st_size
    assert done.model.name == "testcard"
    card, wanted = TestCard(64), np.empty((96, 64), np.uint8)
    for k in (0, 23, 45):
        card.draw(k / 24, wanted, 0)
        error = np.abs(frames[k][1].astype(int) - wanted).mean()
        card.draw(k / 24 + 0.3, wanted, 0)
        assert error < np.abs(frames[k][1].astype(int) - wanted).mean() / 2


async def test_the_file_says_its_colours_and_comes_in_fragments_of_a_second(tmp_path):
    config = RecordConfig(tmp_path / "a.mp4", seconds=2.5, fps=20, resolution=64, render=CARD)
    await record(config)
    with av.open(str(config.out)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.color_range, context.colorspace) == ("h264", 1, 6)
        assert (context.color_primaries, context.color_trc) == (6, 6)
        assert stream.average_rate == 20
        keys = [p.pts * p.time_base for p in container.demux(stream) if p.is_keyframe and p.size]
    assert keys == [0, 1, 2]
    kinds = boxes(config.out)
    assert kinds[:2] == ["ftyp", "moov"] and kinds.count("moof") == kinds.count("mdat") == 3


async def test_seed_psi_and_speed_decide_the_picture(tmp_path):
    system = TinySystem()
    async with Engine(RenderConfig(model="tiny"), load=lambda name: system, names=[]) as engine:
        config = RecordConfig(
            tmp_path / "a.mp4",
            seconds=0.5,
            seed=4,
            psi=0.5,
            speed=-2.0,
            fps=10,
            resolution=64,
            render=engine.config,
        )
        done = await record(config, engine=engine)
        assert engine.stats()["sessions"] == 0
    assert system.sources[-1].asked == [0.0, -0.2, -0.4, -0.6, -0.8]
    assert not done.model.trained


async def test_a_model_that_fails_ends_the_recording_and_keeps_the_file(tmp_path):
    system = TinySystem()
    async with Engine(RenderConfig(model="tiny"), load=lambda name: system, names=[]) as engine:
        await engine.load("tiny", 64)
        forward, calls = system.synthesizer.forward, []

        def fail_at_25(identity, motion):
            calls.append(1)
            if len(calls) == 25:
                raise RuntimeError("out of luck")
            return forward(identity, motion)

        system.synthesizer.forward = fail_at_25
        config = RecordConfig(tmp_path / "a.mp4", fps=10, resolution=64, render=engine.config)
        with pytest.raises(FrameBroken, match="out of luck"):
            await record(config, engine=engine)
    assert len(decoded(config.out)) == 24


async def test_cancelling_keeps_a_file_that_plays(tmp_path):
    config = RecordConfig(tmp_path / "a.mp4", seconds=3600, fps=30, resolution=64, render=CARD)
    enough = asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        task = group.create_task(
            record(config, progress=lambda done, _: enough.set() if done > 40 else None)
        )
        await enough.wait()
        task.cancel()
    assert task.cancelled()
    assert len(decoded(config.out)) >= 40


def test_a_recording_plays_after_kill_9(tmp_path):
    out = tmp_path / "a.mp4"
    code = (
        "import asyncio, sys; from pathlib import Path\n"
        "from realtime.config import RenderConfig; from realtime.record import *\n"
        "config = RecordConfig(Path(sys.argv[1]), seconds=36000, fps=30, resolution=64,\n"
        "                      render=RenderConfig(model='testcard'))\n"
        "asyncio.run(record(config, progress=lambda n, _: print(n, flush=True)))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        written = 0
        for line in child.stdout:
            written = int(line)
            if written >= 160:
                break
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.wait(30)
        child.stdout.close()
    frames = decoded(out)
    assert written >= 160
    assert len(frames) >= written - 62  # at most the fragment being filled and the one on its way
    assert [pts for pts, _ in frames] == [Fraction(k, 30) for k in range(len(frames))]


def test_a_full_disk_is_a_sentence_and_the_file_is_cut_to_what_plays(tmp_path):
    out = tmp_path / "a.mp4"
    code = (
        "import asyncio, sys, resource, signal; from pathlib import Path\n"
        "from realtime.config import RenderConfig; from realtime.record import *\n"
        "from realtime.sinks.video_file import FileFailed\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "config = RecordConfig(Path(sys.argv[1]), seconds=3600, fps=30, resolution=64,\n"
        "                      bitrate=1_000_000, render=RenderConfig(model='testcard'))\n"
        "try:\n"
        "    asyncio.run(record(config))\n"
        "except FileFailed as error:\n"
        "    print(error)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "no space is left" in child.stdout and child.stdout.count("\n") == 1, child.stderr
    assert 100_000 < out.stat().st_size <= 300_000
    kinds = boxes(out)  # every box whole, every index with its data
    assert kinds.count("moof") == kinds.count("mdat") >= 2
    assert len(decoded(out)) >= 60


@pytest.mark.parametrize("cut", [1, 9, 700])
async def test_a_torn_end_is_cut_behind_the_last_whole_fragment(tmp_path, cut):
    path = tmp_path / "a.mp4"
    config = RecordConfig(path, seconds=3, fps=20, resolution=64, render=CARD)
    await record(config)
    whole, frames = path.stat().st_size, len(decoded(path))
    assert cut_torn_end(path) == 0 and path.stat().st_size == whole
    with path.open("rb+") as file:
        # Lose the end of the last fragment's data: what follows it is the index at the very end.
        kinds = boxes(path)
        file.truncate(whole - cut - (0 if kinds[-1] == "mdat" else 200))
    assert cut_torn_end(path) > 0
    assert boxes(path)[-1] == "mdat" and len(decoded(path)) in (frames, frames - 20)


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path):
    with pytest.raises(FileFailed, match="cannot be written"):
        VideoFile(tmp_path / "none" / "a.mp4", 64, 64, Fraction(30), 1_000_000)


def test_a_file_without_a_frame_is_not_left_behind(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoFile(path, 64, 64, Fraction(30), 1_000_000):
        assert path.exists()
    assert not path.exists()


async def test_two_slots_are_enough_for_a_writer_that_is_slower_than_the_drawing(
    tmp_path, monkeypatch
):
    write = VideoFile.write

    def slow(self, frame):
        time.sleep(0.02)
        write(self, frame)

    monkeypatch.setattr(VideoFile, "write", slow)
    render = RenderConfig(model="testcard", slots=2)
    config = RecordConfig(tmp_path / "a.mp4", seconds=0.5, fps=20, resolution=64, render=render)
    assert (await record(config)).frames == 10


def test_a_frame_after_the_end_is_refused(tmp_path):
    frame = FramePool(64, 64, 1).acquire(Tick(0, 0.0, 0, 0))
    file = VideoFile(tmp_path / "a.mp4", 64, 64, Fraction(30), 1_000_000)
    file.write(frame)
    file.close()
    file.close()
    with pytest.raises(FileFailed, match="ended"):
        file.write(frame)
    assert len(decoded(file.path)) == 1


def test_padded_rows_are_written_right(tmp_path):
    """A width whose rows the encoder pads: the barcode must stand up straight."""
    with VideoFile(tmp_path / "a.mp4", 96, 64, Fraction(30), 2_000_000) as file:
        frame = FramePool(96, 64, 1).acquire(Tick(0, 0.0, 0, 0))
        barcode.stamp(frame.planes[0], 54321)
        file.write(frame)
    ((_, picture),) = decoded(file.path)
    assert barcode.read(picture[:64]) == 54321


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": 0},
        {"seconds": float("nan")},
        {"resolution": 300},
        {"psi": float("nan")},
        {"seed": -1},
        {"speed": 9},
        {"fps": 0.1},
        {"bitrate": 10},
    ],
)
def test_impossible_recordings_are_refused(wrong):
    with pytest.raises(ConfigError):
        RecordConfig(Path("a.mp4"), **wrong)
