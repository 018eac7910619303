"""Hand-made pickles that lie, each with the code it must be refused with.

`pack` writes plain Python values as pickle opcodes; a `Call` becomes a name and its arguments, a
`Raw` stands for itself. `SOUND` is a value no refusal is due for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

PROTO = b"\x80\x04"
MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class Raw:
    """Opcodes that leave one object on the stack."""

    opcodes: bytes


@dataclass(frozen=True)
class Call:
    """`module name` called with `args`; then `state`, if any, is given to the result."""

    module: str
    name: str
    args: tuple[Any, ...] = ()
    state: Any = None


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def pack(value: Any) -> bytes:
    """Opcodes for a value, without header and end."""
    match value:
        case Raw():
            return value.opcodes
        case Call():
            state = b"" if value.state is None else pack(value.state) + b"b"
            return named(value.module, value.name) + pack(value.args) + b"R" + state
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            raw = value.to_bytes(max(1, (value.bit_length() + 8) // 8), "little", signed=True)
            return b"\x8a" + bytes([len(raw)]) + raw
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return text(value)
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return b"(" + b"".join(map(pack, value)) + b"t"
        case list():
            return b"](" + b"".join(map(pack, value)) + b"e"
        case dict():
            pairs = b"".join(pack(key) + pack(item) for key, item in value.items())
            return b"}(" + pairs + b"u"
    raise TypeError(type(value))


def whole(value: Any) -> bytes:
    """A complete pickle of one value."""
    return PROTO + pack(value) + b"."


def storage_bytes(
    data: bytes,
    *,
    magic: int = MAGIC,
    version: int = 1001,
    little: object = True,
    kind: bytes = b"ctorch\nFloatStorage\n",
    count: int | None = None,
    announced: int | None = None,
    keys: tuple[Any, ...] = ("0",),
    identity: Any = None,
) -> bytes:
    """A storage in torch's old byte form."""
    count = len(data) // 4 if count is None else count
    described = ("storage", Raw(kind), "0", "cpu", count, None) if identity is None else identity
    parts = [whole(magic), whole(version), whole({"little_endian": little})]
    parts += [PROTO + pack(described) + b"Q.", whole(list(keys))]
    announced = count if announced is None else announced
    return b"".join(parts) + struct.pack("<q", announced) + data


def storage(data: bytes = b"\0" * 16, **lies: Any) -> Call:
    return Call("torch.storage", "_load_from_bytes", (storage_bytes(data, **lies),))


def tensor(size: Any, stride: Any, offset: Any = 0, data: bytes = b"\0" * 16) -> Call:
    hooks = Call("collections", "OrderedDict")
    args = (storage(data), offset, size, stride, False, hooks)
    return Call("torch._utils", "_rebuild_tensor_v2", args)


def network(modules: Any = None, parameters: Any = None, **state: Any) -> Call:
    """A persistent object; by itself no generator."""
    inside = {"_parameters": parameters or {}, "_buffers": {}, "_modules": modules or {}, **state}
    about = {"type": "class", "version": 6, "module_src": "#", "class_name": "Generator"}
    about["state"] = inside  # type: ignore[assignment]
    return Call("torch_utils.persistence", "_reconstruct_persistent_obj", (about,))


def _nested_networks(depth: int, width: int) -> bytes:
    """Networks in networks, each the child of the next under `width` names."""
    inner = pack(network())
    for _ in range(depth):
        names = b"".join(text(f"n{i}") + b"h\x00" for i in range(width))
        children = Raw(b"}(" + names + b"u")
        inner = inner + b"q\x00" + b"0" + pack(network(children))
    return PROTO + b"}" + text("G_ema") + inner + b"s."


def _with_nan() -> bytes:
    nan = tensor((4,), (1,), data=struct.pack("<4f", 0, float("nan"), 0, 0))
    return whole({"G_ema": network({"a": network({}, {"weight": nan})})})


def _laughing_key() -> bytes:
    """A tuple of tuples whose hash takes 2**60 steps."""
    return PROTO + b"})" + b"2\x86" * 60 + b"Ns."


BIG = 400_000  # repetitions: enough to hurt where something is quadratic
MEGABYTE = "a" * (1 << 20)
DTYPE = Call("numpy", "dtype", ("f4", False, True))


def _array(shape: Any, raw: Any, dtype: Any = DTYPE) -> Call:
    empty = Raw(named("numpy", "ndarray"))
    state = (1, shape, dtype, False, raw)
    return Call("numpy.core.multiarray", "_reconstruct", (empty, (0,), b"b"), state)


