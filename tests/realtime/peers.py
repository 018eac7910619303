"""A real server on a free port, and aiortc clients that watch it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from realtime import signaling
from realtime.config import RenderConfig, ServerConfig, StreamConfig
from realtime.engine import Engine
from realtime.server import Server, running

PATIENCE_S = 20.0  # for what takes milliseconds on an idle machine


def config(stream: dict[str, Any] | None = None, **values: Any) -> ServerConfig:
    """The test card, small, on a free port."""
    values = {"offers_per_s": 1e6, "offers_burst": 1_000_000, **values}  # all from one address
    return ServerConfig(
        port=0,
        render=RenderConfig(model="testcard", threads=1),
        stream=StreamConfig(**{"resolution": 64, "fps": 30.0, **(stream or {})}),
        **values,
    )


class Served:
    """A running server, its URL, and an HTTP client."""

    def __init__(self, server: Server, url: str, http: aiohttp.ClientSession) -> None:
        self.server, self.url, self.http = server, url, http

    async def post(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        async with self.http.post(self.url + "offer", json=body) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.http.get(self.url + path) as response:
            return response.status, await response.json()

    async def delete(self, session: str, viewer: str) -> int:
        async with self.http.delete(f"{self.url}sessions/{session}/viewers/{viewer}") as response:
            return response.status


@asynccontextmanager
async def served(settings: ServerConfig | None = None, **engine: Any) -> AsyncIterator[Served]:
    settings = settings or config()
    sock = signaling.bind(settings.host, settings.port)
    async with Engine(settings.render, names=["testcard", *engine.pop("names", [])], **engine) as e:
        await e.load(settings.render.model, settings.stream.resolution)
        async with running(settings, e) as server, signaling.listening(server, sock) as url:
            async with aiohttp.ClientSession() as http:
                yield Served(server, url, http)


class Client:
    """A viewer as a browser is one: offer, answer, data channel; counts or keeps pictures."""

    def __init__(self, served: Served, *, channel: bool = True, video: bool = True) -> None:
        self.served = served
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.answer: dict[str, Any] = {}
        self.messages: list[dict[str, Any]] = []
        self.frames = 0
        self.picture: np.ndarray | None = None  # the newest, I420 [H*3//2, W]
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self.channel = self.pc.createDataChannel("control") if channel else None
        if self.channel is not None:
            self.channel.on("message", self._message)
        self.pc.addTransceiver("video", direction="recvonly")
        if video:
            self.pc.on("track", self._track)

    def _message(self, text: str) -> None:
        self.messages.append(json.loads(text))
        self._news.set()

    def _track(self, track: Any) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch(track))

    async def _watch(self, track: Any) -> None:
        while True:
            frame = await track.recv()
            self.picture = frame.to_ndarray(format="yuv420p")
            self.frames += 1
            self._news.set()

    async def offer(self) -> str:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def connect(self, **body: Any) -> Client:
        status, self.answer = await self.served.post({"sdp": await self.offer(), **body})
        assert status == 200, self.answer
        await self.pc.setRemoteDescription(RTCSessionDescription(self.answer["sdp"], "answer"))
        await self.until(lambda: self.pc.connectionState == "connected")
        return self

    async def until(self, true: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
        """Wait until `true()`; checked at each message and picture, and every 20 ms."""
        async with asyncio.timeout(patience_s):
            while not (value := true()):
                self._news.clear()
                try:
                    await asyncio.wait_for(self._news.wait(), 0.02)
                except TimeoutError:
                    pass
            return value

    async def message(self, kind: str, which: Callable[[dict], bool] = lambda m: True) -> dict:
        """The first message of `kind` for which `which` holds; waits for it."""
        return await self.until(
            lambda: next((m for m in self.messages if m["type"] == kind and which(m)), None)
        )

    def send(self, **message: Any) -> None:
        assert self.channel is not None
        self.channel.send(json.dumps(message))

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Raises what the watching of its pictures has raised, but for the end of the stream."""
        watching = self._watching
        if watching is not None:
            watching.cancel()
            await asyncio.wait({watching})
        await self.pc.close()
        if watching is not None and not watching.cancelled():
            error = watching.exception()
            if error is not None and not isinstance(error, MediaStreamError):
                raise error


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def held() -> tuple[int, int, int]:
    """(descriptors, tasks, threads) of this process; nothing waits for the garbage collector."""
    return open_files(), len(asyncio.all_tasks()), threading.active_count()


def back_to(before: Sequence[int]) -> bool:
    """Whether no more is held than `before`: of each kind, as far as `before` names them."""
    return all(now <= then for now, then in zip(held(), before, strict=False))


async def settled(true: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(patience_s):
        while not true():  # noqa: ASYNC110 - what is asked for has no event
            await asyncio.sleep(0.02)
