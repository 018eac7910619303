"""One viewer: its peer connection, its track, its data channel, and the watch over them.

The order of calls in `_negotiate` is the only one that works with aiortc (any other fails without
a word): the offer set, the playout delay negotiated, the track added and its sender tuned, then the
answer made and set.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Coroutine
from typing import Any, Never, Protocol, TypeVar

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from realtime import peer_tuning
from realtime.config import ServerConfig
from realtime.control_schema import RateLimit
from realtime.errors import SignalingError
from realtime.sinks.webrtc import ViewerTrack, WebRtcSink
from realtime.stats import Recent

log = logging.getLogger(__name__)

CHANNEL = "control"
NEGOTIATION_S = 5.0  # from the offer to the answer; 20 ms is usual
CLOSE_S = 2.0  # for the library to close a peer by itself
INBOX = 128  # messages waiting to be read; a page sends a few per second
DROPPABLE_BUFFER = 262_144  # bytes waiting in the channel beyond which figures are left out
BUFFER_LIMIT = 2_097_152  # and beyond which the viewer is given up


class Host(Protocol):
    """What a viewer tells its session. None of these waits."""

    def connected(self, viewer: Viewer) -> None:
        """Media flow; called once."""

    def left(self, viewer: Viewer) -> None:
        """Nothing flows to it any more; called once, also where nothing ever did."""

    def opened(self, viewer: Viewer) -> None:
        """The data channel is there; called once."""

    def heard(self, viewer: Viewer, message: str | bytes) -> None:
        """The client sent `message`; in order."""


class Viewer:
    """Owns one RTCPeerConnection. `run` is its whole life; `answer` comes on the way.

    Args:
        viewer_id: Unguessable; names the viewer in URLs.
        codec: "H264" or "VP8", as chosen from the offer.
        sink: The session's sink; the viewer subscribes to it.
        host: Is told what happens.
    """

    def __init__(
        self,
        viewer_id: str,
        codec: str,
        sink: WebRtcSink,
        config: ServerConfig,
        host: Host,
    ) -> None:
        self.id, self.codec = viewer_id, codec
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.is_connected = False
        self.limit = RateLimit(time.monotonic_ns())
        self.complained_ns = 0  # when it was last told that it sends too much
        self.ended_because = ""
        self.loss = 0.0  # fraction of packets lost, of the last receiver report
        self.told = -1  # the revision of the controls that its page knows
        self.skipped = 0  # figures not sent because the channel was full
        self.track: ViewerTrack | None = None
        self.tuning: peer_tuning.SenderTuning | None = None
        self.recent = Recent()  # of its pictures and bytes, for the reports
        self._sink, self._config = sink, config
        self._host = host
        self._channel: RTCDataChannel | None = None
        self._inbox: deque[str | bytes] = deque(maxlen=INBOX)
        self._mail = asyncio.Event()  # the channel opened, or a message came
        self._changed = asyncio.Event()  # the connection's state, or a wish to end
        self._farewell = ""  # why it is to end; empty while it is not

    # ---- life

    async def run(self, offer: str) -> None:
        """From a cleaned offer to the end of the connection.

        Resource handling: the peer connection and the subscription are closed when it returns or is
        cancelled. Error handling: what the offer causes goes to `answer`; all else is raised.
        """
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))  # never the public STUN server
        try:
            try:
                answer = await self._negotiate(pc, offer)
            except SignalingError as error:
                if not self.answer.done():
                    self.answer.set_exception(error)
                    self.answer.exception()  # seen, also where whoever asked has gone
                return
            if self.answer.done():  # whoever asked has gone
                return
            self.answer.set_result(answer)
            async with asyncio.TaskGroup() as group:
                talk = group.create_task(self._converse(), name=f"converse {self.id[:6]}")
                self.ended_because = await self._watch(pc)
                talk.cancel()
        finally:
            self.give_up()
            self.is_connected = False
            self._host.left(self)
            if self.track is not None:
                self.track.stop()
            await to_the_end(close_peer(pc))

    def give_up(self) -> None:
        """Nobody may wait for the answer any more."""
        if not self.answer.done():
            self.answer.set_exception(
                SignalingError("The session ended before it answered; try again.", 503, "ended")
            )
            self.answer.exception()  # seen, also where whoever asked has gone

    def leave(self, why: str = "it left") -> None:
        """Ask it to end, e.g. because the client said goodbye."""
        self._farewell = self._farewell or why
        self._changed.set()

    @property
    def is_open(self) -> bool:
        """Its channel is there, so that it can be told things."""
        return self._channel is not None and self._channel.readyState == "open"

    @property
    def has_room(self) -> bool:
        """Its channel drains: what can wait need not."""
        return self._channel is not None and self._channel.bufferedAmount <= DROPPABLE_BUFFER

    def send(self, message: dict[str, Any], *, droppable: bool = False) -> None:
        """Send JSON if the channel is open. Never waits.

        A channel that drains too slowly loses what is `droppable`; what is not adds up to a limit
        at which the viewer is given up, so that no memory grows.
        """
        channel = self._channel
        if channel is None or not self.is_open:
            return
        if droppable and not self.has_room:
            self.skipped += 1
        elif channel.bufferedAmount > BUFFER_LIMIT:
            self.leave("its data channel does not drain")
        else:
            channel.send(json.dumps(message, separators=(",", ":"), allow_nan=False))

    async def _negotiate(self, pc: RTCPeerConnection, offer: str) -> str:
        pc.on("connectionstatechange", self._changed.set)
        pc.on("datachannel", self._new_channel)
        await _library(pc.setRemoteDescription(RTCSessionDescription(offer, "offer")))
        delay_id = None
        if self._config.stream.playout_delay:
            delay_id = peer_tuning.offer_playout_delay(pc, offer)
        track = self.track = self._sink.subscribe(self.codec)
        self.tuning = peer_tuning.tune_sender(
            pc.addTrack(track),
            delay_id,
            lambda bps: self._sink.bitrate_from(track, bps),
            track.request_keyframe,
            lambda: self._sink.target_bitrate(self.codec),
        )
        track.on("ended", self._changed.set)
        for transceiver in pc.getTransceivers():
            if transceiver.kind == "video":
                transceiver.direction = "sendonly"  # nothing of the caller's is ever decoded
        answer = await _library(pc.createAnswer())
        # Cancelled half way, gathering would leave sockets that nobody knows of.
        await to_the_end(_library(pc.setLocalDescription(answer)))
        return pc.localDescription.sdp

    async def _watch(self, pc: RTCPeerConnection) -> str:
        """Returns why the viewer is to be closed.

        A live browser sends RTCP about once a second, also from a hidden tab. The library itself
        notices a vanished one by failed ICE consent, after 24 to 36 s.
        """
        loop = asyncio.get_running_loop()
        config = self._config
        begun = heard = loop.time()
        packets, reported = -1, None
        pause = min(0.5, config.silence_timeout_s / 8, config.connect_timeout_s / 8)
        while not self._farewell:
            self._changed.clear()
            if self.track is not None and self.track.error:
                self.send({"type": "error", "code": "encoder_failed", "message": self.track.error})
                await asyncio.sleep(0.05)  # for the channel to send it before the peer is closed
                return self.track.error
            if self.track is not None and self.track.readyState == "ended":
                return "its picture has ended"
            now = loop.time()
            if pc.connectionState in ("failed", "closed"):
                return f"the connection is {pc.connectionState}"
            if pc.connectionState == "connected":
                if not self.is_connected:
                    self.is_connected = True
                    self._host.connected(self)
                received, reported = await self._measure(pc, reported)
                if received != packets:
                    packets, heard = received, now
                if now - heard >= config.silence_timeout_s:
                    return f"nothing was heard of it for {config.silence_timeout_s:g} s"
            elif now - begun >= config.connect_timeout_s:
                return f"it did not connect within {config.connect_timeout_s:g} s"
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                pass
        return self._farewell

    async def _measure(self, pc: RTCPeerConnection, reported: Any) -> tuple[int, Any]:
        """(packets received so far, time of the last receiver report); hands on a new one."""
        received = 0
        for report in (await pc.getStats()).values():
            if report.type == "transport":
                received += report.packetsReceived
            elif report.type == "remote-inbound-rtp" and report.timestamp != reported:
                reported = report.timestamp
                self.loss = report.fractionLost / 256
                if self.track is not None:
                    self._sink.loss_from(self.track, self.loss)
        return received, reported

    # ---- the data channel

    def _new_channel(self, channel: RTCDataChannel) -> None:
        if channel.label != CHANNEL or self._channel is not None:
            channel.close()
            return
        channel.on("message", self._receive)
        self._channel = channel
        self._mail.set()

    def _receive(self, message: str | bytes) -> None:
        self._inbox.append(message)  # a flood overwrites its own oldest messages
        self._mail.set()

    async def _converse(self) -> Never:
        """Hand on what the client sends, in order."""
        greeted = False
        while True:
            await self._mail.wait()
            self._mail.clear()
            if not greeted:
                greeted = True
                self._host.opened(self)
            while self._inbox:
                self._host.heard(self, self._inbox.popleft())


# ---- around the library

T = TypeVar("T")


async def _library(call: Awaitable[T]) -> T:
    """Whatever aiortc raises, as one refusal: it has a dozen raw types for what it dislikes.

    Raises:
        SignalingError: 400, or 503 when it takes too long.
    """
    try:
        async with asyncio.timeout(NEGOTIATION_S):
            return await call
    except TimeoutError as error:
        raise SignalingError(
            f"The offer could not be answered within {NEGOTIATION_S:g} s; try again.",
            503,
            "too_slow",
        ) from error
    except Exception as error:
        log.warning("an offer that was read could not be answered", exc_info=True)
        raise SignalingError(
            f"The offer cannot be answered ({type(error).__name__}); send the browser's own SDP.",
            code="bad_offer",
        ) from error


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Run short work to its end even if the caller is cancelled meanwhile, then let that pass.

    `work` brings its own timeout. The task never outlives this call.
    """
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # marked as seen: the cancellation is what the caller learns
        raise cancelled
    return task.result()


async def close_peer(pc: RTCPeerConnection) -> None:
    """Close a peer connection. Never raises, never takes long.

    The library's own `close` can raise, for instance on a half-negotiated peer, and then leaves
    the rest open; so on trouble each part is closed by itself.
    """
    if await _quietly("close", pc.close()):
        return
    for transceiver in pc.getTransceivers():
        await _quietly("stop a transceiver", transceiver.stop())
    ends = [t.receiver for t in pc.getTransceivers()] + ([pc.sctp] if pc.sctp else [])
    for transport in {id(end.transport): end.transport for end in ends}.values():
        await _quietly("stop DTLS", transport.stop())
        await _quietly("stop ICE", transport.transport.stop())


async def _quietly(what: str, call: Awaitable[None]) -> bool:
    """Whether `call` ended well in time; trouble is logged, since there is nobody to tell."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await call
        return True
    except Exception:
        log.warning("a peer did not %s", what, exc_info=True)
        return False
