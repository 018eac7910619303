"""A pickle machine that builds plain data and runs nothing of the file.

Python's own unpickler imports and calls whatever a file names. This one knows the opcodes that
protocols 2 to 5 write, makes numbers, texts, lists, dictionaries and tuples of them, and asks one
function, `resolve`, for every name; that function never imports. Time and memory are linear in the
bytes read: no opcode makes more than one object, every announced length is held against the bytes
that are left, sets become lists and tuples may not be keys (their hash would walk shared structure
again and again), and nothing recurses.

Source: the opcode descriptions of CPython's `pickletools`.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Protocol

from models.errors import BadCheckpoint
from models.pickle_import.limits import Limits, corrupt, located, quote

VIEW_FROM = 1024  # bytes: longer byte strings stay views of the file, shorter ones are copied
_FLOAT = Struct(">d")
_STOP = ord(".")


class Inert:
    """Whatever stands for an object of the file. Compared and hashed by identity, so O(1)."""

    __slots__ = ()

    def build(self, state: object) -> None:
        """Takes the state the file has for it."""
        raise corrupt(f"{type(self).__name__} takes no state")


class Global(Inert):
    """A permitted name; `call` is our own function in its place, None if it is only mentioned."""

    __slots__ = ("module", "name", "call")

    def __init__(
        self, module: str, name: str, call: Callable[[Global, tuple[Any, ...]], Any] | None
    ) -> None:
        self.module, self.name, self.call = module, name, call


class Resolver(Protocol):
    def __call__(self, module: str, name: str) -> Global: ...


class Machine:
    """Runs the one pickle that starts at `data[start]`.

    Args:
        data: The file, or the part of it that may be read.
        resolve: Gives the stand-in of a (module, name), or raises BadCheckpoint.
        persistent: Takes a persistent id and gives the object; None refuses them.
    """

    __slots__ = (
        "data",
        "limits",
        "marks",
        "memo",
        "persistent",
        "resolve",
        "seen",
        "stack",
        "stop",
    )

    def __init__(
        self,
        data: bytes,
        resolve: Resolver,
        limits: Limits,
        persistent: Callable[[object], object] | None = None,
        start: int = 0,
    ) -> None:
        self.data, self.resolve, self.limits, self.persistent = data, resolve, limits, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.seen = 0  # names looked up
        self.stop = start  # first byte after the pickle, once it has run

    def run(self) -> Any:
        """The object the pickle describes.

        Raises:
            BadCheckpoint: with the byte and the opcode where it went wrong.
        """
        data, end, handlers, pos = self.data, len(self.data), _HANDLERS, self.stop
        at = op = 0
        try:
            for _ in range(self.limits.steps):
                if pos >= end:
                    raise BadCheckpoint(
                        "CKPT_TRUNCATED", f"the file ends at byte {end}, mid-pickle"
                    )
                at, op = pos, data[pos]
                if op == _STOP:
                    self.stop = pos + 1
                    return self.stack.pop()
                pos = handlers[op](self, pos + 1)
        except BadCheckpoint as error:
            raise located(error, at, op) from error.__cause__
        except IndexError as error:  # only the stack is indexed unchecked
            raise located(corrupt("an opcode finds its operands missing"), at, op) from error
        raise BadCheckpoint(
            "CKPT_TOO_MANY_OBJECTS", f"more than {self.limits.steps} opcodes; nothing published has"
        )

    def number(self, pos: int, size: int) -> int:
        """The unsigned little-endian number of `size` bytes at `pos`."""
        if size > len(self.data) - pos:
            raise BadCheckpoint("CKPT_TRUNCATED", f"the file ends at byte {len(self.data)}")
        return int.from_bytes(self.data[pos : pos + size], "little")

    def announced(self, pos: int, width: int) -> tuple[int, int]:
        """First and last byte of a string whose length stands in `width` bytes at `pos`."""
        size = self.number(pos, width)
        start = pos + width
        if size > len(self.data) - start:
            left = len(self.data) - start
            raise BadCheckpoint("CKPT_LENGTH_LIE", f"announces {size} bytes where {left} are left")
        return start, start + size

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items


Handler = Callable[[Machine, int], int]

# Opcodes. Each takes the machine and the first byte of its argument, and gives the byte after it.


def _unknown(m: Machine, pos: int) -> int:
    raise corrupt("this format does not use such an opcode")


def _proto(m: Machine, pos: int) -> int:
    version = m.number(pos, 1)
    if not 2 <= version <= 5:
        raise corrupt(f"pickle protocol {version}; 2 to 5 are read")
    return pos + 1


def _frame(m: Machine, pos: int) -> int:
    return m.announced(pos, 8)[0]  # frames are for buffering only


def _mark(m: Machine, pos: int) -> int:
    if len(m.marks) >= m.limits.marks:
        raise BadCheckpoint("CKPT_TOO_DEEP", f"more than {m.limits.marks} containers nested")
    m.marks.append(len(m.stack))
    return pos


def _pop(m: Machine, pos: int) -> int:
    m.stack.pop()
    return pos


def _pop_mark(m: Machine, pos: int) -> int:
    del m.stack[m.marks.pop() :]
    return pos


def _dup(m: Machine, pos: int) -> int:
    m.stack.append(m.stack[-1])
    return pos


def _constant(value: object) -> Handler:
    def push(m: Machine, pos: int) -> int:
        m.stack.append(value)
        return pos

    return push


def _binint(m: Machine, pos: int) -> int:
    value = m.number(pos, 4)
    m.stack.append(value - (1 << 32) if value >> 31 else value)
    return pos + 4


def _binint1(m: Machine, pos: int) -> int:
    m.stack.append(m.number(pos, 1))
    return pos + 1


def _binint2(m: Machine, pos: int) -> int:
    m.stack.append(m.number(pos, 2))
    return pos + 2


def _long(width: int) -> Handler:
    def push(m: Machine, pos: int) -> int:
        start, stop = m.announced(pos, width)
        if stop - start > m.limits.integer_bytes:
            raise corrupt(f"an integer of {stop - start} bytes")
        m.stack.append(int.from_bytes(m.data[start:stop], "little", signed=True))
        return stop

    return push


def _binfloat(m: Machine, pos: int) -> int:
    m.number(pos, 8)
    m.stack.append(_FLOAT.unpack_from(m.data, pos)[0])
    return pos + 8


def _text(width: int) -> Handler:
    def push(m: Machine, pos: int) -> int:
        start, stop = m.announced(pos, width)
        try:
            m.stack.append(str(m.data[start:stop], "utf-8", "surrogatepass"))
        except UnicodeDecodeError as error:
            raise corrupt("a text is not UTF-8") from error
        return stop

    return push


def _bytes(width: int) -> Handler:
    def push(m: Machine, pos: int) -> int:
        start, stop = m.announced(pos, width)
        whole = m.data if stop - start < VIEW_FROM else memoryview(m.data)
        m.stack.append(whole[start:stop])
        return stop

    return push


def _empty_list(m: Machine, pos: int) -> int:
    m.stack.append([])  # a set too: nothing here needs one, and elements go unhashed
    return pos


def _empty_dict(m: Machine, pos: int) -> int:
    m.stack.append({})
    return pos


def _append(m: Machine, pos: int) -> int:
    item = m.stack.pop()
    _target(m, list).append(item)
    return pos


def _appends(m: Machine, pos: int) -> int:
    items = m.since_mark()
    _target(m, list).extend(items)
    return pos


def _target(m: Machine, kind: type) -> Any:
    target = m.stack[-1]
    if type(target) is not kind:
        raise corrupt(f"{quote(target)} stands where a {kind.__name__} is filled")
    return target


def _key(key: object) -> object:
    """`key`, if its hash costs O(1) and cannot be made to collide."""
    kind = type(key)
    if kind is str or kind is bytes or isinstance(key, Inert) or key is None:
        return key
    if kind is bool or kind is float or (kind is int and -(1 << 60) < key < 1 << 60):  # type: ignore[operator]
        return key
    raise corrupt(f"{quote(key)} as a dictionary key")


def _setitem(m: Machine, pos: int) -> int:
    value, key = m.stack.pop(), m.stack.pop()
    _target(m, dict)[_key(key)] = value
    return pos


def _setitems(m: Machine, pos: int) -> int:
    items = m.since_mark()
    if len(items) % 2:
        raise corrupt("a dictionary with a key and no value")
    target = _target(m, dict)
    for i in range(0, len(items), 2):
        target[_key(items[i])] = items[i + 1]
    return pos


def _tuple(m: Machine, pos: int) -> int:
    m.stack.append(tuple(m.since_mark()))
    return pos


def _tuple_of(size: int) -> Handler:
    def push(m: Machine, pos: int) -> int:
        if len(m.stack) < size:
            raise IndexError
        items = tuple(m.stack[-size:])
        del m.stack[-size:]
        m.stack.append(items)
        return pos

    return push


def _get(width: int) -> Handler:
    def push(m: Machine, pos: int) -> int:
        index = m.number(pos, width)
        try:
            m.stack.append(m.memo[index])
        except KeyError:
            raise corrupt(f"recalls object {index}, which was never stored") from None
        return pos + width

    return push


def _put(width: int) -> Handler:
    def store(m: Machine, pos: int) -> int:
        # A dictionary, so that index 2**28 costs one entry and not 2**28.
        m.memo[m.number(pos, width)] = m.stack[-1]
        return pos + width

    return store


def _memoize(m: Machine, pos: int) -> int:
    m.memo[len(m.memo)] = m.stack[-1]
    return pos


def _named(m: Machine, module: object, name: object) -> None:
    m.seen += 1
    if m.seen > m.limits.globals:
        raise BadCheckpoint(
            "CKPT_TOO_MANY_GLOBALS", f"more than {m.limits.globals} names looked up"
        )
    if type(module) is not str or type(name) is not str:
        raise corrupt(f"{quote(module)} and {quote(name)} where a module and a name belong")
    m.stack.append(m.resolve(module, name))


def _global(m: Machine, pos: int) -> int:
    names = []
    for _ in range(2):
        stop = m.data.find(b"\n", pos, pos + 256)
        if stop < 0:
            raise corrupt("a name without an end")
        names.append(str(m.data[pos:stop], "latin-1"))  # no permitted name is other than ASCII
        pos = stop + 1
    _named(m, *names)
    return pos


def _stack_global(m: Machine, pos: int) -> int:
    name, module = m.stack.pop(), m.stack.pop()
    _named(m, module, name)
    return pos


def _reduce(m: Machine, pos: int) -> int:
    args, function = m.stack.pop(), m.stack[-1]
    if type(function) is not Global or function.call is None or type(args) is not tuple:
        shown = quote(function.name) if type(function) is Global else quote(function)
        raise corrupt(f"calls {shown}, which is not a function here")
    m.stack[-1] = function.call(function, args)
    return pos


def _build(m: Machine, pos: int) -> int:
    state, target = m.stack.pop(), m.stack[-1]
    if isinstance(target, Inert):
        target.build(state)
    elif type(target) is not dict:  # attributes of a dictionary subclass: nothing needs them
        raise corrupt(f"gives a state to {quote(target)}")
    return pos


def _binpersid(m: Machine, pos: int) -> int:
    if m.persistent is None:
        raise BadCheckpoint("CKPT_PERSISTENT_ID", "this format has no persistent ids here")
    m.stack[-1] = m.persistent(m.stack[-1])
    return pos


def _persistent_text(m: Machine, pos: int) -> int:
    raise BadCheckpoint("CKPT_PERSISTENT_ID", "this format has no persistent ids in text form")


def _extension(m: Machine, pos: int) -> int:
    raise BadCheckpoint("CKPT_EXT", "this format does not use the extension registry")


_TABLE: dict[int, Handler] = {
    0x80: _proto,
    0x95: _frame,
    ord("("): _mark,
    ord("0"): _pop,
    ord("1"): _pop_mark,
    ord("2"): _dup,
    ord("N"): _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    ord("J"): _binint,
    ord("K"): _binint1,
    ord("M"): _binint2,
    0x8A: _long(1),
    0x8B: _long(4),
    ord("G"): _binfloat,
    0x8C: _text(1),
    ord("X"): _text(4),
    0x8D: _text(8),
    ord("C"): _bytes(1),
    ord("B"): _bytes(4),
    0x8E: _bytes(8),
    0x96: _bytes(8),  # a bytearray; nothing here changes it
    ord("]"): _empty_list,
    0x8F: _empty_list,  # an empty set
    ord("a"): _append,
    ord("e"): _appends,
    0x90: _appends,  # into a set
    ord("}"): _empty_dict,
    ord("s"): _setitem,
    ord("u"): _setitems,
    ord(")"): _constant(()),
    0x85: _tuple_of(1),
    0x86: _tuple_of(2),
    0x87: _tuple_of(3),
    ord("t"): _tuple,
    ord("h"): _get(1),
    ord("j"): _get(4),
    ord("q"): _put(1),
    ord("r"): _put(4),
    0x94: _memoize,
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _reduce,
    0x81: _reduce,  # a new object of a class: the stand-in takes the same arguments
    ord("b"): _build,
    ord("Q"): _binpersid,
    ord("P"): _persistent_text,
    0x82: _extension,
    0x83: _extension,
    0x84: _extension,
}
_HANDLERS = [_TABLE.get(op, _unknown) for op in range(256)]
