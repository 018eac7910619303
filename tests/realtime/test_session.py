"""A session seen from its data channel and its pictures: every message of the protocol."""

import asyncio
import threading
import time
from pathlib import Path

import pytest
import torch
from peers import Client, Served, config, served, settled

from models.contracts import Identity, MotionCode, Synthesizer
from models.errors import BadCheckpoint
from realtime.config import ServerConfig

CONTROLS = {"seed", "psi", "speed", "scrub", "pause", "model", "resolution", "fps", "bitrate"}


class Flat(Synthesizer):
    """One colour everywhere: the smallest network there is."""

    def forward(self, identity: Identity, motion: MotionCode) -> torch.Tensor:
        return identity.tensors["w"].expand(1, 3, 64, 64)


class FlatSystem:
    """A system that only a test would want: grey at every time."""

    def __init__(self, name: str) -> None:
        self.name, self.resolution, self.trained = name, 64, False
        self.synthesizer = Flat()

    def identity(self, *, seed: int, psi: float = 1.0) -> Identity:
        return Identity({"w": torch.zeros(1, 3, 1, 1)})

    def blend(self, a: Identity, b: Identity, amount: float) -> Identity:
        return a

    def motion(self, *, seed: int, who: int | None = None) -> "FlatSystem":
        return self

    def sample(self, t: float) -> MotionCode:
        return MotionCode({"v": torch.zeros(1)}, t)


def load(name: str) -> FlatSystem:
    """ "slow" takes as long to build as a large model; "damaged" is refused."""
    if name == "damaged":
        raise BadCheckpoint("CKPT_TRUNCATED", "the file ends too early; copy it again.")
    if name == "slow":
        time.sleep(0.8)
    return FlatSystem(name)


def with_models() -> dict:
    return {"names": ["slow", "damaged"], "load": load}


def session_of(s: Served):
    (session,) = s.server.sessions.values()
    return session


# ---- the channel


async def test_hello_says_everything_a_page_needs() -> None:
    async with served(**with_models()) as s, Client(s) as client:
        await client.connect(codec="VP8")
        hello = await client.message("hello")
    assert hello.keys() == {
        "type",
        "session",
        "viewer",
        "schema",
        "controls",
        "models",
        "codec",
        "fps",
    }
    assert (hello["session"], hello["viewer"]) == (
        client.answer["session"],
        client.answer["viewer"],
    )
    assert {row["name"] for row in hello["schema"]} == CONTROLS == hello["controls"].keys()
    assert {row["name"]: row["default"] for row in hello["schema"]}["resolution"] == 64
    assert hello["codec"] == "VP8" and hello["fps"] == 30.0
    known = {row["name"]: row for row in hello["models"]}
    assert known["testcard"]["trained"] is True
    assert known["slow"] == {
        "name": "slow",
        "trained": None,
        "resolution": None,
        "note": "loads when it is chosen",
    }


async def test_a_ping_comes_back_with_the_servers_clock() -> None:
    async with served() as s, Client(s) as client:
        await client.connect()
        await client.message("hello")
        before = time.monotonic_ns() / 1e6
        client.send(type="ping", t=123.5)
        pong = await client.message("pong")
        assert pong["t"] == 123.5
        assert before <= pong["server_ms"] <= time.monotonic_ns() / 1e6


async def test_rows_match_the_pictures_on_the_wire() -> None:
    async with served() as s, Client(s) as client:
        await client.connect(barcode=True)
        first = await client.message("frames")
        await client.message("frames", lambda m: m is not first)
        rows = [row for m in client.messages if m["type"] == "frames" for row in m["rows"]]
        tuning = next(iter(session_of(s).viewers.values())).tuning
        origin = tuning.rtp_origin
    assert [row[1] for row in rows] == sorted({row[1] for row in rows})  # each once, in order
    for wire, index, due, sampled, rendered, encoded, sent, size, keyframe in rows:
        assert (wire - origin) % 2**32 == index * 3000  # 90 kHz at 30 frames/s
        assert due <= sampled <= rendered <= encoded <= sent
        assert size > 0 and keyframe in (0, 1)
    assert rows[0][8] == 1


async def test_stats_once_a_second() -> None:
    async with served() as s, Client(s) as client:
        await client.connect()
        second = await client.until(
            lambda: (
                len(found := [m for m in client.messages if m["type"] == "stats"]) > 1 and found[1]
            )
        )
    assert second["counters"].keys() == {"due", "late", "dropped", "repeated"}
    assert second["fps"] > 5 and second["bitrate"] > 1000 and second["keyframes"] >= 1
    assert second["viewers"] == 1 and second["model"] == "testcard" and second["trained"] is True
    assert second["render_ms"].keys() == second["encode_ms"].keys() == {"p50", "p95"}
    assert 0 <= second["on_time"] <= 1 and second["bottleneck"].endswith(".")
    assert second["target_bitrate"] == 2_000_000


