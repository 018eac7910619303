"""Offers of strangers: bounded, read strictly, and written anew for the peer connection.

Nothing of the caller's text reaches the WebRTC library except tokens that were matched here one by
one: the offer is parsed into `Offer`, and `clean` writes a fresh description from it with only what
is needed to send one video track and one data channel. Three things follow from that.

*Bounds come first.* Parsing and candidate pairing grow faster than linearly and would hold the
event loop, so bytes, lines, sections and candidates are counted before anything is interpreted.

*The caller's candidates are all dropped* and one unreachable address per section stands in for
them: ICE needs one candidate to start, and the browser's own checks then reveal where it is (a
peer-reflexive candidate, RFC 8445 section 7.3.1.3). So no packet goes to an address a stranger
names, and no `.local` name is looked up, which costs a second where nobody answers for it.

*One codec is left*, so the answer cannot contain another. Pure functions: no sockets, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from realtime.errors import SignalingError
from realtime.sdp_codecs import NUMBER, Attributes, Codec, read_codecs

DUMMY_HOST, DUMMY_PORT = "192.0.2.99", 9  # TEST-NET-1 (RFC 5737) and the discard port
MAX_LINES = 1024
MAX_LINE_LENGTH = 1024
EXTENSIONS = (
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",  # without it no REMB
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
)

# At most 16 characters: a longer mid would not fit a one-byte header extension (RFC 8285, 4.2).
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,16}")
_ICE = re.compile(r"[A-Za-z0-9+/=_-]{4,256}")
_FINGERPRINT = re.compile("(sha-(?:256|384|512)) ([0-9A-F]{2}(?::[0-9A-F]{2})+)", re.I | re.ASCII)
_DIGEST_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
_MEDIA = re.compile("m=(audio|video|application) [0-9]{1,5}(?:/[0-9]+)? ([A-Z/]{1,24}) (.{1,512})")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Limits:
    """How much of an offer is looked at."""

    bytes: int = 32_768
    sections: int = 4
    candidates: int = 32


@dataclass(frozen=True)
class Section:
    """One media section, only what is used of it."""

    kind: str  # "video", "audio" or "application"
    mid: str
    ufrag: str
    password: str
    fingerprints: tuple[str, ...]  # "sha-256 AA:BB:..."
    setup: str
    receives: bool = False  # the direction lets us send
    codecs: tuple[Codec, ...] = ()  # best first
    extensions: tuple[tuple[int, str], ...] = ()
    sctp_port: int = 0
    max_message: int = 0


@dataclass(frozen=True)
class Offer:
    """A description that can be answered."""

    sections: tuple[Section, ...]
    bundle: tuple[str, ...]
    candidates: int  # how many the caller named; all are dropped

    @property
    def video(self) -> Section:
        return next(section for section in self.sections if section.kind == "video")


def _refuse(message: str, status: int = 400, code: str = "bad_offer") -> NoReturn:
    raise SignalingError(message, status=status, code=code)


def quote(text: str, limit: int = 40) -> str:
    """A stranger's text, shortened and escaped, fit for a sentence."""
    return ascii(text if len(text) <= limit else text[: limit - 3] + "...")


# ---- reading


def read_offer(text: str, limits: Limits | None = None) -> Offer:
    """Parse an SDP offer within bounds.

    Raises:
        SignalingError: 413 over a bound, 400 for whatever cannot be answered; one sentence.
    """
    limits = limits or Limits()
    lines = _bounded_lines(text, limits)
    starts = [i for i, line in enumerate(lines) if line.startswith("m=")]
    if not starts:
        _refuse("The offer has no media section; offer one video transceiver, recvonly.")
    if len(starts) > limits.sections:
        _refuse(
            f"The offer has {len(starts)} media sections, the limit is {limits.sections}: "
            "offer one video transceiver and one data channel.",
            413,
            "offer_too_large",
        )
    candidates = sum(line.startswith("a=candidate:") for line in lines)
    if candidates > limits.candidates:
        _refuse(
            f"The offer names {candidates} candidates, the limit is {limits.candidates}: "
            "none are needed, the connection is found from your side.",
            413,
            "offer_too_large",
        )
    session = _attributes(lines[: starts[0]])
    ends = [*starts[1:], len(lines)]
    sections = tuple(
        _section(lines[start:end], session) for start, end in zip(starts, ends, strict=True)
    )
    _check_sections(sections)
    return Offer(sections, _bundle(session, sections), candidates)


