"""A session cancelled wherever it may be waiting gives everything back.

Two ways. By steps: let the event loop run n times, cancel, look; for every n from before the first
await until well after the answer. By stages: each call that is waited for is made to wait for ever,
and the session is cancelled there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiortc import RTCPeerConnection
from offer_mutations import CHROMIUM
from peers import Client, back_to, config, held, served, settled
from test_session import load

from realtime import session as session_module
from realtime import viewer as viewer_module
from realtime.config import RenderConfig, ServerConfig
from realtime.controls import Controls, Limits, change_of
from realtime.engine import Engine
from realtime.errors import SignalingError
from realtime.sdp import choose_codec, clean, read_offer
from realtime.session import Session
from realtime.sinks.webrtc import WebRtcSink

OFFER = clean(read_offer(CHROMIUM), choose_codec(read_offer(CHROMIUM), ("H264",)))


@asynccontextmanager
async def an_engine() -> AsyncIterator[Engine]:
    settings = RenderConfig(model="testcard", threads=1)
    async with Engine(settings, names=["testcard", "slow"], load=load) as engine:
        await engine.load("testcard", 64)
        yield engine


def a_session(engine: Engine, settings: ServerConfig | None = None) -> Session:
    controls = Controls(model="testcard", resolution=64)
    limits = Limits(models=("testcard", "slow"))
    return Session("s", settings or config(), engine, controls, limits, [])


async def nothing_left(engine: Engine, before: tuple[int, int, int]) -> None:
    """No task, descriptor, thread or slot of a session."""
    await settled(lambda: back_to(before), 5)
    stats = engine.stats()
    assert stats["sessions"] == 0 and stats["slots"] == 0 and stats["in_flight"] == 0


async def warmed(engine: Engine) -> tuple[int, int, int]:
    """What is held when whatever is made only once has been made."""
    async with asyncio.TaskGroup() as group:
        session = a_session(engine)
        task = group.create_task(session.run())
        await session.ready
        await session.admit(OFFER, "H264").answer
        task.cancel()
    return held()


async def cancelled_after(engine: Engine, steps: int, again: bool) -> bool:
    """Begin a session and a viewer, cancel after so many turns of the loop. Was it answered?"""
    async with asyncio.TaskGroup() as group:
        session = a_session(engine)
        task = group.create_task(session.run())
        viewer = None
        for _ in range(steps):
            await asyncio.sleep(0)
            if viewer is None and session.ready.done():
                viewer = session.admit(OFFER, "H264")
        task.cancel()
        if again:  # a second one while it is cleaning up
            await asyncio.sleep(0.002)
            task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()
    session.give_up()
    assert session.over and not session.viewers
    with pytest.raises(SignalingError, match="has ended"):
        session.admit(OFFER, "H264")
    if viewer is None:
        return False
    assert viewer.answer.done()  # nobody waits for ever
    return viewer.answer.exception() is None


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
async def test_cancelled_after_any_number_of_steps(again: bool) -> None:
    async with an_engine() as engine:
        before = await warmed(engine)
        answered = []
        for steps in (*range(0, 60, 1 + again), *range(60, 300, 20)):
            answered.append(await cancelled_after(engine, steps, again))
            await nothing_left(engine, before)
        assert not answered[0] and answered[-1]  # from before the first await to after the answer


class Block:
    """Replaces a coroutine function; waits for ever once armed, and says when it was reached."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original, self.armed = original, True
        self.reached = asyncio.Event()

    def __get__(self, owner: object, kind: type | None = None) -> Callable[..., Any]:
        return lambda *args, **kwargs: self(owner, *args, **kwargs)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.armed:
            self.armed = False
            self.reached.set()
            await asyncio.Event().wait()
        return await self.original(*args, **kwargs)


OPENING = [
    (Engine, "open"),
    (Engine, "load"),
    (RTCPeerConnection, "setRemoteDescription"),
    (RTCPeerConnection, "createAnswer"),
    (RTCPeerConnection, "setLocalDescription"),
    (viewer_module.Viewer, "_negotiate"),
    (viewer_module.Viewer, "_converse"),
    (viewer_module.Viewer, "_watch"),
    (session_module.Session, "_until_over"),
]


@pytest.mark.parametrize(
    ("owner", "name"), OPENING, ids=lambda value: getattr(value, "__name__", value)
)
async def test_cancelled_while_opening(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer_module, "NEGOTIATION_S", 0.3)  # what a stuck library costs at most
    async with an_engine() as engine:
        before = await warmed(engine)
        block = Block(getattr(owner, name))
        monkeypatch.setattr(owner, name, block)
        async with asyncio.TaskGroup() as group:
            session = a_session(engine)
            task = group.create_task(session.run())
            viewer = await _admitted(session, block)
            async with asyncio.timeout(5):
                await block.reached.wait()
            task.cancel()
            async with asyncio.timeout(5):
                await asyncio.wait({task})
        assert task.cancelled()
        assert viewer is None or viewer.answer.done()
        await nothing_left(engine, before)


