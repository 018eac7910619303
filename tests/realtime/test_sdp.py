"""Offers: bounds, what is kept, what is chosen, and every refusal a 4xx with a sentence."""

import random
import re
import time

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from offer_mutations import CHROMIUM, WITH_AUDIO, mutate

from realtime.errors import SignalingError
from realtime.sdp import DUMMY_HOST, Limits, choose_codec, clean, read_offer

CODECS = ("H264", "VP8")


def refusal(text: str, limits: Limits | None = None) -> SignalingError:
    with pytest.raises(SignalingError) as caught:
        read_offer(text, limits)
    error = caught.value
    assert 400 <= error.status < 500
    assert re.fullmatch(r"[A-Z].*\.", str(error)), str(error)
    assert len(str(error)) < 300
    return error


def cleaned(text: str, wanted: str | None = None) -> str:
    offer = read_offer(text)
    return clean(offer, choose_codec(offer, CODECS, wanted))


# ---- bounds, before anything is interpreted


def test_too_many_bytes_are_refused() -> None:
    assert refusal(CHROMIUM + "a=x\r\n" * 10_000).status == 413
    assert refusal("é" * 20_000, Limits(bytes=30_000)).status == 413


def test_too_many_sections_are_refused() -> None:
    tail = CHROMIUM[CHROMIUM.index("m=application") :]
    error = refusal(CHROMIUM + tail * 3)
    assert error.status == 413 and "5 media sections, the limit is 4" in str(error)


def test_too_many_candidates_are_refused() -> None:
    line = next(line for line in CHROMIUM.split("\r\n") if line.startswith("a=candidate"))
    error = refusal(CHROMIUM.replace(line, "\r\n".join([line] * 33), 1))
    assert error.status == 413 and "candidates" in str(error)


def test_too_many_or_too_long_lines_are_refused() -> None:
    assert refusal(CHROMIUM + "a=x\r\n" * 1000).status == 413
    assert refusal(CHROMIUM + "a=" + "x" * 2000 + "\r\n").status == 413


