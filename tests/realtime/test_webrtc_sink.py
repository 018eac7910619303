"""One encode for many viewers, no queue anywhere, nothing lost or leaked on the way."""

import asyncio
import gc
import threading
import time
import tracemalloc

import av
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, rtp
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpreceiver import RTCRtpReceiver

from realtime import barcode, peer_tuning
from realtime.config import StreamConfig
from realtime.encoder import TIME_BASE, Coded, open_encoder
from realtime.errors import EncoderFailed, SessionClosed
from realtime.frame import FramePool
from realtime.messages import Tick
from realtime.sinks import encoder_lane
from realtime.sinks.viewer_track import ROWS
from realtime.sinks.webrtc import WebRtcSink
from realtime.test_card import TestCard

DECODERS = {"H264": "h264", "VP8": "vp8"}
SIZE, FPS = 128, 30
PATIENCE_S = 20.0  # a bound for a hung test on a busy machine, not an expectation


class Bench:
    """A sink, frames to offer, and what it published."""

    def __init__(self, size=SIZE, slots=4, *, on_error=None, **stream):
        self.pool = FramePool(size, size, slots)
        self.card = TestCard(size)
        self.index = 0
        self.published = []
        self._news = asyncio.Event()
        self.sink = WebRtcSink(
            StreamConfig(**{"resolution": size, "bitrate": 1_000_000, **stream}),
            on_stats=self._on_stats,
            on_error=on_error,
        )

    def _on_stats(self, codec, coded):
        self.published.append((codec, coded))
        self._news.set()

    def frame(self):
        tick = Tick(self.index, self.index / FPS, self.index * 90_000 // FPS, 0)
        frame = self.pool.acquire(tick)
        assert frame is not None, "the sink keeps frames"
        self.card.draw(tick.t, frame.i420)
        barcode.stamp(frame.planes[0], tick.index)
        frame.stamps.update(due=0, sampled=1, rendered=time.monotonic_ns())
        self.index += 1
        return frame

    def offer(self):
        frame = self.frame()
        try:
            self.sink.offer(frame)
        finally:
            frame.release()
        return frame.tick.index

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                try:
                    async with asyncio.timeout(0.05):  # some conditions come without news
                        await self._news.wait()
                except TimeoutError:
                    pass

    async def show(self, count=1, codecs=1):
        """Offer `count` frames, each after the one before was published. Returns their indices."""
        shown = []
        for _ in range(count):
            before = len(self.published)
            shown.append(self.offer())
            await self.until(lambda before=before: len(self.published) >= before + codecs)
        return shown


@pytest.fixture
async def bench():
    made = []

    def make(*args, **settings):
        made.append(Bench(*args, **settings))
        return made[-1]

    yield make
    for one in made:
        await one.sink.aclose()
        assert one.pool.free == one.pool.slots  # every frame came back
    assert not [t for t in threading.enumerate() if t.name.startswith("encode ")]


class Viewer:
    """Pulls a track as a sender does and decodes what comes."""

    def __init__(self, sink, codec="H264"):
        self.track = sink.subscribe(codec)
        self._decoder = av.CodecContext.create(DECODERS[codec], "r")
        self.packets, self.numbers, self.sizes = [], [], []

    async def pull(self):
        packet = await self.track.recv()
        self.packets.append(packet)
        for frame in self._decoder.decode(packet):
            luma = frame.to_ndarray()[: frame.height]
            self.numbers.append(barcode.read(luma))
            self.sizes.append((frame.width, frame.height))

    async def join(self, bench):
        """The first pull: its transport is up. Returns with its first picture."""
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            pull = group.create_task(self.pull())
            while not pull.done():
                await asyncio.sleep(0.01)
                if not pull.done():
                    await bench.show()

    async def drain(self):
        while self.track.waiting:
            await self.pull()


# ---- viewers


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


def stub(index, keyframe, size=5_000):
    payload = bytes(size)
    packet = av.Packet(payload)
    packet.pts, packet.time_base, packet.is_keyframe = index * 3000, TIME_BASE, keyframe
    return Coded(packet, (payload,), index * 3000, keyframe, index, size, {})


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
        pull = group.create_task(pytest_raises_stopped(viewer.track))
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


async def pytest_raises_stopped(track):
    with pytest.raises(MediaStreamError):
        await track.recv()


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


# ---- frames, sizes, rates


class Spied:
    """A real encoder that can be held up or made to fail."""

    def __init__(self, real):
        self.real, self.gate, self.failures, self.reopened = real, threading.Event(), [], 0
        self.gate.set()
        self.entered = threading.Event()

    def encode(self, *args, **settings):
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        if self.failures and (error := self.failures.pop(0)) is not None:
            raise error
        return self.real.encode(*args, **settings)

    def reopen(self):
        self.reopened += 1
        self.real.reopen()

    def __getattr__(self, name):
        return getattr(self.real, name)

    def __setattr__(self, name, value):
        if name in ("fps", "bitrate", "ceiling"):
            setattr(self.real, name, value)
        else:
            object.__setattr__(self, name, value)


@pytest.fixture
def spies(monkeypatch):
    made = []

    def spied(*args, **settings):
        made.append(Spied(open_encoder(*args, **settings)))
        return made[-1]

    monkeypatch.setattr(encoder_lane, "open_encoder", spied)
    return made


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
    Viewer(b.sink, "VP8")  # opened later: it has the settings of now
    await b.until(lambda: len(spies) == 2)
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
    errors = []
    b = bench(on_error=errors.append)
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
    assert errors == [] and spies[0].reopened == 1
    assert b.sink.stats()[0].reopened == 1


async def test_encoder_that_fails_again_is_reported_once(bench, spies):
    errors = []
    b = bench(on_error=errors.append)
    viewer = Viewer(b.sink)
    await viewer.join(b)
    spies[0].failures = [EncoderFailed("first"), EncoderFailed("second")]
    b.offer()
    await b.until(lambda: errors)
    assert [str(error) for error in errors] == ["second"]
    for _ in range(6):
        b.offer()  # refused quietly: whoever was told decides
    assert b.pool.free == b.pool.slots and len(errors) == 1


async def test_without_a_listener_the_error_comes_out_of_offer(bench, spies):
    b = bench()
    viewer = Viewer(b.sink)
    await viewer.join(b)
    spies[0].failures = [RuntimeError("a bug in the thread")]
    b.offer()
    await b.until(lambda: b.sink.error is not None)
    with pytest.raises(EncoderFailed, match="a bug in the thread"):
        b.offer()


async def test_codec_that_does_not_open_is_reported(bench, monkeypatch):
    def refuse(*args, **settings):
        raise EncoderFailed("no such codec here")

    monkeypatch.setattr(encoder_lane, "open_encoder", refuse)
    errors = []
    b = bench(on_error=errors.append)
    Viewer(b.sink)
    await b.until(lambda: errors)
    assert "no such codec" in str(errors[0])


async def test_closing_ends_pulls_threads_and_offers(bench):
    b = bench()
    viewers = [Viewer(b.sink, codec) for codec in DECODERS]
    async with asyncio.TaskGroup() as group:
        for viewer in viewers:
            group.create_task(pytest_raises_stopped_after_a_while(viewer.track))
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


async def pytest_raises_stopped_after_a_while(track):
    with pytest.raises(MediaStreamError):
        while True:
            await track.recv()


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


# ---- through aiortc and a real socket


def raw_packets(pc):
    """The RTP packets a peer receives, decrypted, as they come."""
    (transceiver,) = pc.getTransceivers()
    transport, seen = transceiver.receiver.transport, []
    original = transport._handle_rtp_data

    async def handle(data, *args, **settings):
        seen.append(data)
        await original(data, *args, **settings)

    transport._handle_rtp_data = handle
    return seen


async def connect(bench, codec):
    """(browser's peer, server's peer, its track, its tuning, received RTP), connected."""
    browser, server = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    transceiver = browser.addTransceiver("video", direction="recvonly")
    known = RTCRtpReceiver.getCapabilities("video").codecs
    wanted = [c for c in known if c.mimeType in (f"video/{codec}", "video/rtx")]
    transceiver.setCodecPreferences(wanted)
    await browser.setLocalDescription(await browser.createOffer())
    offer = browser.localDescription.sdp.replace(
        "a=rtcp-mux\r\n", f"a=rtcp-mux\r\na=extmap:9 {peer_tuning.PLAYOUT_DELAY}\r\n", 1
    )
    await server.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    delay_id = peer_tuning.offer_playout_delay(server, offer)
    track = bench.sink.subscribe(codec)
    tuning = peer_tuning.tune_sender(
        server.addTrack(track),
        delay_id,
        lambda bps: bench.sink.bitrate_from(track, bps),
        track.request_keyframe,
    )
    await server.setLocalDescription(await server.createAnswer())
    seen = raw_packets(browser)
    await browser.setRemoteDescription(RTCSessionDescription(server.localDescription.sdp, "answer"))
    return browser, server, track, tuning, seen


async def watch(pc, count):
    """(barcode, 90 kHz since the first) of the first `count` pictures that a peer decodes."""
    (transceiver,) = pc.getTransceivers()
    out = []
    for _ in range(count):
        frame = await transceiver.receiver.track.recv()
        out.append((barcode.read(frame.to_ndarray()[: frame.height]), frame.pts))
    return out


async def keep_offering(bench):
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        if bench.pool.free:
            bench.offer()
        due = max(due + 1 / FPS, loop.time())
        await asyncio.sleep(due - loop.time())


@pytest.mark.parametrize("codec", list(DECODERS))
async def test_pictures_arrive_at_an_aiortc_receiver(bench, codec):
    b = bench()
    browser, server, track, tuning, seen = await connect(b, codec)
    second = await connect(b, codec)
    try:
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            camera = group.create_task(keep_offering(b))
            first_watch = group.create_task(watch(browser, 12))
            got_too = await watch(second[0], 12)
            got = await first_watch
            keyframes = b.sink.stats()[0].keyframes
            await browser.getTransceivers()[0].receiver._send_rtcp_pli(server_ssrc(server))
            await b.until(lambda: b.sink.stats()[0].keyframes > keyframes)
            camera.cancel()
    finally:
        for pc in (browser, server, *second[:2]):
            await pc.close()

    rows = {row.index: row for row in track.take_rows()}
    start = rows[got[0][0]].timestamp
    for number, since in got:
        assert rows[number].timestamp - start == since  # what is seen is what was sent, and when
    wire = {rtp.RtpPacket.parse(data, rtp.HeaderExtensionsMap()).timestamp for data in seen}
    assert wire <= {tuning.wire_timestamp(row.timestamp) for row in rows.values()}
    assert {number for number, _ in got_too} <= {coded.index for _, coded in b.published}
    assert len({tuning.rtp_origin, second[3].rtp_origin}) == 2  # each has its own
    assert tuning.keyframe_requests >= 1
    # Twelve pictures for each of two viewers, and at most as many encodes as frames were offered.
    (stats,) = b.sink.stats()
    assert stats.encoded <= b.index and stats.viewers == 0
    assert_every_packet_asks_for_no_delay(seen)


def server_ssrc(pc):
    return pc.getSenders()[0]._ssrc


def assert_every_packet_asks_for_no_delay(packets):
    assert len(packets) >= 12
    for data in packets:
        header = 12
        assert data[0] & 0x10, "no header extension"
        profile = int.from_bytes(data[header : header + 2], "big")
        length = int.from_bytes(data[header + 2 : header + 4], "big") * 4
        value = data[header + 4 : header + 4 + length]
        assert dict(rtp.unpack_header_extensions(profile, value))[9] == b"\0\0\0"
