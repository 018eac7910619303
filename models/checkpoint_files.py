"""Reading files that may lie: bounded, regular, strict JSON, honest safetensors headers."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from models.errors import BadCheckpoint

MAX_HEADER_BYTES = 16 << 20  # of a safetensors header; 20,000 tensors need 2 MB
_DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
_DTYPE_BYTES |= {"I8": 1, "U8": 1, "BOOL": 1}


def read_file(path: Path, max_bytes: int, *, first: int = -1) -> bytes:
    """The whole of a regular file, or its `first` bytes.

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
            return file.read(about.st_size if first < 0 else first)
    finally:
        os.close(handle)


def parse_json(text: bytes, name: str) -> dict[str, Any]:
    """A JSON table, strictly: UTF-8, no repeated key, no NaN.

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

    try:
        parsed = json.loads(text.decode(), object_pairs_hook=table, parse_constant=constant)
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
        BadCheckpoint: CKPT_TRUNCATED, CKPT_LENGTH_LIE, CKPT_DUPLICATE_KEY, CKPT_CORRUPT,
            CKPT_SHAPE_EXCEEDS_STORAGE.
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
    for key, entry in parse_json(blob[8 : 8 + size], "the tensor header").items():
        if key != "__metadata__":
            _check_entry(key, entry, body)


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