def test_reading_the_largest_offers_is_quick() -> None:
    """Linear in the size: the worst of these shapes must not hold the loop."""
    head, tail = CHROMIUM.split("m=application")
    filler = {
        "rtcp-fb": "a=rtcp-fb:96 nack\r\n" * 780,
        "formats": "a=fmtp:96 " + "a=b;" * 240 + "\r\n",
        "fingerprints": "a=fingerprint:sha-256 " + ":".join(["AA"] * 300) + "\r\n",
    }
    for lines in filler.values():
        text = (head + lines * max(1, 20_000 // len(lines)) + "m=application" + tail)[:32_768]
        start = time.perf_counter()
        try:
            read_offer(text)
        except SignalingError:
            pass
        assert time.perf_counter() - start < 0.5


# ---- what is kept


def test_no_candidate_of_the_caller_survives() -> None:
    text = cleaned(CHROMIUM)
    assert ".local" in CHROMIUM and ".local" not in text
    candidates = [line for line in text.split("\r\n") if line.startswith("a=candidate")]
    assert candidates == [f"a=candidate:1 1 udp 1 {DUMMY_HOST} 9 typ host"] * 2  # one per section
    assert text.count("a=end-of-candidates") == 2
    assert read_offer(CHROMIUM).candidates == 4


def test_no_address_of_the_caller_survives() -> None:
    text = CHROMIUM.replace("c=IN IP4 0.0.0.0", "c=IN IP4 10.1.2.3").replace(
        "a=rtcp:9 IN IP4 0.0.0.0", "a=rtcp:9 IN IP4 10.1.2.3"
    )
    assert "10.1.2.3" not in cleaned(text)


def test_the_identity_of_the_peer_survives() -> None:
    text = cleaned(CHROMIUM)
    for name in ("ice-ufrag", "ice-pwd", "fingerprint", "setup", "mid"):
        assert re.findall(rf"a={name}:.*", text) == re.findall(rf"a={name}:.*", CHROMIUM)
    assert "a=group:BUNDLE 0 1" in text
    assert "a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay" in text
    assert "transport-cc" not in text


def test_session_level_keys_serve_every_section() -> None:
    """Firefox writes the fingerprint once, before the sections."""
    line = next(line for line in CHROMIUM.split("\r\n") if line.startswith("a=fingerprint"))
    once = CHROMIUM.replace(line + "\r\n", "").replace("t=0 0\r\n", f"t=0 0\r\n{line}\r\n")
    assert cleaned(once) == cleaned(CHROMIUM)


def test_bare_newlines_are_read() -> None:
    assert cleaned(CHROMIUM.replace("\r\n", "\n")) == cleaned(CHROMIUM)


def test_audio_is_answered_as_inactive() -> None:
    text = cleaned(WITH_AUDIO)
    audio = text[text.index("m=audio") : text.index("m=application")]
    assert "a=inactive" in audio and "opus/48000/2" in audio
    assert "a=recvonly" in text[: text.index("m=audio")]


def test_a_camera_in_the_offer_is_not_received() -> None:
    assert "a=sendrecv" not in cleaned(CHROMIUM.replace("a=recvonly", "a=sendrecv"))


def test_only_video_is_enough() -> None:
    offer = read_offer(
        CHROMIUM[: CHROMIUM.index("m=application")].replace("BUNDLE 0 1", "BUNDLE 0")
    )
    assert [section.kind for section in offer.sections] == ["video"]


# ---- the codec


def test_h264_constrained_baseline_mode_1_is_preferred() -> None:
    offer = read_offer(CHROMIUM)
    codec = choose_codec(offer, CODECS)
    assert (codec.name, codec.payload_type, codec.rtx_payload_type) == ("H264", 109, 114)
    assert codec.profile == "42e01f" and "goog-remb" in codec.feedback
    text = clean(offer, codec)
    assert re.findall(r"a=rtpmap:(\d+ \w+)", text) == ["109 H264", "114 rtx"]


def test_baseline_mode_1_serves_where_constrained_baseline_is_missing() -> None:
    offer = read_offer(CHROMIUM.replace("profile-level-id=42e01f", "profile-level-id=640c1f"))
    assert choose_codec(offer, ("H264",)).payload_type == 103


def test_mode_0_is_never_chosen() -> None:
    offer = read_offer(CHROMIUM.replace("packetization-mode=1", "packetization-mode=0"))
    assert choose_codec(offer, CODECS).name == "VP8"


def test_vp8_by_wish_and_by_order() -> None:
    offer = read_offer(CHROMIUM)
    assert choose_codec(offer, CODECS, "VP8").payload_type == 96
    assert choose_codec(offer, ("VP8", "H264")).name == "VP8"


def test_a_codec_the_offer_lacks_is_refused_with_a_sentence() -> None:
    offer = read_offer(CHROMIUM.replace("H264/90000", "H265/90000"))
    with pytest.raises(SignalingError, match="it has VP8: ask for another codec") as caught:
        choose_codec(offer, CODECS, "H264")
    assert caught.value.status == 415
    with pytest.raises(SignalingError, match="'AV1' is not sent here; choose from H264, VP8"):
        choose_codec(offer, CODECS, "AV1")


# ---- refusals

SPOILT = {
    "not sdp": lambda text: "hello",
    "empty": lambda text: "",
    "no sections": lambda text: text[: text.index("m=video")],
    "no video": lambda text: text[: text.index("m=video")] + text[text.index("m=application") :],
    "two videos": lambda text: text + text[text.index("m=video") : text.index("m=application")],
    "sendonly": lambda text: text.replace("a=recvonly", "a=sendonly"),
    "inactive": lambda text: text.replace("a=recvonly", "a=inactive"),
    "no ufrag": lambda text: re.sub(r"a=ice-ufrag:.*\r\n", "", text),
    "odd password": lambda text: re.sub(r"a=ice-pwd:.*\r\n", "a=ice-pwd:a b\r\n", text),
    "no fingerprint": lambda text: re.sub(r"a=fingerprint:.*\r\n", "", text),
    "short fingerprint": lambda text: re.sub(r"(sha-256 )..:", r"\1", text),
    "odd algorithm": lambda text: text.replace("sha-256", "\u017fha-256"),
    "no setup": lambda text: text.replace("a=setup:actpass\r\n", ""),
    "odd setup": lambda text: text.replace("actpass", "holdconn"),
    "no mid": lambda text: text.replace("a=mid:1\r\n", ""),
    "same mid": lambda text: text.replace("a=mid:1", "a=mid:0"),
    "long mid": lambda text: text.replace("a=mid:1", "a=mid:" + "1" * 33),
    "bundle of strangers": lambda text: text.replace("BUNDLE 0 1", "BUNDLE 0 7"),
    "bundle twice": lambda text: text.replace("BUNDLE 0 1", "BUNDLE 0 0"),
    "no sctp port": lambda text: text.replace("a=sctp-port:5000\r\n", ""),
    "odd sctp port": lambda text: text.replace("sctp-port:5000", "sctp-port:99999"),
    "old sctp": lambda text: text.replace("UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP 5000"),
    "plain rtp": lambda text: text.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"),
    "text section": lambda text: text.replace("m=application 9", "m=text 9"),
    "nul": lambda text: text.replace("a=mid:0", "a=mid:\x000"),
    "lone surrogate": lambda text: "\ud800" + text,
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_offer_is_refused(kind: str) -> None:
    spoil = SPOILT[kind](CHROMIUM)
    assert spoil != CHROMIUM
    refusal(spoil)


def test_an_audio_section_without_opus_is_refused() -> None:
    assert "leave audio out" in str(refusal(WITH_AUDIO.replace("opus/48000/2", "isac/16000")))


def test_a_refusal_quotes_little_and_escapes() -> None:
    error = refusal("v=0\u202e\U0001f600" + "x" * 900)
    assert str(error).isascii() and len(str(error)) < 120


# ---- what the WebRTC library makes of it


@pytest.mark.parametrize("wanted", CODECS)
@pytest.mark.parametrize("text", [CHROMIUM, WITH_AUDIO], ids=["video", "audio too"])
async def test_the_answer_keeps_remb_and_the_one_codec(text: str, wanted: str) -> None:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        start = time.perf_counter()
        await pc.setRemoteDescription(RTCSessionDescription(cleaned(text, wanted), "offer"))
        took = time.perf_counter() - start
        answer = (await pc.createAnswer()).sdp
    finally:
        await pc.close()
    assert took < 0.9  # asking for a `.local` name would take a second
    assert set(re.findall(r"a=rtpmap:\d+ (\w+)", answer)) <= {wanted, "rtx", "opus"}
    assert re.search(r"a=rtcp-fb:\d+ goog-remb", answer)
    assert re.search(r"a=extmap:2 \S+abs-send-time", answer)


def test_mutated_offers_are_read_or_refused() -> None:
    """10,000 seeded mutations: nothing but a SignalingError comes out, what is written is sane."""
    rng = random.Random(3)
    refused = 0
    for number in range(10_000):
        text = mutate(CHROMIUM if number % 2 else WITH_AUDIO, rng)
        try:
            written = cleaned(text)
        except SignalingError as error:
            refused += 1
            assert 400 <= error.status < 500 and str(error).isascii()
        else:
            assert written.isascii() and "\0" not in written
            assert written.count("\r\nm=") <= 4 and ".local" not in written
    assert 1_000 < refused < 9_000  # both branches were exercised
