"""Coded pictures cut into RTP payloads, once for all viewers.

H.264 after RFC 6184, packetization mode 1; VP8 after RFC 7741. Pure functions of bytes.
"""

from __future__ import annotations

MTU = 1200  # bytes of payload; leaves room for IPv6, UDP, SRTP tag, header extensions and TURN

_STAP_A, _FU_A = 24, 28  # RFC 6184 sections 5.7.1, 5.8
_START_CODE = b"\0\0\1"


def nal_units(stream: bytes) -> list[bytes]:
    """The NAL units of an Annex B stream, without start codes (of 3 or 4 bytes) and padding."""
    starts, at = [], stream.find(_START_CODE)
    while at >= 0:
        starts.append(at + 3)
        at = stream.find(_START_CODE, at + 3)
    ends = [*(start - 3 for start in starts[1:]), len(stream)] if starts else []
    # A unit never ends in a zero byte (ITU-T H.264, 7.4.1): such zeros belong to what follows.
    units = (stream[s:e].rstrip(b"\0") for s, e in zip(starts, ends, strict=True))
    return [unit for unit in units if unit]


def h264_payloads(stream: bytes, mtu: int = MTU) -> tuple[bytes, ...]:
    """Payloads of one coded picture, in sending order.

    Small units travel together (STAP-A), so that SPS, PPS and a small picture cost one packet;
    large ones in pieces of equal size (FU-A), so that no packet is a leftover of a few bytes.

    Args:
        stream: One access unit, Annex B.
        mtu: Most bytes in a payload.
    """
    out: list[bytes] = []
    waiting: list[bytes] = []
    for unit in nal_units(stream):
        if len(unit) > mtu:
            out += _together(waiting)
            waiting = []
            out += _fragments(unit, mtu)
            continue
        if 1 + sum(2 + len(other) for other in [*waiting, unit]) > mtu:
            out += _together(waiting)
            waiting = []
        waiting.append(unit)
    return (*out, *_together(waiting))


def _together(units: list[bytes]) -> list[bytes]:
    if len(units) < 2:
        return units
    importance = max(unit[0] & 0x60 for unit in units)  # NRI: the highest of those inside
    body = b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)
    return [bytes([importance | _STAP_A]) + body]


def _fragments(unit: bytes, mtu: int) -> list[bytes]:
    indicator, kind, body = unit[0] & 0xE0 | _FU_A, unit[0] & 0x1F, unit[1:]
    pieces = _equal_pieces(body, mtu - 2)
    out = []
    for index, piece in enumerate(pieces):
        start = 0x80 if index == 0 else 0
        end = 0x40 if index == len(pieces) - 1 else 0
        out.append(bytes([indicator, start | end | kind]) + piece)
    return out


def vp8_payloads(data: bytes, picture_id: int, mtu: int = MTU) -> tuple[bytes, ...]:
    """Payloads of one coded picture, in sending order.

    Args:
        data: One frame as libvpx gives it.
        picture_id: Counted by the caller; its low 15 bits go into every payload. Without it a
            receiver cannot tell a lost frame from a lost packet.
        mtu: Most bytes in a payload.
    """
    # X bit; then I bit; then M bit and 15 bits of PictureID (RFC 7741 section 4.2).
    tail = bytes([0x80]) + (0x8000 | picture_id & 0x7FFF).to_bytes(2, "big")
    first, other = bytes([0x90]) + tail, bytes([0x80]) + tail  # S bit: start of the partition
    pieces = _equal_pieces(data, mtu - len(first))
    return tuple((first if i == 0 else other) + piece for i, piece in enumerate(pieces))


def _equal_pieces(data: bytes, room: int) -> list[bytes]:
    count = max(1, -(-len(data) // room))
    step = max(1, -(-len(data) // count))
    return [data[at : at + step] for at in range(0, len(data), step)]