async def _admitted(session: Session, block: Block) -> viewer_module.Viewer | None:
    """A viewer, unless the session waits before it takes any."""
    reached = asyncio.get_running_loop().create_task(block.reached.wait())
    await asyncio.wait({session.ready, reached}, return_when=asyncio.FIRST_COMPLETED)
    reached.cancel()
    await asyncio.wait({reached})
    return session.admit(OFFER, "H264") if session.ready.done() else None


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Engine, "render"), (Engine, "load"), (viewer_module.Viewer, "_measure")],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_cancelled_while_streaming(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a connected client: in the middle of a frame, of a model switch, of the watch."""
    async with served(names=["slow"], load=load) as s:
        async with Client(s) as first:
            await first.connect()
        await settled(lambda: not s.server.stats()["viewers"])
        async with Client(s) as client:
            await client.connect()
            await client.until(lambda: client.frames > 3)
            (session,) = [x for x in s.server.sessions.values() if x.viewers]
            block = Block(getattr(owner, name))
            monkeypatch.setattr(owner, name, block)
            session.change(change_of({"model": "slow"}))
            async with asyncio.timeout(5):
                await block.reached.wait()
            task = s.server._tasks[session.id]
            task.cancel()
            async with asyncio.timeout(5):
                await asyncio.wait({task})
            await client.until(lambda: client.pc.connectionState == "closed")
        await settled(lambda: not s.server.sessions)
        engine = s.server.engine.stats()
        assert engine["sessions"] == 0 and engine["in_flight"] == 0
        assert s.server.failed == 0  # a cancellation is not an error


async def test_cancelled_in_the_middle_of_a_real_frame() -> None:
    """The render thread is drawing: its slot comes back when it has done."""
    async with served(config({"resolution": 1024, "fps": 60})) as s:
        for _ in range(3):
            async with Client(s, video=False) as client:
                await client.connect()
                await settled(lambda: s.server.engine.stats()["frames"] > 3)
                (task,) = s.server._tasks.values()
                await settled(lambda: s.server.engine.stats()["in_flight"])
                task.cancel()
                await asyncio.wait({task})
                stats = s.server.engine.stats()
                assert stats["sessions"] == 0 and stats["in_flight"] == 0


def _task_of(viewer: viewer_module.Viewer) -> asyncio.Task:
    return next(t for t in asyncio.all_tasks() if t.get_name() == f"viewer {viewer.id[:6]}")


async def test_a_viewer_cancelled_before_its_first_step_is_forgotten() -> None:
    async with an_engine() as engine, asyncio.TaskGroup() as group:
        session = a_session(engine)
        task = group.create_task(session.run())
        await session.ready
        viewer = session.admit(OFFER, "H264")
        _task_of(viewer).cancel()
        with pytest.raises(SignalingError, match="try again"):
            async with asyncio.timeout(2):
                await viewer.answer
        await asyncio.wait({task}, timeout=5)  # nobody else came
        assert task.done() and not session.viewers


async def test_a_viewer_cancelled_again_while_it_closes_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closing = asyncio.Event()
    original = RTCPeerConnection.close

    async def slowly(self: RTCPeerConnection) -> None:
        closing.set()
        await asyncio.sleep(0.05)
        await original(self)

    async with an_engine() as engine:
        before = await warmed(engine)
        monkeypatch.setattr(RTCPeerConnection, "close", slowly)
        async with asyncio.TaskGroup() as group:
            session = a_session(engine)
            task = group.create_task(session.run())
            await session.ready
            viewer = session.admit(OFFER, "H264")
            await viewer.answer
            inner = _task_of(viewer)
            inner.cancel()
            await closing.wait()
            inner.cancel()
            await asyncio.wait({task}, timeout=5)
        await nothing_left(engine, before)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(WebRtcSink, "aclose"), (Engine, "close"), (RTCPeerConnection, "close")],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_cancelled_again_while_closing(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second cancellation finds the clean-up half way."""
    slow = asyncio.Event()
    original = getattr(owner, name)

    async def slowly(self: Any, *args: Any) -> None:
        slow.set()
        await asyncio.sleep(0.05)
        await original(self, *args)

    async with an_engine() as engine:
        before = await warmed(engine)
        monkeypatch.setattr(owner, name, slowly)
        async with asyncio.TaskGroup() as group:
            session = a_session(engine)
            task = group.create_task(session.run())
            await session.ready
            await session.admit(OFFER, "H264").answer
            task.cancel()
            await slow.wait()
            task.cancel()
            await asyncio.wait({task})
        assert task.cancelled()
        await nothing_left(engine, before)
