"""A wire to a viewer that aiortc has connected: its keys, its socket, its headers.

| Private name                                          | What is done with it                    |
|-------------------------------------------------------|-----------------------------------------|
| `RTCRtpSender._ssrc`, `__mid`,                        | read, for the header                    |
| `__rtp_header_extensions_map`                         |                                         |
| `RTCRtpSender.__ntp_timestamp`, `__rtp_timestamp`,    | set to what the wire has sent, for      |
| `__packet_count`, `__octet_count`                     | sender reports                          |
| `RTCRtpSender.__rtp_history`                          | gets a packet that is to be repeated    |
| `RTCDtlsTransport._tx_srtp`                           | put behind a lock, shared with the wire |
| `RTCIceTransport._connection`                         | read, for the way to the viewer         |
| `Connection._nominated` (aioice), the pair's          | read, likewise                          |
| `protocol.transport`, `.local_candidate`              |                                         |

aiortc's statistics of the transport do not count what a wire sends.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from aioice.ice import Connection, StunProtocol
from aiortc import rtp
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpsender import RTP_HISTORY_SIZE, RTCRtpSender

from realtime.rtp_wire import LockedSrtp, Route, RtpWire, Sent, layout_of

log = logging.getLogger(__name__)

_EXTENSIONS = "_RTCRtpSender__rtp_header_extensions_map"
_HISTORY = "_RTCRtpSender__rtp_history"
_MID = "_RTCRtpSender__mid"
_REPORTED = (
    "_RTCRtpSender__ntp_timestamp",
    "_RTCRtpSender__rtp_timestamp",
    "_RTCRtpSender__packet_count",
    "_RTCRtpSender__octet_count",
)

# class, method, names its code must use; see `peer_tuning.check_aiortc`
USES = (
    (RTCRtpSender, "_run_rtp", (_EXTENSIONS, _MID, "_ssrc", "_next_encoded_frame")),
    (RTCRtpSender, "_run_rtcp", _REPORTED),
    (RTCRtpSender, "_retransmit", (_HISTORY,)),
    (RTCDtlsTransport, "_send_rtp", ("_tx_srtp", "protect", "protect_rtcp")),
    (RTCIceTransport, "__init__", ("_connection",)),
    (Connection, "sendto", ("_nominated", "protocol", "remote_addr")),
    (StunProtocol, "send_data", ("transport", "sendto")),
    (StunProtocol, "datagram_received", ("local_candidate",)),
)
COMPONENT = 1  # RTP, and RTCP with it


def open_wire(sender: RTCRtpSender, codec: RTCRtpCodecParameters) -> RtpWire | None:
    """A wire beside a sender whose transport is connected.

    Returns:
        None where packets cannot be sent past the event loop: aiortc sends them as it always does.
    """
    try:
        return _open(sender, codec)
    except Exception:  # whatever is unlike what is known: the slower way works all the same
        log.exception("pictures go through the event loop")
        return None


def _open(sender: RTCRtpSender, codec: RTCRtpCodecParameters) -> RtpWire | None:
    dtls = sender.transport
    if not isinstance(dtls, RTCDtlsTransport) or dtls.state != "connected":
        return None
    way = _Way(dtls)
    if (why := way.look()) is not None:
        log.warning("pictures go through the event loop: %s", why)
        return None
    private: Any = dtls
    if not isinstance(private._tx_srtp, LockedSrtp):
        private._tx_srtp = LockedSrtp(private._tx_srtp)
    payload_type = codec.payloadType
    assert payload_type is not None  # aiortc negotiated it
    layout = layout_of(lambda send_time: _header(sender, payload_type, send_time))
    return RtpWire(layout, private._tx_srtp, way.route, way.close)


def _header(sender: RTCRtpSender, payload_type: int, send_time: int) -> bytes:
    packet = rtp.RtpPacket(payload_type=payload_type)
    packet.ssrc = sender._ssrc
    packet.extensions.abs_send_time = send_time
    packet.extensions.mid = getattr(sender, _MID)
    return packet.serialize(getattr(sender, _EXTENSIONS))


def report(sender: RTCRtpSender, sent: Sent) -> None:
    """Let the sender's reports say what was sent. On the event loop."""
    for name, value in zip(_REPORTED, sent, strict=False):
        setattr(sender, name, value)


def remember(sender: RTCRtpSender, wire: RtpWire, sequence_number: int) -> None:
    """Let the sender find a packet that the wire has sent and that it is to repeat."""
    found = wire.packet(sequence_number)
    if found is None:
        return
    packet = rtp.RtpPacket(
        payload_type=wire.payload_type,
        marker=found.marker,
        sequence_number=found.sequence_number,
        timestamp=found.timestamp,
        payload=found.payload,
    )
    packet.ssrc = sender._ssrc
    packet.extensions.abs_send_time = found.send_time
    packet.extensions.mid = getattr(sender, _MID)
    history = getattr(sender, _HISTORY)
    history.clear()  # only what is about to be repeated
    history[sequence_number % RTP_HISTORY_SIZE] = packet


class _Way:
    """The socket and the address that ICE has nominated, as long as they are a plain socket's.

    `look` runs on the event loop, which owns the sockets; `route` in the encoder's thread.
    """

    def __init__(self, dtls: RTCDtlsTransport) -> None:
        self._dtls = dtls
        self._loop = asyncio.get_running_loop()
        self._found: tuple[Any, Route] | None = None  # the pair, and the way it stands for
        self._old: list[socket.socket] = []
        self._looking = self._closed = False

    def route(self) -> Route | None:
        if self._dtls.state != "connected":
            return None
        while self._old:
            self._old.pop().close()
        found = self._found
        if found is not None and found[0] is self._pair():
            return found[1]
        if not self._looking:
            self._looking = True
            self._loop.call_soon_threadsafe(self.look)
        return None

    def _pair(self) -> Any:
        connection: Any = self._dtls.transport._connection
        return connection._nominated.get(COMPONENT)

    def look(self) -> str | None:
        """Find the way. Returns why there is none; `route` has it looked for again."""
        self._looking = False
        if self._closed:
            return "it is closed"
        pair = self._pair()
        if pair is None:
            return "no pair of candidates is nominated"
        if pair.protocol.local_candidate.type == "relay":
            return "a relay wraps each packet"
        transport: Any = pair.protocol.transport
        sock = transport.get_extra_info("socket")
        if sock is None:
            return "this event loop does not give its socket away"
        try:
            copy: socket.socket = sock.dup()
        except OSError as error:
            return f"the socket cannot be duplicated ({error})"
        copy.setblocking(False)
        address = pair.remote_addr
        if self._found is not None:
            self._old.append(self._found[1].sock)

        def send(packets: list[bytes]) -> None:
            if not transport.is_closing():
                for data in packets:
                    transport.sendto(data, address)

        def later(packets: list[bytes]) -> None:
            self._loop.call_soon_threadsafe(send, packets)

        route = Route(copy, address, transport.get_write_buffer_size, later)
        self._found = pair, route
        return None

    def close(self) -> None:
        """On the event loop, when nobody sends any more."""
        self._closed = True
        if self._found is not None:
            self._old.append(self._found[1].sock)
            self._found = None
        while self._old:
            self._old.pop().close()
