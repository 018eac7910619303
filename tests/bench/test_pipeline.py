"""pipeline.py: the server's own path is timed frame by frame, and takes no memory for pictures."""

from __future__ import annotations

import asyncio

import pytest

from bench import pipeline, pipeline_path
from realtime.sinks.encoder_lane import EncoderLane

SIZE = 512
PICTURE = SIZE * SIZE * 3 // 2
FPS = 60.0


@pytest.mark.parametrize("codec", pipeline.CODECS)
def test_no_picture_is_allocated_per_frame_from_its_slot_to_the_socket(codec: str) -> None:
    found = asyncio.run(pipeline.memory(codec, SIZE, 30, FPS))
    peaks = sorted(found.peak_bytes)
    assert len(peaks) == 30
    # Were one allocated per frame, every peak were one at least. Coded bytes and their packets are
    # a few percent of a picture.
    assert peaks[len(peaks) // 2] < PICTURE / 4
    assert peaks[-1] < PICTURE
    assert found.kept_bytes < PICTURE
    assert found.resident_bytes < found.frames * PICTURE / 4


def test_a_copy_of_the_picture_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real, held = EncoderLane.offer, []

    def copying(lane, frame) -> bool:
        held[:] = [frame.i420.copy()]
        return real(lane, frame)

    monkeypatch.setattr(EncoderLane, "offer", copying)
    found = asyncio.run(pipeline.memory("VP8", SIZE, 10, FPS))
    # Not every one: on a busy machine two frames may leave in one go.
    assert sorted(found.peak_bytes)[5] > PICTURE * 0.9


def test_frames_are_timed_from_the_slot_to_the_last_packet() -> None:
    row = asyncio.run(pipeline.run("H264", 64, 20, FPS))
    assert row["frames"] >= 20 and row["codec"] == "H264" and row["size"] == 64
    for stage in pipeline.STAGES:
        assert 0 < row[stage]["p50"] <= row[stage]["p95"] <= row[stage]["max"], stage
    parts = row["handed"]["p50"] + row["encoder"]["p50"] + row["sent"]["p50"]
    assert row["whole"]["p50"] == pytest.approx(parts, rel=0.5)
    assert row["packets_sent"] >= 80  # one at least for each frame, the warm-up included
    # The peer's own clock begins with the first packet that it could decrypt.
    assert 0.5 * row["packets_sent"] <= row["packets_received"] <= row["packets_sent"]
    assert 0 < row["pictures_received"] <= row["packets_received"]
    assert "H264" in pipeline.table([row])


def test_the_codecs_own_time_is_taken_off_and_nothing_else() -> None:
    stamps = {"rendered": 0, "taken": 300_000, "encoded": 2_500_000, "codec": 2_000_000}
    times = pipeline.frame_times({**stamps, "left": 3_000_000})
    assert times == {
        "handed": 0.3,
        "encoder": pytest.approx(0.2),
        "sent": 0.5,
        "whole": 1.0,
        "codec_call": 2.0,
    }


def test_the_clock_leaves_the_codecs_as_they_were() -> None:
    from realtime import h264, vp8
    from realtime.sinks import encoder_lane

    def taken() -> tuple[object, ...]:
        names = (vp8.Vp8Codec, h264.H264Encoder._wrapped, h264.H264Encoder._payloads)
        return (*names, encoder_lane.open_encoder)

    before = taken()
    with pipeline_path.codec_clock():
        assert all(now is not then for now, then in zip(taken(), before, strict=True))
    assert taken() == before


def test_goals_are_of_512_alone() -> None:
    held = {"picture_bytes": PICTURE, "peak_bytes_p99": PICTURE // 2}
    fast = {"codec": "VP8", "size": 512, "whole": {"p50": 0.4, "p99": 1.2}, "memory": held}
    found = pipeline.goals([fast, {**fast, "size": 256}])
    assert [(g.what, g.passed) for g in found] == [
        ("p50, ms", True),
        ("p99, ms", False),
        ("pictures allocated a frame", False),
    ]


def test_arguments_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline.parser().parse_args(["--sizes", "256,1024"]).sizes == [256, 1024]
    for wrong in (["--codecs", "AV1"], ["--sizes", "255"], ["--sizes", "big"]):
        with pytest.raises(SystemExit):
            pipeline.parser().parse_args(wrong)
    assert "choose from" in capsys.readouterr().err


def test_a_peer_that_ends_early_is_a_sentence() -> None:
    async def end() -> None:
        async with pipeline_path.Peer("AV1") as peer:  # which it refuses
            await peer.read()

    with pytest.raises(RuntimeError, match="ended early"):
        asyncio.run(end())
