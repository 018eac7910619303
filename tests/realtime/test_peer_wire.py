"""The way that ICE has found, and what becomes of it."""

import asyncio
import os
import socket
import threading
from types import SimpleNamespace

import pytest
from aiortc import rtp
from aiortc.rtcrtpsender import RTCRtpSender
from peers import open_files
from pylibsrtp import Policy, Session

from realtime import peer_tuning, peer_wire
from realtime.peer_wire import _Way, remember
from realtime.rtp_wire import LockedSrtp, Route, RtpWire, layout_of


class Sockets:
    """Real datagram transports of this loop, as candidate pairs, and a DTLS transport over them."""

    def __init__(self):
        self.pair, self.transports = None, []
        connection = SimpleNamespace(_nominated=self)
        ice = SimpleNamespace(_connection=connection)
        self.dtls = SimpleNamespace(state="connected", transport=ice)

    def get(self, component):
        assert component == 1
        return self.pair

    async def nominate(self, kind="host"):
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        self.transports.append(transport)
        self.pair = SimpleNamespace(
            protocol=SimpleNamespace(
                transport=transport, local_candidate=SimpleNamespace(type=kind)
            ),
            remote_addr=("127.0.0.1", 9),
        )
        return transport.get_extra_info("sockname")


@pytest.fixture
async def sockets():
    made = Sockets()
    yield made
    for transport in made.transports:
        transport.close()


async def in_a_thread(call):
    """As an encoder does."""
    return await asyncio.to_thread(call)


async def test_the_nominated_socket_is_sent_through(sockets):
    name = await sockets.nominate()
    way = _Way(sockets.dtls)
    assert way.look() is None
    route = await in_a_thread(way.route)
    assert route.sock.getsockname() == name and route.address == ("127.0.0.1", 9)
    assert route.waiting() == 0 and route.sock.gettimeout() == 0
    way.close()
    assert route.sock.fileno() == -1 and way.route() is None


async def test_another_pair_is_followed_and_the_old_descriptor_closed(sockets):
    await sockets.nominate()
    way = _Way(sockets.dtls)
    way.look()
    before = await in_a_thread(way.route)
    name = await sockets.nominate()
    assert await in_a_thread(way.route) is None  # it is looked for on the loop
    await asyncio.sleep(0)
    after = await in_a_thread(way.route)
    assert after.sock.getsockname() == name and before.sock.fileno() == -1
    way.close()


@pytest.mark.parametrize(
    ("kind", "why"), [("relay", "relay"), ("no socket", "socket away"), ("full", "duplicated")]
)
async def test_a_way_that_cannot_be_had_is_said_and_looked_for_again(
    sockets, kind, why, monkeypatch
):
    await sockets.nominate("relay" if kind == "relay" else "host")
    transport = sockets.pair.protocol.transport
    sock = transport.get_extra_info("socket")

    def refuse():
        raise OSError("too many open files")

    if kind == "no socket":
        sockets.pair.protocol.transport = SimpleNamespace(get_extra_info=lambda name: None)
    if kind == "full":
        monkeypatch.setattr(type(sock), "dup", lambda self: refuse())
    way = _Way(sockets.dtls)
    assert why in way.look()
    assert await in_a_thread(way.route) is None
    monkeypatch.undo()
    await sockets.nominate()
    await in_a_thread(way.route)
    await asyncio.sleep(0)
    assert await in_a_thread(way.route) is not None
    way.close()


async def test_nothing_goes_where_the_connection_has_ended(sockets):
    await sockets.nominate()
    way = _Way(sockets.dtls)
    way.look()
    sockets.dtls.state = "closed"
    assert way.route() is None
    way.close()


async def test_no_descriptor_is_left(sockets):
    await sockets.nominate()
    before = open_files()
    for _ in range(5):
        way = _Way(sockets.dtls)
        way.look()
        way.look()
        way.close()
    assert open_files() == before


async def test_what_is_late_leaves_by_the_loops_own_socket(sockets):
    await sockets.nominate()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        far.settimeout(10)
        sockets.pair.remote_addr = far.getsockname()
        way = _Way(sockets.dtls)
        way.look()
        route = way.route()
        thread = threading.Thread(target=route.later, args=([b"one", b"two"],))
        thread.start()
        thread.join()
        await asyncio.sleep(0)
        assert [far.recv(10), far.recv(10)] == [b"one", b"two"]
        way.close()


async def test_a_packet_that_is_repeated_is_the_same_to_the_byte():
    """With an authenticated cipher, other bytes under one number would give its key away."""
    srtp = LockedSrtp(
        Session(
            Policy(
                key=os.urandom(44),
                ssrc_type=Policy.SSRC_ANY_OUTBOUND,
                srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
            )
        )
    )
    sent, plain = [], []
    extensions = rtp.HeaderExtensionsMap()
    extensions.configure(
        SimpleNamespace(
            headerExtensions=[
                SimpleNamespace(
                    id=3, uri="http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
                )
            ]
        )
    )

    class Transport:
        state = "connected"
        _stats_id = "transport"

        async def _send_rtp(self, data):
            plain.append(data)

    sender = RTCRtpSender("video", Transport())
    setattr(sender, peer_wire._EXTENSIONS, extensions)

    class Keeping:
        def protect(self, packet):
            sent.append(packet)
            return srtp.protect(packet)

    layout = layout_of(lambda send_time: peer_wire._header(sender, 97, send_time))
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with near:
        route = Route(near, ("127.0.0.1", 9), lambda: 0, lambda packets: None)
        wire = RtpWire(layout, Keeping(), lambda: route)
        wire.send([b"first", b"last"], 3000, True)
        await asyncio.sleep(0.01)
        for data in list(sent):
            number = int.from_bytes(data[2:4], "big")
            remember(sender, wire, number)
            await sender._retransmit(number)  # without a stream of its own for repeats
    assert plain == sent


async def test_whatever_goes_wrong_with_a_wire_the_library_sends(monkeypatch, caplog):
    def fail(*_):
        raise AttributeError("_nominated")

    monkeypatch.setattr(peer_wire, "_open", fail)
    assert peer_wire.open_wire(None, None) is None
    assert "event loop" in caplog.text


@pytest.mark.parametrize("name", ["_tx_srtp", "_nominated", "_ssrc", "local_candidate"])
def test_every_name_is_asserted(name):
    assert any(name in names for _, _, names in peer_wire.USES)
    peer_tuning.check_aiortc()