def _bounded_lines(text: str, limits: Limits) -> list[str]:
    size = len(text.encode("utf-8", "surrogatepass")) if len(text) <= limits.bytes else len(text)
    if size > limits.bytes:
        _refuse(
            f"The offer is {size} bytes long, the limit is {limits.bytes}: "
            "offer one video transceiver and one data channel.",
            413,
            "offer_too_large",
        )
    if _CONTROL.search(text):
        _refuse("The offer contains control characters; send the browser's SDP unchanged.")
    lines = text.replace("\r\n", "\n").strip("\n").split("\n")
    if len(lines) > MAX_LINES:
        _refuse(
            f"The offer has {len(lines)} lines, the limit is {MAX_LINES}.", 413, "offer_too_large"
        )
    longest = max(map(len, lines))
    if longest > MAX_LINE_LENGTH:
        _refuse(
            f"A line of the offer is {longest} characters long, the limit is {MAX_LINE_LENGTH}.",
            413,
            "offer_too_large",
        )
    if lines[0].strip() != "v=0":
        _refuse(f"An offer begins with v=0, this one with {quote(lines[0])}; send SDP.")
    return lines


def _attributes(lines: Sequence[str]) -> Attributes:
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("a="):
            name, _, value = line[2:].partition(":")
            found.setdefault(name.strip(), []).append(value.strip())
    return found


def _section(lines: Sequence[str], session: Attributes) -> Section:
    head = _MEDIA.fullmatch(lines[0].rstrip())
    if head is None:
        _refuse(
            f"The media line {quote(lines[0])} cannot be answered; offer video and a data channel."
        )
    kind, protocol, formats = head.groups()
    own = _attributes(lines[1:])
    mid = own.get("mid", [""])[0]
    if not _TOKEN.fullmatch(mid):
        _refuse(f"A {kind} section has the mid {quote(mid)}; it must be a short token.")

    def one(name: str, pattern: re.Pattern[str]) -> str:
        value = (own.get(name) or session.get(name) or [""])[0]
        if not pattern.fullmatch(value):
            _refuse(f"The {kind} section {quote(mid)} has no usable a={name}: {quote(value)}.")
        return value

    prints = tuple(
        filter(None, map(_fingerprint, own.get("fingerprint") or session.get("fingerprint", [])))
    )
    if not prints:
        _refuse(f"The {kind} section {quote(mid)} has no sha-256 fingerprint; offer DTLS-SRTP.")
    common = {
        "kind": kind,
        "mid": mid,
        "ufrag": one("ice-ufrag", _ICE),
        "password": one("ice-pwd", _ICE),
        "fingerprints": prints[:4],
        "setup": one("setup", re.compile("actpass|active|passive")),
    }
    if kind == "application":
        return Section(**common, **_channel(protocol, formats, own))  # type: ignore[arg-type]
    if protocol not in ("UDP/TLS/RTP/SAVPF", "TCP/TLS/RTP/SAVPF"):
        _refuse(
            f"The {kind} section uses {quote(protocol)}; only UDP/TLS/RTP/SAVPF can be answered."
        )
    return Section(
        **common,  # type: ignore[arg-type]
        receives=not ({"sendonly", "inactive"} & own.keys()),
        codecs=read_codecs(kind, formats, own),
        extensions=_extensions(own),
    )


def _fingerprint(value: str) -> str | None:
    match = _FINGERPRINT.fullmatch(value)
    if match is None:
        return None
    algorithm, digest = match[1].lower(), match[2].upper()
    return f"{algorithm} {digest}" if len(digest) == _DIGEST_BYTES[algorithm] * 3 - 1 else None


def _channel(protocol: str, formats: str, own: Attributes) -> dict[str, int]:
    port = own.get("sctp-port", [""])[0]
    if (
        protocol not in ("UDP/DTLS/SCTP", "TCP/DTLS/SCTP")
        or formats.strip() != "webrtc-datachannel"
        or not NUMBER.fullmatch(port)
        or not 0 < int(port) < 65536
    ):
        _refuse("The data channel cannot be answered; offer UDP/DTLS/SCTP with an a=sctp-port.")
    largest = own.get("max-message-size", ["65536"])[0]
    size = int(largest) if NUMBER.fullmatch(largest) else 65536
    # 0 means unlimited (RFC 8841 section 6.1). We never send more than a few kB.
    return {"sctp_port": int(port), "max_message": min(size or 262_144, 262_144)}


def _extensions(own: Attributes) -> tuple[tuple[int, str], ...]:
    found: dict[int, str] = {}
    for value in own.get("extmap", []):
        number, _, uri = value.partition(" ")
        number = number.partition("/")[0]
        uri = uri.split(" ")[0]
        # One-byte headers (RFC 8285) know the numbers 1 to 14.
        if uri in EXTENSIONS and NUMBER.fullmatch(number) and 0 < int(number) < 15:
            found.setdefault(int(number), uri)
    return tuple(found.items())


