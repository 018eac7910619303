"""One viewer's packets: what is on the wire, in which order, and what is never sent."""

import os
import socket
import threading
import time

import pytest
from aiortc import rtp
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from pylibsrtp import Policy, Session

from realtime import rtp_wire
from realtime.errors import RealtimeError
from realtime.rtp_wire import (
    HISTORY,
    PATIENCE_NS,
    WAITING,
    LockedSrtp,
    NoWay,
    Route,
    RtpWire,
    abs_send_time,
    layout_of,
    ntp_time,
)

SSRC, TYPE = 0x1234ABCD, 100
EXTENSIONS = [
    RTCRtpHeaderExtensionParameters(id=1, uri="urn:ietf:params:rtp-hdrext:sdes:mid"),
    RTCRtpHeaderExtensionParameters(
        id=3, uri="http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
    ),
]


def header_map(extensions=EXTENSIONS):
    known = rtp.HeaderExtensionsMap()
    known.configure(RTCRtpParameters(headerExtensions=extensions))
    return known


def layout(extensions=EXTENSIONS):
    def serialize(send_time):
        packet = rtp.RtpPacket(payload_type=TYPE)
        packet.ssrc, packet.extensions.mid = SSRC, "0"
        packet.extensions.abs_send_time = send_time
        return packet.serialize(header_map(extensions))

    return layout_of(serialize)


class Line:
    """A wire over a real socket pair, with real SRTP."""

    def __init__(self, extensions=EXTENSIONS):
        key = os.urandom(30)
        self.srtp = LockedSrtp(Session(Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND)))
        self.back = Session(Policy(key=key, ssrc_type=Policy.SSRC_ANY_INBOUND))
        self.far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.far.bind(("127.0.0.1", 0))
        self.far.settimeout(10)
        self.near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.waiting, self.late = 0, []
        self.route = self.way(self.near, self.far.getsockname())
        self.closed = 0
        self.map = header_map(extensions)
        self.wire = RtpWire(layout(extensions), self.srtp, lambda: self.route, self._close)

    def way(self, sock, address):
        return Route(sock, address, lambda: self.waiting, self.late.extend)

    def _close(self):
        self.closed += 1

    def receive(self, count):
        return [
            rtp.RtpPacket.parse(self.back.unprotect(self.far.recv(2000)), self.map)
            for _ in range(count)
        ]


@pytest.fixture
def line():
    line = Line()
    yield line
    line.near.close()
    line.far.close()


def test_a_picture_arrives_as_its_packets(line, monkeypatch):
    monkeypatch.setattr(rtp_wire.time, "monotonic_ns", lambda: 1_700_000_000_250_000_000)
    assert line.wire.send([b"one", b"two", b"three"], 9000, True)
    assert line.wire.send([b"four"], 12_000, False)
    got = line.receive(4)
    assert [packet.payload for packet in got] == [b"one", b"two", b"three", b"four"]
    assert [packet.marker for packet in got] == [0, 0, 1, 1]
    assert {(packet.ssrc, packet.payload_type) for packet in got} == {(SSRC, TYPE)}
    first = got[0].sequence_number
    assert [packet.sequence_number for packet in got] == [first + k & 0xFFFF for k in range(4)]
    origin = line.wire.origin
    expected = [(origin + t) & 0xFFFFFFFF for t in (9000, 9000, 9000, 12_000)]
    assert [packet.timestamp for packet in got] == expected
    assert {packet.extensions.mid for packet in got} == {"0"}
    # 1,700,000,000.25 s modulo 64, in 1/2**18 s
    assert {packet.extensions.abs_send_time for packet in got} == {
        (1_700_000_000 % 64 << 18) + 65536
    }


def test_what_was_not_negotiated_is_not_written():
    line = Line(EXTENSIONS[:1])
    try:
        assert layout(EXTENSIONS[:1]).send_time_at is None
        line.wire.send([b"x"], 0, True)
        (packet,) = line.receive(1)
        assert packet.extensions.abs_send_time is None and packet.extensions.mid == "0"
    finally:
        line.near.close()
        line.far.close()


def test_sequence_numbers_and_timestamps_wrap(line):
    line.wire._next, line.wire.origin = 0xFFFF, 0xFFFFFFF0
    line.wire.send([b"a", b"b"], 0x20, False)
    got = line.receive(2)
    assert [packet.sequence_number for packet in got] == [0xFFFF, 0]
    assert got[0].timestamp == 0x10


def test_times_are_what_receivers_reckon_with():
    for now_ns in (0, 1_700_000_000_999_999_999, 4_000_000_000_123_456_789):
        ntp = ntp_time(now_ns)
        assert abs(ntp / 2**32 - now_ns / 1e9) < 1e-5 and ntp < 1 << 64
        assert abs_send_time(now_ns) == (ntp >> 14) & 0xFFFFFF
    assert ntp_time(5_000_000_000 * 1_000_000_000) < 1 << 64


def test_figures_are_of_everything_sent(line):
    line.wire.send([b"abc", b"de"], 100, True)
    line.wire.send([b"f"], 200, False)
    sent = line.wire.sent
    assert (sent.packets, sent.octets, sent.pictures, sent.keyframes) == (3, 6, 2, 1)
    assert sent.timestamp == (line.wire.origin + 200) & 0xFFFFFFFF
    assert sent.keyframe_ns is not None and sent.ntp > 0


