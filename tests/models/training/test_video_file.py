"""Random access to video files, and clips written as such."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from models.training import video_file
from models.training.data.errors import BadData

from .footage import damaged, film, number_of, picture


@pytest.fixture(scope="module")
def fifty(tmp_path_factory):
    return film(tmp_path_factory.mktemp("films") / "fifty.mp4", 50)


def test_a_film_is_known_without_decoding(fifty):
    found = video_file.index(fifty)
    assert len(found.times) == 50 and found.fps == pytest.approx(25)
    assert found.uneven == 0 and (found.width, found.height) == (32, 24)
    assert found.seconds == pytest.approx(2.0)
    assert len(found.keys) == 5


@pytest.mark.parametrize(
    "wanted", [[0], [49], [0, 1, 2], [3, 20, 44], [11, 12, 13], [24, 35], list(range(50))]
)
def test_any_frames_are_read_by_number(fifty, wanted):
    found = list(video_file.read_frames(fifty, video_file.index(fifty), wanted))
    assert [n for n, _ in found] == wanted
    assert [number_of(p) for _, p in found] == wanted
    error = np.abs(found[0][1].astype(int) - picture(wanted[0])).mean()
    assert error < 4  # of 255: what the codec and 4:2:0 cost


def test_frames_far_apart_are_reached_by_seeking(fifty, monkeypatch):
    """Between 1 and 48 lie 46 frames; fewer than 20 are decoded for both."""
    decoded = []
    turned = video_file._forward

    def counted(container, stream, where, todo):
        class Counting:
            def decode(self, stream):
                for frame in container.decode(stream):
                    decoded.append(frame.pts)
                    yield frame

        return turned(Counting(), stream, where, todo)

    monkeypatch.setattr(video_file, "_forward", counted)
    list(video_file.read_frames(fifty, video_file.index(fifty), [1, 48]))
    assert len(decoded) < 20


def test_an_uneven_rate_is_seen(tmp_path):
    steps = [40, 40, 40, 80] * 8
    times = np.concatenate([[0], np.cumsum(steps)])[:32].tolist()
    found = video_file.index(film(tmp_path / "phone.mkv", 32, times=times))
    assert found.uneven == pytest.approx(1.0) and found.fps == pytest.approx(25)


@pytest.mark.parametrize("name", ["old.avi", "raw.h264"])
def test_frames_of_a_film_without_times_are_counted(tmp_path, name):
    path = film(tmp_path / name, 20)
    found = video_file.index(path)
    assert len(found.times) == 20 and found.fps == pytest.approx(25)
    read = video_file.read_frames(path, found, [0, 13, 19])
    assert [number_of(picture) for _, picture in read] == [0, 13, 19]


def test_all_frames_come_with_their_times(fifty):
    found = list(video_file.every_frame(fifty))
    assert [number_of(p) for _, p in found] == list(range(50))
    np.testing.assert_allclose([t for t, _ in found], np.arange(50) / 25, atol=1e-9)


def test_damage_is_named_with_the_frame(tmp_path, fifty):
    path = damaged(tmp_path / "damaged.mp4", fifty)
    with pytest.raises(BadData, match=r"damaged\.mp4: frame \d+"):
        list(video_file.every_frame(path))


def test_a_film_that_was_cut_off_is_seen_by_what_it_announces(tmp_path, fifty):
    for name in ("whole.mkv", "whole.webm"):
        codec = "libvpx" if name.endswith("webm") else "libx264"
        path = film(tmp_path / name, 60, codec=codec)
        assert video_file.index(path).lost == 0
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 7 // 10])
        found = video_file.index(path)
        assert found.lost == pytest.approx(60 - len(found.times), abs=1) and found.lost > 5
    assert video_file.index(fifty).lost == 0


def test_a_phone_held_upright_gives_upright_pictures(tmp_path):
    """Its matrix says: shown turned clockwise by a quarter."""
    path = film(tmp_path / "phone.mp4", 12)
    plain = next(video_file.every_frame(path))[1]
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2, version 0
    one = 1 << 16
    content[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 24 * one, 0, 1 << 30)
    path.write_bytes(content)
    _, turned = next(video_file.every_frame(path))
    assert plain.shape == (24, 32, 3) and turned.shape == (32, 24, 3)
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))
    ((_, again),) = video_file.read_frames(path, video_file.index(path), [0])
    np.testing.assert_array_equal(again, turned)


def test_what_is_no_film_is_refused(tmp_path):
    for name, content in (("a.mp4", b"no film"), ("b.mp4", b"")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(BadData, match=f"{name} cannot be read"):
            video_file.index(path)
    with pytest.raises(BadData, match="cannot be read"):
        video_file.index(tmp_path / "absent.mp4")


def test_written_clips_read_back(tmp_path):
    clips = torch.stack(
        [torch.stack([torch.full((3, 16, 16), 8 * t + 64 * n) for t in range(6)]) for n in range(2)]
    ).to(torch.uint8)
    path = tmp_path / "clip.mp4"
    video_file.write_clips(path, clips, 12.5)
    found = video_file.index(path)
    assert len(found.times) == 6 and found.fps == pytest.approx(12.5, rel=1e-3)
    for t, (_, shown) in enumerate(video_file.every_frame(path)):
        assert shown.shape == (16, 32, 3)
        assert abs(shown[:, :14].mean() - 8 * t) < 4
        assert abs(shown[:, 18:].mean() - (8 * t + 64)) < 4
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
