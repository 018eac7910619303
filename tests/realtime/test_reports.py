"""What pages and `/stats` are told: each frame once, and also those that no encoder got."""

import asyncio
import time

import pytest
from peers import Client, config, served, settled
from test_session import session_of

from realtime.encoder import open_encoder
from realtime.sinks import encoder_lane

ENCODE_S = 0.12


@pytest.fixture
def slow_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one, on a machine that needs 120 ms for a picture."""

    def opened(*args: object, **settings: object) -> object:
        encoder = open_encoder(*args, **settings)
        encode = encoder.encode

        def slowly(*args: object, **settings: object) -> object:
            time.sleep(ENCODE_S)
            return encode(*args, **settings)

        encoder.encode = slowly
        return encoder

    monkeypatch.setattr(encoder_lane, "open_encoder", opened)


async def test_frames_that_a_slow_encoder_never_got_are_dropped(slow_encoder) -> None:
    async with served(config(linger_s=5.0)) as s:
        async with Client(s) as client:
            await client.connect()
            stats = await client.message("stats", lambda m: m["counters"]["due"] > 50)
            assert stats["on_time"] < 0.5 and stats["counters"]["dropped"] > 25
            assert stats["bottleneck"].startswith("Encoding takes 1")
            session = session_of(s)
        await settled(lambda: not session.viewers)
        (lane,) = session._sink._lanes.values()
        await settled(lambda: not len(lane._mailbox))
        await asyncio.sleep(2 * ENCODE_S)  # the encoder is at the last one
        counts, (lane,) = session.reports.counters(), session._sink.stats()
    assert lane.overwritten > 25
    accounted = counts["dropped"] + counts["repeated"] + lane.encoded
    assert abs(counts["due"] - accounted) <= 1


async def test_a_frame_is_measured_once_however_many_encode_and_watch_it() -> None:
    async with served() as s, Client(s) as first, Client(s) as second, Client(s) as third:
        await first.connect(codec="H264")
        session = session_of(s)
        await first.until(lambda: first.frames > 3)
        await second.connect(session=session.id, codec="VP8")
        await third.connect(session=session.id, codec="VP8")
        await first.until(lambda: first.frames > 30 and second.frames > 20 and third.frames > 20)
        drawn = session.reports.clock.counters.due
        times = session.reports.times
        for stage in ("wait", "render", "encode", "send", "total"):
            assert 15 < times[stage].count <= drawn, stage
        h264 = next(lane for lane in session._sink.stats() if lane.codec == "H264")
        assert times["encode"].count <= h264.encoded


async def test_another_codec_speaks_when_the_first_has_no_viewer_left() -> None:
    async with served() as s, Client(s) as second:
        async with Client(s) as first:
            await first.connect(codec="H264")
            session = session_of(s)
            await second.connect(session=session.id, codec="VP8")
            await first.until(lambda: first.frames and second.frames)
        await settled(lambda: len(session.viewers) == 1)
        session.reports.counters()
        count = session.reports.times["encode"].count
        await settled(lambda: session.reports.times["encode"].count > count + 5)
