"""One encode for many viewers; nobody waits for anybody, and nothing is kept for the dead."""

import asyncio
import gc
import threading
import tracemalloc

import av
import pytest
from aiortc.mediastreams import MediaStreamError
from sink_bench import DECODERS, PATIENCE_S, Viewer, benches

from realtime.encoder import TIME_BASE, Coded
from realtime.sinks.viewer_track import ROWS


@pytest.fixture
async def bench():
    async with benches() as make:
        yield make


def stub(index, keyframe, size=5_000):
    payload = bytes(size)
    packet = av.Packet(payload)
    packet.pts, packet.time_base, packet.is_keyframe = index * 3000, TIME_BASE, keyframe
    return Coded(packet, (payload,), index * 3000, keyframe, index, size, {})


async def refuse_to_pull(track):
    with pytest.raises(MediaStreamError):
        await track.recv()


async def test_nothing_is_encoded_or_kept_before_a_transport_is_up(bench):
    b = bench()
    viewer = Viewer(b.sink)
    for _ in range(10):
        b.offer()
    await asyncio.sleep(0.05)
    assert b.published == [] and viewer.track.waiting == 0
    assert b.pool.free == b.pool.slots
    await viewer.join(b)
    assert viewer.packets[0].is_keyframe
    assert viewer.numbers == [b.published[0][1].index]


async def test_nothing_is_kept_for_a_viewer_that_is_still_connecting(bench):
    b = bench(keyframe_interval_s=0.0)
    watching, connecting = Viewer(b.sink), Viewer(b.sink)
    await watching.join(b)
    for _ in range(5):
        watching.track.request_keyframe()
        await b.show()
        await watching.drain()
        assert connecting.track.waiting == 0
    shown = b.index
    await connecting.join(b)
    assert connecting.numbers[0] >= shown  # drawn after its transport came up


async def test_two_viewers_share_one_encode(bench):
    b = bench()
    one, two = Viewer(b.sink), Viewer(b.sink)
    await one.join(b)
    await two.join(b)
    await one.drain()
    for viewer in (one, two):
        viewer.numbers.clear()
    encoded = b.sink.stats()[0].encoded
    shown = []
    for _ in range(10):
        shown += await b.show()
        await one.drain()
        await two.drain()
    assert one.numbers == two.numbers == shown
    (stats,) = b.sink.stats()
    assert stats.encoded == encoded + 10 and stats.viewers == 2
    assert one.packets[-1] is two.packets[-1]  # not even a copy


async def test_late_viewer_gets_a_keyframe_and_the_first_sees_no_gap(bench):
    b = bench(keyframe_interval_s=0.0)
    first = Viewer(b.sink)
    await first.join(b)
    for _ in range(5):
        await b.show()
        await first.drain()
    late = Viewer(b.sink)
    await late.join(b)
    await first.drain()
    assert late.packets[0].is_keyframe and None not in late.numbers
    start = first.numbers[0]
    assert first.numbers == list(range(start, start + len(first.numbers)))


async def test_viewer_that_does_not_pull_is_cleared_and_the_other_sees_everything(bench):
    b = bench(keyframe_interval_s=0.05)
    quick, slow = Viewer(b.sink), Viewer(b.sink)
    await quick.join(b)
    await slow.join(b)
    await quick.drain()
    await b.show()  # in case it was cleared itself while the other joined
    await quick.drain()
    while quick.numbers[-1] != b.index - 1:
        await b.show()
        await quick.drain()
    quick.numbers.clear()
    dropped, shown = quick.track.dropped, []
    for _ in range(60):
        shown += await b.show()
        assert slow.track.waiting <= 3
        await quick.drain()
    assert quick.numbers == shown and quick.track.dropped == dropped
    assert slow.track.overflows >= 1 and slow.track.dropped > 40
    # It comes back: from a keyframe on, so that nothing it shows is torn.
    slow.numbers.clear()
    async with asyncio.timeout(PATIENCE_S):
        while not slow.numbers or slow.numbers[-1] != b.index - 1:
            await b.show()
            await slow.drain()
    assert None not in slow.numbers


async def test_dead_viewer_costs_no_memory(bench):
    b = bench()
    viewer = Viewer(b.sink)
    await viewer.join(b)

    def flood(count):
        for index in range(count):
            viewer.track.push(stub(index, index % 7 == 0))

    flood(200)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        flood(5_000)  # 25 MB, were it kept
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert viewer.track.waiting <= 3
    assert grown < 100_000


async def test_rows_nobody_takes_are_bounded(bench):
    b = bench()
    viewer = Viewer(b.sink)
    await viewer.join(b)
    await viewer.drain()
    for index in range(ROWS + 50):
        viewer.track.push(stub(index, True, size=10))
        await viewer.track.recv()
    rows = viewer.track.take_rows()
    assert len(rows) == ROWS and rows[-1].index == ROWS + 49
    assert viewer.track.take_rows() == []


async def test_row_has_every_stamp_in_order(bench):
    b = bench()
    viewer = Viewer(b.sink)
    await viewer.join(b)
    await viewer.drain()
    row, packet = viewer.track.take_rows()[0], viewer.packets[0]
    names = ["due", "sampled", "rendered", "encoded", "sent"]
    values = [row.stamps[name] for name in names]
    assert values == sorted(values)
    assert (row.timestamp, row.bytes, row.keyframe) == (packet.pts, packet.size, True)
    assert row.timestamp == row.index * 3000
    assert viewer.track.bytes >= row.bytes and viewer.track.sent == len(viewer.packets)


async def test_stopped_track_ends_a_pending_pull_and_leaves_the_sink(bench):
    b = bench()
    viewer = Viewer(b.sink)
    await viewer.join(b)
    await viewer.drain()
    async with asyncio.TaskGroup() as group:
        pull = group.create_task(refuse_to_pull(viewer.track))
        await asyncio.sleep(0)
        viewer.track.stop()
        await pull
    assert b.sink.stats()[0].viewers == 0
    encoded = b.sink.stats()[0].encoded
    b.offer()
    await asyncio.sleep(0.02)
    assert b.sink.stats()[0].encoded == encoded  # nobody watches: nobody pays
    with pytest.raises(MediaStreamError):
        await viewer.track.recv()


async def test_cancelled_pull_loses_nothing(bench):
    b = bench()
    viewer = Viewer(b.sink)
    await viewer.join(b)
    await viewer.drain()
    viewer.numbers.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await viewer.track.recv()
    shown = await b.show(2)
    await viewer.drain()
    assert viewer.numbers == shown


async def test_both_codecs_at_once_have_a_thread_each(bench):
    b = bench()
    viewers = [Viewer(b.sink, codec) for codec in DECODERS]
    for viewer in viewers:
        await viewer.join(b)
    names = {t.name for t in threading.enumerate() if t.name.startswith("encode ")}
    assert names == {"encode H264", "encode VP8"}
    for viewer in viewers:
        await viewer.drain()
        viewer.numbers.clear()
    shown = await b.show(3, codecs=2)
    for viewer in viewers:
        await viewer.drain()
        assert viewer.numbers == shown
