"""Every name a supported file may use, with our own inert stand-in. All others are refused.

The pair (module, name) is compared exactly: a prefix or a module alone would let `torch` +
`os.system` pass, since names of protocol 4 may contain dots. Nothing is imported by a name.

Three kinds of stand-in: functions that rebuild tensors, arrays and containers out of checked bytes;
classes whose objects become a `Record` of their arguments and state; and names that files only
mention (`typing Any`, `builtins int`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from models.pickle_import.inert import Global, Record
from models.pickle_import.limits import Limits, corrupt, quote
from models.pickle_import.machine import Machine
from models.pickle_import.storages import (
    Allowance,
    Array,
    ArrayType,
    Storage,
    StorageReader,
    Tensor,
    check_view,
    forbidden,
    scalar,
)

PERSISTENT = "persistent"  # `Record.module` of a network or layer that carried its source


# Written by the StyleGAN-V snapshots: configuration nodes, torch layers, the optimisers. Their
# objects are kept as records and only `_content`, `_val`, `_parent`, `_parameters`, `_buffers` and
# `_modules` of the state are ever looked at.
_RECORDS = """
    omegaconf.dictconfig DictConfig|omegaconf.listconfig ListConfig|omegaconf.base ContainerMetadata
    omegaconf.base Metadata|omegaconf.nodes AnyNode|omegaconf.nodes StringNode
    omegaconf.nodes IntegerNode|omegaconf.nodes FloatNode|omegaconf.nodes BooleanNode
    omegaconf.nodes PathNode|omegaconf.nodes BytesNode|omegaconf.nodes EnumNode
    omegaconf.nodes InterpolationResultNode
    torch.nn.modules.container Sequential|torch.nn.modules.container ModuleList
    torch.nn.modules.container ModuleDict|torch.nn.modules.sparse Embedding
    torch.nn.modules.linear Linear|torch.nn.modules.linear Identity|torch.nn.modules.conv Conv1d
    torch.nn.modules.rnn LSTM|torch.nn.modules.activation LeakyReLU
    training.layers TemporalDifferenceEncoder|src.training.layers TemporalDifferenceEncoder
    torch.optim.adam Adam|torch Size|torch device
"""
_MENTIONED = """
    typing Any|numpy ndarray|torch float16|torch float32|torch float64|torch int64
    builtins dict|builtins list|builtins tuple|builtins int|builtins float|builtins str
    builtins bool|builtins bytes
"""


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = []
    for line in text.strip().splitlines():
        for pair in line.split("|"):
            module, name = pair.split()
            pairs.append((module, name))
    return pairs


def _record(named: Global, args: tuple[Any, ...]) -> Record:
    return Record(named.module, named.name, args)


def _persistent(named: Global, args: tuple[Any, ...]) -> Record:
    """A network or layer that carries its own source text. The text is dropped unread."""
    about = args[0] if len(args) == 1 else None
    if type(about) is not dict or about.get("type") != "class":
        raise corrupt("a persistent object that is not a class")
    name, state = about.get("class_name"), about.get("state")
    if type(name) is not str or type(state) is not dict:
        raise corrupt(f"a persistent object {quote(name)} without a state")
    return Record(PERSISTENT, name, (), state)


def _dictionary(named: Global, args: tuple[Any, ...]) -> dict[Any, Any]:
    factory = args[0] if args and named.name == "defaultdict" else None
    if args and not (len(args) == 1 and type(factory) is Global and factory.name == "dict"):
        raise corrupt(f"{named.name} made of something")
    return {}


def _array(named: Global, args: tuple[Any, ...]) -> Array:
    if len(args) != 3 or type(args[0]) is not Global or args[0].name != "ndarray":
        raise corrupt("a numpy array of a subclass")
    return Array()


def _array_type(named: Global, args: tuple[Any, ...]) -> ArrayType:
    if not args:
        raise corrupt("a numpy dtype without a code")
    return ArrayType(args[0])


def _parameter(named: Global, args: tuple[Any, ...]) -> Tensor:
    if not args or type(args[0]) is not Tensor:
        raise corrupt("a parameter that is not a tensor")
    return args[0]


class Names:
    """The names of one file, with what it may still unpack (`Allowance`)."""

    def __init__(self, file_bytes: int, limits: Limits) -> None:
        self.limits = limits
        self.storages = StorageReader()
        self.allowance = Allowance(file_bytes, limits.tensors)
        self.table: dict[tuple[str, str], Callable[..., Any] | None] = {
            **dict.fromkeys(_pairs(_RECORDS), _record),
            **dict.fromkeys(_pairs(_MENTIONED)),
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
            ("src.torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
            ("dnnlib.util", "EasyDict"): _dictionary,
            ("src.dnnlib.util", "EasyDict"): _dictionary,
            ("collections", "OrderedDict"): _dictionary,
            ("collections", "defaultdict"): _dictionary,
            ("builtins", "set"): self._set,
            ("__builtin__", "set"): self._set,
            ("_codecs", "encode"): self._encode,
            ("torch.storage", "_load_from_bytes"): self._storage,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
            ("numpy", "dtype"): _array_type,
        }
        for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
            self.table[core, "scalar"] = lambda named, args: scalar(args)
            self.table[core, "_reconstruct"] = _array

    def resolve(self, module: str, name: str) -> Global:
        """The stand-in of exactly this pair.

        Raises:
            BadCheckpoint: CKPT_FORBIDDEN_GLOBAL.
        """
        if (module, name) not in self.table:
            raise forbidden(module, name)
        return Global(module, name, self.table[module, name])

    def _set(self, named: Global, args: tuple[Any, ...]) -> list[Any]:
        if len(args) != 1 or type(args[0]) is not list:
            raise corrupt("a set that is made of no list")
        self.allowance.spend_bytes(len(args[0]))
        return list(args[0])

    def _encode(self, named: Global, args: tuple[Any, ...]) -> bytes:
        """Protocol 2 writes bytes as a Latin-1 text and its encoding."""
        if len(args) != 2 or type(args[0]) is not str or args[1] != "latin1":
            raise corrupt("a text to encode otherwise than as Latin-1")
        self.allowance.spend_bytes(len(args[0]))
        try:
            return args[0].encode("latin-1")
        except UnicodeEncodeError as error:
            raise corrupt("bytes beyond Latin-1") from error

    def _storage(self, named: Global, args: tuple[Any, ...]) -> Storage:
        if len(args) != 1 or type(args[0]) not in (bytes, memoryview):
            raise corrupt("a storage that is not made of bytes")
        self.allowance.spend_bytes(len(args[0]))
        return self.storages.read(args[0])

    def _tensor(self, named: Global, args: tuple[Any, ...]) -> Tensor:
        if not 6 <= len(args) <= 7 or type(args[0]) is not Storage:
            raise corrupt("a tensor without a storage")
        self.allowance.spend_tensor()
        storage, offset, size, stride = args[:4]
        stored = len(storage.elements)
        view = check_view(stored, offset, size, stride, self.limits.dimensions)
        return Tensor(storage, *view)


def read(data: bytes, limits: Limits) -> Any:
    """The inert tree of a whole pickle file.

    Raises:
        BadCheckpoint: The first thing in it that is not as it must be.
    """
    machine = Machine(data, Names(len(data), limits).resolve, limits)
    # A million small containers at once: the collector would walk them again and again for nothing.
    collecting = gc.isenabled()
    gc.disable()
    try:
        tree = machine.run()
    finally:
        if collecting:
            gc.enable()
    if machine.stop != len(data):
        raise corrupt(f"{len(data) - machine.stop} bytes after the end of the pickle")
    return tree
