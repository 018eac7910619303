"""What a session shows: one load after the other, from the first one on."""

import threading

from peers import Client, served
from test_session import FlatSystem, load, session_of, with_models

from models.errors import BadCheckpoint


class Held:
    """Builds "slow" when it is let go."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, name: str) -> FlatSystem:
        if name == "slow":
            self.entered.set()
            assert self.go.wait(20)
        return load(name)


async def test_a_wish_during_the_first_load_comes_after_it() -> None:
    held = Held()
    async with served(names=["slow"], load=held) as s, Client(s) as client:
        try:
            await client.connect(controls={"model": "slow"})
            await client.message("notice", lambda m: "Warming up slow" in m["text"])
            client.send(type="set", model="testcard", resolution=128)
            client.send(type="ping", t=1)
            await client.message("pong")
            assert session_of(s).live.controls.model == "slow"  # still the first one's turn
            assert session_of(s).switches.status.startswith("Warming up slow")
        finally:
            held.go.set()
        await client.until(lambda: client.picture is not None and client.picture.shape[1] == 128)
        controls = session_of(s).live.controls
        assert (controls.model, controls.resolution) == ("testcard", 128)
        assert session_of(s).switches.status == ""


async def test_the_status_of_the_first_load_is_over_when_it_is() -> None:
    async with served(**with_models()) as s, Client(s) as first:
        await first.connect(controls={"model": "slow"})
        await first.message("notice", lambda m: "slow is warm and shown now." in m["text"])
        async with Client(s) as late:
            await late.connect(session=first.answer["session"])
            await late.message("hello")
            await late.until(lambda: late.frames)
            assert not [m for m in late.messages if m["type"] == "notice"]
        assert s.server.stats()["sessions"][0]["status"] == ""


async def test_that_another_model_is_shown_is_said_once() -> None:
    async with served(**with_models()) as s, Client(s) as first, Client(s) as late:
        await first.connect(controls={"model": "damaged"})
        said = await first.message("notice", lambda m: "is shown instead" in m["text"])
        assert said["level"] == "error" and "ends too early; copy it again." in said["text"]
        await first.until(lambda: first.frames)
        assert session_of(s).live.controls.model == "testcard"
        assert session_of(s).switches.status == ""
        await late.connect(session=first.answer["session"])
        hello = await late.message("hello")
        assert hello["controls"]["model"] == "testcard"
        await late.until(lambda: late.frames)
        assert not [m for m in late.messages if m["type"] == "notice"]
        first.send(type="set", model="damaged")  # asked for again, it is tried again
        await first.message("notice", lambda m: "testcard at 64 px stays." in m["text"])


async def test_a_page_that_is_there_is_told_at_once() -> None:
    held = Held()

    def damaged_late(name: str) -> FlatSystem:
        held(name)
        raise BadCheckpoint("CKPT_TRUNCATED", "the file ends too early; copy it again.")

    async with served(names=["slow"], load=damaged_late) as s, Client(s) as client:
        try:
            await client.connect(controls={"model": "slow"})
            await client.message("notice", lambda m: "Warming up slow" in m["text"])
        finally:
            held.go.set()
        await client.message("notice", lambda m: "testcard is shown instead." in m["text"])
        state = await client.message("state")
        assert state["controls"]["model"] == "testcard"
        await client.until(lambda: client.frames)


async def test_back_again_before_a_switch_has_ended_ends_where_it_was() -> None:
    """The wish for what is there counts while something else is on its way."""
    held = Held()
    async with served(names=["slow"], load=held) as s, Client(s) as client:
        try:
            await client.connect()
            await client.until(lambda: client.frames)
            client.send(type="set", model="slow")
            await client.message("notice", lambda m: "Warming up slow" in m["text"])
            client.send(type="set", model="testcard")
            client.send(type="ping", t=1)
            await client.message("pong")
        finally:
            held.go.set()
        await client.message("state", lambda m: m["controls"]["model"] == "slow")
        await client.until(lambda: session_of(s).live.controls.model == "testcard")
