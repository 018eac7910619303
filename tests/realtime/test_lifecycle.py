"""Viewers that come and go, never come, or vanish: nothing of them stays."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from offer_mutations import CHROMIUM
from peers import Client, back_to, config, held, served, settled

from realtime import viewer as viewer_module
from realtime.sdp import DUMMY_HOST
from realtime.viewer import close_peer, to_the_end

HERE = Path(__file__).parent
VIEWER = """
import asyncio, sys, aiohttp
from peers import Client, Served
async def main():
    async with aiohttp.ClientSession() as http:
        client = await Client(Served(None, sys.argv[1], http)).connect()
        await client.until(lambda: client.frames > 3)
        print("watching", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_100_viewers_come_and_go_and_leave_nothing() -> None:
    """Each a whole session: its own clock, encoder thread, peer connection and data channel."""
    async with served(config(linger_s=0.0)) as s:

        async def come_and_go(number: int) -> None:
            async with Client(s, video=False) as client:
                await client.connect(codec=("H264", "VP8")[number % 2])
                await client.message("hello")
                if number % 3 == 0:
                    await s.delete(client.answer["session"], client.answer["viewer"])

        for number in range(8):  # what is made once: executor threads, caches, HTTP connections
            await come_and_go(number)
        await settled(lambda: not s.server.sessions)
        before = held()
        for number in range(100):
            await come_and_go(number)
        await settled(lambda: not s.server.sessions)
        await settled(lambda: back_to(before))
        assert s.server.engine.stats()["sessions"] == 0
        assert s.server.answered == 108 and s.server.failed == 0


async def test_viewers_of_one_session_come_and_go_and_leave_nothing() -> None:
    async with served() as s, Client(s) as stays:
        await stays.connect()
        session = stays.answer["session"]
        for _ in range(3):
            async with Client(s, video=False) as client:
                await client.connect(session=session)
        await settled(lambda: s.server.stats()["viewers"] == 1)
        before = held()
        for _ in range(20):
            async with Client(s, video=False) as client:
                await client.connect(session=session)
        await settled(lambda: s.server.stats()["viewers"] == 1)
        await settled(lambda: back_to(before[:2]))
        frames = stays.frames
        await stays.until(lambda: stays.frames > frames + 5)


async def test_an_offer_nobody_stands_behind_is_closed_and_costs_no_frame() -> None:
    async with served(config(connect_timeout_s=1.0, linger_s=0.0)) as s:
        before = held()[:2]
        begin = time.monotonic()
        assert (await s.post({"sdp": CHROMIUM}))[0] == 200
        (session,) = s.server.sessions.values()
        (viewer,) = session.viewers.values()
        assert session.reports.clock is None
        await settled(lambda: not s.server.sessions, 10)
        assert 0.9 < time.monotonic() - begin < 4
        assert viewer.ended_because == "it did not connect within 1 s"
        assert s.server.engine.stats()["frames"] == 0
        await settled(lambda: back_to((before[0] + 2, before[1] + 1)))  # the HTTP connection


async def test_a_viewer_that_never_comes_leaves_the_others_their_session() -> None:
    async with served(config(connect_timeout_s=1.0)) as s, Client(s) as stays:
        await stays.connect()
        (session,) = s.server.sessions.values()
        assert (await s.post({"sdp": CHROMIUM, "session": session.id}))[0] == 200
        (lane,) = session._sink.stats()
        assert lane.viewers == 2
        await settled(lambda: len(session.viewers) == 1, 10)
        (lane,) = session._sink.stats()
        assert lane.viewers == 1
        frames = stays.frames
        await stays.until(lambda: stays.frames > frames + 5)


async def test_a_killed_viewer_is_noticed_by_its_silence() -> None:
    path = os.pathsep.join((str(HERE), str(HERE.parents[1])))
    async with served(config(silence_timeout_s=1.0, linger_s=0.0)) as s:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", VIEWER, s.url, stdout=PIPE, env=environment
        )
        try:
            assert (await process.stdout.readline()).strip() == b"watching"
            (session,) = s.server.sessions.values()
            (viewer,) = session.viewers.values()
            watching = held()
            await asyncio.sleep(2.5)  # alive, it is heard of all the time
            assert not session.over and viewer.ended_because == ""
            killed = time.monotonic()
            process.send_signal(signal.SIGKILL)
            await settled(lambda: not s.server.sessions, 15)
            took = time.monotonic() - killed
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        assert took < 5
        assert viewer.ended_because == "nothing was heard of it for 1 s"
        await settled(lambda: held()[0] < watching[0] and held()[1] < watching[1])


async def test_no_packet_goes_to_an_address_that_the_offer_names() -> None:
    """A listener on this machine stands in for the victim of a scan."""
    heard: list[bytes] = []

    class Victim(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple) -> None:
            heard.append(data)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Victim, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    line = f"a=candidate:1 1 udp 2113937151 127.0.0.1 {port} typ host"
    offer = CHROMIUM.replace("a=ice-ufrag", f"{line}\r\na=ice-ufrag")
    try:
        async with served(config(connect_timeout_s=1.0)) as s:
            status, answer = await s.post({"sdp": offer})
            assert status == 200 and str(port) not in answer["sdp"]
            await asyncio.sleep(0.8)
    finally:
        transport.close()
    assert not heard
    assert DUMMY_HOST.startswith("192.0.2.")


async def test_the_answer_comes_at_once_whatever_the_candidates_names() -> None:
    async with served() as s:
        await s.post({"sdp": CHROMIUM})
        begin = time.monotonic()
        status, _ = await s.post({"sdp": CHROMIUM})  # two `.local` names that nobody answers for
        assert status == 200 and time.monotonic() - begin < 0.9


# ---- the helpers


async def test_work_that_must_end_ends_before_a_cancellation_passes() -> None:
    steps: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0.05)
        steps.append("worked")
        return "done"

    async def caller() -> None:
        await to_the_end(work())
        steps.append("not reached")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(caller())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()  # and again, while it is still at it
        await asyncio.wait({task})
    assert task.cancelled() and steps == ["worked"]
    assert await to_the_end(work()) == "done"


async def test_work_that_fails_raises_its_own_error() -> None:
    async def work() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await to_the_end(work())


async def test_a_peer_that_cannot_be_closed_is_closed_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """The library's own close is known to raise on spoilt peers and to leave the rest open."""
    before = held()[:2]
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.createDataChannel("control")
    pc.addTransceiver("video")
    await pc.setLocalDescription(await pc.createOffer())
    assert held()[0] > before[0]

    async def broken() -> None:
        raise AttributeError("'NoneType' object has no attribute 'stop'")

    monkeypatch.setattr(pc, "close", broken)
    await close_peer(pc)
    await settled(lambda: back_to(before))
    assert "did not close" in caplog.text


async def test_a_peer_that_never_closes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer_module, "CLOSE_S", 0.1)
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("video")
    before = held()[:2]
    await pc.setLocalDescription(await pc.createOffer())

    async def stuck() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(pc, "close", stuck)
    begin = time.monotonic()
    await close_peer(pc)
    assert time.monotonic() - begin < 2
    await settled(lambda: back_to(before))
