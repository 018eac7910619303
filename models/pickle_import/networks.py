"""From the inert tree of a file to one network: its layers, its tensors, what it says of itself.

The tree is hostile: it may share, nest and repeat. Every walk here counts what it visits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from models.errors import BadCheckpoint
from models.pickle_import.inert import Record
from models.pickle_import.limits import Limits, corrupt, quote
from models.pickle_import.storages import Array, Tensor

NAME_LENGTH = 200  # of a tensor, dots included; published ones stay below 70


def select(tree: object, which: str) -> Record:
    """The network called `which` in the file's table.

    Raises:
        BadCheckpoint: CKPT_ARCH_MISMATCH, naming the networks that there are.
    """
    if type(tree) is not dict:
        raise BadCheckpoint(
            "CKPT_ARCH_MISMATCH", f"the file holds {quote(tree)}, not a table of networks"
        )
    found = [key for key in list(tree)[:100] if type(key) is str and is_module(tree[key])]
    if which not in found:
        names = ", ".join(quote(key) for key in found[:5]) or "none"
        raise BadCheckpoint(
            "CKPT_ARCH_MISMATCH",
            f"no network {quote(which)}; networks in it: {names} (choose with --which)",
        )
    network: Record = tree[which]
    return network


def is_module(value: object) -> bool:
    return type(value) is Record and type(value.state) is dict and "_modules" in value.state


def layers(root: Record, limits: Limits) -> dict[str, Record]:
    """Every module by its dotted name; the root is "".

    Raises:
        BadCheckpoint: CKPT_TOO_DEEP, CKPT_TOO_MANY_OBJECTS, CKPT_CORRUPT.
    """
    found: dict[str, Record] = {}
    waiting = [("", root, 0)]
    while waiting:
        name, module, depth = waiting.pop()
        if depth > limits.depth:
            raise BadCheckpoint("CKPT_TOO_DEEP", f"modules nested more than {limits.depth} deep")
        # A module reached by two names counts twice, so shared structure cannot multiply the work.
        if len(found) + len(waiting) >= limits.modules:
            raise BadCheckpoint("CKPT_TOO_MANY_OBJECTS", f"more than {limits.modules} modules")
        if len(module.state) > limits.entries:  # type: ignore[arg-type]
            raise corrupt(f"a module with {len(module.state)} attributes")  # type: ignore[arg-type]
        found[name] = module
        for key, child in _table(module, "_modules", limits).items():
            if child is None:
                continue
            if not is_module(child):
                raise corrupt(f"{_joined(name, key)} is {quote(child)} and not a module")
            waiting.append((_joined(name, key), child, depth + 1))
    return found


def tensors(modules: Mapping[str, Record], limits: Limits) -> dict[str, Tensor]:
    """The state dict of the network: parameters and persistent buffers.

    Raises:
        BadCheckpoint: CKPT_TOO_MANY_TENSORS, CKPT_CORRUPT.
    """
    found: dict[str, Tensor] = {}
    for name, module in modules.items():
        passing = attribute(module, "_non_persistent_buffers_set", [])
        if type(passing) is not list or len(passing) > limits.entries:
            raise corrupt(f"_non_persistent_buffers_set is {quote(passing)} of too many names")
        # Only texts are compared: what else the file put in the list is not looked at.
        left_out = {known for known in passing if type(known) is str}
        for part in ("_parameters", "_buffers"):
            for key, value in _table(module, part, limits).items():
                if value is None:
                    continue
                full = _joined(name, key)
                if part == "_buffers" and key in left_out:
                    continue
                if type(value) is not Tensor:
                    raise corrupt(f"{full} is {quote(value)} and not a tensor")
                if len(found) >= limits.tensors:
                    raise BadCheckpoint("CKPT_TOO_MANY_TENSORS", f"more than {limits.tensors}")
                found[full] = value
    return found


def _table(module: Record, part: str, limits: Limits) -> dict[str, Any]:
    table = attribute(module, part, {})
    if type(table) is not dict or len(table) > limits.entries:
        raise corrupt(f"{part} is {quote(table)} and not a table of up to {limits.entries} entries")
    return table


def _joined(name: str, key: object) -> str:
    if type(key) is not str or not key or "." in key or len(name) + len(key) >= NAME_LENGTH:
        raise corrupt(f"{quote(key)} as the name of a layer or tensor")
    return f"{name}.{key}" if name else key


def attribute(module: Record, name: str, default: Any = None) -> Any:
    """A plain attribute that the file stored with the module."""
    assert type(module.state) is dict
    return module.state.get(name, default)


def arrays(found: Mapping[str, Tensor], most_bytes: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor copied out of the file, floats as float32.

    Args:
        most_bytes: What all of them may take together: tensors that share one storage could
            otherwise unpack to any size.
    Raises:
        BadCheckpoint: CKPT_TOO_BIG, CKPT_NONFINITE.
    """
    total = sum(tensor.nbytes for tensor in found.values())
    if total > most_bytes:
        raise BadCheckpoint("CKPT_TOO_BIG", f"{total} bytes of tensors from {most_bytes} of file")
    for name, tensor in found.items():
        value = tensor.array()
        if value.dtype.kind == "f":
            value = value.astype(np.float32, copy=False)
            if not np.isfinite(value).all():
                raise BadCheckpoint("CKPT_NONFINITE", f"tensor {quote(name)} holds NaN or infinity")
        yield name, torch.from_numpy(value)


def plain(value: object) -> Any:
    """A number, text, None or short list of numbers out of the tree; None for everything else."""
    if type(value) is Array and value.value.size <= 64:
        value = value.value.reshape(-1).tolist()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple) and len(value) <= 64:
        if all(type(item) in (int, float) for item in value):
            return list(value)
    return None
