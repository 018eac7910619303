"""VP8 in both ways; the guards that keep a foreign libvpx from being misread."""

import logging
import threading
import time

import av
import numpy as np
import pytest

from realtime import libvpx, vp8
from realtime.encoder import open_encoder
from realtime.errors import EncoderFailed
from realtime.libvpx import LibvpxUnusable
from realtime.test_card import TestCard
from realtime.vp8 import Vp8Direct, Vp8PyAv

SETTINGS = {"ceiling": 2_000_000, "floor": 150_000}


def test_direct_way_is_taken_here():
    encoder = open_encoder("VP8", 64, 64, 30, 300_000, **SETTINGS)
    assert isinstance(encoder, Vp8Direct)
    encoder.close()


@pytest.mark.parametrize("field", ["bitrate", "kf_max", "width"])
def test_other_struct_layout_is_noticed(field, monkeypatch):
    offset, default = libvpx._FIELDS[field]
    monkeypatch.setitem(libvpx._FIELDS, field, (offset + 4, default))
    with pytest.raises(LibvpxUnusable, match=field):
        Vp8Direct(64, 64, 30, 300_000, **SETTINGS)


def test_unknown_interface_number_is_noticed(monkeypatch):
    monkeypatch.setattr(libvpx, "_INTERFACE_NUMBERS", range(1, 4))
    with pytest.raises(LibvpxUnusable, match="interface number"):
        Vp8Direct(64, 64, 30, 300_000, **SETTINGS)


class Watched:
    """libvpx's quick calls, with the codecs destroyed counted."""

    def __init__(self, real):
        self.real, self.destroyed = real, 0

    def vpx_codec_destroy(self, codec):
        self.destroyed += 1
        return self.real.vpx_codec_destroy(codec)

    def __getattr__(self, name):
        return getattr(self.real, name)


def test_refused_control_leaves_no_open_codec_and_pyav_stands_in(monkeypatch):
    slow, quick = libvpx.load()
    watched = Watched(quick)
    monkeypatch.setattr(libvpx, "load", lambda: (slow, watched))
    monkeypatch.setattr(libvpx, "MAX_INTRA", 9_999)  # no such control
    with pytest.raises(LibvpxUnusable, match="refuses control 9999"):
        Vp8Direct(64, 64, 30, 300_000, **SETTINGS)
    assert watched.destroyed == 1
    encoder = open_encoder("VP8", 64, 64, 30, 300_000, **SETTINGS)
    assert isinstance(encoder, Vp8PyAv) and "9999" in encoder.detail
    encoder.close()
    vp8._say_once.cache_clear()


def test_missing_library_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(av, "__file__", str(tmp_path / "av" / "__init__.py"))
    monkeypatch.setattr(libvpx.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(LibvpxUnusable, match="no libvpx"):
        libvpx._library_path()


def test_wrong_library_is_named(monkeypatch):
    monkeypatch.setattr(libvpx, "_library_path", lambda: "/nowhere/libvpx.so")
    with pytest.raises(LibvpxUnusable, match="/nowhere/libvpx.so"):
        libvpx.load.__wrapped__()


def test_pyav_stands_in_and_says_so_once(monkeypatch, caplog):
    def unusable():
        raise LibvpxUnusable("for the test")

    monkeypatch.setattr(libvpx, "load", unusable)
    vp8._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "realtime.vp8"):
        for _ in range(2):
            encoder = open_encoder("VP8", 64, 64, 30, 300_000, **SETTINGS)
            assert isinstance(encoder, Vp8PyAv) and "for the test" in encoder.detail
            encoder.close()
    assert len(caplog.records) == 1
    vp8._say_once.cache_clear()


def test_pyav_way_holds_its_rate_and_opens_anew_for_large_steps_only():
    encoder = Vp8PyAv(256, 256, 30, 800_000, **SETTINGS)
    card, i420, sizes, keys = TestCard(256), np.empty((384, 256), np.uint8), [], []
    for n in range(240):
        card.draw(n / 30, i420)
        if n == 60:
            encoder.bitrate = 1_000_000  # a quarter: not worth a keyframe
        if n == 120:
            encoder.bitrate = 300_000
        coded = encoder.encode(i420, n * 3000)
        sizes.append(coded.bytes)
        if coded.keyframe:
            keys.append(n)
    encoder.close()
    assert keys == [0, 120]
    assert np.mean(sizes[60:120]) * 240 == pytest.approx(800_000, rel=0.12)
    assert np.mean(sizes[180:]) * 240 == pytest.approx(300_000, rel=0.12)


def test_no_keyframe_comes_by_itself_even_where_a_distance_is_due(monkeypatch):
    """At this speed libvpx looks at no scenes: a distance alone tells automatic from disabled."""
    monkeypatch.setattr(vp8, "NEVER", 10)
    encoder = Vp8Direct(128, 128, 30, 300_000, **SETTINGS)
    card, i420 = TestCard(128), np.empty((192, 128), np.uint8)
    for n in range(100):
        card.draw(n // 10 * 37.1, i420)  # a hard cut every ten pictures
        if n // 10 % 2:
            np.subtract(255, i420, out=i420)
        encoder.encode(i420, n * 3000)
    encoder.close()
    assert encoder.keyframes == 1


def test_frame_rate_moves_through_pyav_without_a_keyframe():
    encoder = Vp8PyAv(128, 128, 15, 400_000, **SETTINGS)
    card, i420, sizes = TestCard(128), np.empty((192, 128), np.uint8), []
    for n in range(150):
        if n == 30:
            encoder.fps = 30
        pts = n * 6000 if n < 30 else 180_000 + (n - 30) * 3000
        card.draw(pts / 90_000, i420)
        sizes.append(encoder.encode(i420, pts).bytes)
    encoder.close()
    assert encoder.keyframes == 1
    assert np.mean(sizes[60:]) * 240 == pytest.approx(400_000, rel=0.12)


def test_encoding_gives_the_interpreter_lock_up():
    """Another thread runs while a large picture is coded: it is not held for milliseconds."""
    encoder = Vp8Direct(1024, 1024, 30, 2_000_000, **SETTINGS)
    i420 = np.random.default_rng(0).integers(16, 235, (1536, 1024), dtype=np.uint8)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.wait(0.0002):
            ticks.append(time.perf_counter_ns())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        spans = []
        for n in range(10):
            start = time.perf_counter_ns()
            encoder.encode(i420, n * 3000)
            spans.append((start, time.perf_counter_ns()))
    finally:
        stop.set()
        thread.join()
        encoder.close()
    inside = [sum(start < t < end for t in ticks) for start, end in spans]
    assert max(inside) >= 5  # milliseconds of noise to code, ticks every 0.2 ms


def test_libvpx_error_is_named():
    encoder = Vp8Direct(64, 64, 30, 300_000, **SETTINGS)
    grey = np.full((96, 64), 128, np.uint8)
    encoder.encode(grey, 3000)
    with pytest.raises(EncoderFailed, match="libvpx says"):
        encoder.encode(grey, -(2**62))
    encoder.reopen()
    assert encoder.encode(grey, 6000).keyframe
    encoder.close()
