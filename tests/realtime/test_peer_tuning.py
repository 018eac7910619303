"""aiortc's insides are still where they are looked for, and do what we lean on them for."""

import asyncio

import aiortc
import av
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, rtp
from aiortc.codecs import HEADER_EXTENSIONS
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtcrtpsender import RTCRtpSender

from realtime import peer_tuning
from realtime.encoder import TIME_BASE
from realtime.errors import RealtimeError
from realtime.peer_tuning import (
    PLAYOUT_DELAY,
    SenderTuning,
    check_aiortc,
    offer_playout_delay,
    playout_delay_element,
    tune_sender,
)


class Transport:
    """What a sender needs of a DTLS transport, keeping what is sent."""

    state = "connected"
    _stats_id = "transport"

    def __init__(self):
        self.sent = []

    def _register_rtp_sender(self, sender, parameters):
        pass

    def _unregister_rtp_sender(self, sender):
        pass

    async def _send_rtp(self, data):
        self.sent.append(data)


def picture(timestamp, payloads=(b"\x65", b"k" * 20), keyframe=True):
    packet = av.Packet(b"".join(payloads))
    packet.pts, packet.time_base = timestamp, TIME_BASE
    packet.is_keyframe, packet.opaque = keyframe, (*payloads,)
    return packet


# ---- the names


def test_this_aiortc_has_every_name():
    check_aiortc()


@pytest.mark.parametrize(
    "method",
    ["_send_keyframe", "_retransmit", "_next_encoded_frame", "_handle_rtcp_packet", "_run_rtp"],
)
def test_renamed_method_is_noticed(method, monkeypatch):
    monkeypatch.delattr(RTCRtpSender, method)
    with pytest.raises(RealtimeError, match=f"RTCRtpSender.{method}.*pip install"):
        check_aiortc()


@pytest.mark.parametrize("method", ["__init__", "_next_encoded_frame", "_handle_rtcp_packet"])
def test_renamed_attribute_is_noticed(method, monkeypatch):
    """The method is there, but its code no longer knows the names."""
    monkeypatch.setattr(RTCRtpSender, method, lambda self, *args: None)
    with pytest.raises(RealtimeError, match="_RTCRtpSender__encoder"):
        check_aiortc()


def test_other_series_is_refused(monkeypatch):
    monkeypatch.setattr(aiortc, "__version__", "1.17.0")
    with pytest.raises(RealtimeError, match=r"1\.17\.0"):
        check_aiortc()


def test_sender_without_a_name_is_refused_and_left_alone():
    class Renamed:
        pass

    sender = Renamed()
    with pytest.raises(RealtimeError, match="Renamed has no _RTCRtpSender__encoder"):
        tune_sender(sender, None, print, print, lambda: None)
    assert vars(sender) == {}


# ---- playout delay


@pytest.mark.parametrize(
    "minimum, maximum, expected", [(0, 0, "000000"), (0, 100, "00000a"), (40950, 40950, "ffffff")]
)
def test_delays_are_two_twelve_bit_numbers(minimum, maximum, expected):
    assert playout_delay_element(5, minimum, maximum) == bytes([0x52]) + bytes.fromhex(expected)


@pytest.mark.parametrize("bad", [(0, 0, 0), (15, 0, 0), (5, 10, 0), (5, -10, 0), (5, 0, 50_000)])
def test_impossible_delays_are_refused(bad):
    with pytest.raises(ValueError):
        playout_delay_element(*bad)


def test_packet_carries_the_delay_beside_the_negotiated_extensions():
    parameters = RTCRtpParameters(
        headerExtensions=[
            RTCRtpHeaderExtensionParameters(id=1, uri="urn:ietf:params:rtp-hdrext:sdes:mid"),
            RTCRtpHeaderExtensionParameters(
                id=3, uri="http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
            ),
        ]
    )
    ours, plain = peer_tuning._PlayoutDelay(7, 0, 0), rtp.HeaderExtensionsMap()
    for each in (ours, plain):
        each.configure(parameters)
    packet = rtp.RtpPacket(payload_type=100, sequence_number=5, timestamp=9, payload=b"body")
    packet.extensions.mid, packet.extensions.abs_send_time = "0", 0x123456
    data = packet.serialize(ours)
    back = rtp.RtpPacket.parse(data, plain)
    assert (back.extensions.mid, back.extensions.abs_send_time) == ("0", 0x123456)
    assert back.payload == b"body"
    length = int.from_bytes(data[14:16], "big") * 4
    elements = rtp.unpack_header_extensions(0xBEDE, data[16 : 16 + length])
    assert dict(elements)[7] == b"\0\0\0"