async def test_a_change_is_told_to_every_viewer() -> None:
    async with served() as s, Client(s) as first, Client(s) as second:
        await first.connect()
        await second.connect(session=first.answer["session"])
        await first.message("hello")
        await second.message("hello")
        second.send(type="set", seed=7, psi=0.5, pause=True)
        for client in (first, second):
            state = await client.message("state")
            assert state["controls"]["seed"] == 7
            assert state["controls"]["psi"] == 0.5
            assert state["controls"]["pause"] is True


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("nonsense", "not_json"),
        ('{"type": "set", "psi": 99}', "out_of_range"),
        ('{"type": "set", "model": "../../etc/passwd"}', "not_offered"),
        ('{"type": "drop table"}', "unknown_type"),
        (b"\x00\x01", "binary"),
    ],
)
async def test_a_bad_message_gets_a_sentence_and_changes_nothing(text, code) -> None:
    async with served() as s, Client(s) as client:
        await client.connect()
        await client.message("hello")
        client.channel.send(text)
        error = await client.message("error")
        assert error["code"] == code and error["message"].endswith(".")
        frames = client.frames
        await client.until(lambda: client.frames > frames + 5)
        assert session_of(s).live.controls.psi == 0.7


async def test_a_flood_is_told_once_and_does_not_stop_the_stream() -> None:
    async with served() as s, Client(s) as client:
        await client.connect()
        await client.message("hello")
        for number in range(400):
            client.send(type="set", seed=number)
        assert "60 messages a second" in (await client.message("error"))["message"]
        frames = client.frames
        await client.until(lambda: client.frames > frames + 10)
        assert len([m for m in client.messages if m["type"] == "error"]) <= 3


async def test_only_one_channel_named_control_is_heard() -> None:
    async with served() as s, Client(s, channel=False) as client:
        other = client.pc.createDataChannel("chat")
        client.channel = client.pc.createDataChannel("control")
        client.channel.on("message", client._message)
        late = client.pc.createDataChannel("control")
        await client.connect()
        await client.message("hello")
        await client.until(lambda: other.readyState == late.readyState == "closed")
        client.send(type="ping", t=1)
        await client.message("pong")


async def test_keyframes_come_when_asked_for_and_are_spaced() -> None:
    async with served() as s, Client(s) as client:
        await client.connect()
        await client.message("hello")
        await client.until(lambda: client.frames > 3)
        await asyncio.sleep(0.35)  # the first one's interval is over
        sink, begin = session_of(s)._sink, time.monotonic()
        before = sink.stats()[0]
        while (elapsed := time.monotonic() - begin) < 0.7:
            client.send(type="keyframe")
            await asyncio.sleep(0.03)
        after = sink.stats()[0]
        assert after.encoded - before.encoded > 6  # so without a limit there were too many
        assert 1 <= after.keyframes - before.keyframes <= elapsed / 0.3 + 1


# ---- pictures


async def test_two_viewers_share_one_encode() -> None:
    async with served() as s, Client(s) as first, Client(s) as second:
        await first.connect()
        await second.connect(session=first.answer["session"])
        await first.until(lambda: first.frames > 25 and second.frames > 25)
        (lane,) = session_of(s)._sink.stats()
        shown = session_of(s).reports.clock.counters.shown
        assert lane.viewers == 2
        assert 25 < lane.encoded <= shown + 1  # and not twice as many
        assert len([t for t in threading.enumerate() if t.name.startswith("encode")]) == 1


async def test_two_codecs_are_encoded_once_each() -> None:
    async with served() as s, Client(s) as first, Client(s) as second:
        await first.connect(codec="H264")
        await second.connect(session=first.answer["session"], codec="VP8")
        await first.until(lambda: first.frames > 5 and second.frames > 5)
        assert {lane.codec for lane in session_of(s)._sink.stats()} == {"H264", "VP8"}


async def test_a_late_viewer_gets_a_picture_at_once() -> None:
    async with served() as s, Client(s) as first, Client(s) as second:
        await first.connect()
        await first.until(lambda: first.frames > 30)
        await second.connect(session=first.answer["session"])
        joined = time.monotonic()
        await second.until(lambda: second.frames)
        assert time.monotonic() - joined < 3


async def test_a_change_of_resolution_changes_the_picture_and_not_the_stream() -> None:
    async with served() as s, Client(s) as client:
        await client.connect()
        await client.until(lambda: client.frames > 3 and client.picture.shape == (96, 64))
        client.send(type="set", resolution=128)
        await client.until(lambda: client.picture.shape == (192, 128))
        await client.message("state", lambda m: m["controls"]["resolution"] == 128)


async def test_a_change_of_rate_retimes_the_clock() -> None:
    async with served() as s, Client(s) as client:
        await client.connect()
        await client.until(lambda: client.frames > 3)
        client.send(type="set", fps=10)
        rows = await client.message(
            "frames", lambda m: len(m["rows"]) > 1 and _interval(m["rows"]) == 9000
        )
        assert rows["rows"][-1][2] - rows["rows"][-2][2] == pytest.approx(100, abs=1)


def _interval(rows: list) -> int:
    return (rows[-1][0] - rows[-2][0]) % 2**32