def _check_sections(sections: tuple[Section, ...]) -> None:
    kinds = [section.kind for section in sections]
    if kinds.count("video") != 1:
        _refuse(
            f"The offer has {kinds.count('video')} video sections; offer exactly one, recvonly."
        )
    if kinds.count("application") > 1:
        _refuse("The offer has more than one data channel section; offer one.")
    if len({section.mid for section in sections}) != len(sections):
        _refuse("Two media sections have the same mid; send the browser's SDP unchanged.")
    for section in sections:
        if section.kind == "video" and not section.receives:
            _refuse("The offer does not ask for video; add a video transceiver that is recvonly.")
        if section.kind == "audio" and not section.codecs:
            _refuse("The audio section lacks opus; leave audio out, there is no sound.")


def _bundle(session: Attributes, sections: tuple[Section, ...]) -> tuple[str, ...]:
    group = next(
        (g.split()[1:] for g in session.get("group", []) if g.split()[:1] == ["BUNDLE"]), []
    )
    mids = {section.mid for section in sections}
    if len(set(group)) != len(group) or not set(group) <= mids:
        _refuse(
            "The BUNDLE group names sections that are not in the offer; send the browser's SDP."
        )
    return tuple(group)


# ---- choosing and writing


def choose_codec(offer: Offer, preferred: Sequence[str], wanted: str | None = None) -> Codec:
    """The codec to send: `wanted`, or the first of `preferred`, as far as the offer has it.

    Raises:
        SignalingError: 415 when the offer lacks it, 400 when `wanted` is not among `preferred`.
    """
    if wanted is not None and wanted not in preferred:
        _refuse(
            f"The codec {quote(str(wanted))} is not sent here; choose from {', '.join(preferred)}.",
            code="unknown_codec",
        )
    names = (wanted,) if wanted else tuple(preferred)
    for name in names:
        for codec in offer.video.codecs:
            if codec.name == name:
                return codec
    has = (
        ", ".join(dict.fromkeys(codec.name for codec in offer.video.codecs))
        or "neither H264 nor VP8"
    )
    _refuse(
        f"The offer cannot receive {' or '.join(names)} (H264: packetization-mode=1, baseline); "
        f"it has {has}: ask for another codec or use another browser.",
        415,
        "no_common_codec",
    )


def clean(offer: Offer, codec: Codec) -> str:
    """The offer written anew: one video codec, our dummy candidate, no text of the caller's."""
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    if offer.bundle:
        lines.append("a=group:BUNDLE " + " ".join(offer.bundle))
    lines.append("a=msid-semantic:WMS *")
    for section in offer.sections:
        if section.kind == "application":
            lines += [
                "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
                "c=IN IP4 0.0.0.0",
                f"a=mid:{section.mid}",
                f"a=sctp-port:{section.sctp_port}",
                f"a=max-message-size:{section.max_message}",
            ]
        else:
            # Sound is answered, as inactive, so that players which always ask for it still connect.
            lines += _media_lines(section, codec if section.kind == "video" else section.codecs[0])
        lines += [f"a=ice-ufrag:{section.ufrag}", f"a=ice-pwd:{section.password}"]
        lines += [f"a=fingerprint:{value}" for value in section.fingerprints]
        lines += [
            f"a=setup:{section.setup}",
            f"a=candidate:1 1 udp 1 {DUMMY_HOST} {DUMMY_PORT} typ host",
            "a=end-of-candidates",
        ]
    return "\r\n".join(lines) + "\r\n"


def _media_lines(section: Section, codec: Codec) -> list[str]:
    number, rtx = codec.payload_type, codec.rtx_payload_type
    if rtx is not None and not (96 <= rtx <= 127 and rtx != number):
        rtx = None
    formats = f"{number}" if rtx is None else f"{number} {rtx}"
    clock = "48000/2" if section.kind == "audio" else "90000"
    lines = [
        f"m={section.kind} 9 UDP/TLS/RTP/SAVPF {formats}",
        "c=IN IP4 0.0.0.0",
        f"a=mid:{section.mid}",
        "a=recvonly" if section.kind == "video" else "a=inactive",
        "a=rtcp-mux",
    ]
    lines += [f"a=extmap:{identifier} {uri}" for identifier, uri in section.extensions]
    lines.append(f"a=rtpmap:{number} {codec.name}/{clock}")
    lines += [f"a=rtcp-fb:{number} {feedback}" for feedback in codec.feedback]
    if codec.name == "H264":
        lines.append(
            f"a=fmtp:{number} level-asymmetry-allowed=1;packetization-mode=1;"
            f"profile-level-id={codec.profile}"
        )
    if rtx is not None:
        lines += [f"a=rtpmap:{rtx} rtx/90000", f"a=fmtp:{rtx} apt={number}"]
    return lines
