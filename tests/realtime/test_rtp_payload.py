"""Payloads, taken apart again by aiortc's own parsers and compared with what went in."""

import random

import pytest
from aiortc.codecs.h264 import H264PayloadDescriptor
from aiortc.codecs.vpx import VpxPayloadDescriptor

from realtime.rtp_payload import MTU, h264_payloads, nal_units, vp8_payloads

START = b"\0\0\0\1"


def unit(kind: int, length: int, seed: int = 0) -> bytes:
    """A NAL unit without a start code inside and without a zero at its end."""
    body = bytes(random.Random(seed).randrange(1, 256) for _ in range(length - 1))
    return bytes([0x60 | kind]) + body


def reassembled(payloads: tuple[bytes, ...]) -> bytes:
    return b"".join(H264PayloadDescriptor.parse(payload)[1] for payload in payloads)


@pytest.mark.parametrize(
    "lengths",
    [[2], [10, 4, 500], [10, 4, 5000], [1200], [1201], [1199, 1199], [590] * 5, [2398, 2397, 3]],
)
def test_h264_units_come_back_whole_and_in_order(lengths):
    units = [unit(1 + i % 5, length, i) for i, length in enumerate(lengths)]
    stream = b"".join(START + u for u in units)
    payloads = h264_payloads(stream)
    assert nal_units(reassembled(payloads)) == units
    assert max(map(len, payloads)) <= MTU


def test_start_codes_of_three_bytes_and_trailing_zeros_are_understood():
    one, two = unit(7, 9), unit(8, 5)
    assert nal_units(b"\0\0\1" + one + b"\0\0\0\1" + two + b"\0\0") == [one, two]
    assert nal_units(b"") == [] and h264_payloads(b"") == ()


def test_parameter_sets_and_a_small_picture_share_one_packet():
    stream = START + unit(7, 20) + START + unit(8, 6) + START + unit(5, 300)
    (payload,) = h264_payloads(stream)
    assert payload[0] & 0x1F == 24  # STAP-A
    assert payload[0] & 0x60 == 0x60  # the importance of the most important inside


def test_fragments_are_nearly_equal_and_flagged_at_both_ends():
    payloads = h264_payloads(START + unit(5, 10_000))
    assert {p[0] & 0x1F for p in payloads} == {28}  # FU-A
    assert [bool(p[1] & 0x80) for p in payloads] == [True] + [False] * (len(payloads) - 1)
    assert [bool(p[1] & 0x40) for p in payloads] == [False] * (len(payloads) - 1) + [True]
    assert max(map(len, payloads)) - min(map(len, payloads)) <= len(payloads)


@pytest.mark.parametrize("length", [1, 1195, 1196, 1197, 2392, 2393, 40_000])
def test_vp8_frame_comes_back_with_its_picture_id(length):
    data = random.Random(length).randbytes(length)
    payloads = vp8_payloads(data, picture_id=0x8000 + 77)  # beyond 15 bits: only the low ones count
    parsed = [VpxPayloadDescriptor.parse(payload) for payload in payloads]
    assert b"".join(rest for _, rest in parsed) == data
    assert {descriptor.picture_id for descriptor, _ in parsed} == {77}
    starts = [descriptor.partition_start for descriptor, _ in parsed]
    assert starts == [1] + [0] * (len(parsed) - 1)
    assert max(map(len, payloads)) <= MTU
