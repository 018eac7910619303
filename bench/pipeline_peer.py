"""The receiving end of bench/pipeline.py: a real aiortc peer in a process of its own.

It negotiates, decrypts and counts; it does not decode, which would take the core that is measured.
It looks for packets every POLL_S and never waits for one: on one machine a process that waits is
woken by the very call that sends, which would be billed to the sender. For the same reason it
gives way to whoever wants its core. A peer elsewhere costs the sender no such thing.
Speaks JSON, a line each way: its offer out, the answer in; at the end of input, what it got out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import selectors
import sys
import time
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcrtpreceiver import RTCRtpReceiver

PLAYOUT_DELAY = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"


POLL_S = 0.002


class Polling(selectors.DefaultSelector):
    """Sleeps, then looks: nobody wakes it."""

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            time.sleep(POLL_S if timeout is None else min(timeout, POLL_S))
        return super().select(0)


class Counted:
    """Stands where decrypted packets go."""

    def __init__(self) -> None:
        self.packets = self.bytes = self.pictures = 0

    async def handle(self, data: bytes, *_: Any, **__: Any) -> None:
        self.packets += 1
        self.bytes += len(data)
        self.pictures += data[1] >> 7  # the marker: a picture's last packet


async def receive(codec: str) -> None:
    """Offer, take the answer, count until the end of input."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    counted = Counted()
    try:
        transceiver = pc.addTransceiver("video", direction="recvonly")
        known = RTCRtpReceiver.getCapabilities("video").codecs
        transceiver.setCodecPreferences(
            [one for one in known if one.mimeType in (f"video/{codec}", "video/rtx")]
        )
        await pc.setLocalDescription(await pc.createOffer())
        offer = pc.localDescription.sdp.replace(
            "a=rtcp-mux\r\n", f"a=rtcp-mux\r\na=extmap:9 {PLAYOUT_DELAY}\r\n", 1
        )
        print(json.dumps({"sdp": offer}), flush=True)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        answer = json.loads(await reader.readline())
        transceiver.receiver.transport._handle_rtp_data = counted.handle
        await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        await reader.read()
    finally:
        await pc.close()
    print(json.dumps(vars(counted)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/pipeline_peer.py", description=__doc__)
    parser.add_argument("--codec", default="VP8", choices=("H264", "VP8"))
    codec = parser.parse_args().codec
    if hasattr(os, "nice"):
        os.nice(19)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Polling())) as runner:
        runner.run(receive(codec))


if __name__ == "__main__":
    main()
