"""A plain aiortc server: what its user writes, with the library's own encoder. The baseline.

    python bench/stock_server.py --port 8081        prints "ready PORT"; 0 takes a free port

The same test picture with the same number in it as ours, drawn in a thread on a fixed schedule
(a late tick is skipped), the newest picture in a one-slot mailbox, an rgb24 frame for
each recv(); conversion, encoding, rate and sending are aiortc's. The conversion from the test
card's I420 to RGB is not billed to it: its clock starts when the RGB picture is complete.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from realtime import barcode
from realtime.test_card import TestCard

CLOCK_HZ = 90_000
KEPT_STAMPS = 20_000
READER = Path(__file__).resolve().parents[1] / "realtime" / "web" / "barcode.js"


class StockTrack(MediaStreamTrack):
    """The newest picture, whenever aiortc asks."""

    kind = "video"

    def __init__(self, size: int, fps: float) -> None:
        super().__init__()
        self.stamps: dict[int, tuple[int, int]] = {}  # number: due, complete
        self._size, self._fps = size, fps
        self._draw_loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._slot: tuple[int, np.ndarray] | None = None
        self._running = True
        self._thread = threading.Thread(target=self._draw, name="draw")
        self._thread.start()

    def _draw(self) -> None:
        card = TestCard(self._size)
        i420 = np.empty((self._size * 3 // 2, self._size), np.uint8)
        origin, number = time.monotonic_ns(), 0
        while self._running:
            due = origin + round(number * 1e9 / self._fps)
            behind = (time.monotonic_ns() - due) * self._fps / 1e9
            if behind >= 1:
                number += math.floor(behind)
                continue
            time.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
            card.draw(number / self._fps, i420)
            barcode.stamp(i420[: self._size], number)
            picture = cv2.cvtColor(i420, cv2.COLOR_YUV2RGB_I420)
            self.stamps[number] = (due, time.monotonic_ns())
            if len(self.stamps) > KEPT_STAMPS:
                del self.stamps[next(iter(self.stamps))]
            self._draw_loop.call_soon_threadsafe(self._put, number, picture)
            number += 1

    def _put(self, number: int, picture: np.ndarray) -> None:
        self._slot = number, picture
        self._ready.set()

    async def recv(self) -> av.VideoFrame:
        await self._ready.wait()
        self._ready.clear()
        assert self._slot is not None
        number, picture = self._slot
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = int(number * CLOCK_HZ / self._fps), Fraction(1, CLOCK_HZ)
        return frame

    def stop(self) -> None:
        super().stop()
        self._running = False

    def join(self) -> None:
        self._thread.join()


class StockServer:
    """POST /offer and DELETE as ours; /stamps/{session} gives what was stamped."""

    def __init__(self) -> None:
        self._sessions: dict[str, tuple[RTCPeerConnection, StockTrack]] = {}
        self._count = 0

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/offer", self.offer)
        app.router.add_get("/stamps/{session}", self.stamps)
        app.router.add_delete("/sessions/{session}/viewers/{viewer}", self.leave)
        app.router.add_get("/livez", self.livez)
        app.router.add_get("/barcode.js", self.reader)
        app.on_shutdown.append(self.close)
        return app

    async def offer(self, request: web.Request) -> web.Response:
        body = await request.json()
        controls = body["controls"]
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        pc.on("datachannel", _answer_pings)
        await pc.setRemoteDescription(RTCSessionDescription(body["sdp"], "offer"))
        track = StockTrack(int(controls["resolution"]), float(controls["fps"]))
        pc.addTrack(track)
        await pc.setLocalDescription(await pc.createAnswer())
        self._count += 1
        session = f"stock-{self._count}"
        self._sessions[session] = pc, track
        return web.json_response(
            {"sdp": pc.localDescription.sdp, "type": "answer", "session": session, "viewer": "1"}
        )

    async def stamps(self, request: web.Request) -> web.Response:
        _, track = self._sessions[request.match_info["session"]]
        rows = [[number, *times] for number, times in list(track.stamps.items())]
        return web.json_response({"stamps_ns": rows})

    async def leave(self, request: web.Request) -> web.Response:
        await self._end(request.match_info["session"])
        return web.json_response({"closed": True})

    async def _end(self, session: str) -> None:
        pc, track = self._sessions.pop(session)
        track.stop()
        await pc.close()
        await asyncio.to_thread(track.join)

    async def livez(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def reader(self, request: web.Request) -> web.Response:
        return web.Response(text=READER.read_text(), content_type="text/javascript")

    async def close(self, app: web.Application) -> None:
        for session in list(self._sessions):
            await self._end(session)


def _answer_pings(channel: Any) -> None:
    def answer(text: str) -> None:
        message = json.loads(text)
        if message["type"] == "ping":
            now_ms = time.monotonic_ns() / 1e6
            channel.send(json.dumps({"type": "pong", "t": message["t"], "server_ms": now_ms}))

    channel.on("message", answer)


async def serve(port: int) -> None:
    runner = web.AppRunner(StockServer().application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(f"ready {runner.addresses[0][1]}", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/stock_server.py", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    for size in (256, 512):  # scenes are made before anybody is measured
        TestCard(size)
    try:
        asyncio.run(serve(arguments.port))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
