"""Lies that are well-formed pickles: the trees of sound files, their entries replaced at random.

Flipped bytes rarely make an infinite number, a layer too many or a chain of references; here each
is as likely as the other. A tree is changed in place and put back afterwards: reading it again
would take longer than judging it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from models.pickle_import.inert import Global, Record
from models.pickle_import.stand_ins import PERSISTENT
from models.pickle_import.storages import Array, Storage, Tensor

Table = dict[Any, Any] | list[Any]
NAMED = ("_init_kwargs", "_content", "_val", "mapping_kwargs", "synthesis_kwargs", "sampling_dict")


def empty_module() -> Record:
    return Record(PERSISTENT, "Odd", (), {"_parameters": {}, "_buffers": {}, "_modules": {}})


def array(value: Any) -> Array:
    made = Array()
    made.value = np.asarray(value)
    return made


def tensor(*size: int) -> Tensor:
    stride = tuple(int(np.prod(size[i + 1 :])) for i in range(len(size)))
    return Tensor(Storage(np.zeros(int(np.prod(size)), np.float32)), 0, size, stride)


def leaf(value: Any, parent: Any) -> Record:
    return Record("omegaconf.nodes", "AnyNode", (), {"_val": value, "_parent": parent})


def node(content: Any, parent: Any = None) -> Record:
    state = {"_content": content, "_parent": parent}
    return Record("omegaconf.dictconfig", "DictConfig", (), state)


def maze(depth: int, width: int) -> Record:
    """A configuration whose every part is a reference of `width` parts that are references."""
    root = node({})
    for level in range(depth):
        path = ".".join([f"n{level + 1}"] * width)
        root.state["_content"][f"n{level}"] = leaf(f"${{{path}}}", root)
    root.state["_content"][f"n{depth}"] = root
    return root


WORDS = ("", "x", "\ud800", "a.b", "inf", "lrelu", "conv", "sum_w", "autoregressive")
REFERENCES = ("${a.b}", "${cfg}", "${n0}", "${" + "a." * 15 + "a}", "${" + "a" * 999)
VALUES: tuple[Callable[[random.Random], Any], ...] = (
    lambda rng: rng.choice((float("inf"), float("-inf"), float("nan"))),
    lambda rng: rng.choice((0.0, -0.0, -1.5, 0.5, 5e-324, 1e-300, 1e300, 1.7e308)),
    lambda rng: float(rng.randrange(70)),
    lambda rng: rng.randrange(-3, 70),
    lambda rng: rng.choice((1 << 31, 1 << 62, (1 << 126), -(1 << 127), 10**38)),
    lambda rng: rng.choice((True, False, None, None)),
    lambda rng: rng.choice(WORDS),
    lambda rng: rng.choice(REFERENCES),
    lambda rng: [rng.choice((1, 2.0, None, "x", float("nan"))) for _ in range(rng.randrange(5))],
    lambda rng: [[1.0, 2.0], [3.0, 4.0]],
    lambda rng: rng.choice(({}, {"a": 1}, {1: 2}, (), (1, 2), b"raw")),
    lambda rng: rng.choice((Record("torch", "Size", ()), leaf(3, None))),
    lambda rng: rng.choice((empty_module(), maze(7, 16))),
    lambda rng: array(rng.choice((1.0, [float("nan")], [], [1 << 63], [[1, 2], [3, 4]], [True]))),
    lambda rng: tensor(*(rng.randrange(1, 20) for _ in range(rng.randrange(5)))),
    lambda rng: Global("torch", "float16", None),
)


def sites(tree: Any) -> tuple[list[Table], list[Table]]:
    """Every table of a tree, and among them those that say what is built."""
    every, telling, seen, waiting = [], [], set(), [(None, tree)]
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if type(value) is Record:
            waiting.append((name, value.state))
        elif type(value) in (dict, list) and value:
            every.append(value)
            said = type(value) is dict and ("_modules" in value or "_val" in value)
            if said or name in NAMED:
                telling.append(value)
            items = value.items() if type(value) is dict else enumerate(value)
            waiting += items
    return every, telling


def change(table: Table, every: list[Table], rng: random.Random) -> None:
    """One lie in one table."""
    keys = list(table) if type(table) is dict else list(range(len(table)))
    # Half of the entries of a layer are pickle's own; what the layer is, is more telling.
    plain = [key for key in keys if not (type(key) is str and key.startswith("_"))]
    key = rng.choice(plain if plain and rng.random() < 0.8 else keys)
    kind = rng.random()
    if type(table) is dict and type(table.get("_modules")) is dict and kind < 0.15:
        inside = table["_modules"] = dict(table["_modules"])
        others = [value for value in inside.values() if type(value) is Record]
        child = rng.choice((empty_module(), *others[:1]))
        inside[rng.choice(("odd", "fc1", "b64", "L0_8_8", "b4", "torgb", "x" * 150))] = child
    elif kind < 0.25:
        del table[key]
    elif kind < 0.35:
        other = rng.choice([some for some in rng.sample(every, 3) if some] or [[None]])
        table[key] = rng.choice(list(other.values()) if type(other) is dict else other)
    else:
        table[key] = rng.choice(VALUES)(rng)


def lies(tree: Any, count: int, rng: random.Random) -> Iterator[int]:
    """`tree` as it is with one to three lies in it, `count` times; itself again at the end."""
    every, telling = sites(tree)
    for number in range(count):
        changed = rng.sample(telling if rng.random() < 0.7 else every, rng.choice((1, 1, 1, 2, 3)))
        before = [(table, table.copy()) for table in changed]
        for table in changed:
            if table:
                change(table, every, rng)
        try:
            yield number
        finally:
            for table, content in before:
                table.clear()
                table.update(content) if type(table) is dict else table.extend(content)
