"""Folders, zips and films as sources of clips; and what is said of what cannot be one."""

from __future__ import annotations

import io
import json
import zipfile

import cv2
import numpy as np
import pytest
import torch

from models.errors import BadConfig
from models.training.config import DataConfig
from models.training.contracts import ClipRequest
from models.training.data.archive import MAX_MEMBER_BYTES, Archive
from models.training.data.errors import BadData
from models.training.data.open import open_source
from models.training.data.stored import fitted
from models.training.data.video import FilmFile, FrameCache

from ..footage import damaged, film, frames, number_of


def opened(path, said=None, **settings):
    config = DataConfig(**{"source": str(path), "resolution": 16, "workers": 0, **settings})
    return open_source(config, say=(said if said is not None else []).append)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "clips"
    frames(root / "b", 12)
    frames(root / "a", 7, width=48, height=48)
    return root


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def numbers(batch):
    return [[number_of(frame.numpy()) for frame in clip] for clip in batch.frames]


WANTED = [ClipRequest(1, (0.0, 3.0, 11.0)), ClipRequest(0, (2.0, 5.0, 6.0))]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_frames_are_those_that_were_asked_for(folder, tmp_path, kind, workers):
    path = folder if kind == "folder" else zipped(folder, tmp_path / "clips.zip")
    source = opened(path, workers=workers)
    assert source.info.lengths.tolist() == [7, 12] and source.info.c_dim == 0
    batch = source.clips(WANTED)
    assert batch.frames.dtype == torch.uint8 and tuple(batch.frames.shape) == (2, 3, 3, 16, 16)
    assert numbers(batch) == [[0, 3, 11], [2, 5, 6]]
    assert batch.t.tolist() == [[0, 3, 11], [2, 5, 6]] and batch.t.dtype == torch.float64
    assert torch.equal(source.clips(WANTED).frames, batch.frames)
    source.close()
    source.close()


def test_films_are_a_source_too_alone_or_many(tmp_path):
    root = tmp_path / "films"
    root.mkdir()
    for name in ("one.mp4", "two.mov"):
        film(root / name, 30)
    for path in (root, root / "one.mp4"):
        source = opened(path)
        batch = source.clips([ClipRequest(0, (29.0,)), ClipRequest(0, (4.0,))])
        assert numbers(batch) == [[29], [4]]
        assert source.info.fps == pytest.approx(25) and source.info.lengths[0] == 30


def test_decoded_frames_are_kept_within_a_bound(tmp_path):
    cache = FrameCache(most_bytes=5 * 16 * 16 * 3)
    films = [FilmFile(film(tmp_path / f"{n}.mp4", 12), f"{n}", 16, cache) for n in range(2)]
    first = films[0].read([2, 3, 4])
    for n in range(12):
        films[1].read([n])
        assert cache.bytes <= 5 * 16 * 16 * 3
    assert cache.get("0", 2) is None and cache.get("1", 11) is not None
    again = films[0].read([2, 2, 4])
    assert all(np.array_equal(again[k], first[j]) for k, j in enumerate((0, 0, 2)))


def test_mirrored_clips_are_mirrored_whole(folder):
    source = opened(folder)
    plain, mirrored = (
        source.clips([ClipRequest(1, (1.0, 2.0), mirror=m)]).frames for m in (False, True)
    )
    assert torch.equal(mirrored, plain.flip(-1)) and not torch.equal(mirrored, plain)


def test_the_middle_is_kept_and_shrunk_by_area():
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:14] = np.arange(8)[None, :, None] * 16
    found = fitted(wide, 4)
    assert found.shape == (4, 4, 3)
    np.testing.assert_array_equal(found[0, :, 0], [8, 40, 72, 104])
    assert fitted(found, 4) is found and fitted(found, 8).shape == (8, 8, 3)


def test_times_must_be_whole_and_within(folder):
    source = opened(folder)
    for times in ((0.5,), (12.0,), (-1.0,)):
        with pytest.raises(ValueError, match="times"):
            source.clips([ClipRequest(1, times)])


# Labels


def label(folder, **changes):
    named = {
        p.relative_to(folder).as_posix(): int(p.parent.name == "b") for p in folder.rglob("*.png")
    }
    named.update(changes.pop("named", {}))
    (folder / "dataset.json").write_text(json.dumps({"labels": list(named.items()), **changes}))


def test_classes_become_one_hot_rows(folder, tmp_path):
    label(folder)
    for path in (folder, zipped(folder, tmp_path / "x.zip")):
        source = opened(path)
        assert source.info.c_dim == 2
        assert source.clips(WANTED).c.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"named": {"a/0003.png": 1}}, r"a/0000.png and a/0003.png of a have different labels"),
        ({"named": {"a/0003.png": [1.0]}}, "different labels"),
        ({"labels": [["a/0000.png", 1]]}, "no label for a/0001.png"),
        ({"labels": 5}, "dataset.json is not"),
        ({"named": {f"a/{n:04d}.png": -1 for n in range(7)}}, "0 to 9999"),
    ],
)
def test_labels_that_make_no_sense_are_named(folder, changes, said):
    label(folder, **changes)
    with pytest.raises(BadData, match=said):
        opened(folder)


def test_no_labels_are_none(folder):
    (folder / "dataset.json").write_text('{"labels": null}')
    assert opened(folder).info.c_dim == 0


