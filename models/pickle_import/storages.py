"""Tensors and arrays of a pickle as checked views of the file's bytes; nothing is copied here.

A tensor is `_rebuild_tensor_v2(storage, offset, size, stride, ...)`. Its storage is a byte string
in torch's format from before 1.6: five small pickles (magic number, version, machine facts,
persistent id, list of keys), the number of elements as int64, the elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import BadCheckpoint
from models.pickle_import.inert import Global, Inert
from models.pickle_import.limits import Limits, corrupt, quote
from models.pickle_import.machine import Machine

MAGIC = 0x1950A86A20F9469CFC6C
HEADER_BYTES = 2048  # the five pickles together take about 300
# Of one of the five: 30 opcodes occur.
_HEADER_LIMITS = Limits(steps=200, globals=4, marks=8)

STORAGE_TYPES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
ARRAY_TYPES: dict[str, np.dtype] = {
    code: np.dtype("<" + code) for code in ("f8", "f4", "f2", "i8", "i4", "i2", "i1")
}
ARRAY_TYPES |= {code: np.dtype("<" + code) for code in ("u8", "u4", "u2", "u1", "b1")}


def is_index(value: object) -> bool:
    """A number that may be a size: an int (not a bool) of 0 to 2**48."""
    return type(value) is int and 0 <= value <= 1 << 48


def elements(shape: tuple[int, ...]) -> int:
    """How many elements `shape` has.

    Raises:
        BadCheckpoint: The other axes of an empty shape are beyond any array.
    """
    if math.prod(size or 1 for size in shape) > 1 << 48:
        raise BadCheckpoint("CKPT_SHAPE_EXCEEDS_STORAGE", "a shape of more than 2**48 elements")
    return math.prod(shape)


class Storage(Inert):
    """`elements`: one-dimensional read-only array over the file."""

    __slots__ = ("elements",)

    def __init__(self, elements: np.ndarray) -> None:
        self.elements = elements


class Tensor(Inert):
    """A view of a storage that was checked to lie in it without overlapping itself."""

    __slots__ = ("storage", "offset", "size", "stride")

    def __init__(
        self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    @property
    def nbytes(self) -> int:
        return math.prod(self.size) * self.storage.elements.itemsize

    def array(self) -> np.ndarray:
        """A contiguous, aligned, writable copy."""
        stored = self.storage.elements
        view = np.lib.stride_tricks.as_strided(
            stored[self.offset :],
            self.size,
            [stride * stored.itemsize for stride in self.stride],
            writeable=False,
        )
        return np.array(view, order="C")


def check_view(
    stored: int, offset: object, size: object, stride: object, dimensions: int
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """The view's numbers, if it lies in `stored` elements and shows each at most once.

    Raises:
        BadCheckpoint: CKPT_SHAPE_EXCEEDS_STORAGE.
    """

    def refuse(what: str) -> BadCheckpoint:
        return BadCheckpoint("CKPT_SHAPE_EXCEEDS_STORAGE", f"a tensor {what}")

    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride):
        raise refuse("whose size and stride do not belong together")
    if len(size) > dimensions:
        raise refuse(f"of {len(size)} dimensions; {dimensions} are allowed")
    if not (is_index(offset) and all(map(is_index, size)) and all(map(is_index, stride))):
        raise refuse("with a size, stride or offset that is negative or not a number")
    assert isinstance(offset, int)
    if elements(size) > stored:
        raise refuse(f"names {math.prod(size)} elements, {stored} are stored")
    if 0 in size:
        return 0, size, (1,) * len(size)
    # Each dimension must step over the whole of the smaller ones, or elements would coincide.
    span = 1
    for step, count in sorted(zip(stride, size, strict=True)):
        if count > 1:
            if step < span:
                raise refuse(f"overlaps itself: stride {step} within {span} elements")
            span += step * (count - 1)
    if offset + span > stored:
        raise refuse(f"ends at element {offset + span}, {stored} are stored")
    return offset, size, stride


class StorageReader:
    """Reads storages in torch's old byte form; never hands them to torch.

    The first three pickles are the same bytes in every storage of a file and read only once.
    """

    def __init__(self) -> None:
        self._preamble = b""

    def read(self, blob: bytes | memoryview) -> Storage:
        """The storage.

        Raises:
            BadCheckpoint: see the table in `models.checkpoint`.
        """
        head = bytes(blob[:HEADER_BYTES])
        pos = len(self._preamble)
        if not pos or not head.startswith(self._preamble):
            pos = _read_preamble(head)
            self._preamble = head[:pos]
        (dtype, key, count), pos = _part(head, pos, _described)
        keys, pos = _part(head, pos)
        if type(keys) is not list or len(keys) != 1 or type(keys[0]) is not str or keys[0] != key:
            raise corrupt("a storage that does not list itself")
        if int.from_bytes(blob[pos : pos + 8], "little") != count:
            raise BadCheckpoint(
                "CKPT_LENGTH_LIE", f"a storage of {count} elements announces another number"
            )
        body = blob[pos + 8 :]
        if len(body) != count * dtype.itemsize:
            raise BadCheckpoint(
                "CKPT_LENGTH_LIE", f"a storage announces {count} elements and has {len(body)} bytes"
            )
        return Storage(np.frombuffer(body, dtype))


def _read_preamble(head: bytes) -> int:
    """Checks magic number, version and machine facts; gives the byte after them."""
    magic, pos = _part(head, 0)
    if magic != MAGIC:
        raise corrupt("a storage without torch's magic number")
    version, pos = _part(head, pos)
    if version != 1001:
        raise corrupt("a storage of an unknown version")
    facts, pos = _part(head, pos)
    if type(facts) is not dict or facts.get("little_endian") is not True:
        raise corrupt("a storage that is not little-endian")
    return pos


def _part(head: bytes, pos: int, persistent: Callable[[Any], Any] | None = None) -> tuple[Any, int]:
    """One of the small pickles, and the byte after it."""
    machine = Machine(head, _storage_type, _HEADER_LIMITS, persistent, start=pos)
    return machine.run(), machine.stop


class _StorageType(Global):
    __slots__ = ()


def _storage_type(module: str, name: str) -> Global:
    if module != "torch" or name not in STORAGE_TYPES:
        raise forbidden(module, name)
    return _StorageType(module, name, None)


def _described(identity: Any) -> tuple[np.dtype, str, int]:
    """Element type, key and number of elements of `('storage', type, key, place, number, None)`."""
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise BadCheckpoint("CKPT_PERSISTENT_ID", "a persistent id that names no storage")
    _, kind, key, place, count, *view = identity
    if type(kind) is not _StorageType or type(key) is not str or not is_index(count):
        raise BadCheckpoint("CKPT_PERSISTENT_ID", "a persistent id that describes no storage")
    if type(place) is not str or view not in ([], [None]):
        raise BadCheckpoint("CKPT_PERSISTENT_ID", "a storage that is a view of another")
    assert isinstance(key, str) and isinstance(count, int)
    return STORAGE_TYPES[kind.name], key, count


def forbidden(module: str, name: str) -> BadCheckpoint:
    return BadCheckpoint(
        "CKPT_FORBIDDEN_GLOBAL",
        f"the file names {quote(module)} {quote(name)}, which no supported checkpoint needs; "
        "nothing of it was run",
    )


class ArrayType(Inert):
    """A numpy dtype of fixed size."""

    __slots__ = ("dtype",)

    def __init__(self, code: object) -> None:
        if type(code) is not str or code not in ARRAY_TYPES:
            raise corrupt(f"numpy dtype {quote(code)}; plain numbers are read")
        self.dtype = ARRAY_TYPES[code]

    def build(self, state: object) -> None:
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", "|"):
            raise corrupt("a numpy dtype that is not little-endian")


class Array(Inert):
    """A numpy array; its contents arrive after it was made."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = np.zeros(0)

    def build(self, state: object) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise corrupt("a numpy array with an unknown state")
        _, shape, kind, fortran, raw = state
        if type(shape) is not tuple or len(shape) > 8 or not all(map(is_index, shape)):
            raise corrupt("a numpy array without a shape")
        if type(kind) is not ArrayType or type(raw) not in (bytes, memoryview):
            raise corrupt("a numpy array of objects")
        if elements(shape) * kind.dtype.itemsize != len(raw):
            raise BadCheckpoint(
                "CKPT_SHAPE_EXCEEDS_STORAGE",
                f"an array names {elements(shape)} elements and has {len(raw)} bytes",
            )
        order = "F" if fortran is True else "C"
        self.value = np.frombuffer(raw, kind.dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def scalar(args: Sequence[Any]) -> float | int | bool:
    """A numpy scalar as Python's number."""
    if len(args) != 2 or type(args[0]) is not ArrayType or type(args[1]) is not bytes:
        raise corrupt("a numpy scalar without a type and its bytes")
    dtype, raw = args[0].dtype, args[1]
    if len(raw) != dtype.itemsize:
        raise corrupt(f"a numpy scalar of {len(raw)} bytes")
    value: float | int | bool = np.frombuffer(raw, dtype)[0].item()
    return value


@dataclass
class Allowance:
    """What may still be read a second time: legitimate files read every byte string once."""

    bytes_left: int
    tensors_left: int

    def spend_bytes(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise BadCheckpoint("CKPT_TOO_BIG", "the same bytes are unpacked again and again")

    def spend_tensor(self) -> None:
        self.tensors_left -= 1
        if self.tensors_left < 0:
            raise BadCheckpoint("CKPT_TOO_MANY_TENSORS", "more tensors than any published file has")