async def offered(lines=f"a=extmap:9 {PLAYOUT_DELAY}\r\n"):
    """(offer text with such lines in it, an answering peer that has read it)."""
    caller, answerer = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    try:
        caller.addTransceiver("video", direction="recvonly")
        await caller.setLocalDescription(await caller.createOffer())
        sdp = caller.localDescription.sdp.replace("a=rtcp-mux\r\n", f"a=rtcp-mux\r\n{lines}", 1)
        await answerer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
    finally:
        await caller.close()
    return sdp, answerer


async def test_answer_accepts_the_delay_under_the_offered_id():
    table = list(HEADER_EXTENSIONS["video"])
    sdp, pc = await offered()
    try:
        assert offer_playout_delay(pc, sdp) == 9
        assert offer_playout_delay(pc, sdp) == 9  # twice adds nothing
        answer = await pc.createAnswer()
        assert answer.sdp.count(f"a=extmap:9 {PLAYOUT_DELAY}") == 1
        assert table == HEADER_EXTENSIONS["video"]  # other peers see nothing of it
    finally:
        await pc.close()


@pytest.mark.parametrize("lines", ["", f"a=extmap:15 {PLAYOUT_DELAY}\r\n", "a=extmap:9 urn:x\r\n"])
async def test_delay_that_is_not_offered_is_not_answered(lines):
    sdp, pc = await offered(lines)
    try:
        assert offer_playout_delay(pc, sdp) is None
        assert PLAYOUT_DELAY not in (await pc.createAnswer()).sdp
    finally:
        await pc.close()


# ---- a real sender of aiortc, fed with RTCP


class Peer:
    """A tuned sender and what it called."""

    def __init__(self):
        self.transport = Transport()
        self.sender = RTCRtpSender("video", self.transport)
        self.rates, self.keyframes, self.now_ns = [], 0, 0
        self.repeated = []
        self.media = 2_000_000

        async def repeat(sequence_number):
            self.repeated.append(sequence_number)

        self.sender._retransmit = repeat
        self.tuning = tune_sender(
            self.sender,
            None,
            self.rates.append,
            self.want_keyframe,
            lambda: self.media,
            now_ns=lambda: self.now_ns,
        )

    def want_keyframe(self):
        self.keyframes += 1

    async def receive(self, packet):
        await self.sender._handle_rtcp_packet(packet)


async def test_bandwidth_estimate_arrives():
    peer = Peer()
    fci = rtp.pack_remb_fci(1_500_000, [peer.sender._ssrc])
    await peer.receive(rtp.RtcpPsfbPacket(fmt=rtp.RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=fci))
    assert peer.rates == [pytest.approx(1_500_000, rel=0.001)]
    assert peer.tuning.estimate == peer.rates[0] and peer.tuning.estimates == 1


@pytest.mark.parametrize("kind", [rtp.RTCP_PSFB_PLI, rtp.RTCP_PSFB_FIR])
async def test_picture_loss_asks_for_a_keyframe(kind):
    peer = Peer()
    await peer.receive(rtp.RtcpPsfbPacket(fmt=kind, ssrc=1, media_ssrc=peer.sender._ssrc))
    assert peer.keyframes == 1 and peer.tuning.keyframe_requests == 1


async def test_lost_packet_is_repeated_six_times_and_then_a_keyframe_is_asked_for():
    peer = Peer()
    nack = rtp.RtcpRtpfbPacket(
        fmt=rtp.RTCP_RTPFB_NACK, ssrc=1, media_ssrc=peer.sender._ssrc, lost=[77]
    )
    for n in range(7):
        peer.now_ns = n * 50_000_000
        await peer.receive(nack)
    assert peer.repeated == [77] * 6
    assert peer.keyframes == 1
    counters = peer.tuning.counters()
    assert (counters["packets_repeated"], counters["repeats_given_up"]) == (6, 1)


async def test_repeats_are_a_share_of_what_is_sent_whatever_the_link_could_carry():
    peer = Peer()
    peer.tuning.estimated(20_000_000)

    async def ask(first, seconds):
        """How many of 1,000 packets a second are sent again."""
        before = len(peer.repeated)
        for n in range(first * 1000, (first + seconds) * 1000):
            peer.now_ns = n * 1_000_000
            lost = rtp.RtcpRtpfbPacket(
                fmt=rtp.RTCP_RTPFB_NACK, ssrc=1, media_ssrc=peer.sender._ssrc, lost=[n]
            )
            await peer.receive(lost)
        return len(peer.repeated) - before

    packet_bits = 1200 * 8
    assert await ask(0, 2) == pytest.approx(40 + 2 * 0.2 * 2_000_000 / packet_bits, rel=0.05)
    peer.media = 8_000_000  # a new rate counts at once, not with the next estimate
    assert await ask(2, 2) == pytest.approx(2 * 0.2 * 8_000_000 / packet_bits, rel=0.05)
    peer.media = None  # nothing is known: the last one stays
    assert await ask(4, 1) == pytest.approx(0.2 * 8_000_000 / packet_bits, rel=0.05)


