"""Pictures through aiortc and a real socket: what arrives is what was sent, and when."""

import asyncio

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, rtp
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from sink_bench import DECODERS, FPS, PATIENCE_S, benches

from realtime import barcode, peer_tuning, peer_wire


@pytest.fixture
async def bench():
    async with benches() as make:
        yield make


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
        lambda: bench.sink.target_bitrate(codec),
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

    assert track.wired and second[2].wired
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


async def test_without_a_wire_the_library_sends_the_same(bench, monkeypatch):
    monkeypatch.setattr(peer_wire._Way, "look", lambda self: "none, for this test")
    b = bench()
    browser, server, track, tuning, seen = await connect(b, "VP8")
    try:
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            camera = group.create_task(keep_offering(b))
            got = await watch(browser, 8)
            camera.cancel()
    finally:
        for pc in (browser, server):
            await pc.close()
    assert not track.wired and track.started
    assert {number for number, _ in got} <= {row.index for row in track.take_rows()}
    assert tuning.packets >= len(seen) >= 8
    assert_every_packet_asks_for_no_delay(seen)


async def test_what_a_wire_sent_is_reported_and_repeated(bench):
    """aiortc's sender reports and its answers to requests for lost packets know the wire's."""
    b = bench()
    browser, server, track, tuning, seen = await connect(b, "VP8")
    sender = server.getSenders()[0]
    plain = rtp.HeaderExtensionsMap()
    try:
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            camera = group.create_task(keep_offering(b))
            await watch(browser, 8)
            wanted = rtp.RtpPacket.parse(seen[-1], plain)
            await browser.getTransceivers()[0].receiver._send_rtcp_nack(
                sender._ssrc, [wanted.sequence_number]
            )
            await b.until(lambda: any(again(data, wanted) for data in seen))
            stats = await sender.getStats()
            (outbound,) = [r for r in stats.values() if r.type == "outbound-rtp"]
            camera.cancel()
        assert tuning.counters()["packets_repeated"] == 1
        assert 8 <= outbound.packetsSent <= tuning.packets
        assert sender._RTCRtpSender__rtp_timestamp in {
            tuning.wire_timestamp(row.timestamp) for row in track.take_rows()
        }
    finally:
        for pc in (browser, server):
            await pc.close()


def again(data, wanted):
    """Whether this is `wanted` once more: its number, then its payload (RFC 4588, section 4)."""
    packet = rtp.RtpPacket.parse(data, rtp.HeaderExtensionsMap())
    number = wanted.sequence_number.to_bytes(2, "big")
    return packet.ssrc != wanted.ssrc and packet.payload == number + wanted.payload
