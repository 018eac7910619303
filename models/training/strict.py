"""Tables of settings to frozen dataclasses and back, refusing what is not known."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, Union

from models.errors import BadConfig

T = TypeVar("T")


def build(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """A dataclass from a table.

    Fields may be numbers, words, truth values, tuples of one kind, None beside any of them, tables
    (`Mapping`), and dataclasses of such. A whole number serves as a float, not the other way round.

    Args:
        where: Name of the table, for errors.
    Raises:
        BadConfig: A key is unknown or missing or a value of another kind; or the dataclass itself
            refuses it.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    odd = sorted(set(table) - set(fields))
    if odd:
        raise BadConfig(f"{where} has no {odd[0]!r}; known are {', '.join(sorted(fields))}")
    hints = typing.get_type_hints(cls)
    made = {key: _value(hints[key], value, f"{where}.{key}") for key, value in table.items()}
    needed = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and name not in made
    ]
    if needed:
        raise BadConfig(f"{where}.{needed[0]} is missing")
    return cls(**made)


def _value(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _first(typing.get_args(kind), value, where)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise BadConfig(f"{where} is {value!r}, not a list")
        of = typing.get_args(kind)
        if len(of) == 2 and of[1] is Ellipsis:
            return tuple(_value(of[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(of):
            raise BadConfig(f"{where} has {len(value)} entries, {len(of)} are needed")
        return tuple(
            _value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(of, value, strict=True))
        )
    if dataclasses.is_dataclass(kind) or origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise BadConfig(f"{where} is {value!r}, not a table")
        return build(kind, value, where) if isinstance(kind, type) else dict(value)
    return _plain(kind, value, where)


def _first(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """The value as the first of several kinds that takes it."""
    if value is None and type(None) in kinds:
        return None
    errors = []
    for kind in kinds:
        if kind is not type(None):
            try:
                return _value(kind, value, where)
            except BadConfig as error:
                errors.append(error)
    raise errors[-1]


def _plain(kind: Any, value: Any, where: str) -> Any:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    truth = isinstance(value, bool)
    fits = {
        bool: truth,
        int: isinstance(value, int) and not truth,
        float: isinstance(value, int | float) and not truth,
        str: isinstance(value, str),
    }
    if not fits.get(kind, False):
        raise BadConfig(f"{where} is {value!r}, not {words.get(kind, kind)}")
    if kind is float:
        if not math.isfinite(value):
            raise BadConfig(f"{where} is {value}; it must be finite")
        return float(value)
    return value


def plain(settings: Any) -> Any:
    """Settings as tables, lists and values; what is None is left out, as TOML has no such value."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        settings = {
            field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)
        }
    if isinstance(settings, Mapping):
        return {key: plain(value) for key, value in settings.items() if value is not None}
    if isinstance(settings, list | tuple):
        return [plain(value) for value in settings]
    return settings


def to_toml(table: Mapping[str, Any]) -> str:
    """TOML text of what `plain` gives: tables one level deep as sections, deeper ones inline."""
    top = [f"{_word(key)} = {_toml(v)}" for key, v in table.items() if not isinstance(v, Mapping)]
    parts = ["\n".join(top)] if top else []
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines = [f"{_word(name)} = {_toml(entry)}" for name, entry in value.items()]
            parts.append("\n".join([f"[{_word(key)}]", *lines]))
    return "\n\n".join(parts) + "\n"


def _word(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return key if bare else json.dumps(key)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_word(key)} = {_toml(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    # JSON's strings with ASCII escapes are TOML's basic strings; DEL is the one they differ in.
    return json.dumps(value).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)
