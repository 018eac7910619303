"""The encoder thread: newest frame, live settings, one second chance, a clean end."""

import asyncio
import threading
import time

import pytest
from aiortc.mediastreams import MediaStreamError
from sink_bench import DECODERS, PATIENCE_S, Spied, Viewer, benches

from realtime.encoder import open_encoder
from realtime.errors import EncoderFailed, SessionClosed
from realtime.frame import FramePool
from realtime.sinks import encoder_lane
from realtime.test_card import TestCard


@pytest.fixture
async def bench():
    async with benches() as make:
        yield make


@pytest.fixture
def spies(monkeypatch):
    made = []

    def spied(*args, **settings):
        made.append(Spied(open_encoder(*args, **settings)))
        return made[-1]

    monkeypatch.setattr(encoder_lane, "open_encoder", spied)
    return made


async def pull_until_stopped(track):
    with pytest.raises(MediaStreamError):
        while True:
            await track.recv()


# ---- frames, sizes, rates


async def test_newest_frame_wins_while_the_encoder_is_busy(bench, spies):
    b = bench()
    viewer = Viewer(b.sink)
    await viewer.join(b)
    await viewer.drain()
    viewer.numbers.clear()
    (spy,) = spies
    spy.entered.clear()
    spy.gate.clear()
    held = b.offer()
    await b.until(spy.entered.is_set)
    for _ in range(5):
        newest = b.offer()
    assert b.pool.free == b.pool.slots - 2  # the one in the encoder and the newest
    published = len(b.published)
    spy.gate.set()
    await b.until(lambda: len(b.published) == published + 2)
    await viewer.drain()
    assert viewer.numbers == [held, newest]
    assert b.sink.stats()[0].overwritten == 4


@pytest.mark.parametrize("codec", list(DECODERS))
async def test_size_of_the_frames_is_followed(bench, codec):
    b = bench()
    viewer = Viewer(b.sink, codec)
    await viewer.join(b)
    await viewer.drain()
    old_pool, b.pool, b.card = b.pool, FramePool(64, 64, 4), TestCard(64)
    shown = await b.show(3)
    await viewer.drain()
    assert viewer.sizes[-3:] == [(64, 64)] * 3 and viewer.numbers[-3:] == shown
    assert viewer.packets[-3].is_keyframe
    assert old_pool.free == old_pool.slots


async def test_encoder_is_opened_once_at_the_size_of_the_frames(bench, spies):
    b = bench(resolution=256)  # the server's; this session is at 128
    viewer = Viewer(b.sink)
    await viewer.join(b)
    assert [spy.opened for spy in spies] == [(128, 128)] and spies[0].keyframes == 1


@pytest.mark.parametrize("codec", list(DECODERS))
async def test_dragged_frame_rate_costs_few_keyframes_and_the_rate_comes_back(bench, spies, codec):
    b = bench(keyframe_interval_s=0.0, bitrate=600_000)  # not the limiter's doing
    viewer = Viewer(b.sink, codec)
    await viewer.join(b)
    begun = b.pts
    for change in range(30):
        b.fps = 30 + change
        b.sink.set_fps(b.fps)
        until = begun + (change + 1) * 3000
        while b.pts < until:
            await b.show()
            await viewer.drain()
    settled = b.pts + 2 * 90_000
    while b.pts < settled:
        await b.show()
        await viewer.drain()
    assert sum(coded.keyframe for _, coded in b.published) <= 4
    assert not spies[0].overdue  # it was given its keyframe
    first = len(b.published)
    while b.pts < settled + 90_000:
        await b.show()
        await viewer.drain()
    rate = sum(coded.bytes for _, coded in b.published[first:]) * 8
    assert rate == pytest.approx(600_000, rel=0.12)


async def test_encoder_that_is_overdue_waits_for_the_limiter(bench, spies):
    b = bench(keyframe_interval_s=1000.0)
    viewer = Viewer(b.sink)
    await viewer.join(b)
    b.sink.set_fps(60)
    b.fps = 60
    await b.show(60)
    assert spies[0].overdue and spies[0].keyframes == 1


async def test_slowest_viewer_decides_until_it_leaves(bench, spies):
    b = bench()
    quick, slow = Viewer(b.sink), Viewer(b.sink)
    await quick.join(b)
    assert b.sink.target_bitrate("H264") == 1_000_000
    b.sink.bitrate_from(quick.track, 5_000_000)
    b.sink.bitrate_from(slow.track, 500_000)
    assert b.sink.target_bitrate("H264") == 400_000
    await b.show()
    assert spies[0].bitrate == 400_000
    b.sink.loss_from(slow.track, 0.5)
    assert b.sink.target_bitrate("H264") == 300_000
    assert b.sink.stats()[0].estimate == 500_000
    slow.track.stop()
    assert b.sink.target_bitrate("H264") == 1_000_000
    b.sink.bitrate_from(slow.track, 200_000)  # feedback that was on its way
    b.sink.loss_from(slow.track, 0.9)
    assert b.sink.target_bitrate("H264") == 1_000_000
    assert b.sink.target_bitrate("VP8") is None and b.sink.starved() == []


async def test_rate_and_frame_rate_change_live(bench, spies):
    b = bench()
    viewer = Viewer(b.sink)
    await viewer.join(b)
    b.sink.set_rate(3_000_000)
    b.sink.set_fps(60)
    await b.show()
    assert (spies[0].bitrate, spies[0].ceiling, spies[0].fps) == (3_000_000, 3_000_000, 60)
    b.sink.set_rate(1)
    await b.show()
    assert spies[0].bitrate == 150_000  # the floor
    b.sink.set_rate(700_000)
    b.fps = 60
    await Viewer(b.sink, "VP8").join(b)  # opened later: it has the settings of now
    assert (spies[1].bitrate, spies[1].fps) == (700_000, 60)


