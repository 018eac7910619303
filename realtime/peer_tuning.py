"""What aiortc lacks, set on one instance at a time.

Only this file and `peer_wire.py` touch its insides.

A plain aiortc peer leaves a browser to hold each picture back for 20 ms (no playout-delay), encodes
for each viewer alone, answers every request to repeat a packet, and starts its encoder anew when
the rate moves. Here a sender is given finished pictures instead, and its feedback comes to us.

| Private name                                     | What is done with it                        |
|--------------------------------------------------|---------------------------------------------|
| `RTCRtpTransceiver._headerExtensions`            | playout-delay is appended before the answer |
| `RTCRtpSender.__rtp_header_extensions_map`       | ours appends the playout-delay bytes        |
| `RTCRtpSender.__encoder`                         | a slot that passes finished payloads on     |
| `RTCRtpSender._send_keyframe`                    | PLI and FIR arrive here                     |
| `RTCRtpSender._retransmit`                       | wrapped with a limit                        |
| `RTCRtpSender.__rtp_timestamp`, `__packet_count` | read, to learn the origin of its timestamps |
| `RTCRtpSender._next_encoded_frame`               | wrapped: its first call opens a wire        |

A renamed attribute would turn an assignment into a no-op, since Python creates what is missing. So
`check_aiortc` runs when this module is imported and asserts each name in the code that uses it.

With a wire (`peer_wire.py`) pictures leave from the encoder's thread; where none can be opened,
aiortc's own loop pulls and sends them.

Order of calls on an answering peer; another order fails silently: `setRemoteDescription`,
`offer_playout_delay`, `addTrack`, `tune_sender`, `createAnswer`, `setLocalDescription`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiortc
import av
from aiortc import RTCPeerConnection, rtp
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpHeaderExtensionParameters
from aiortc.rtcrtpsender import RTCRtpSender
from aiortc.rtcrtptransceiver import RTCRtpTransceiver

from realtime.errors import RealtimeError
from realtime.peer_wire import USES as WIRE_USES
from realtime.peer_wire import open_wire, remember, report
from realtime.rate import RetransmissionLimit
from realtime.rtp_wire import RtpWire
from realtime.sinks.viewer_track import ViewerTrack

SERIES = "1.16."
PLAYOUT_DELAY = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"

_ENCODER = "_RTCRtpSender__encoder"
_EXTENSIONS = "_RTCRtpSender__rtp_header_extensions_map"
_TIMESTAMP = "_RTCRtpSender__rtp_timestamp"
_PACKETS = "_RTCRtpSender__packet_count"

# class, method, names its code must use: the places where our replacements are called
_USES = (
    (RTCRtpSender, "__init__", (_ENCODER, _EXTENSIONS, _TIMESTAMP, _PACKETS)),
    (RTCRtpSender, "send", (_EXTENSIONS, "configure")),
    (RTCRtpSender, "_next_encoded_frame", (_ENCODER, "pack", "recv")),
    (RTCRtpSender, "_run_rtp", (_EXTENSIONS, _TIMESTAMP, _PACKETS, "_next_encoded_frame")),
    (
        RTCRtpSender,
        "_handle_rtcp_packet",
        (_ENCODER, "target_bitrate", "_send_keyframe", "_retransmit"),
    ),
    (RTCRtpSender, "_retransmit", (_EXTENSIONS,)),
    (RTCRtpSender, "_send_keyframe", ()),
    (RTCRtpTransceiver, "__init__", ("_headerExtensions",)),
    (rtp.HeaderExtensionsMap, "set", ()),
)


def check_aiortc() -> None:
    """Assert that this aiortc is the one whose insides are known here.

    Raises:
        RealtimeError: another series, or a name that is gone.
    """
    advice = "Install the one that fits: pip install 'aiortc>=1.16,<1.17'."
    if not aiortc.__version__.startswith(SERIES):
        raise RealtimeError(
            f"aiortc {aiortc.__version__} is installed; peers are tuned for {SERIES}x. {advice}"
        )
    for owner, method, names in (*_USES, *WIRE_USES):
        code = getattr(getattr(owner, method, None), "__code__", None)
        used = () if code is None else code.co_names
        missing = [name for name in names if name not in used]
        if code is None or missing:
            what = f"{owner.__name__}.{method}" + (f": {', '.join(missing)}" if missing else "")
            raise RealtimeError(f"aiortc {aiortc.__version__} lacks {what}. {advice}")


def _need(owner: object, *names: str) -> None:
    for name in names:
        if not hasattr(owner, name):
            raise RealtimeError(
                f"aiortc {aiortc.__version__}: {type(owner).__name__} has no {name}; "
                "install aiortc 1.16."
            )


def playout_delay_element(extension_id: int, minimum_ms: int, maximum_ms: int) -> bytes:
    """The header extension element: id and length, then 12 bits each of delay in 10 ms."""
    if not 0 < extension_id < 15:
        raise ValueError(f"one-byte header extensions have ids 1..14, not {extension_id}.")
    if not 0 <= minimum_ms <= maximum_ms <= 40_950:
        raise ValueError(f"playout delay {minimum_ms}..{maximum_ms} ms; need 0 <= min <= max.")
    delays = (minimum_ms // 10) << 12 | maximum_ms // 10
    return bytes([extension_id << 4 | 2]) + delays.to_bytes(3, "big")


class _PlayoutDelay(rtp.HeaderExtensionsMap):
    """Appends playout-delay to every packet. Configured by the sender like the one it replaces."""

    def __init__(self, extension_id: int, minimum_ms: int = 0, maximum_ms: int = 0) -> None:
        super().__init__()
        self._element = playout_delay_element(extension_id, minimum_ms, maximum_ms)

    def set(self, values: rtp.HeaderExtensions) -> tuple[int, bytes]:
        profile, value = super().set(values)
        if profile not in (0, 0xBEDE):  # two-byte headers, which nobody here negotiates
            return profile, value
        # `value` is padded to whole words, and so stays the sum; padding between is allowed
        # (RFC 8285, 4.2).
        return 0xBEDE, value + self._element


def offer_playout_delay(pc: RTCPeerConnection, sdp: str) -> int | None:
    """Accept playout-delay for video if the offer has it.

    Call between `setRemoteDescription` and `createAnswer`.

    Args:
        sdp: The offer.
    Returns:
        The id the browser chose, or None if it did not offer the extension.
    """
    found = re.search(rf"^a=extmap:(\d+)(?:/\w+)? {re.escape(PLAYOUT_DELAY)}\s*$", sdp, re.M)
    if found is None or not 0 < int(found[1]) < 15:
        return None
    extension = RTCRtpHeaderExtensionParameters(id=int(found[1]), uri=PLAYOUT_DELAY)
    for transceiver in pc.getTransceivers():
        if transceiver.kind != "video":
            continue
        _need(transceiver, "_headerExtensions")
        present = transceiver._headerExtensions
        if all(known.uri != PLAYOUT_DELAY for known in present):
            # A new list: aiortc's own table must not change for other peers.
            transceiver._headerExtensions = [*present, extension]
    return extension.id


class SenderTuning:
    """One viewer's sender: what it was told and what it told. Lives on the event loop.

    Attributes:
        frames, bytes, keyframes: Pictures handed to the network; with a wire the bytes are RTP
            payload, else coded pictures.
        packets_repeated, repeats_ignored, repeats_over_budget, repeats_given_up: Answers to
            requests for lost packets.
        keyframe_requests: PLI and FIR received, and packets given up.
        estimates: Bandwidth estimates (REMB) received; `estimate` is the last, bit/s.
    """

    def __init__(
        self,
        sender: RTCRtpSender,
        on_bitrate: Callable[[int], object],
        on_keyframe: Callable[[], object],
        media_bitrate: Callable[[], int | None],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.frames = self.bytes = self.keyframes = 0
        self.keyframe_requests = 0
        self.estimates = 0
        self.estimate: int | None = None
        self.retransmission = RetransmissionLimit()
        self._sender = sender
        self._on_bitrate, self._on_keyframe, self._now_ns = on_bitrate, on_keyframe, now_ns
        self._media_bitrate = media_bitrate
        self._wire: RtpWire | None = None
        self._first_timestamp = 0
        self._last_timestamp: int | None = None
        self._origin: int | None = None

    @property
    def packets(self) -> int:
        """Packets sent, without those that were repeated."""
        return self._wire.sent.packets if self._wire else getattr(self._sender, _PACKETS)

    @property
    def rtp_origin(self) -> int | None:
        """What is added to a picture's timestamp on the wire, modulo 2**32.

        Drawn at random by whoever sends: with a wire known from the beginning, else None until a
        packet has left.
        """
        if self._origin is None and self.frames == 1 and getattr(self._sender, _PACKETS):
            self._learn_origin(self._first_timestamp)
        return self._origin

    def wire_timestamp(self, timestamp: int) -> int | None:
        """`timestamp` (90 kHz) as a receiver sees it, or None as long as that is not known."""
        origin = self.rtp_origin
        return None if origin is None else (origin + timestamp) & 0xFFFFFFFF

    def counters(self) -> dict[str, int]:
        """Everything counted, as plain numbers."""
        limit = self.retransmission
        return {
            "frames": self.frames,
            "packets": self.packets,
            "bytes": self.bytes,
            "keyframes": self.keyframes,
            "keyframe_requests": self.keyframe_requests,
            "estimates": self.estimates,
            "estimate": self.estimate or 0,
            "packets_repeated": limit.sent,
            "repeats_ignored": limit.ignored,
            "repeats_over_budget": limit.over_budget,
            "repeats_given_up": limit.given_up,
        }

    def _learn_origin(self, timestamp: int) -> None:
        self._origin = (getattr(self._sender, _TIMESTAMP) - timestamp) & 0xFFFFFFFF

    def packed(self, packet: av.Packet) -> tuple[tuple[bytes, ...], int]:
        """The sender is about to send this picture: payloads and 90 kHz timestamp."""
        payloads, timestamp = packet.opaque, packet.pts
        if not isinstance(payloads, tuple) or timestamp is None:
            raise RealtimeError("this sender carries only packets of our own encoders.")
        if self._origin is None and self._last_timestamp is not None:
            # The previous picture is out by now, so the sender's last timestamp is its.
            self._learn_origin(self._last_timestamp)
        if self.frames == 0:
            self._first_timestamp = timestamp
        self._last_timestamp = timestamp
        self.frames += 1
        self.bytes += packet.size
        if packet.is_keyframe:
            self.keyframes += 1
            self.retransmission.keyframe(self._now_ns())
        return payloads, timestamp

    def wired(self, wire: RtpWire) -> None:
        """From now on `wire` sends the pictures."""
        self._wire, self._origin = wire, wire.origin

    def sent_by_wire(self) -> None:
        """Pictures may have left by the wire: count them, and let the sender report them."""
        assert self._wire is not None
        sent = self._wire.sent
        self.frames, self.bytes, self.keyframes = sent.pictures, sent.octets, sent.keyframes
        if sent.keyframe_ns is not None:
            self.retransmission.keyframe(sent.keyframe_ns)
        report(self._sender, sent)

    def estimated(self, bps: int) -> None:
        """A bandwidth estimate came."""
        self.estimates += 1
        self.estimate = bps
        self._on_bitrate(bps)

    def keyframe_wanted(self) -> None:
        """A keyframe request came, or a packet was given up."""
        self.keyframe_requests += 1
        self._on_keyframe()

    def limited(
        self, retransmit: Callable[[int], Awaitable[None]]
    ) -> Callable[[int], Awaitable[None]]:
        """`retransmit` with the limit in front of it."""

        async def decide(sequence_number: int) -> None:
            # An estimate says what the link may carry; the share is one of what it does carry.
            bitrate = self._media_bitrate()
            if bitrate is not None:
                self.retransmission.bitrate = bitrate
            send, keyframe = self.retransmission.decide(sequence_number, self._now_ns())
            if keyframe:
                self.keyframe_wanted()
            if send:
                if self._wire is not None:
                    remember(self._sender, self._wire, sequence_number)
                await retransmit(sequence_number)

        return decide


class _EncoderSlot:
    """Stands where the sender keeps its encoder; passes finished pictures on."""

    def __init__(self, tuning: SenderTuning) -> None:
        self._tuning = tuning

    def pack(self, packet: av.Packet) -> tuple[tuple[bytes, ...], int]:
        return self._tuning.packed(packet)

    @property
    def target_bitrate(self) -> int:
        return self._tuning.estimate or 0

    @target_bitrate.setter
    def target_bitrate(self, bps: int) -> None:
        self._tuning.estimated(bps)


def tune_sender(
    sender: RTCRtpSender,
    delay_id: int | None,
    on_bitrate: Callable[[int], object],
    on_keyframe: Callable[[], object],
    media_bitrate: Callable[[], int | None],
    *,
    now_ns: Callable[[], int] = time.monotonic_ns,
) -> SenderTuning:
    """Turn one sender into a carrier of finished pictures. Call before the answer is made.

    Args:
        sender: Of a track whose `recv` returns packets of `realtime.encoder`.
        delay_id: From `offer_playout_delay`; None sends no such extension.
        on_bitrate: Gets each bandwidth estimate in bit/s, in the event loop.
        on_keyframe: Called for each request, unlimited; the encoder's limiter spaces them.
        media_bitrate: Gives the rate that is being sent, bit/s, which bounds repeats; None keeps
            the last.
    Raises:
        RealtimeError: the sender lacks a name; another aiortc than the tested one.
    """
    _need(sender, _ENCODER, _EXTENSIONS, _TIMESTAMP, _PACKETS, "_send_keyframe", "_retransmit")
    tuning = SenderTuning(sender, on_bitrate, on_keyframe, media_bitrate, now_ns)
    private: Any = sender
    setattr(private, _ENCODER, _EncoderSlot(tuning))
    if delay_id is not None:
        setattr(private, _EXTENSIONS, _PlayoutDelay(delay_id))
    private._send_keyframe = tuning.keyframe_wanted
    private._retransmit = tuning.limited(sender._retransmit)
    if isinstance(track := sender.track, ViewerTrack):
        private._next_encoded_frame = _wired_first(sender, track, tuning)
    return tuning


def _wired_first(sender: RTCRtpSender, track: ViewerTrack, tuning: SenderTuning) -> Any:
    """The sender's `_next_encoded_frame`, which runs once its transport is up.

    With a wire attached the track gives none, and ends as it always does.
    """
    original = sender._next_encoded_frame

    async def next_encoded_frame(codec: RTCRtpCodecParameters) -> Any:
        if not track.started and (wire := open_wire(sender, codec)) is not None:
            tuning.wired(wire)
            track.attach(wire, tuning.sent_by_wire)
        return await original(codec)

    return next_encoded_frame


check_aiortc()
