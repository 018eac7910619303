"""How a synthesizer is run on this machine, and why it is run that way.

A backend turns a synthesizer into a renderer; a renderer draws codes into I420 slots. `choose`
names what was taken and why nothing better was; a backend that does not run here is never offered.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import cast

import torch

from realtime.backends.renderer import (
    BATCHES,
    Backend,
    Done,
    Drawing,
    FrameBroken,
    Pending,
    Renderer,
)
from realtime.config import PRECISIONS
from realtime.errors import BackendUnavailable

__all__ = [
    "BATCHES",
    "NAMES",
    "Backend",
    "Done",
    "Drawing",
    "FrameBroken",
    "Option",
    "Pending",
    "Renderer",
    "choose",
    "native_bf16",
    "report",
]

NAMES = ("auto", "cuda-graph", "triton", "compile", "tensorrt", "eager", "cpu")
ON_CUDA = ("cuda-graph", "triton", "eager")  # what auto tries, the best first
ON_CPU = ("cuda-graph", "triton", "cpu", "eager")
CAPABILITY = (8, 0)  # the oldest GPUs that the installed Tritons compile for

_FULL, _HALVES = ("fp32",), ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class _Way:
    """One row of the table of backends.

    Args:
        place: "cuda", "cpu" or "" for both.
        precisions: What its `precision` may be; "auto" is always allowed.
        needs: A package, and how to get it.
    """

    module: str
    cls: str
    place: str
    what: str
    precisions: tuple[str, ...]
    needs: tuple[str, str] | None = None


_TRITON = ("triton", "pip install 'stylewire[gpu]'")
_TENSORRT = ("torch_tensorrt", "pip install 'stylewire[tensorrt]'")
_WAYS = {
    "cuda-graph": _Way(
        "cuda_graph", "CudaGraph", "cuda", "fused kernels in one CUDA graph", _HALVES, _TRITON
    ),
    "triton": _Way("triton", "Triton", "cuda", "fused kernels one by one", _HALVES, _TRITON),
    "compile": _Way("compile", "Compile", "", "torch.compile of the plain forward", _FULL),
    "tensorrt": _Way("tensorrt", "TensorRt", "cuda", "a TensorRT engine", _FULL, _TENSORRT),
    "eager": _Way("eager", "Eager", "", "the plain forward", _FULL),
    "cpu": _Way("cpu", "Cpu", "cpu", "fused kernels", ("fp32", "bf16")),
}


@dataclass(frozen=True)
class Option:
    """One line of `report`."""

    name: str
    available: bool
    why: str


def report(device: str = "auto", precision: str = "auto") -> list[Option]:
    """What can run here and what cannot, for people."""
    options = []
    for name in NAMES:
        try:
            options.append(Option(name, True, choose(name, device, precision).why))
        except BackendUnavailable as error:
            options.append(Option(name, False, f"{error.why}. {error.how}"))
    return options


def choose(name: str = "auto", device: str = "auto", precision: str = "auto") -> Backend:
    """The backend to use.

    Args:
        name: One of NAMES. "auto" is the best that runs here: on CUDA the first of ON_CUDA, else of
            ON_CPU.
        device: "auto", "cpu", or a torch device such as "cuda:0".
        precision: One of PRECISIONS; what activations are stored in. "auto" is fp16 on CUDA, and on
            a CPU bf16 where it computes in it, else fp32.
    Raises:
        BackendUnavailable: It is unknown, or cannot run on this machine.
    """
    if name not in NAMES:
        raise BackendUnavailable(name, "it does not exist", f"Choose one of {', '.join(NAMES)}.")
    if precision not in PRECISIONS:
        raise BackendUnavailable(
            name, f"precision {precision!r} does not exist", f"Choose one of {PRECISIONS}."
        )
    if name != "auto":
        return _made(name, device, precision, "as asked")
    place = _device(name, device)
    passed_over: dict[str, list[str]] = {}  # reason -> those it keeps from running
    for candidate in ON_CUDA if place.type == "cuda" else ON_CPU:
        try:
            return _made(candidate, str(place), precision, _sentence(passed_over))
        except BackendUnavailable as error:
            passed_over.setdefault(error.why, []).append(candidate)
    raise BackendUnavailable(name, _sentence(passed_over), "Choose another precision or device.")


def _sentence(passed_over: dict[str, list[str]]) -> str:
    return "; ".join(f"not {' or '.join(names)}: {why}" for why, names in passed_over.items())


def _made(name: str, device: str, precision: str, reason: str) -> Backend:
    """Raises BackendUnavailable."""
    way = _WAYS[name]
    place = _device(name, device)
    _check(name, way, place, precision)
    kind, said = _precision(name, way, place, precision)
    where = torch.cuda.get_device_name(place) if place.type == "cuda" else "the CPU"
    why = f"{way.what} on {where}{said}" + (f"; {reason}" if reason else "")
    module = importlib.import_module(f"realtime.backends.{way.module}")  # on demand: they are heavy
    make = cast(Callable[..., Backend], getattr(module, way.cls))
    return make(place, why) if way.precisions is _FULL else make(place, why, kind)


def _check(name: str, way: _Way, place: torch.device, precision: str) -> None:
    """Raises BackendUnavailable: why `name` does not run here."""
    if way.place == "cuda" and place.type != "cuda":
        if torch.cuda.is_available():
            raise BackendUnavailable(
                name, "it needs CUDA, and the CPU was asked for", "Use --device cuda."
            )
        raise BackendUnavailable(
            name,
            "torch finds no CUDA device",
            "Install a CUDA build of torch on a machine with an NVIDIA GPU.",
        )
    if way.place == "cpu" and place.type != "cpu":
        raise BackendUnavailable(
            name, "it does not use CUDA", "Use --backend auto with --device cuda."
        )
    if way.needs is not None and find_spec(way.needs[0]) is None:
        raise BackendUnavailable(name, f"{way.needs[0]} is not installed", f"{way.needs[1]}.")
    if way.needs is _TRITON and (found := torch.cuda.get_device_capability(place)) < CAPABILITY:
        raise BackendUnavailable(
            name,
            f"Triton compiles for compute capability 8.0 and newer, and this GPU has "
            f"{found[0]}.{found[1]}",
            "Use --backend eager.",
        )
    if way.precisions is _FULL and place.type == "cuda" and precision != "auto":
        raise BackendUnavailable(
            name, "it keeps the model's own precision on CUDA", "Use --precision auto."
        )
    if precision != "auto" and precision not in way.precisions:
        raise BackendUnavailable(
            name,
            f"it does not store activations in {precision}",
            f"Use --precision auto or {' or '.join(way.precisions)}.",
        )


def _precision(
    name: str, way: _Way, place: torch.device, precision: str
) -> tuple[torch.dtype, str]:
    """The dtype of activations, and a word on it."""
    if way.precisions is _FULL:
        return torch.float32, ""
    if precision != "auto":
        return _DTYPES[precision], f" in {precision}"
    if place.type == "cuda":
        return torch.float16, " in fp16"
    if native_bf16():
        return torch.bfloat16, " in bf16"
    return torch.float32, " in fp32, as this CPU does not compute in bf16"


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def native_bf16() -> bool:
    """Whether this CPU multiplies bfloat16: avx512_bf16 or amx_bf16. Emulated, it loses to fp32."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # private, so it may go
    if probe is not None and probe():
        return True
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:  # not Linux: unknown, and fp32 is right everywhere
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _device(name: str, device: str) -> torch.device:
    """The torch device meant. Raises BackendUnavailable."""
    if device == "auto":
        way = _WAYS.get(name)
        cpu = way is not None and way.place == "cpu"
        return torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise BackendUnavailable(
            name, f"{device!r} is no torch device", "Use 'auto', 'cpu' or 'cuda:0'."
        ) from error
    if place.type not in ("cpu", "cuda"):
        raise BackendUnavailable(
            name, f"device {place.type!r} is not supported", "Use cpu or cuda."
        )
    if place.type == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(
            name,
            "torch finds no CUDA device",
            "Install a CUDA build of torch, or use --device cpu.",
        )
    return place
