"""One viewer's packets, from coded pictures to the socket, in the thread that has the picture.

aiortc sends from the event loop: the encoder's thread would have to wake it for every picture, and
each packet would pass four coroutines. Both cost more than encrypting and sending do. A wire sends
a whole picture at once instead, from whatever thread calls, and leaves RTCP, repeats and the end of
the connection to aiortc.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

HISTORY = 256  # packets that may be asked for again: a second of 2 Mbit/s
_NTP_EPOCH_S = 2_208_988_800  # 1900 to 1970


class Protects(Protocol):
    """An SRTP session (pylibsrtp's); one thread at a time."""

    def protect(self, packet: bytes) -> bytes: ...
    def protect_rtcp(self, packet: bytes) -> bytes: ...


class LockedSrtp:
    """An SRTP session shared by the event loop and an encoder thread."""

    def __init__(self, session: Protects) -> None:
        self.session = session
        self.lock = threading.Lock()

    def protect(self, packet: bytes) -> bytes:
        with self.lock:
            return self.session.protect(packet)

    def protect_rtcp(self, packet: bytes) -> bytes:
        with self.lock:
            return self.session.protect_rtcp(packet)


@dataclass(frozen=True)
class HeaderLayout:
    """A packet's first bytes, alike for all packets of a stream but for four fields.

    Args:
        template: The RTP header with all its extensions; marker, sequence number and timestamp 0.
        send_time_at: Where abs-send-time's three bytes lie, or None if it was not negotiated.
    """

    template: bytes
    send_time_at: int | None


def layout_of(serialize: Callable[[int], bytes]) -> HeaderLayout:
    """Find out what changes in a header.

    Args:
        serialize: Gives a packet without payload, with this abs-send-time (24 bits).
    """
    low, high = serialize(0), serialize(0xFFFFFF)
    differing = [at for at, (a, b) in enumerate(zip(low, high, strict=True)) if a != b]
    return HeaderLayout(low, differing[0] if differing else None)


def abs_send_time(now_ns: int) -> int:
    """24 bits: seconds modulo 64 with 18 bits of fraction, of a `time.time_ns()` value."""
    return (now_ns << 18) // 1_000_000_000 & 0xFFFFFF


def ntp_time(now_ns: int) -> int:
    """64 bits: seconds since 1900 with 32 bits of fraction, of a `time.time_ns()` value."""
    seconds, rest = divmod(now_ns, 1_000_000_000)
    return (seconds + _NTP_EPOCH_S) << 32 | (rest << 32) // 1_000_000_000


class Sent(NamedTuple):
    """What a wire has sent so far; one value, so that another thread reads it whole."""

    ntp: int = 0
    timestamp: int = 0  # of the last picture, as on the wire
    packets: int = 0
    octets: int = 0  # of payload
    pictures: int = 0
    keyframes: int = 0
    keyframe_ns: int | None = None  # monotonic, of the last one


class SentPacket(NamedTuple):
    """What is needed to send a packet again."""

    sequence_number: int
    timestamp: int
    marker: int
    payload: bytes


Route = tuple[socket.socket, tuple[str, int]]


class RtpWire:
    """Sends pictures to one viewer. `send` may be called from any thread, one picture at a time.

    Never blocks: what the socket does not take is lost, as on any other hop.

    Args:
        layout: Of this stream's headers.
        srtp: Encrypts; shared with whoever else sends to this viewer.
        route: Gives the socket and the address to send to, or None while there is no way.
        close: Called once, when the wire is closed.
    """

    def __init__(
        self,
        layout: HeaderLayout,
        srtp: LockedSrtp,
        route: Callable[[], Route | None],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.origin = random.getrandbits(
            32
        )  # what is added to a picture's timestamp (RFC 3550, 5.1)
        self.sent = Sent()
        self._layout, self._srtp, self._route, self._close = layout, srtp, route, close
        self.payload_type = layout.template[1] & 0x7F
        self._next = random.getrandbits(16)
        self._history: list[SentPacket | None] = [None] * HISTORY
        self._closed = False

    def send(self, payloads: Sequence[bytes], timestamp: int, keyframe: bool) -> bool:
        """Send one picture's packets.

        Args:
            payloads: RTP payloads in order; the last gets the marker bit.
            timestamp: 90 kHz, without the origin.
            keyframe: For the counters.
        Returns:
            Whether all of them were handed to the system. If not, the viewer cannot decode what
            refers to this picture.
        """
        header = bytearray(self._layout.template)
        timestamp = (self.origin + timestamp) & 0xFFFFFFFF
        header[4:8] = timestamp.to_bytes(4, "big")
        now_ns = time.time_ns()
        if (at := self._layout.send_time_at) is not None:  # they leave together: one time for all
            header[at : at + 3] = abs_send_time(now_ns).to_bytes(3, "big")
        last = len(payloads) - 1
        whole, octets = True, 0
        with self._srtp.lock:
            if self._closed or (route := self._route()) is None:
                return False
            sendto, address, protect = route[0].sendto, route[1], self._srtp.session.protect
            for index, payload in enumerate(payloads):
                number = self._next
                self._next = number + 1 & 0xFFFF
                marker = int(index == last)
                header[1] |= marker << 7
                header[2:4] = number.to_bytes(2, "big")
                self._history[number % HISTORY] = SentPacket(number, timestamp, marker, payload)
                octets += len(payload)
                try:
                    sendto(protect(b"".join((header, payload))), address)
                except OSError:  # its buffer is full, or the network or the other end is gone
                    whole = False
        was = self.sent
        self.sent = Sent(
            ntp_time(now_ns),
            timestamp,
            was.packets + len(payloads),
            was.octets + octets,
            was.pictures + 1,
            was.keyframes + keyframe,
            time.monotonic_ns() if keyframe else was.keyframe_ns,
        )
        return whole

    def packet(self, sequence_number: int) -> SentPacket | None:
        """A packet that was sent a while ago, or None if it is too long ago."""
        found = self._history[sequence_number % HISTORY]
        return found if found is not None and found.sequence_number == sequence_number else None

    def close(self) -> None:
        """Send nothing any more. Waits for the picture that is being sent. Idempotent."""
        with self._srtp.lock:
            if self._closed:
                return
            self._closed = True
        self._close()


class HasDescriptor(Protocol):
    def fileno(self) -> int: ...


def duplicate(sock: HasDescriptor) -> socket.socket:
    """Another descriptor of the same socket, which outlives the first; never blocks.

    Raises:
        OSError: The system cannot.
    """
    copy = socket.socket(fileno=os.dup(sock.fileno()))
    copy.setblocking(False)
    return copy