CASES: dict[str, tuple[bytes, str]] = {
    # Not ours at all.
    "empty file": (b"", "CKPT_UNKNOWN_FORMAT"),
    "zip": (b"PK\x03\x04" + bytes(100), "CKPT_UNKNOWN_FORMAT"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "CKPT_UNKNOWN_FORMAT"),
    "safetensors": (b"\x02\0\0\0\0\0\0\0{}", "CKPT_UNKNOWN_FORMAT"),
    "protocol 0": (b"(lp0\n.", "CKPT_UNKNOWN_FORMAT"),
    "protocol 9": (b"\x80\x09N.", "CKPT_CORRUPT"),
    "bytes after the end": (whole(None) + b"x", "CKPT_CORRUPT"),
    "no network": (whole({"a": 1}), "CKPT_ARCH_MISMATCH"),
    "a network of no family": (whole({"G_ema": network()}), "CKPT_ARCH_MISMATCH"),
    # Names.
    "os.system": (whole(Call("os", "system", ("true",))), "CKPT_FORBIDDEN_GLOBAL"),
    "os.system, old opcode": (PROTO + b"cos\nsystem\n.", "CKPT_FORBIDDEN_GLOBAL"),
    "builtins eval": (PROTO + named("builtins", "eval") + b".", "CKPT_FORBIDDEN_GLOBAL"),
    "builtins getattr": (PROTO + named("builtins", "getattr") + b".", "CKPT_FORBIDDEN_GLOBAL"),
    "dotted name": (PROTO + named("torch", "os.system") + b".", "CKPT_FORBIDDEN_GLOBAL"),
    "permitted module": (PROTO + named("torch.storage", "os") + b".", "CKPT_FORBIDDEN_GLOBAL"),
    "permitted name": (PROTO + named("evil", "OrderedDict") + b".", "CKPT_FORBIDDEN_GLOBAL"),
    "prefix of a name": (PROTO + named("numpy", "dtype.x") + b".", "CKPT_FORBIDDEN_GLOBAL"),
    "space in a name": (PROTO + named("numpy ", "dtype") + b".", "CKPT_FORBIDDEN_GLOBAL"),
    "names of objects": (PROTO + b"]]\x93.", "CKPT_CORRUPT"),
    "name without end": (PROTO + b"c" + b"a" * 1000, "CKPT_CORRUPT"),
    "a name a million long": (
        PROTO + named(MEGABYTE, "x\n\x1b[31m") + b".",
        "CKPT_FORBIDDEN_GLOBAL",
    ),
    "os.system in a storage": (
        whole(storage(kind=b"cos\nsystem\n")),
        "CKPT_FORBIDDEN_GLOBAL",
    ),
    "call of what is only mentioned": (whole(Call("typing", "Any", ())), "CKPT_CORRUPT"),
    "call of a number": (PROTO + b"K\x01)R.", "CKPT_CORRUPT"),
    "call without arguments": (PROTO + named("numpy", "dtype") + b"NR.", "CKPT_CORRUPT"),
    "state for a list": (PROTO + b"]}b.", "CKPT_CORRUPT"),
    "persistent id": (PROTO + b"NQ.", "CKPT_PERSISTENT_ID"),
    "persistent id as text": (PROTO + b"Pabc\n.", "CKPT_PERSISTENT_ID"),
    "extension 1": (PROTO + b"\x82\x01.", "CKPT_EXT"),
    "extension 2": (PROTO + b"\x83\x01\x00.", "CKPT_EXT"),
    "extension 4": (PROTO + b"\x84\x01\x00\x00\x00.", "CKPT_EXT"),
    "class by text": (PROTO + b"(ios\nsystem\n.", "CKPT_CORRUPT"),
    "class by mark": (PROTO + b"(N" + b"o.", "CKPT_CORRUPT"),
    "keyword arguments": (PROTO + b"N)}\x92.", "CKPT_CORRUPT"),
    "out-of-band buffer": (PROTO + b"\x97.", "CKPT_CORRUPT"),
    # Lengths and sizes.
    "memo bomb": (PROTO + b"Nr\x00\x00\x00\x10.", "CKPT_ARCH_MISMATCH"),
    "largest memo": (PROTO + b"Nr\xff\xff\xff\xff.", "CKPT_ARCH_MISMATCH"),
    "bytearray of 2**40": (PROTO + b"\x96" + struct.pack("<Q", 1 << 40) + b".", "CKPT_LENGTH_LIE"),
    "bytes of 2**63": (PROTO + b"\x8e" + struct.pack("<Q", 1 << 63) + b".", "CKPT_LENGTH_LIE"),
    "bytes of 4 GB": (PROTO + b"B\xff\xff\xff\xff.", "CKPT_LENGTH_LIE"),
    "text of 4 GB": (PROTO + b"X\xff\xff\xff\xff.", "CKPT_LENGTH_LIE"),
    "text of 2**62": (PROTO + b"\x8d" + struct.pack("<Q", 1 << 62) + b".", "CKPT_LENGTH_LIE"),
    "short text beyond the end": (PROTO + b"\x8c\xffabc.", "CKPT_LENGTH_LIE"),
    "frame of 2**50": (PROTO + b"\x95" + struct.pack("<Q", 1 << 50) + b"N.", "CKPT_LENGTH_LIE"),
    "integer of 2 GB": (PROTO + b"\x8b\xff\xff\xff\x7f.", "CKPT_LENGTH_LIE"),
    "integer of 1 MB": (
        PROTO + b"\x8b" + struct.pack("<I", 1 << 20) + b"\x7f" * (1 << 20) + b".",
        "CKPT_CORRUPT",
    ),
    "integer as text": (PROTO + b"I" + b"9" * 100_000 + b"\n.", "CKPT_CORRUPT"),
    "not UTF-8": (PROTO + b"\x8c\x02\xff\xfe.", "CKPT_CORRUPT"),
    "no end": (PROTO + b"N", "CKPT_TRUNCATED"),
    "argument missing": (PROTO + b"K", "CKPT_TRUNCATED"),
    "four bytes missing": (PROTO + b"J\x01\x02", "CKPT_TRUNCATED"),
    "nothing on the stack": (PROTO + b"0N.", "CKPT_CORRUPT"),
    "no mark": (PROTO + b"Nt.", "CKPT_CORRUPT"),
    "memory of nothing": (PROTO + b"h\x07.", "CKPT_CORRUPT"),
    # Many and deep.
    "marks": (PROTO + b"(" * BIG + b".", "CKPT_TOO_DEEP"),
    "tuples in tuples": (PROTO + b")" + b"\x85" * BIG + b".", "CKPT_ARCH_MISMATCH"),
    "lists in lists": (PROTO + b"]" * BIG + b"a" * (BIG - 1) + b".", "CKPT_ARCH_MISMATCH"),
    "records in records": (
        PROTO + named("torch", "device") + b"q\x00)" + b"\x85q\x010h\x00h\x01R" * (BIG // 8) + b".",
        "CKPT_ARCH_MISMATCH",
    ),
    "duplicates": (PROTO + b"N" + b"2" * (6 * BIG), "CKPT_TOO_MANY_OBJECTS"),
    "dictionaries": (PROTO + b"}" * (6 * BIG), "CKPT_TOO_MANY_OBJECTS"),
    "sets": (PROTO + b"\x8f" * (6 * BIG), "CKPT_TOO_MANY_OBJECTS"),
    "memos": (PROTO + b"N" + b"\x94" * (6 * BIG), "CKPT_TOO_MANY_OBJECTS"),
    "names": (PROTO + named("typing", "Any") * 3000 + b".", "CKPT_TOO_MANY_GLOBALS"),
    "tensors": (
        PROTO
        + pack(storage())
        + b"q\x00"
        + named("torch._utils", "_rebuild_tensor_v2")
        + b"q\x01(h\x00K\x00K\x01\x85K\x01\x85\x89Ntq\x02"
        + b"h\x01h\x02R0" * 30_000
        + b".",
        "CKPT_TOO_MANY_TENSORS",
    ),
    "one storage read again and again": (
        PROTO
        + named("torch.storage", "_load_from_bytes")
        + b"q\x00"
        + pack((storage_bytes(bytes(1 << 16)),))
        + b"q\x01"
        + b"h\x00h\x01R0" * 10_000
        + b".",
        "CKPT_TOO_BIG",
    ),
    "one text encoded again and again": (
        PROTO
        + named("_codecs", "encode")
        + b"q\x00"
        + pack((MEGABYTE, "latin1"))
        + b"q\x01"
        + b"h\x00h\x01R" * 10_000
        + b".",
        "CKPT_TOO_BIG",
    ),
    "one set made again and again": (
        PROTO
        + named("builtins", "set")
        + b"q\x00]("
        + b"N" * 50_000
        + b"e\x85q\x01"
        + b"h\x00h\x01R" * 10_000
        + b".",
        "CKPT_TOO_BIG",
    ),
    "a key that takes for ever to hash": (_laughing_key(), "CKPT_CORRUPT"),
    "keys that collide": (
        PROTO + b"}(" + b"".join(pack(k * ((1 << 61) - 1)) + b"N" for k in range(1, 20)) + b"u.",
        "CKPT_CORRUPT",
    ),
    "a key without a value": (PROTO + b"}(Nu.", "CKPT_CORRUPT"),
    "networks in networks": (_nested_networks(60, 1), "CKPT_TOO_DEEP"),
    "networks sharing networks": (_nested_networks(25, 2), "CKPT_TOO_MANY_OBJECTS"),
    "a network in itself": (
        PROTO
        + b"}q\x05"
        + text("_modules")
        + b"}q\x06s0"
        + pack(network(Raw(b"h\x06")))
        + b"q\x070h\x06"
        + text("again")
        + b"h\x07s0}"
        + text("G_ema")
        + b"h\x07s.",
        "CKPT_TOO_DEEP",
    ),
    # Shapes against storages.
    "stride 0": (whole(tensor((10**6, 10**6), (0, 0))), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "small stride 0": (whole(tensor((2, 2), (0, 1))), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "overlapping rows": (whole(tensor((2, 2), (1, 1))), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "2**60 elements": (whole(tensor((1 << 30, 1 << 30), (1, 1))), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "2**400 elements": (whole(tensor((1 << 47,) * 8, (1,) * 8)), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "empty but immense": (
        whole(tensor((0,) + (1 << 47,) * 7, (1,) * 8)),
        "CKPT_SHAPE_EXCEEDS_STORAGE",
    ),
    "past the end": (whole(tensor((4,), (1,), offset=1)), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "stride past the end": (whole(tensor((2,), (4,))), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "negative size": (whole(tensor((-1,), (1,))), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "negative offset": (whole(tensor((1,), (1,), offset=-1)), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "negative stride": (whole(tensor((2,), (-1,))), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "bool size": (whole(tensor((True,), (1,))), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "float size": (whole(tensor((1.0,), (1,))), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "size that is a list": (whole(tensor([1], (1,))), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "more sizes than strides": (whole(tensor((1, 1), (1,))), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "nine dimensions": (whole(tensor((1,) * 9, (1,) * 9)), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "NaN": (_with_nan(), "CKPT_ARCH_MISMATCH"),  # of no family; the family's own test is elsewhere
    # Storages.
    "storage of another magic": (whole(storage(magic=7)), "CKPT_CORRUPT"),
    "storage of another version": (whole(storage(version=7)), "CKPT_CORRUPT"),
    "big-endian storage": (whole(storage(little=False)), "CKPT_CORRUPT"),
    "storage not in its list": (whole(storage(keys=("1",))), "CKPT_CORRUPT"),
    "storage listing two": (whole(storage(keys=("0", "1"))), "CKPT_CORRUPT"),
    "storage of another length": (whole(storage(announced=5)), "CKPT_LENGTH_LIE"),
    "storage of 2**40": (whole(storage(count=1 << 40)), "CKPT_LENGTH_LIE"),
    "storage of -1": (whole(storage(count=-1)), "CKPT_PERSISTENT_ID"),
    "storage of nothing": (whole(storage(identity=("module", 1))), "CKPT_PERSISTENT_ID"),
    "storage that is a view": (
        whole(storage(identity=("storage", Raw(b"ctorch\nFloatStorage\n"), "0", "cpu", 4, (0,)))),
        "CKPT_PERSISTENT_ID",
    ),
    "storage of text": (
        whole(Call("torch.storage", "_load_from_bytes", ("abc",))),
        "CKPT_CORRUPT",
    ),
    "storage cut short": (
        whole(Call("torch.storage", "_load_from_bytes", (storage_bytes(bytes(16))[:-20],))),
        "CKPT_LENGTH_LIE",
    ),
    "endless pickle in a storage": (
        whole(Call("torch.storage", "_load_from_bytes", (PROTO + b"N" + b"2" * 5000,))),
        "CKPT_TOO_MANY_OBJECTS",
    ),
    # numpy.
    "array of objects": (whole(Call("numpy", "dtype", ("O8", False, True))), "CKPT_CORRUPT"),
    "dtype of a dictionary": (whole(Call("numpy", "dtype", ({},))), "CKPT_CORRUPT"),
    "big-endian dtype": (
        whole(Call("numpy", "dtype", ("f4",), (3, ">", None, None, None, -1, -1, 0))),
        "CKPT_CORRUPT",
    ),
    "array beyond its bytes": (whole(_array((1 << 40,), b"abcd")), "CKPT_SHAPE_EXCEEDS_STORAGE"),
    "empty, immense array": (
        whole(_array((0, 1 << 47, 1 << 47), b"")),
        "CKPT_SHAPE_EXCEEDS_STORAGE",
    ),
    "array of objects in a list": (whole(_array((1,), [None])), "CKPT_CORRUPT"),
    "scalar of too many bytes": (
        whole(Call("numpy._core.multiarray", "scalar", (DTYPE, bytes(8)))),
        "CKPT_CORRUPT",
    ),
}

SOUND = {
    "array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "packed": whole(
        {"a": _array((2, 3), np.arange(6, dtype=np.float32).tobytes()), "b": [1, -2, 0.5, None]}
    ),
}