async def test_a_change_of_bitrate_reaches_the_encoder() -> None:
    async with served() as s, Client(s) as client:
        await client.connect()
        await client.message("hello")
        client.send(type="set", bitrate=300_000)
        await client.message("stats", lambda m: m["target_bitrate"] == 300_000)


async def test_an_offer_may_bring_controls() -> None:
    async with served() as s, Client(s) as client:
        await client.connect(controls={"seed": 5, "resolution": 128, "fps": 20})
        hello = await client.message("hello")
        assert hello["controls"]["seed"] == 5 and hello["fps"] == 20
        await client.until(lambda: client.frames)
        assert client.picture.shape == (192, 128)


# ---- models


async def test_a_model_warms_up_while_the_stream_goes_on() -> None:
    async with served(**with_models()) as s, Client(s) as client:
        await client.connect()
        await client.until(lambda: client.frames > 3)
        client.send(type="set", model="slow", seed=9)
        await client.message("notice", lambda m: "Warming up slow" in m["text"])
        frames = client.frames
        assert session_of(s).live.controls.seed == 9  # numbers do not wait for the model
        assert session_of(s).live.controls.model == "testcard"
        await client.message("state", lambda m: m["controls"]["model"] == "slow")
        assert client.frames > frames + 5  # 0.8 s at 30 frames/s, on a busy machine
        stats = await client.message("stats", lambda m: m["model"] == "slow")
        assert stats["trained"] is False
        frames = client.frames
        await client.until(lambda: client.frames > frames + 3)


async def test_a_model_that_cannot_be_loaded_leaves_the_old_one() -> None:
    async with served(**with_models()) as s, Client(s) as client:
        await client.connect()
        await client.until(lambda: client.frames > 3)
        client.send(type="set", model="damaged")
        notice = await client.message("notice", lambda m: m["level"] == "error")
        assert "ends too early; copy it again. testcard at 64 px stays." in notice["text"]
        frames = client.frames
        await client.until(lambda: client.frames > frames + 5)
        assert session_of(s).live.controls.model == "testcard"


async def test_the_last_of_several_switches_wins() -> None:
    async with served(**with_models()) as s, Client(s) as client:
        await client.connect()
        await client.message("hello")
        client.send(type="set", model="slow")
        client.send(type="set", resolution=128)
        client.send(type="set", model="testcard")
        await client.until(
            lambda: client.picture is not None and client.picture.shape == (192, 128)
        )
        await client.message(
            "state",
            lambda m: (m["controls"]["model"], m["controls"]["resolution"]) == ("testcard", 128),
        )


async def test_a_session_that_begins_with_a_bad_model_shows_the_servers_own() -> None:
    async with served(**with_models()) as s, Client(s) as client:
        await client.connect(controls={"model": "damaged"})
        notice = await client.message("notice", lambda m: "is shown instead" in m["text"])
        assert "ends too early" in notice["text"]
        await client.until(lambda: client.frames > 3)


# ---- ends


async def test_an_error_in_one_session_ends_that_one_only(caplog) -> None:
    async with served() as s, Client(s) as first, Client(s) as second:
        await first.connect()
        await second.connect()
        await first.until(lambda: first.frames > 3 and second.frames > 3)
        await s.server.engine.close(first.answer["session"])  # its next frame fails
        error = await first.message("error")
        assert error["code"] == "session_failed" and "Connect again." in error["message"]
        await first.until(lambda: first.pc.connectionState == "closed")
        await settled(lambda: len(s.server.sessions) == 1)
        frames = second.frames
        await second.until(lambda: second.frames > frames + 10)
        assert s.server.failed == 1
    assert "Traceback" in caplog.text and "is not open in the engine" in caplog.text


async def test_a_session_lingers_for_a_viewer_to_come_back() -> None:
    async with served(config(linger_s=1.0)) as s:
        async with Client(s) as client:
            await client.connect()
            await client.until(lambda: client.frames)
        await settled(lambda: not session_of(s).viewers)
        async with Client(s) as again:
            await again.connect(session=client.answer["session"])
            await again.until(lambda: again.frames)
        await settled(lambda: not s.server.sessions)
        assert not [t for t in threading.enumerate() if t.name.startswith("encode")]
        assert s.server.engine.stats()["sessions"] == 0


def test_default_patience() -> None:
    defaults = ServerConfig()
    assert defaults.connect_timeout_s == 10.0
    assert defaults.silence_timeout_s == 5.0


def test_no_bare_tasks_in_what_serves() -> None:
    """Every task has an owner: the only task made by hand is awaited by the call that made it."""
    for name in ("session", "server", "viewer", "signaling", "reports"):
        text = (Path(__file__).parents[2] / "realtime" / f"{name}.py").read_text()
        assert "asyncio.create_task" not in text and "ensure_future" not in text
        assert text.count(".get_running_loop().create_task(") == (name == "viewer")


async def test_waiting_helpers_can_fail() -> None:
    with pytest.raises(TimeoutError):
        await settled(lambda: False, 0.05)
    await asyncio.sleep(0)
