"""A codec that breaks while a session runs: its viewers are told, the others go on."""

from peers import Client, served, settled

from realtime.errors import EncoderFailed
from realtime.vp8 import Vp8Direct


def refuse(*args, **settings):
    raise EncoderFailed("VP8: broken for the test.")


async def test_viewers_of_a_broken_codec_are_told_why_and_the_others_go_on(monkeypatch):
    async with served() as s, Client(s) as stays, Client(s) as goes:
        await stays.connect(codec="H264")
        await goes.connect(session=stays.answer["session"], codec="VP8")
        await stays.until(lambda: stays.frames > 3 and goes.frames > 3)
        monkeypatch.setattr(Vp8Direct, "encode", refuse)
        error = await goes.message("error")
        assert error["code"] == "encoder_failed"
        assert error["message"] == (
            "The VP8 picture has stopped: VP8: broken for the test. Connect again."
        )
        await goes.until(lambda: goes.pc.connectionState == "closed")
        (session,) = s.server.sessions.values()
        await settled(lambda: len(session.viewers) == 1)
        frames = stays.frames
        await stays.until(lambda: stays.frames > frames + 10)
        assert s.server.failed == 0 and not [m for m in stays.messages if m["type"] == "error"]
