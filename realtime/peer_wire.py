"""A wire to a viewer that aiortc has connected: its keys, its socket, its headers.

| Private name                                          | What is done with it                    |
|-------------------------------------------------------|-----------------------------------------|
| `RTCRtpSender.__mid`, `__rtp_header_extensions_map`   | read, for the header                    |
| `RTCRtpSender.__ntp_timestamp`, `__rtp_timestamp`,    | set to what the wire has sent, for      |
| `__packet_count`, `__octet_count`                     | sender reports                          |
| `RTCRtpSender.__rtp_history`                          | gets a packet that is to be repeated    |
| `RTCDtlsTransport._tx_srtp`                           | put behind a lock, shared with the wire |
| `RTCIceTransport._connection`                         | read, for the way to the viewer         |
| `Connection._nominated` (aioice)                      | read, likewise                          |

aiortc's statistics of the transport do not count what a wire sends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from aiortc import rtp
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import Connection, RTCIceTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpsender import RTP_HISTORY_SIZE, RTCRtpSender

from realtime.rtp_wire import (
    LockedSrtp,
    Route,
    RtpWire,
    Sent,
    abs_send_time,
    duplicate,
    layout_of,
)

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
    (RTCRtpSender, "_run_rtp", (_EXTENSIONS, _MID, "_next_encoded_frame")),
    (RTCRtpSender, "_run_rtcp", _REPORTED),
    (RTCRtpSender, "_retransmit", (_HISTORY,)),
    (RTCDtlsTransport, "_send_rtp", ("_tx_srtp", "protect", "protect_rtcp")),
    (RTCIceTransport, "__init__", ("_connection",)),
    (Connection, "sendto", ("_nominated", "protocol", "remote_addr")),
)
COMPONENT = 1  # RTP, and RTCP with it


def open_wire(sender: RTCRtpSender, codec: RTCRtpCodecParameters) -> RtpWire | None:
    """A wire beside a sender whose transport is connected.

    Returns:
        None where packets cannot be sent past the event loop: aiortc sends them as it always does.
    """
    dtls = sender.transport
    if not isinstance(dtls, RTCDtlsTransport) or dtls.state != "connected":
        return None
    way = _Way(dtls)
    if way.route() is None:
        log.info("pictures go through the event loop: %s", way.why)
        way.close()
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
    packet.extensions.abs_send_time = abs_send_time(time.time_ns())
    packet.extensions.mid = getattr(sender, _MID)
    history = getattr(sender, _HISTORY)
    history.clear()  # only what is about to be repeated
    history[sequence_number % RTP_HISTORY_SIZE] = packet


class _Way:
    """The socket and the address that ICE has nominated, as long as they are a plain socket's."""

    def __init__(self, dtls: RTCDtlsTransport) -> None:
        self.why = ""
        self._dtls = dtls
        self._pair: Any = None
        self._found: Route | None = None

    def route(self) -> Route | None:
        """Cheap as long as nothing changes."""
        if self._dtls.state != "connected":
            return None
        connection: Any = self._dtls.transport._connection
        pair = connection._nominated.get(COMPONENT)
        if pair is not self._pair:
            self.close()
            self._pair = pair
            self._found = None if pair is None else self._look(pair)
        return self._found

    def _look(self, pair: Any) -> Route | None:
        if pair.local_candidate.type == "relay":
            self.why = "a relay wraps each packet"
            return None
        transport: asyncio.DatagramTransport = pair.protocol.transport
        sock = transport.get_extra_info("socket")
        if sock is None:
            self.why = "this event loop does not give its socket away"
            return None
        try:
            return duplicate(sock), pair.remote_addr
        except OSError as error:
            self.why = f"the socket cannot be duplicated ({error})"
            return None

    def close(self) -> None:
        if self._found is not None:
            self._found[0].close()
        self._pair = self._found = None
