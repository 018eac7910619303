"""Reading files that may lie: bounded, regular, strict JSON, honest safetensors headers."""

from __future__ import annotations

import io
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.errors import BadCheckpoint

MAX_HEADER_BYTES = 4 << 20  # of a safetensors header; 20,000 tensors need 2 MB
# Marks of a header's JSON. Counted before it is parsed: what takes two bytes there may take a
# hundred times as much as an object.
_MOST_MARKS = {b"{": 20_002, b"[": 40_002, b",": 20_000 * 16}
_MOST_NOTES = 256  # entries of the header's `__metadata__`
_DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
_DTYPE_BYTES |= {"I8": 1, "U8": 1, "BOOL": 1}


def read_file(path: Path, max_bytes: int, *, first: int = -1) -> bytes:
    """The whole of a regular file, or its `first` bytes.

    Raises:
        BadCheckpoint: CKPT_NOT_FOUND, CKPT_UNKNOWN_FORMAT, CKPT_TOO_BIG.
    """
    with opened(path, max_bytes) as (file, size):
        return file.read(size if first < 0 else first)


@contextmanager
def opened(path: Path, max_bytes: int) -> Iterator[tuple[io.BufferedReader, int]]:
    """A regular file of at most `max_bytes`, open, and its size.

    Raises:
        BadCheckpoint: CKPT_NOT_FOUND, CKPT_UNKNOWN_FORMAT, CKPT_TOO_BIG.
    """
    # Without O_NONBLOCK the opening of a named pipe would wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise BadCheckpoint("CKPT_NOT_FOUND", f"cannot open {path}: {error}") from error
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise BadCheckpoint("CKPT_UNKNOWN_FORMAT", f"{path} is not a file")
        if about.st_size > max_bytes:
            raise BadCheckpoint(
                "CKPT_TOO_BIG", f"{path.name} has {about.st_size} bytes, the limit is {max_bytes}"
            )
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file, about.st_size
    finally:
        os.close(handle)


def parse_json(text: bytes, name: str) -> dict[str, Any]:
    """A JSON table, strictly: UTF-8, no repeated key, no NaN, nothing beyond a float's range.

    Raises:
        BadCheckpoint: CKPT_CORRUPT, CKPT_DUPLICATE_KEY, CKPT_TOO_DEEP.
    """

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise BadCheckpoint(
                "CKPT_DUPLICATE_KEY", f"{name} has the key {ascii(twice[:60])} twice"
            )
        return made

    def constant(word: str) -> float:
        raise BadCheckpoint("CKPT_CORRUPT", f"{name} has the number {word}, which JSON has not")

    def finite(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):  # 1e999 reads as infinity
            raise BadCheckpoint("CKPT_CORRUPT", f"{name} has a number beyond 1.8e308")
        return value

    try:
        parsed = json.loads(
            text.decode(), object_pairs_hook=table, parse_constant=constant, parse_float=finite
        )
    except RecursionError as error:
        raise BadCheckpoint("CKPT_TOO_DEEP", f"{name} is nested too deeply") from error
    except ValueError as error:  # JSON, UTF-8, or an integer of thousands of digits
        raise BadCheckpoint("CKPT_CORRUPT", f"{name} is not JSON: {str(error)[:80]}") from error
    if not isinstance(parsed, dict):
        raise BadCheckpoint("CKPT_CORRUPT", f"{name} is not a JSON table")
    return parsed


def check_header(blob: bytes) -> None:
    """Holds a safetensors header against its bytes, before the library allocates anything.

    The library itself refuses overlaps, holes and trailing bytes, but accepts repeated keys.

    Raises:
        BadCheckpoint: CKPT_TRUNCATED, CKPT_LENGTH_LIE, CKPT_TOO_BIG, CKPT_DUPLICATE_KEY,
            CKPT_CORRUPT, CKPT_SHAPE_EXCEEDS_STORAGE.
    """
    if len(blob) < 8:
        raise BadCheckpoint("CKPT_TRUNCATED", f"a tensor file of {len(blob)} bytes")
    size = int.from_bytes(blob[:8], "little")
    if size > len(blob) - 8:
        raise BadCheckpoint(
            "CKPT_LENGTH_LIE", f"announces a header of {size} bytes where {len(blob) - 8} are left"
        )
    if size > MAX_HEADER_BYTES:
        raise BadCheckpoint(
            "CKPT_TOO_BIG", f"a header of {size} bytes; {MAX_HEADER_BYTES} are allowed"
        )
    body = len(blob) - 8 - size
    header = blob[8 : 8 + size]
    for mark, most in _MOST_MARKS.items():
        if header.count(mark) > most:
            raise BadCheckpoint("CKPT_TOO_BIG", f"a header with more than {most} {mark.decode()!r}")
    for key, entry in parse_json(header, "the tensor header").items():
        if key == "__metadata__":
            _check_notes(entry)
        else:
            _check_entry(key, entry, body)


def _check_notes(notes: object) -> None:
    small = isinstance(notes, dict) and len(notes) <= _MOST_NOTES
    if not small or not all(isinstance(text, str) for text in notes.values()):  # type: ignore[attr-defined]
        raise BadCheckpoint(
            "CKPT_CORRUPT", f"__metadata__ is not a table of up to {_MOST_NOTES} texts"
        )


def _check_entry(key: str, entry: object, body: int) -> None:
    shown = ascii(key[:60])
    fields = entry if isinstance(entry, dict) else {}
    shape, span, kind = (fields.get(field) for field in ("shape", "data_offsets", "dtype"))
    numbers = [*shape, *span] if isinstance(shape, list) and isinstance(span, list) else [None]
    if not all(type(number) is int and number >= 0 for number in numbers) or len(span or ()) != 2:
        raise BadCheckpoint("CKPT_CORRUPT", f"tensor {shown} has no shape and place")
    assert isinstance(shape, list) and isinstance(span, list)
    if not isinstance(kind, str) or kind not in _DTYPE_BYTES:
        raise BadCheckpoint("CKPT_CORRUPT", f"tensor {shown} has an unknown element type")
    if len(shape) > 8:
        raise BadCheckpoint("CKPT_SHAPE_EXCEEDS_STORAGE", f"tensor {shown} has {len(shape)} axes")
    if span[1] > body:
        raise BadCheckpoint("CKPT_LENGTH_LIE", f"tensor {shown} ends at byte {span[1]} of {body}")
    count = math.prod(shape)
    if count * _DTYPE_BYTES[kind] != span[1] - span[0]:
        raise BadCheckpoint(
            "CKPT_SHAPE_EXCEEDS_STORAGE",
            f"tensor {shown} names {count} elements and has {span[1] - span[0]} bytes",
        )
