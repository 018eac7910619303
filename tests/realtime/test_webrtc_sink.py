"""One encode for many viewers; nobody waits for anybody, and nothing is kept for the dead."""

import asyncio
import gc
import threading
import time
import tracemalloc

import pytest
from aiortc.mediastreams import MediaStreamError
from sink_bench import DECODERS, PATIENCE_S, Viewer, benches

from realtime.encoder import Coded
from realtime.sinks.viewer_track import ROWS


@pytest.fixture
async def bench():
    async with benches() as make:
        yield make


def stub(index, keyframe, size=5_000):
    payload = bytes(size)
    return Coded(payload, (payload,), index * 3000, keyframe, index)


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


# ---- viewers with a wire


class Wire:
    """Takes pictures, or not."""

    def __init__(self):
        self.sent, self.threads, self.takes, self.closed = [], set(), True, 0

    def send(self, payloads, timestamp, keyframe):
        self.sent.append((timestamp, keyframe))
        self.threads.add(threading.current_thread().name)
        return self.takes

    def close(self):
        self.closed += 1


class Wired:
    """A viewer whose sender has attached a wire, as `peer_tuning` does, and waits in `recv`."""

    def __init__(self, sink, codec="VP8"):
        self.track, self.wire, self.after = sink.subscribe(codec), Wire(), 0
        self.track.attach(self.wire, self._after)
        self.pull = asyncio.get_running_loop().create_task(refuse_to_pull(self.track))

    def _after(self):
        self.after += 1


async def test_a_wire_gets_each_picture_in_the_encoders_thread_beginning_with_a_keyframe(bench):
    b = bench()
    one = Wired(b.sink)
    await asyncio.sleep(0)
    shown = await b.show(5)
    assert [timestamp for timestamp, _ in one.wire.sent] == [n * 3000 for n in shown]
    assert [key for _, key in one.wire.sent] == [True, False, False, False, False]
    assert one.wire.threads == {"encode VP8"}
    rows = one.track.take_rows()
    assert [row.index for row in rows] == shown and one.track.sent == 5
    for at in (row.stamps for row in rows):
        assert at["encoded"] <= at["sent"] <= at["left"]
    assert one.after == 5 and one.track.waiting == 0
    one.track.stop()
    await one.pull  # ended as any other
    assert one.wire.closed == 1


async def test_a_picture_that_did_not_go_out_whole_is_followed_by_a_keyframe(bench):
    b = bench(keyframe_interval_s=0.0)
    broken, fine = Wired(b.sink), Wired(b.sink)
    await asyncio.sleep(0)
    await b.show(2)
    broken.wire.takes = False
    await b.show()
    broken.wire.takes = True
    before = len(broken.wire.sent)
    await b.show(3)
    assert broken.wire.sent[before][1] is True, "nothing is sent that refers to what was lost"
    assert broken.track.overflows == 1 and not broken.track.starving
    assert broken.track.sent == len(broken.track.take_rows()) == 5, "what did not go out is no row"
    assert len(fine.wire.sent) == 6 and fine.track.overflows == 0
    for one in (broken, fine):
        one.track.stop()
        await one.pull


async def test_a_wire_that_fails_ends_its_own_viewer_only(bench):
    b = bench()
    bad, good = Wired(b.sink), Wired(b.sink)

    def fail(*_):
        raise ValueError("packet is too long")

    bad.wire.send = fail
    await asyncio.sleep(0)
    await b.show(3)
    await bad.pull
    assert "ValueError" in bad.track.error and bad.wire.closed == 1
    assert len(good.wire.sent) == 3 and not good.track.error
    good.track.stop()
    await good.pull


async def test_a_viewer_that_joins_while_a_keyframe_goes_out_gets_one_of_its_own(bench):
    """The keyframe in flight answers all requests but that of whoever came too late for it."""
    b = bench(keyframe_interval_s=0.0)
    first = Wired(b.sink)
    await asyncio.sleep(0)
    await b.show(2)
    late = b.sink.subscribe("VP8")
    late.attach(Wire(), lambda: None)
    late._started = True  # its transport came up after the encoder's thread had looked
    (lane,) = b.sink._lanes.values()
    lane.limiter.satisfied()
    assert not lane.limiter.pending
    await b.show()
    assert lane.limiter.pending and late.starving
    first.track.stop()
    late.stop()
    await first.pull


async def test_a_wire_for_a_track_that_has_ended_is_closed(bench):
    track, wire = bench().sink.subscribe("VP8"), Wire()
    track.stop()
    track.attach(wire, lambda: None)
    assert wire.closed == 1 and not track.wired


async def test_frames_may_be_offered_from_another_thread_while_viewers_come_and_go(bench):
    b = bench(slots=8)
    steady = Wired(b.sink, "VP8")
    await asyncio.sleep(0)
    errors = []

    def offer():
        try:
            for _ in range(60):
                if b.pool.free:
                    b.offer()
                time.sleep(0.002)
        except Exception as error:
            errors.append(error)

    camera = threading.Thread(target=offer)
    camera.start()
    while camera.is_alive():
        guest = Wired(b.sink, "H264")
        await asyncio.sleep(0.005)
        guest.track.stop()
        await guest.pull
    camera.join()
    assert errors == []
    await b.until(lambda: steady.wire.sent)
    steady.track.stop()
    await steady.pull