async def test_keyframe_on_its_way_makes_older_requests_void():
    peer = Peer()
    nack = rtp.RtcpRtpfbPacket(
        fmt=rtp.RTCP_RTPFB_NACK, ssrc=1, media_ssrc=peer.sender._ssrc, lost=[77]
    )
    await peer.receive(nack)
    peer.now_ns = 40_000_000
    peer.sender._RTCRtpSender__encoder.pack(picture(0))
    peer.now_ns = 60_000_000
    await peer.receive(nack)
    assert peer.repeated == [77] and peer.tuning.counters()["repeats_ignored"] == 1


async def test_slot_passes_payloads_on_untouched_and_counts():
    peer = Peer()
    slot = peer.sender._RTCRtpSender__encoder
    first, second = picture(0, (b"aa", b"b")), picture(3000, (b"c",), keyframe=False)
    assert slot.pack(first) == ((b"aa", b"b"), 0)
    assert slot.pack(second) == ((b"c",), 3000)
    counters = peer.tuning.counters()
    assert (counters["frames"], counters["bytes"], counters["keyframes"]) == (2, 4, 1)


async def test_foreign_packet_is_refused():
    with pytest.raises(RealtimeError, match="our own encoders"):
        Peer().sender._RTCRtpSender__encoder.pack(av.Packet(b"x"))


# ---- the origin of timestamps on the wire


class Clocked:
    """The two numbers that a sender keeps of what it sent."""

    _RTCRtpSender__rtp_timestamp = 0
    _RTCRtpSender__packet_count = 0

    def send(self, timestamp, origin):
        self._RTCRtpSender__rtp_timestamp = (timestamp + origin) & 0xFFFFFFFF
        self._RTCRtpSender__packet_count += 1


def test_origin_is_unknown_until_a_packet_left():
    sender = Clocked()
    tuning = SenderTuning(sender, print, print, lambda: None)
    assert tuning.rtp_origin is None and tuning.wire_timestamp(0) is None
    tuning.packed(picture(6000))
    assert tuning.rtp_origin is None
    sender.send(6000, origin=0xFFFFFFF0)
    assert tuning.rtp_origin == 0xFFFFFFF0
    assert tuning.wire_timestamp(0x20) == 0x10  # it wraps at 32 bits


def test_origin_is_not_confused_by_a_picture_that_is_just_leaving():
    sender = Clocked()
    tuning = SenderTuning(sender, print, print, lambda: None)
    tuning.packed(picture(0))
    sender.send(0, origin=1000)
    tuning.packed(picture(3000))  # its packets are not out yet
    assert tuning.rtp_origin == 1000
    sender.send(3000, origin=1000)
    tuning.packed(picture(6000))
    assert tuning.rtp_origin == 1000


async def test_run_of_a_real_sender_has_the_origin_that_is_told():
    """aiortc's own loop sends a tuned track's pictures; the bytes it sent are parsed back."""

    class Three(aiortc.MediaStreamTrack):
        kind = "video"
        left = [picture(900), picture(3900, keyframe=False), picture(6900, keyframe=False)]

        async def recv(self):
            if not self.left:
                await asyncio.Event().wait()
            return self.left.pop(0)

    transport = Transport()
    sender = RTCRtpSender(Three(), transport)
    tuning = tune_sender(sender, 9, print, print, lambda: None)
    codec = aiortc.rtcrtpparameters.RTCRtpCodecParameters("video/H264", 90_000, payloadType=100)
    parameters = aiortc.rtcrtpparameters.RTCRtpSendParameters(codecs=[codec])
    parameters.rtcp.cname, parameters.muxId = "name", "0"
    await sender.send(parameters)
    for _ in range(10):
        await asyncio.sleep(0)
    await sender.stop()
    sent = [
        rtp.RtpPacket.parse(data, rtp.HeaderExtensionsMap())
        for data in transport.sent
        if not 200 <= data[1] <= 206  # RTCP
    ]
    assert [packet.timestamp for packet in sent] == [
        tuning.wire_timestamp(timestamp) for timestamp in (900, 900, 3900, 3900, 6900, 6900)
    ]
    assert [packet.marker for packet in sent] == [0, 1] * 3
    assert all(bytes([0x92, 0, 0, 0]) in data for data in transport.sent if data[1] < 200)
