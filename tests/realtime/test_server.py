"""The server: admission, joining and leaving, and a whole process from ready to SIGTERM."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import aiohttp
import pytest
from offer_mutations import CHROMIUM
from peers import Client, Served, back_to, config, held, served, settled

from models.errors import ModelError
from realtime.config import RenderConfig, ServerConfig
from realtime.engine import Engine
from realtime.errors import RealtimeError
from realtime.server import _warn_if_open, running, serve
from realtime.signaling import OfferRequest

ROOT = Path(__file__).parents[2]
SERVER = """
import asyncio, logging, sys
from realtime.config import RenderConfig, ServerConfig, StreamConfig
from realtime.server import serve
logging.basicConfig(level=logging.INFO)
settings = ServerConfig(
    port=0, render=RenderConfig(model="testcard", threads=1), stream=StreamConfig(resolution=64)
)
asyncio.run(serve(settings, ready=lambda url: print(url, flush=True)))
print("over", flush=True)
"""


async def test_sessions_are_limited_and_free_again() -> None:
    async with served(config(max_sessions=1, connect_timeout_s=0.5, linger_s=0.0)) as s:
        assert (await s.post({"sdp": CHROMIUM}))[0] == 200
        async with s.http.post(s.url + "offer", json={"sdp": CHROMIUM}) as response:
            assert response.status == 503 and response.headers["Retry-After"]
            assert "All 1 sessions are in use" in (await response.json())["message"]
        await settled(lambda: not s.server.sessions)  # nobody stood behind the first
        assert (await s.post({"sdp": CHROMIUM}))[0] == 200


async def test_viewers_of_a_session_are_limited() -> None:
    async with served(config(max_viewers=1)) as s, Client(s) as client:
        await client.connect()
        body = {"sdp": CHROMIUM, "session": client.answer["session"]}
        status, refused = await s.post(body)
        assert status == 503 and refused["error"] == "over_capacity"


async def test_joining_needs_a_session_that_is_there() -> None:
    async with served(config(linger_s=0.0)) as s:
        status, body = await s.post({"sdp": CHROMIUM, "session": "abc"})
        assert status == 404 and "begin a new one" in body["message"]
        async with Client(s) as client:
            await client.connect()
        await settled(lambda: not s.server.sessions)
        status, body = await s.post({"sdp": CHROMIUM, "session": client.answer["session"]})
        assert status == 404


async def test_leaving_ends_the_viewer_at_once() -> None:
    async with served(config(linger_s=0.2)) as s, Client(s) as client:
        await client.connect()
        await client.until(lambda: client.frames)
        session, viewer = client.answer["session"], client.answer["viewer"]
        assert await s.delete(session, "somebody") == 404
        assert await s.delete("nothing", viewer) == 404
        assert await s.delete(session, viewer) == 200
        await settled(lambda: not s.server.sessions, 5)
        await client.until(lambda: client.pc.connectionState == "closed")
        assert await s.delete(session, viewer) == 404


async def test_ids_cannot_be_guessed_nor_read() -> None:
    async with served() as s, Client(s) as client:
        await client.connect()
        session, viewer = client.answer["session"], client.answer["viewer"]
        assert len(session) >= 16 and len(viewer) >= 12
        async with s.http.get(s.url + "stats") as response:
            text = await response.text()
        assert session not in text and viewer not in text


async def test_a_request_that_gives_up_leaves_no_viewer() -> None:
    async with served(config(linger_s=0.0)) as s:
        given_up = 0
        for wait in (0.0, 0.001, 0.003, 0.01):
            try:
                async with asyncio.timeout(wait):
                    await s.server.answer(OfferRequest(CHROMIUM))
            except TimeoutError:
                given_up += 1
        assert given_up >= 2
        answered = s.server.answered
        # Those that were answered wait for their ten seconds, the others are gone at once.
        await settled(lambda: len(s.server.sessions) == answered, 5)
        assert s.server.failed == 0


async def test_a_request_that_gives_up_leaves_its_session_to_begin(monkeypatch) -> None:
    """Its session's `ready` is the session's, not the request's to cancel."""
    opening, go_on = asyncio.Event(), asyncio.Event()
    original = Engine.open

    async def held_up(self: Engine, *args: object, **settings: object) -> None:
        opening.set()
        await go_on.wait()
        await original(self, *args, **settings)

    monkeypatch.setattr(Engine, "open", held_up)
    async with served(config(linger_s=0.0)) as s:
        async with asyncio.TaskGroup() as group:
            request = group.create_task(s.server.answer(OfferRequest(CHROMIUM)))
            await opening.wait()
            request.cancel()
        (session,) = s.server.sessions.values()
        assert not session.ready.done()
        go_on.set()
        await settled(lambda: not s.server.sessions)
        assert session.ready.done() and not session.ready.cancelled()
        assert s.server.failed == 0


