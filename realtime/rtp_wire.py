"""One viewer's packets, from coded pictures to the socket, in the thread that has the picture.

aiortc sends from the event loop: the encoder's thread would have to wake it for every picture, and
each packet would pass four coroutines. Both cost more than encrypting and sending do. A wire sends
a whole picture at once instead, from whatever thread calls, and leaves RTCP, repeats and the end of
the connection to aiortc.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from realtime.errors import RealtimeError

HISTORY = 256  # packets that may be asked for again: a second of 2 Mbit/s
WAITING = 256 << 10  # bytes that wait for the socket, beyond which a picture is not sent
PATIENCE_NS = 5_000_000_000  # without a way to the viewer


class Protects(Protocol):
    """An SRTP session (pylibsrtp's); one thread at a time."""

    def protect(self, packet: bytes) -> bytes: ...
    def protect_rtcp(self, packet: bytes) -> bytes: ...


class LockedSrtp:
    """An SRTP session shared by the event loop and an encoder thread, a packet at a time."""

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
    """24 bits: seconds modulo 64 with 18 bits of fraction, of nanoseconds since any moment."""
    return (now_ns << 18) // 1_000_000_000 & 0xFFFFFF


def ntp_time(now_ns: int) -> int:
    """64 bits: seconds with 32 bits of fraction, of nanoseconds since any moment.

    NTP's own counts from 1900. A sender may count from elsewhere (RFC 3550, 6.4.1), and the wall
    clock, which may jump, would be the worse choice: receivers look at differences only.
    """
    seconds, rest = divmod(now_ns, 1_000_000_000)
    return (seconds & 0xFFFFFFFF) << 32 | (rest << 32) // 1_000_000_000


class Sent(NamedTuple):
    """What a wire has sent so far; one value, so that another thread reads it whole."""

    ntp: int = 0
    timestamp: int = 0  # of the last picture, as on the wire
    packets: int = 0
    octets: int = 0  # of payload
    pictures: int = 0
    keyframes: int = 0
    keyframe_ns: int | None = None  # monotonic, when sending the last one began


class SentPacket(NamedTuple):
    """What is needed to send a packet again, byte for byte."""

    sequence_number: int
    timestamp: int
    marker: int
    send_time: int | None  # abs-send-time; a repeated packet keeps its own (RFC 7714, 9.1)
    payload: bytes


class Route(NamedTuple):
    """Where packets go just now.

    Args:
        sock: Takes datagrams at once or raises BlockingIOError.
        waiting: How many bytes wait in `later`.
        later: Takes what the socket has not taken, in order, and sends it as it can.
    """

    sock: socket.socket
    address: tuple[str, int]
    waiting: Callable[[], int]
    later: Callable[[list[bytes]], None]


class NoWay(RealtimeError):
    """There has been no way to the viewer for PATIENCE_NS."""


class RtpWire:
    """Sends pictures to one viewer. `send` may be called from any thread, one picture at a time.

    Never blocks. What the socket does not take at once, a keyframe larger than its buffer say, is
    left to `Route.later`; while much waits there, pictures are not sent at all.

    Args:
        layout: Of this stream's headers.
        srtp: Encrypts; shared with whoever else sends to this viewer.
        route: Gives the way to the viewer, or None while there is none.
        close: Called once, when the wire is closed.
    """

    def __init__(
        self,
        layout: HeaderLayout,
        srtp: LockedSrtp,
        route: Callable[[], Route | None],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.origin = random.getrandbits(32)  # what is added to a picture's timestamp (RFC 3550)
        self.sent = Sent()
        self.payload_type = layout.template[1] & 0x7F
        self._layout, self._srtp, self._route, self._close = layout, srtp, route, close
        # The upper half is left out: were all packets before the first wrap lost, the receiver
        # could not know of it, and nothing would ever decrypt (RFC 3711, 3.3.1).
        self._next = random.getrandbits(15)
        self._history: list[SentPacket | None] = [None] * HISTORY
        self._closed = False
        self._lost_ns: int | None = None  # since when there is no way
        self._guard = threading.Lock()  # of closing against sending

    def send(self, payloads: Sequence[bytes], timestamp: int, keyframe: bool) -> bool:
        """Send one picture's packets.

        Args:
            payloads: RTP payloads in order; the last gets the marker bit.
            timestamp: 90 kHz, without the origin.
            keyframe: For the counters.
        Returns:
            Whether all of it is on its way. If not, the viewer cannot decode what refers to it.
        Raises:
            NoWay: For long.
        """
        with self._guard:
            if self._closed:
                return False
            route = self._route()
            if route is None:
                self._wait_for_a_way()
                return False
            self._lost_ns = None
            waiting = route.waiting()
            if waiting > WAITING:
                return False
            begun_ns = time.monotonic_ns()
            late: list[bytes] = []
            octets = count = 0
            for packet, data in self._packets(payloads, timestamp):
                if late or waiting:
                    late.append(data)
                else:
                    try:
                        route.sock.sendto(data, route.address)
                    except BlockingIOError:
                        late.append(data)
                    except OSError:  # the network or the other end is gone
                        break
                count += 1
                octets += len(packet.payload)
            if late:
                route.later(late)
            self._count(timestamp, count, octets, begun_ns if keyframe else None)
        return count == len(payloads)

    def _packets(
        self, payloads: Sequence[bytes], timestamp: int
    ) -> Iterator[tuple[SentPacket, bytes]]:
        """Each with its encrypted bytes, remembered."""
        header = bytearray(self._layout.template)
        timestamp = (self.origin + timestamp) & 0xFFFFFFFF
        header[4:8] = timestamp.to_bytes(4, "big")
        at, last = self._layout.send_time_at, len(payloads) - 1
        send_time = None
        for index, payload in enumerate(payloads):
            number, marker = self._next, int(index == last)
            self._next = number + 1 & 0xFFFF
            header[1] |= marker << 7
            header[2:4] = number.to_bytes(2, "big")
            if at is not None:
                send_time = abs_send_time(time.monotonic_ns())
                header[at : at + 3] = send_time.to_bytes(3, "big")
            packet = SentPacket(number, timestamp, marker, send_time, payload)
            self._history[number % HISTORY] = packet
            yield packet, self._srtp.protect(b"".join((header, payload)))

    def _count(self, timestamp: int, packets: int, octets: int, keyframe_ns: int | None) -> None:
        was = self.sent
        self.sent = Sent(
            ntp_time(time.monotonic_ns()),
            (self.origin + timestamp) & 0xFFFFFFFF,
            was.packets + packets,
            was.octets + octets,
            was.pictures + 1,
            was.keyframes + (keyframe_ns is not None),
            was.keyframe_ns if keyframe_ns is None else keyframe_ns,
        )

    def _wait_for_a_way(self) -> None:
        now_ns = time.monotonic_ns()
        if self._lost_ns is None:
            self._lost_ns = now_ns
        if now_ns - self._lost_ns > PATIENCE_NS:
            raise NoWay(f"no way to it for {PATIENCE_NS // 1_000_000_000} s; connect again.")

    def packet(self, sequence_number: int) -> SentPacket | None:
        """A packet that was sent a while ago, or None if it is too long ago."""
        found = self._history[sequence_number % HISTORY]
        return found if found is not None and found.sequence_number == sequence_number else None

    def close(self) -> None:
        """Send nothing any more. Waits for the picture that is being sent. Idempotent."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
        self._close()