# What people have in their folders


def test_what_is_left_out_is_named(folder):
    frames(folder / "short", 2)
    (folder / "notes.txt").write_text("x")
    (folder / "broken.mp4").write_bytes(b"x")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "0.png").write_bytes(b"x")
    said: list[str] = []
    assert len(opened(folder, said).info.lengths) == 2
    text = "\n".join(said)
    assert "2 videos, 3 files left out" in said[0]
    for line in ("short: 2 frames", "notes.txt: neither", "broken.mp4 cannot be read"):
        assert line in text
    assert ".hidden" not in text


def test_a_folder_of_nothing_says_what_to_do(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadData, match="holds no video.*notes.txt.*stylewire prepare"):
        opened(tmp_path)


@pytest.mark.parametrize("source", ["nowhere", "heads:nobody"])
def test_a_source_that_is_none_is_named(source):
    with pytest.raises(BadConfig, match=source):
        opened(source)


def test_small_frames_are_warned_of(folder, tmp_path):
    said: list[str] = []
    opened(folder, said, resolution=16)
    assert not any("warning" in line for line in said)
    opened(folder, said, resolution=128)  # the first video has 48 x 48
    assert any("48 px are enlarged to 128" in line and "resolution=32" in line for line in said)
    said.clear()
    opened(film(tmp_path / "x.mp4", 10), said, resolution=64)
    assert any("24 px are enlarged to 64" in line for line in said)


def test_rendered_heads_are_a_source_by_name_alone_or_mixed():
    mixed = (("heads:cast", 0.7), ("heads:narrow", 0.3))
    config = DataConfig(mixed, 16, workers=0, samples=1, fps=30.0)
    source = open_source(config, seed=3, slots=2)
    batch = source.clips([ClipRequest(5, (0.0, 10.5))])
    assert tuple(batch.frames.shape) == (1, 2, 3, 16, 16) and "traits" in batch.extra
    assert source.info.fps == 30.0 and len(source.info.lengths) == 0
    source.close()
    with pytest.raises(BadConfig, match="cannot be mirrored"):
        open_source(DataConfig("heads:cast", 16, mirror=True))
    with pytest.raises(BadConfig, match="halo"):
        open_source(DataConfig("heads:cast", 16, workers=0, heads={"halo": 1}))


def test_folders_are_not_mixed_by_shares(folder):
    with pytest.raises(BadConfig, match="only rendered heads"):
        opened("", source=((str(folder), 0.5), ("heads:cast", 0.5)))


def test_a_damaged_frame_is_named(folder):
    (folder / "a" / "0002.png").write_bytes(b"no picture")
    (folder / "a" / "0005.png").write_bytes(b"")
    source = opened(folder)
    for time in (2.0, 5.0):
        with pytest.raises(BadData, match=f"000{time:.0f}.png cannot be read as a picture"):
            source.clips([ClipRequest(0, (time,))])
    (folder / "a" / "0001.png").unlink()
    with pytest.raises(BadData, match="0001.png cannot be read: No such file"):
        source.clips([ClipRequest(0, (1.0,))])


def test_a_damaged_film_is_named(tmp_path):
    path = damaged(tmp_path / "x.mp4", film(tmp_path / "whole.mp4", 50))
    source = opened(path)
    with pytest.raises(BadData, match="x.mp4"):
        for time in range(50):
            source.clips([ClipRequest(0, (float(time),))])


def test_films_of_another_rate_are_warned_of(tmp_path):
    root = tmp_path / "films"
    root.mkdir()
    for number, fps in enumerate((25, 25, 50)):
        film(root / f"{number}.mp4", 10, fps=fps)
    said: list[str] = []
    assert opened(root, said).info.fps == pytest.approx(25)
    assert any("1 of 3 videos do not have 25.00 frames" in line for line in said)


def test_the_rate_of_prepared_frames_is_known(folder):
    (folder / "prepare.json").write_text('{"fps": 12.5}')
    assert opened(folder).info.fps == 12.5
    (folder / "prepare.json").write_text('{"fps": "x"}')
    assert opened(folder).info.fps == 25.0


# Archives are not trusted


def png():
    return cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()


def test_names_that_lead_out_of_an_archive_are_left_out(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(4):
            for folder in ("in", "../out", "/etc"):
                archive.writestr(f"{folder}/{n}.png", png())
    assert opened(path).info.lengths.tolist() == [4]
    assert {p.name for p in tmp_path.iterdir()} == {"x.zip"}


def test_a_bomb_is_refused_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr("models.training.data.archive.MAX_MEMBER_BYTES", 1000)
    assert MAX_MEMBER_BYTES == 64 << 20
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("v/0.png", bytes(100_000))
    with pytest.raises(BadData, match="a frame has fewer"):
        Archive(path).read("v/0.png")


def test_damaged_archives_are_named(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(b"PK but no more")
    with pytest.raises(BadData, match="cannot be opened as a zip"):
        opened(path)
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for n in range(3):
            archive.writestr(f"v/{n}.png", png())
    content = bytearray(memory.getvalue())
    content[60] ^= 255  # in the first member's pixels
    path.write_bytes(content)
    with pytest.raises(BadData, match="v/0.png cannot be read"):
        opened(path)
