"""Real offers of Chromium 156, and seeded ways to spoil them."""

import random
import re
from pathlib import Path

OFFERS = Path(__file__).parents[1] / "goldens" / "offers"
CHROMIUM = (OFFERS / "chromium_156.sdp").read_bytes().decode()
WITH_AUDIO = (OFFERS / "chromium_156_audio.sdp").read_bytes().decode()


def mutate(text: str, rng: random.Random) -> str:
    """One to six seeded changes: bytes, lines, numbers, whole sections."""
    for _ in range(rng.randint(1, 6)):
        lines = text.split("\r\n")
        at = rng.randrange(len(lines))
        match rng.randrange(8):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[rng.randrange(len(lines))])
            case 2:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                lines[at] = re.sub(r"\d+", lambda _: str(rng.choice(NUMBERS)), lines[at])
            case 4 if lines[at]:
                cut = rng.randrange(len(lines[at]))
                junk = rng.choice("\0 /:;=-~\u20ac\ud800\x85")
                lines[at] = lines[at][:cut] + junk + lines[at][cut + 1 :]
            case 5:
                lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
            case 6:
                lines[at] = lines[at] + lines[rng.randrange(len(lines))][2:]
            case 7:
                lines[at] = rng.choice(ODD_LINES)
        text = "\r\n".join(lines)
    return text


NUMBERS = (0, -1, 1, 35, 72, 96, 127, 128, 255, 256, 65535, 65536, 2**31, 2**64, 10**30)
ODD_LINES = (
    "m=video 9 UDP/TLS/RTP/SAVPF 96",
    "m=audio 9 UDP/TLS/RTP/SAVPF 111",
    "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
    "a=group:BUNDLE",
    "a=group:BUNDLE 1 0",
    "a=mid:",
    "a=ice-lite",
    "a=setup:passive",
    "a=setup:active",
    "a=sendrecv",
    "a=inactive",
    "a=sctp-port:0",
    "a=max-message-size:0",
    "a=rtpmap:109 H264/90000/7",
    "a=fmtp:109 packetization-mode=2",
    "a=fmtp:114 apt=114",
    "a=extmap:0 urn:ietf:params:rtp-hdrext:sdes:mid",
    "a=candidate:1 1 udp 1 0.0.0.0 0 typ",
    "a=fingerprint:md5 00",
    "",
)
