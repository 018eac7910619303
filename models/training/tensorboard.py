"""TensorBoard event files with scalars, written by hand: the format is short and stays as it is.

    file   = record*
    record = length u64 | masked crc32c of the length u32 | bytes | masked crc32c of the bytes u32
    bytes  = protobuf Event { 1: wall_time double, 2: step int64, 3: file_version string,
                              5: Summary { 1: Value { 1: tag string, 2: simple_value float } } }

Source: TensorFlow's `tensorflow/core/lib/io/record_writer.h` and `core/util/event.proto`; crc32c is
RFC 3720, B.4.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected
_MASK_DELTA = 0xA282EAD8  # so that a checksum of bytes that hold checksums is no weak one


class EventFile:
    """One file of scalars, appended to; made at the first `add`.

    Args:
        folder: Where TensorBoard is told to look.
        tag: Ends the file's name; parts the sittings of a run.
    """

    def __init__(self, folder: Path, tag: str) -> None:
        stamp = int(datetime.now(UTC).timestamp())
        self.path = folder / f"events.out.tfevents.{stamp:010d}.{tag}"

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one point of each curve.

        Raises:
            OSError: The file cannot be written.
        """
        now = datetime.now(UTC).timestamp()
        events = b"".join(_record(_scalar(now, step, tag, v)) for tag, v in values.items())
        with open(self.path, "ab") as file:
            if not file.tell():
                events = _record(_time(now) + _text(3, "brain.Event:2")) + events
            file.write(events)


def _scalar(now: float, step: int, tag: str, value: float) -> bytes:
    point = _text(1, tag) + b"\x15" + struct.pack("<f", value)  # field 2, 32 bits
    summary = _bytes(1, point)
    return _time(now) + b"\x10" + _varint(step) + _bytes(5, summary)


def _time(now: float) -> bytes:
    return b"\x09" + struct.pack("<d", now)  # field 1, 64 bits


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _masked(length) + content + _masked(content)


def _masked(content: bytes) -> bytes:
    crc = crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF)


@functools.cache
def _table() -> tuple[int, ...]:
    rows = []
    for row in range(256):
        for _ in range(8):
            row = row >> 1 ^ (_POLYNOMIAL if row & 1 else 0)
        rows.append(row)
    return tuple(rows)


def crc32c(content: bytes) -> int:
    """Castagnoli's checksum."""
    table = _table()
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
