"""The server's own path from a frame slot to the socket, clocks in it; see bench/pipeline.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0


class CodecClock:
    """Time spent inside the codec's own call, by whoever encodes now."""

    def __init__(self) -> None:
        self.begun_ns = self.spent_ns = 0

    def begin(self) -> None:
        self.begun_ns = time.monotonic_ns()

    def end(self) -> None:
        self.spent_ns += time.monotonic_ns() - self.begun_ns


@contextlib.contextmanager
def codec_clock() -> Iterator[CodecClock]:
    """Puts a clock around libvpx's and libx264's encode, and into every picture's stamps.

    "taken" is when the encoder thread took the frame, "codec" how long the codec's call took (ns).
    """
    from realtime import h264, vp8
    from realtime.sinks import encoder_lane

    clock = CodecClock()

    class TimedVp8(vp8.Vp8Codec):
        def encode(self, *given: Any, **more: Any) -> Any:
            clock.begin()
            try:
                return super().encode(*given, **more)
            finally:
                clock.end()

    # PyAV's context cannot be wrapped: its call lies between wrapping a slot and the payloads.
    def wrapped(*given: Any) -> Any:
        frame = real_wrapped(*given)
        clock.begin()
        return frame

    def payloads(encoder: Any, data: bytes) -> Any:
        clock.end()
        return real_payloads(encoder, data)

    def opened(*given: Any, **more: Any) -> Any:
        encoder: Any = real_open(*given, **more)
        real = encoder.encode

        def encode(*given: Any, **more: Any) -> Any:
            taken, clock.spent_ns = time.monotonic_ns(), 0
            coded = real(*given, **more)
            coded.stamps.update(taken=taken, codec=clock.spent_ns)
            return coded

        encoder.encode = encode
        return encoder

    real_wrapped, real_payloads = h264.H264Encoder._wrapped, h264.H264Encoder._payloads
    real_open = encoder_lane.open_encoder
    with contextlib.ExitStack() as stack:
        for owner, name, value in (
            (vp8, "Vp8Codec", TimedVp8),
            (h264.H264Encoder, "_wrapped", wrapped),
            (h264.H264Encoder, "_payloads", payloads),
            (encoder_lane, "open_encoder", opened),
        ):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield clock


@dataclass
class Seen:
    """What one stream's pictures were stamped with, up to the socket."""

    rows: list[Any] = field(default_factory=list)  # stamped when the last sendto had returned
    after: Callable[[], None] = lambda: None  # called on the loop after each picture

    def take(self, track: Any) -> None:
        """A picture was sent."""
        self.rows += track.take_rows()
        self.after()


class Peer:
    """The receiving process."""

    def __init__(self, codec: str) -> None:
        self._codec = codec

    async def __aenter__(self) -> Peer:
        script = Path(__file__).with_name("pipeline_peer.py")
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            f"--codec={self._codec}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
            await self._child.wait()

    async def read(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self._child.stdout.readline()
        if not line:
            raise RuntimeError("the receiving peer ended early; its error stands above.")
        return json.loads(line)

    async def write(self, message: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(message).encode() + b"\n")
        await self._child.stdin.drain()

    async def ended(self) -> dict[str, Any]:
        """What it counted; ends it."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        counted = await self.read()
        await self._child.wait()
        return counted


@contextlib.asynccontextmanager
async def streaming(codec: str, size: int, fps: float, seen: Seen) -> AsyncIterator[Any]:
    """The server's path to one viewer, running; yields (sender's tuning, frame clock, peer).

    Raises:
        RuntimeError: Pictures do not go the way that is to be measured.
    """
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

    from realtime import peer_tuning
    from realtime.clock import FrameClock
    from realtime.config import RenderConfig, StreamConfig
    from realtime.controls import Controls, LiveControls
    from realtime.engine import Engine
    from realtime.frame_loop import frame_loop
    from realtime.sinks.webrtc import WebRtcSink

    stream = StreamConfig(resolution=size, fps=fps, bitrate=3_000_000 * max(1, size // 512))
    controls = Controls(model="testcard", resolution=size, fps=fps, bitrate=stream.bitrate)
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    sink = WebRtcSink(stream, on_stats=lambda *_: seen.take(track))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(sink.aclose)
        stack.push_async_callback(pc.close)
        engine = await stack.enter_async_context(Engine(RenderConfig(model="testcard", threads=1)))
        await engine.load("testcard", size)
        await engine.open("bench", size, model="testcard")
        stack.push_async_callback(engine.close, "bench")
        peer = await stack.enter_async_context(Peer(codec))
        offer = (await peer.read())["sdp"]
        await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        delay_id = peer_tuning.offer_playout_delay(pc, offer)
        track = sink.subscribe(codec)
        tuning = peer_tuning.tune_sender(
            pc.addTrack(track),
            delay_id,
            lambda bps: sink.bitrate_from(track, bps),
            track.request_keyframe,
            lambda: sink.target_bitrate(codec),
        )
        await pc.setLocalDescription(await pc.createAnswer())
        await peer.write({"sdp": pc.localDescription.sdp})
        sink.set_fps(fps)
        sink.set_rate(stream.bitrate)
        clock = FrameClock(fps, time.monotonic_ns())
        async with asyncio.TaskGroup() as group:
            loop = group.create_task(
                frame_loop(clock, LiveControls(controls), engine, sink, session="bench")
            )
            try:
                await until(lambda: track.started, PATIENCE_S)
                if not track.wired:
                    raise RuntimeError("no wire could be opened to the peer; see the log.")
                yield tuning, clock, peer
            finally:
                loop.cancel()


async def until(done: Callable[[], bool], patience_s: float) -> None:
    """Look every 20 ms; raises TimeoutError."""
    async with asyncio.timeout(patience_s):
        while not done():  # noqa: ASYNC110 - what is asked for has no event
            await asyncio.sleep(0.02)