def test_packets_are_found_again_until_they_are_old(line):
    line.wire.send([b"old", b"next"], 0, True)
    first = line.receive(2)[0].sequence_number
    found = line.wire.packet(first)
    assert found is not None and (found.payload, found.marker) == (b"old", 0)
    assert found.send_time is not None
    line.wire.send([b"x"] * (HISTORY - 2), 1, False)
    assert line.wire.packet(first) is not None
    line.wire.send([b"y"], 2, False)
    assert line.wire.packet(first) is None  # its place was taken
    assert line.wire.packet(first + 1 & 0xFFFF) is not None
    assert line.wire.packet(first + 20_000 & 0xFFFF) is None


def test_what_the_socket_does_not_take_at_once_is_left_in_order(line):
    """A keyframe larger than the socket's buffer, or nobody would ever get one."""
    near, far = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    with near, far:
        far.bind(b"\0stylewire-wire-" + os.urandom(8).hex().encode())
        near.setblocking(False)
        line.route = line.way(near, far.getsockname())
        payloads = [bytes([k & 0xFF]) * 1000 for k in range(600)]
        assert line.wire.send(payloads, 0, True) is True
        assert 0 < len(line.late) < len(payloads), "its buffer took some and not all"
        got = [far.recv(2000) for _ in range(len(payloads) - len(line.late))] + line.late
        packets = [rtp.RtpPacket.parse(line.back.unprotect(data), line.map) for data in got]
        assert [packet.payload for packet in packets] == payloads
        assert line.wire.sent.packets == 600


def test_pictures_queue_behind_what_waits_and_are_not_sent_where_much_does(line):
    line.waiting = 1000
    assert line.wire.send([b"a"], 0, True) is True
    assert len(line.late) == 1, "it does not overtake"
    line.waiting = WAITING + 1
    assert line.wire.send([b"b"], 1, False) is False
    assert len(line.late) == 1 and line.wire.sent.pictures == 1
    line.waiting = 0
    assert line.wire.send([b"c"], 2, True) is True
    assert line.receive(1)[0].payload == b"c"


def test_a_network_that_is_gone_is_told_at_once_and_counted_right(line):
    class Gone:
        tried = 0

        def sendto(self, data, address):
            self.tried += 1
            if self.tried == 2:
                raise OSError("network is unreachable")

    gone = Gone()
    line.route = line.way(gone, None)
    assert line.wire.send([b"a", b"b", b"c"], 0, True) is False
    assert gone.tried == 2 and line.wire.sent.packets == 1 and line.late == []


def test_no_way_for_long_is_an_error(line, monkeypatch):
    now = [0]
    monkeypatch.setattr(rtp_wire.time, "monotonic_ns", lambda: now[0])
    route, line.route = line.route, None
    assert line.wire.send([b"a"], 0, True) is False
    now[0] = PATIENCE_NS
    assert line.wire.send([b"a"], 0, True) is False
    line.route = route
    assert line.wire.send([b"a"], 0, True) is True  # patience begins anew
    line.route, now[0] = None, now[0] + 1
    assert line.wire.send([b"a"], 0, True) is False
    now[0] += PATIENCE_NS + 1
    with pytest.raises(NoWay, match="connect again") as error:
        line.wire.send([b"a"], 0, True)
    assert isinstance(error.value, RealtimeError)


def test_the_first_number_leaves_room_for_the_receiver_to_follow():
    """Above 2**15 a stream whose beginning is lost could wrap unseen: nothing would decrypt."""
    assert all(RtpWire(layout(), None, lambda: None)._next < 1 << 15 for _ in range(200))


def test_a_keyframe_is_dated_before_it_leaves(line):
    """A request about one of its packets, made while it is being sent, is younger than it."""
    seen = []

    class Watching:
        def sendto(self, data, address):
            seen.append(time.monotonic_ns())

    line.route = line.way(Watching(), None)
    line.wire.send([b"a", b"b"], 0, True)
    assert line.wire.sent.keyframe_ns <= seen[0]


def test_without_a_way_nothing_is_sent_or_counted(line):
    line.route = None
    assert line.wire.send([b"a"], 0, True) is False
    assert line.wire.sent.pictures == 0


def test_a_closed_wire_sends_nothing_and_closes_once(line):
    line.wire.close()
    line.wire.close()
    assert line.closed == 1
    assert line.wire.send([b"a"], 0, True) is False


def test_closing_waits_for_the_picture_that_is_being_sent(line):
    """Its descriptor could be somebody else's a moment later."""
    entered, go, order = threading.Event(), threading.Event(), []

    class Slow:
        def sendto(self, data, address):
            entered.set()
            assert go.wait(10)
            order.append("sent")

    line.route = line.way(Slow(), None)
    sender = threading.Thread(target=line.wire.send, args=([b"a"], 0, True))
    sender.start()
    assert entered.wait(10)
    closer = threading.Thread(target=lambda: (line.wire.close(), order.append("closed")))
    closer.start()
    closer.join(0.05)
    assert line.closed == 0
    go.set()
    sender.join(10)
    closer.join(10)
    assert order == ["sent", "closed"] and line.closed == 1


def test_reports_and_pictures_share_a_session_without_harm(line):
    """Two threads in one SRTP session would corrupt each other's buffer."""
    report = rtp.RtcpByePacket(sources=[SSRC])
    stop = threading.Event()

    def report_on():
        while not stop.is_set():
            line.srtp.protect_rtcp(bytes(report))

    other = threading.Thread(target=report_on)
    other.start()
    try:
        for k in range(200):
            line.wire.send([bytes([k]) * 1000], k, False)
            (packet,) = line.receive(1)
            assert packet.payload == bytes([k]) * 1000
    finally:
        stop.set()
        other.join()
