"""Event files: read back by an independent reading of the format."""

from __future__ import annotations

import struct

import pytest

from models.training.tensorboard import EventFile, crc32c


def test_the_checksum_is_castagnolis():
    """Test vectors of RFC 3720, B.4."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def records(content: bytes):
    """Payloads of a TFRecord file, both checksums verified."""

    def unmasked(word: bytes) -> int:
        value = (struct.unpack("<I", word)[0] - 0xA282EAD8) & 0xFFFFFFFF
        return (value >> 17 | value << 15) & 0xFFFFFFFF

    at = 0
    while at < len(content):
        head = content[at : at + 8]
        assert unmasked(content[at + 8 : at + 12]) == crc32c(head)
        (size,) = struct.unpack("<Q", head)
        payload = content[at + 12 : at + 12 + size]
        assert len(payload) == size
        assert unmasked(content[at + 12 + size : at + 16 + size]) == crc32c(payload)
        yield payload
        at += 16 + size


def fields(message: bytes) -> dict[int, list]:
    """A protobuf message by field number."""

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = message[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at

    found: dict[int, list] = {}
    at = 0
    while at < len(message):
        key, at = varint(at)
        kind = key & 7
        if kind == 0:
            value, at = varint(at)
        elif kind == 1:
            (value,), at = struct.unpack("<d", message[at : at + 8]), at + 8
        elif kind == 5:
            (value,), at = struct.unpack("<f", message[at : at + 4]), at + 4
        else:
            assert kind == 2
            size, at = varint(at)
            value, at = message[at : at + size], at + size
        found.setdefault(key >> 3, []).append(value)
    return found


def test_scalars_read_back(tmp_path):
    file = EventFile(tmp_path, "here.1.v2")
    file.add(3, {"Gmain/loss": 0.625, "Dreg/r1": 1e-8})
    file.add(300_000_000_000, {"Gmain/loss": -2.5})
    assert file.path.name.startswith("events.out.tfevents.")
    events = [fields(payload) for payload in records(file.path.read_bytes())]
    assert events[0][3] == [b"brain.Event:2"] and len(events) == 4
    points = []
    for event in events[1:]:
        (value,) = fields(event[5][0])[1]
        (tag,), (number,) = fields(value)[1], fields(value)[2]
        points.append((event[2][0], tag.decode(), number))
        assert event[1][0] > 1.7e9  # seconds since 1970
    assert points == [
        (3, "Gmain/loss", 0.625),
        (3, "Dreg/r1", pytest.approx(1e-8)),
        (300_000_000_000, "Gmain/loss", -2.5),
    ]


def test_nothing_is_made_before_there_is_a_point(tmp_path):
    EventFile(tmp_path, "x")
    assert list(tmp_path.iterdir()) == []
