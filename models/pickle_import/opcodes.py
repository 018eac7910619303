"""What each opcode does to the machine: the ones that protocols 2 to 5 write, and no others.

Source: the opcode descriptions of CPython's `pickletools`.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any

from models.errors import BadCheckpoint
from models.pickle_import.inert import Global, Inert
from models.pickle_import.limits import corrupt, quote

if TYPE_CHECKING:
    from models.pickle_import.machine import Machine

VIEW_FROM = 1024  # bytes: longer byte strings stay views of the file, shorter ones are copied
_FLOAT = Struct(">d")
Handler = Callable[["Machine", int], int]

# Each takes the machine and the first byte of its argument, and gives the byte after it.


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
    m.stack.append(m.data[pos])
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


def _short_text(m: Machine, pos: int) -> int:
    stop = pos + 1 + m.data[pos]
    raw = m.data[pos + 1 : stop]
    if not raw.isascii() or stop > len(m.data):
        return _text1(m, pos)
    m.stack.append(raw.decode("ascii"))
    return stop


def _text(width: int) -> Handler:
    def push(m: Machine, pos: int) -> int:
        start, stop = m.announced(pos, width)
        try:
            m.stack.append(str(m.data[start:stop], "utf-8", "surrogatepass"))
        except UnicodeDecodeError as error:
            raise corrupt("a text is not UTF-8") from error
        return stop

    return push


_text1 = _text(1)


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
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[key if type(key) is str else _key(key)] = value
    return pos


def _tuple(m: Machine, pos: int) -> int:
    m.stack.append(tuple(m.since_mark()))
    return pos


def _tuple1(m: Machine, pos: int) -> int:
    m.stack[-1] = (m.stack[-1],)
    return pos


def _tuple2(m: Machine, pos: int) -> int:
    last = m.stack.pop()
    m.stack[-1] = (m.stack[-1], last)
    return pos


def _tuple3(m: Machine, pos: int) -> int:
    last, middle = m.stack.pop(), m.stack.pop()
    m.stack[-1] = (m.stack[-1], middle, last)
    return pos


# One-byte memo opcodes are a third of a file.
def _binget(m: Machine, pos: int) -> int:
    index = m.data[pos]
    try:
        m.stack.append(m.memo[index])
    except KeyError:
        raise corrupt(f"recalls object {index}, which was never stored") from None
    return pos + 1


def _binput(m: Machine, pos: int) -> int:
    m.memo[m.data[pos]] = m.stack[-1]
    return pos + 1


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
    0x8C: _short_text,
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
    0x85: _tuple1,
    0x86: _tuple2,
    0x87: _tuple3,
    ord("t"): _tuple,
    ord("h"): _binget,
    ord("j"): _get(4),
    ord("q"): _binput,
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
HANDLERS = [_TABLE.get(op, _unknown) for op in range(256)]
