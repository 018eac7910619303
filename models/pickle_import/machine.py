"""A pickle machine that builds plain data and runs nothing of the file.

Python's own unpickler imports and calls whatever a file names. This one knows the opcodes that
protocols 2 to 5 write, makes numbers, texts, lists, dictionaries and tuples of them, and asks one
function, `resolve`, for every name; that function never imports. Time and memory are linear in the
bytes read: no opcode makes more than one object, every announced length is held against the bytes
that are left, sets become lists and tuples may not be keys (their hash would walk shared structure
again and again), and nothing recurses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from models.errors import BadCheckpoint
from models.pickle_import.inert import Global
from models.pickle_import.limits import Limits, corrupt, located
from models.pickle_import.opcodes import HANDLERS

_STOP = ord(".")


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
        data, end, handlers, pos = self.data, len(self.data), HANDLERS, self.stop
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
        except IndexError as error:  # only the stack and one-byte arguments are indexed unchecked
            if at + 1 >= end:
                raise BadCheckpoint("CKPT_TRUNCATED", f"ends at byte {end}, mid-pickle") from error
            raise located(corrupt("an opcode finds its operands missing"), at, op) from error
        raise BadCheckpoint(
            "CKPT_TOO_MANY_OBJECTS", f"more than {self.limits.steps} opcodes; nothing published has"
        )

    def number(self, pos: int, size: int) -> int:
        """The unsigned little-endian number of `size` bytes at `pos`."""
        raw = self.data[pos : pos + size]
        if len(raw) < size:
            raise BadCheckpoint("CKPT_TRUNCATED", f"the file ends at byte {len(self.data)}")
        return int.from_bytes(raw, "little")

    def announced(self, pos: int, width: int) -> tuple[int, int]:
        """First and last byte of a string whose length stands in `width` bytes at `pos`."""
        start = pos + width
        stop = start + self.number(pos, width)
        if stop > len(self.data):
            raise BadCheckpoint(
                "CKPT_LENGTH_LIE",
                f"announces {stop - start} bytes where {len(self.data) - start} are left",
            )
        return start, stop

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items