async def test_keyframes_keep_their_distance_and_no_request_is_lost(bench):
    b = bench(keyframe_interval_s=0.3)
    viewer = Viewer(b.sink)
    await viewer.join(b)
    begun = time.monotonic()
    stamps = [b.published[0][1].stamps["encoded"]]
    while time.monotonic() - begun < 0.7:
        for _ in range(5):
            viewer.track.request_keyframe()
        await b.show()
        await viewer.drain()
    viewer.track.request_keyframe()  # too early, most likely: it must be kept
    asked = len(b.published)
    await b.until(lambda: b.offer() >= 0 and any(c.keyframe for _, c in b.published[asked:]))
    stamps = [c.stamps["encoded"] for _, c in b.published if c.keyframe]
    gaps = [(later - earlier) / 1e9 for earlier, later in zip(stamps, stamps[1:], strict=False)]
    assert len(gaps) >= 2 and min(gaps) > 0.29


# ---- trouble


async def test_failing_encoder_is_opened_anew_once_and_the_stream_goes_on(bench, spies):
    b = bench()
    viewer = Viewer(b.sink)
    await viewer.join(b)
    await viewer.drain()
    spies[0].failures = [None, EncoderFailed("for the test")]
    shown = []
    for _ in range(4):
        shown += await b.show()
        await viewer.drain()
    assert viewer.numbers[-4:] == shown  # the frame that failed is not even missing
    assert viewer.packets[-3].is_keyframe
    assert b.sink.error is None and spies[0].reopened == 1
    assert b.sink.stats()[0].reopened == 1


async def test_only_encoder_that_fails_again_is_reported_by_offer(bench, spies):
    b = bench()
    viewer = Viewer(b.sink)
    await viewer.join(b)
    spies[0].failures = [EncoderFailed("first"), EncoderFailed("second")]
    b.offer()
    await b.until(lambda: b.sink.error is not None)
    with pytest.raises(EncoderFailed, match="second"):
        b.offer()
    assert b.pool.free == b.pool.slots


async def test_bug_in_the_thread_comes_out_of_offer(bench, spies):
    b = bench()
    viewer = Viewer(b.sink)
    await viewer.join(b)
    spies[0].failures = [RuntimeError("a bug in the thread")]
    b.offer()
    await b.until(lambda: b.sink.error is not None)
    with pytest.raises(EncoderFailed, match="a bug in the thread"):
        b.offer()


async def test_failed_codec_ends_its_own_viewers_and_nobody_else(bench, spies):
    b = bench(keyframe_interval_s=0.0)
    stays, goes = Viewer(b.sink, "H264"), Viewer(b.sink, "VP8")
    await stays.join(b)
    await goes.join(b)
    h264, vp8 = spies
    vp8.failures = [EncoderFailed("first."), EncoderFailed("second.")]
    async with asyncio.TaskGroup() as group:
        pull = group.create_task(pull_until_stopped(goes.track))
        b.offer()
        await b.until(pull.done)  # its sender learns that it is over
    assert goes.track.error == "The VP8 picture has stopped: second. Connect again."
    assert stays.track.error == "" and b.sink.error is None
    async with asyncio.timeout(PATIENCE_S):
        while b.index - 1 not in stays.numbers:  # it may have been cleared while the other joined
            await b.show()
            await stays.drain()
    assert None not in stays.numbers
    assert [row.codec for row in b.sink.stats()] == ["H264"]
    again = Viewer(b.sink, "VP8")  # a new one begins anew
    await again.join(b)
    assert len(spies) == 3 and None not in again.numbers
    for spy in (h264, spies[2]):
        spy.failures = [RuntimeError("and this one"), RuntimeError("not reached")]
    b.offer()
    await b.until(lambda: b.sink.error is not None)
    with pytest.raises(EncoderFailed, match="and this one"):  # nobody is left to serve
        b.offer()


async def test_codec_that_does_not_open_is_reported(bench, monkeypatch):
    def refuse(*args, **settings):
        raise EncoderFailed("no such codec here")

    monkeypatch.setattr(encoder_lane, "open_encoder", refuse)
    b = bench()
    track = b.sink.subscribe("H264")
    async with asyncio.TaskGroup() as group:
        group.create_task(pull_until_stopped(track))
        await asyncio.sleep(0)
        b.offer()
        await b.until(lambda: b.sink.error is not None)
        await b.sink.aclose()
    assert "no such codec" in str(b.sink.error)


async def test_closing_ends_pulls_threads_and_offers(bench):
    b = bench()
    viewers = [Viewer(b.sink, codec) for codec in DECODERS]
    async with asyncio.TaskGroup() as group:
        for viewer in viewers:
            group.create_task(pull_until_stopped(viewer.track))
        await asyncio.sleep(0)
        for _ in range(3):
            b.offer()
        await b.sink.aclose()
    await b.sink.aclose()
    assert b.pool.free == b.pool.slots
    b.offer()
    assert b.pool.free == b.pool.slots
    with pytest.raises(SessionClosed):
        b.sink.subscribe("H264")


async def test_cancelled_close_still_ends_every_thread(bench, spies):
    b = bench()
    for codec in DECODERS:
        await Viewer(b.sink, codec).join(b)
    for spy in spies:
        spy.entered.clear()
        spy.gate.clear()
    b.offer()
    await b.until(lambda: all(spy.entered.is_set() for spy in spies))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await b.sink.aclose()
    for spy in spies:
        spy.gate.set()
    await b.until(lambda: b.pool.free == b.pool.slots)
    await b.until(lambda: not any(t.name.startswith("encode ") for t in threading.enumerate()))
