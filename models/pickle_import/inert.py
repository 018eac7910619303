"""What stands for the objects of a file: data without behaviour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models.pickle_import.limits import corrupt


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


class Record(Inert):
    """An object of a class we do not have: its class, arguments and state, and no behaviour."""

    __slots__ = ("args", "module", "name", "state")

    def __init__(self, module: str, name: str, args: tuple[Any, ...], state: object = None) -> None:
        self.module, self.name, self.args, self.state = module, name, args, state

    def build(self, state: object) -> None:
        self.state = state
