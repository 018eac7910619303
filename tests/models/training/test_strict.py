"""Tables to dataclasses, and to TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from models.errors import BadConfig
from models.training.strict import build, plain, to_toml


@dataclass(frozen=True)
class Inner:
    size: int
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str | None = None
    pair: tuple[int, str] = (1, "x")
    many: tuple[float, ...] = ()
    rest: Mapping[str, Any] = field(default_factory=dict)
    limit: float | str = "auto"
    on: bool = False


def test_tables_become_dataclasses_and_whole_numbers_floats():
    table = {"inner": {"size": 3, "rate": 2}, "pair": [4, "y"], "many": [1, 2.5], "limit": 3}
    found = build(Outer, {**table, "rest": {"a": [1]}, "on": True}, "run")
    assert found == Outer(Inner(3, 2.0), None, (4, "y"), (1.0, 2.5), {"a": [1]}, 3.0, True)
    assert isinstance(found.inner.rate, float) and isinstance(found.limit, float)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inner": 3}, "run.inner is 3, not a table"),
        ({"inner": {}}, "run.inner.size is missing"),
        ({"inner": {"size": 1, "sise": 2}}, "run.inner has no 'sise'; known are rate, size"),
        ({"inner": {"size": True}}, "run.inner.size is True, not a whole number"),
        ({"pair": [1]}, "run.pair has 1 entries, 2 are needed"),
        ({"pair": "ab"}, "run.pair is 'ab', not a list"),
        ({"many": [1, "x"]}, r"run.many\[1\] is 'x', not a number"),
        ({"many": [float("nan")]}, "must be finite"),
        ({"name": 3}, "run.name is 3, not a word"),
        ({"on": 1}, "not true or false"),
        ({"rest": []}, "not a table"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(change, said):
    with pytest.raises(BadConfig, match=said):
        build(Outer, {"inner": {"size": 1}, **change}, "run")


def test_toml_reads_back():
    made = Outer(Inner(3), 'a "b"\n\\ ä\x7f', (1, "z"), (1e-8, 3.0), {"k-1": {"x y": [True, [2]]}})
    table = plain(made)
    assert tomllib.loads(to_toml(table)) == table
    assert "name" not in plain(Outer(Inner(1)))