async def test_whoever_reads_the_log_or_the_tasks_cannot_join(caplog) -> None:
    async with served(config(linger_s=0.0)) as s:
        with caplog.at_level(logging.DEBUG, logger="realtime"):
            async with Client(s) as client:
                await client.connect()
                await client.until(lambda: client.frames)
                ids = client.answer["session"], client.answer["viewer"]
                names = " ".join(task.get_name() for task in asyncio.all_tasks())
                await s.delete(ids[0], "nobody")
                await s.delete(*ids)
                await settled(lambda: not s.server.sessions)
            async with Client(s) as client:
                await client.connect()
                ids += client.answer["session"], client.answer["viewer"]
                await s.server.engine.close(client.answer["session"])  # its next frame fails
                await settled(lambda: not s.server.sessions)
    assert ids[0][:6] in caplog.text and "failed" in caplog.text
    said = [record.getMessage() + str(record.exc_info) for record in caplog.records]
    for secret in ids:
        assert secret not in names and secret not in "".join(said) and secret not in caplog.text


async def test_stopping_tells_the_viewers_and_leaves_nothing() -> None:
    async with served() as s:  # what is made once
        async with Client(s) as client:
            await client.connect()
    await asyncio.sleep(0.1)
    before = held()
    async with asyncio.timeout(20), served() as s:
        client = await Client(s).connect()
        await client.message("hello")
        session = next(iter(s.server.sessions.values()))
    await client.message("notice", lambda m: "stopping" in m["text"])
    assert session.over and not s.server.sessions
    await client.close()
    await settled(lambda: back_to(before))


async def test_a_body_that_fails_is_raised_as_it_is() -> None:
    settings = config()
    async with Engine(settings.render, names=["testcard"]) as engine:
        with pytest.raises(RealtimeError, match="as it is"):
            async with running(settings, engine):
                raise RealtimeError("as it is")


# ---- serve


async def test_ready_comes_after_the_model_is_warm_with_a_url_that_answers() -> None:
    settings = config()
    interval = sys.getswitchinterval()
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(serve(settings, ready=url.set_result))
            where = await url
            assert where.startswith("http://127.0.0.1:") and where.endswith("/")
            reader, writer = await asyncio.open_connection("127.0.0.1", int(where[17:-1]))
            writer.write(b"GET /stats HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = (await reader.read()).decode()
            writer.close()
            assert '"name": "testcard"' in answer  # loaded before anybody came
            assert sys.getswitchinterval() == pytest.approx(0.0005)
            task.cancel()
    finally:
        sys.setswitchinterval(interval)


async def test_a_taken_port_is_told_before_the_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ServerConfig(
            port=taken.getsockname()[1], render=RenderConfig(model="no-such-model")
        )
        with pytest.raises(RealtimeError, match="--port"):
            await serve(settings, ready=lambda url: None)


async def test_a_default_model_that_cannot_be_loaded_is_a_sentence() -> None:
    settings = ServerConfig(port=0, render=RenderConfig(model="/no/such/file.json", threads=1))
    with pytest.raises(ModelError, match=r"no/such/file"):
        await serve(settings, ready=lambda url: None)


@pytest.mark.parametrize(
    ("host", "warned"), [("127.0.0.1", 0), ("::1", 0), ("localhost", 0), ("0.0.0.0", 1)]
)
def test_an_open_host_is_warned_about(host: str, warned: int, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        _warn_if_open(host)
    assert len(caplog.records) == warned
    assert not warned or "no log-in yet" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_in_order(number: signal.Signals) -> None:
    """With a viewer connected: exit code 0, in time, and the viewer is told."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, stdout=PIPE, stderr=PIPE, cwd=ROOT, env=environment
    )
    try:
        url = (await process.stdout.readline()).decode().strip()
        assert url.startswith("http://"), (await process.stderr.read()).decode()
        async with aiohttp.ClientSession() as http, Client(Served(None, url, http)) as client:
            await client.connect()
            await client.until(lambda: client.frames > 3)
            await client.message("hello")
            begin = time.monotonic()
            process.send_signal(number)
            out, err = (part.decode() for part in await process.communicate())
            took = time.monotonic() - begin
            await client.message("notice", lambda m: "stopping" in m["text"])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err
    assert out.strip() == "over"
    assert "Traceback" not in err and "never retrieved" not in err, err
    assert took < 10
