"""Which codecs a media section of an offer can receive, of those that are sent here.

H.264 is taken with packetization-mode=1 only, constrained baseline before baseline: what our
encoder writes is both. Payload types outside the dynamic range are left alone, because the WebRTC
library keeps its own numbers for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Attributes = Mapping[str, Sequence[str]]  # of a section: name to values, in order

FEEDBACK = ("goog-remb", "nack", "nack pli", "ccm fir")  # no transport-cc: it would silence REMB
H264_LEVELS = {10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52}
NUMBER = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True)
class Codec:
    """One way of coding that the offer can receive."""

    name: str  # "H264", "VP8" or "opus"
    payload_type: int
    rtx_payload_type: int | None
    feedback: tuple[str, ...]
    profile: str = ""  # H264 only: "42e01f" constrained baseline, "42001f" baseline


def read_codecs(kind: str, formats: str, own: Attributes) -> tuple[Codec, ...]:
    """The codecs of a section, best first.

    Args:
        kind: "video" or "audio".
        formats: The payload types of the media line.
        own: The section's attributes.
    """
    maps = _by_payload_type(own.get("rtpmap", []))
    parameters = {
        pt: _parameters(text) for pt, text in _by_payload_type(own.get("fmtp", [])).items()
    }
    rtx = {
        int(values["apt"]): pt
        for pt, values in parameters.items()
        if maps.get(pt, "").lower() == "rtx/90000" and NUMBER.fullmatch(values.get("apt", ""))
    }
    found: list[tuple[int, Codec]] = []
    for text in formats.split():
        pt = int(text) if NUMBER.fullmatch(text) else -1
        if not 96 <= pt <= 127:  # aiortc keeps its own numbers for all others
            continue
        name, rank, profile = _codec_name(kind, maps.get(pt, ""), parameters.get(pt, {}))
        if name:
            feedback = tuple(fb for fb in FEEDBACK if _has_feedback(own, pt, fb))
            found.append((rank, Codec(name, pt, rtx.get(pt), feedback, profile)))
    return tuple(codec for _, codec in sorted(found, key=lambda item: item[0]))


def _codec_name(kind: str, rtpmap: str, parameters: dict[str, str]) -> tuple[str, int, str]:
    """(name, rank, H.264 profile); rank 0 goes before 1; ("", 0, "") for what we do not send."""
    rtpmap = rtpmap.lower()
    if kind == "audio":
        return ("opus", 0, "") if rtpmap == "opus/48000/2" else ("", 0, "")
    if rtpmap == "vp8/90000":
        return "VP8", 0, ""
    level_id = parameters.get("profile-level-id", "42001f").lower()
    if (
        rtpmap != "h264/90000"
        or parameters.get("packetization-mode", "0") != "1"
        or not re.fullmatch("42[0-9a-f]{4}", level_id)
        or int(level_id[4:], 16) not in H264_LEVELS
    ):
        return "", 0, ""
    constraints = int(level_id[2:4], 16)  # bit 6: constrained baseline (H.264 A.2.1)
    return ("H264", 0, "42e01f") if constraints & 0x40 else ("H264", 1, "42001f")


def _by_payload_type(values: Sequence[str]) -> dict[int, str]:
    found: dict[int, str] = {}
    for value in values:
        number, _, rest = value.partition(" ")
        if NUMBER.fullmatch(number) and int(number) < 128:
            found.setdefault(int(number), rest.strip())
    return found


def _parameters(text: str) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in text.split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _has_feedback(own: Attributes, payload_type: int, feedback: str) -> bool:
    return any(
        value in own.get("rtcp-fb", []) for value in (f"{payload_type} {feedback}", f"* {feedback}")
    )
