"""A viewer without a browser: an aiortc client that decodes, and notes when each number came out.

    python bench/aiortc_viewer.py --url http://127.0.0.1:8080 --codec H264 --seconds 5

Prints one line of JSON. Its clock is the server's (CLOCK_MONOTONIC is one per machine), so nothing
is correlated. Mind that aiortc's receiver releases a frame when the next one begins: one frame
interval is in every figure, ours and the baseline's, that a browser does not add.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from realtime import barcode

FIRST_PICTURE_S = 20.0
TAIL_S = 0.4  # for the last pictures, and their stamps, which come four times a second


def _luma(frame: Any) -> np.ndarray:
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : frame.width]


async def watch(url: str, codec: str, controls: dict[str, Any], seconds: float) -> dict[str, Any]:
    """{rows, stamps, begun_ms, session, viewer}; times in monotonic milliseconds."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    stamps: list[list[float]] = []
    channel = pc.createDataChannel("control")

    def heard(text: str) -> None:
        message = json.loads(text)
        if message["type"] == "frames":
            stamps.extend(message["rows"])

    channel.on("message", heard)
    transceiver = pc.addTransceiver("video", direction="recvonly")
    known = RTCRtpReceiver.getCapabilities("video")
    assert known is not None
    transceiver.setCodecPreferences(
        [one for one in known.codecs if one.mimeType in (f"video/{codec}", "video/rtx")]
    )
    begun_ms = time.monotonic_ns() / 1e6
    try:
        await pc.setLocalDescription(await pc.createOffer())
        body = {"sdp": pc.localDescription.sdp, "codec": codec, "barcode": True}
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{url}/offer", json={**body, "controls": controls}) as response:
                answer = await response.json()
                if response.status != 200:
                    raise SystemExit(f"the offer was refused: {answer.get('message', answer)}")
        await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        rows = await _pictures(transceiver.receiver.track, seconds + TAIL_S)
    finally:
        await pc.close()
    ids = {name: answer[name] for name in ("session", "viewer")}
    return {"rows": rows, "stamps": stamps, "begun_ms": begun_ms, **ids}


async def _pictures(track: Any, seconds: float) -> list[list[float]]:
    """[number or -1, decoded at] of each picture, for `seconds` from the first on."""
    rows: list[list[float]] = []
    limit = asyncio.get_running_loop().time() + FIRST_PICTURE_S
    while True:
        left = limit - asyncio.get_running_loop().time()
        try:
            frame = await asyncio.wait_for(track.recv(), max(0.001, left))
        except TimeoutError:
            return rows
        now_ms = time.monotonic_ns() / 1e6
        number = barcode.read(_luma(frame))
        if not rows:
            limit = asyncio.get_running_loop().time() + seconds
        rows.append([-1 if number is None else number, now_ms])


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/aiortc_viewer.py", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--codec", default="H264", choices=("H264", "VP8"))
    parser.add_argument("--controls", type=json.loads, default={}, help="JSON, sent with the offer")
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(watch(given.url, given.codec, given.controls, given.seconds))))


if __name__ == "__main__":
    main()
