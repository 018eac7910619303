"""Viewers of one session beside each other: nobody there, one too slow, one with a full channel."""

import asyncio
import time

from peers import Client, config, served, settled
from test_session import session_of

from realtime import rate
from realtime import viewer as viewer_module
from realtime.controls import change_of


async def test_nothing_is_drawn_for_nobody_and_time_goes_on() -> None:
    async with served(config(linger_s=10.0)) as s:
        async with Client(s) as client:
            await client.connect()
            await client.until(lambda: client.frames > 3)
        session, engine = session_of(s), s.server.engine
        await settled(lambda: not session.viewers)
        await asyncio.sleep(0.1)  # the frame on its way
        frames, counters = engine.stats()["frames"], session.reports.counters()
        await asyncio.sleep(0.7)  # 21 ticks
        assert engine.stats()["frames"] == frames
        assert session.reports.counters() == counters
        clock = session.reports.clock
        at = clock.time_at(time.monotonic_ns())
        async with Client(s) as again:
            await again.connect(session=session.id)
            row = (await again.message("frames"))["rows"][0]
        assert row[1] / 30 > at - 0.1  # the index, and so t and the picture's motion, went on
        after = session.reports.counters()
        assert after["dropped"] - counters["dropped"] < 15  # 21 and more if the pause were counted
        assert after["due"] - after["dropped"] < row[1]


async def test_one_of_two_who_leaves_stops_nothing() -> None:
    async with served() as s, Client(s) as stays:
        await stays.connect()
        async with Client(s) as goes:
            await goes.connect(session=stays.answer["session"])
        await settled(lambda: len(session_of(s).viewers) == 1)
        frames = stays.frames
        await stays.until(lambda: stays.frames > frames + 5)


async def test_a_viewer_whose_connection_takes_too_little_is_told_and_let_go(monkeypatch) -> None:
    monkeypatch.setattr(rate, "STARVED_NS", 300_000_000)
    monkeypatch.setattr(rate, "CUT_SPACING_NS", 0)
    async with served() as s, Client(s) as fed, Client(s) as short:
        await fed.connect()
        await short.connect(session=fed.answer["session"])
        await fed.until(lambda: fed.frames > 3 and short.frames > 3)
        session = session_of(s)
        viewer = session.viewers[short.answer["viewer"]]
        for _ in range(8):  # reports of a link on which everything is lost
            session._sink.loss_from(viewer.track, 1.0)
        error = await short.message("error")
        assert error["code"] == "starved" and "faster network" in error["message"]
        await settled(lambda: len(session.viewers) == 1)
        assert viewer.ended_because == "its connection takes less than the floor"
        assert not [m for m in fed.messages if m["type"] == "error"]
        frames = fed.frames
        await fed.until(lambda: fed.frames > frames + 5)


async def test_a_viewer_that_is_alone_is_served_the_least(monkeypatch) -> None:
    monkeypatch.setattr(rate, "STARVED_NS", 300_000_000)
    monkeypatch.setattr(rate, "CUT_SPACING_NS", 0)
    async with served() as s, Client(s) as client, Client(s) as other:
        await client.connect(codec="H264")
        await other.connect(session=client.answer["session"], codec="VP8")  # an encode of its own
        await client.until(lambda: client.frames > 3)
        session = session_of(s)
        viewer = session.viewers[client.answer["viewer"]]
        for _ in range(8):
            session._sink.loss_from(viewer.track, 1.0)
        await client.message("stats", lambda m: "less than the least" in m["bottleneck"])
        await asyncio.sleep(0.6)
        assert len(session.viewers) == 2 and viewer.ended_because == ""


async def test_a_dragged_slider_is_told_in_steps_and_ends_where_it_is() -> None:
    async with served() as s, Client(s) as first, Client(s) as second:
        await first.connect()
        await second.connect(session=first.answer["session"])
        await first.message("hello")
        await second.message("hello")
        begin = time.monotonic()
        for number in range(200):
            session_of(s).change(change_of({"seed": number}))
            if number % 20 == 19:
                await asyncio.sleep(0.01)
        await second.message("state", lambda m: m["controls"]["seed"] == 199)
        elapsed = time.monotonic() - begin
        told = [m for m in second.messages if m["type"] == "state"]
        assert len(told) <= elapsed / 0.033 + 1
        assert told[-1]["controls"]["seed"] == 199
        await first.message("state", lambda m: m["controls"]["seed"] == 199)
        await asyncio.sleep(0.1)
        assert len([m for m in second.messages if m["type"] == "state"]) == len(told)


class Full:
    """A real channel behind a link that stands still: it says how much waits in it."""

    def __init__(self, channel) -> None:
        self._channel, self.bufferedAmount = channel, viewer_module.BUFFER_LIMIT + 1

    def __getattr__(self, name: str):
        return getattr(self._channel, name)


async def test_somebody_elses_slider_never_ends_a_viewer_with_a_full_channel() -> None:
    async with served() as s, Client(s) as drags, Client(s) as slow:
        await drags.connect()
        await slow.connect(session=drags.answer["session"])
        await drags.message("hello")
        await slow.message("hello")
        session = session_of(s)
        viewer = session.viewers[slow.answer["viewer"]]
        full = viewer._channel = Full(viewer._channel)
        for number in range(10):
            drags.send(type="set", seed=number)
            await asyncio.sleep(0.04)
        await drags.message("state", lambda m: m["controls"]["seed"] == 9)
        assert not [m for m in slow.messages if m["type"] == "state"]
        assert viewer.ended_because == "" and len(session.viewers) == 2
        full.bufferedAmount = 0  # it drains: only the newest is told
        state = await slow.message("state")
        assert state["controls"]["seed"] == 9


async def test_a_page_that_comes_later_learns_the_newest_from_its_greeting() -> None:
    async with served() as s, Client(s) as first:
        await first.connect()
        await first.message("hello")
        first.send(type="set", seed=7)
        await first.message("state")
        async with Client(s) as late:
            await late.connect(session=first.answer["session"])
            assert (await late.message("hello"))["controls"]["seed"] == 7
            await asyncio.sleep(0.1)
            assert not [m for m in late.messages if m["type"] == "state"]
