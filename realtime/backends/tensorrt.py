"""TensorRT: an engine built from the exported reference network by torch_tensorrt, kept on disk.

Building takes minutes, so engines are kept in the user's cache under a key of everything that goes
into them: graph, weights, settings, versions, GPU. An engine file is run as it is read, so its
folder must be the user's alone, and a file that is not what was written is built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from models.contracts import Synthesizer
from realtime.backends import exported
from realtime.backends.eager import EagerRenderer, fall_back, outline
from realtime.backends.exported import export
from realtime.errors import BackendUnavailable

__all__ = ["Engines", "TensorRt", "cache_folder", "cache_key", "export"]

PACKAGE = "torch_tensorrt"
# Of torch_tensorrt.dynamo.compile: the network's own precisions, as eager draws it.
SETTINGS: Mapping[str, Any] = {"use_explicit_typing": True, "truncate_double": True}
MOST_KEPT = 16  # engines; the oldest go first
PART = ".part-"  # of the folder in which files are written
PART_S = 3600.0  # writing takes seconds: an older one is of a process that was ended meanwhile
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
log = logging.getLogger(__name__)


class TensorRt:
    """See `realtime.backends.Backend`. Precision is the model's own.

    Raises:
        BackendUnavailable: torch_tensorrt is not installed, or the device is no GPU.
    """

    name = "tensorrt"

    def __init__(self, device: torch.device, why: str) -> None:
        if device.type != "cuda":
            raise BackendUnavailable(
                self.name, f"TensorRT draws on NVIDIA GPUs, not on {device}", "Use --device cuda."
            )
        if find_spec(PACKAGE) is None:
            raise BackendUnavailable(
                self.name, f"{PACKAGE} is not installed", "pip install 'stylewire[tensorrt]'."
            )
        self.device = device
        self.why = why

    def prepare(
        self, synthesizer: Synthesizer, check: Callable[[], None] = lambda: None
    ) -> EagerRenderer:
        """Builds the engine or finds it; minutes or seconds."""
        placed = synthesizer.eval().requires_grad_(False).to(self.device)
        try:
            codes = exported.example(placed, self.device)
        except NotImplementedError as error:
            return fall_back(placed, self.device, self.name, str(error))
        check()
        try:
            program = export(placed, *codes)
            engine = Engines(cache_folder()).engine(program, exported.flat(codes), self.device)
            forward = exported.of_codes(engine, codes)
            exported.check(forward, placed, codes)
        except Exception as error:  # TensorRT's errors are of any type
            log.exception("no TensorRT engine")
            reason = f"there is no engine ({outline(error)})"
            return fall_back(placed, self.device, self.name, reason)
        return EagerRenderer(forward, self.device, self.name, self.why)


class Engines:
    """Builds engines, and keeps them.

    Args:
        folder: The user's alone; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._package: Any = importlib.import_module(PACKAGE)

    def engine(
        self, program: ExportedProgram, inputs: tuple[Tensor, ...], device: torch.device
    ) -> Callable[..., Any]:
        """The program as an engine: found, or built and stored.

        Args:
            inputs: Examples of what it takes, on `device`.
        """
        if self._folder is None:
            return self._build(program, inputs, device)
        path = self._folder / f"{cache_key(program, inputs, _about(device))}.pt2"
        if path.exists():
            try:
                return self._load(path)
            except Exception as error:  # whatever a damaged file makes of its reader
                log.warning("engine %s is damaged (%s): it is built again", path.name, error)
        engine = self._build(program, inputs, device)
        try:
            self._store(engine, inputs, path)
        except Exception:  # drawing matters more than the next start
            log.exception("the engine could not be stored in %s; the next start builds it", path)
        return engine

    def _build(
        self, program: ExportedProgram, inputs: tuple[Tensor, ...], device: torch.device
    ) -> Callable[..., Any]:
        log.warning("building a TensorRT engine, which takes minutes")
        return self._package.dynamo.compile(
            program, arg_inputs=list(inputs), device=device, **SETTINGS
        )

    def _load(self, path: Path) -> Callable[..., Any]:
        """Raises ValueError for a file that is not what was stored."""
        stored = json.loads(path.with_suffix(".json").read_text())
        if _digest(path) != stored["sha256"]:
            raise ValueError("its bytes have changed")
        loaded = self._package.load(str(path))
        return loaded.module() if isinstance(loaded, ExportedProgram) else loaded

    def _store(self, engine: Callable[..., Any], inputs: tuple[Tensor, ...], path: Path) -> None:
        """Both files whole or not at all; the digest comes last and makes them valid."""
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=PART) as folder:
            _remove_left_behind(Path(folder))
            part = Path(folder, path.name)
            self._package.save(
                engine, str(part), output_format="exported_program", arg_inputs=list(inputs)
            )
            about = part.with_suffix(".json")
            about.write_text(json.dumps({"sha256": _digest(part)}) + "\n")
            path.with_suffix(".json").unlink(missing_ok=True)
            os.replace(part, path)
            os.replace(about, path.with_suffix(".json"))
        engines = sorted(path.parent.glob("*.pt2"), key=lambda file: file.stat().st_mtime)
        for old in engines[:-MOST_KEPT]:
            old.with_suffix(".json").unlink(missing_ok=True)
            old.unlink(missing_ok=True)


def _remove_left_behind(new: Path) -> None:
    """A process that is ended at once, as a closing one may be, removes no temporary folder.

    Args:
        new: One just made, whose stamp is now by the clock of its disk.
    """
    now = new.stat().st_mtime
    for part in new.parent.glob(f"{PART}*"):
        with contextlib.suppress(OSError):  # somebody else has just removed it
            if now - part.stat().st_mtime > PART_S:
                shutil.rmtree(part, ignore_errors=True)


def cache_key(
    program: ExportedProgram, inputs: tuple[Tensor, ...], about: Mapping[str, Any]
) -> str:
    """SHA-256 in hex over all that an engine depends on.

    Args:
        program: Its operators and constants are the network's configuration; then its weights.
        inputs: Their shapes and types, resolution and batch with them, count.
        about: Settings, versions, GPU; whatever JSON can hold.
    """
    tensors: dict[str, Tensor] = {**program.state_dict, **program.constants}
    config = {
        "graph": str(program.graph),
        "inputs": [_kind(tensor) for tensor in inputs],
        "weights": {name: _kind(tensors[name]) for name in sorted(tensors)},
        "about": dict(about),
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _kind(tensor: Tensor) -> list[Any]:
    return [str(tensor.dtype), list(tensor.shape)]


def _about(device: torch.device) -> dict[str, Any]:
    """What an engine depends on beside the program: settings, versions, GPU."""
    about: dict[str, Any] = {"settings": dict(SETTINGS), "device": device.type}
    for package in ("torch", "torch-tensorrt", "tensorrt"):
        try:
            about[package] = version(package)
        except PackageNotFoundError:  # installed under another name, or as part of another
            about[package] = None
    if device.type == "cuda":
        about["gpu"] = torch.cuda.get_device_name(device)
        about["capability"] = list(torch.cuda.get_device_capability(device))
    return about


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path | None:
    """`stylewire/engines` in the user's cache (`XDG_CACHE_HOME`), the user's alone; None, and a
    warning, where that cannot be had.
    """
    base = os.environ.get("XDG_CACHE_HOME") or ""
    ours = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "stylewire"
    try:
        for made in (ours, ours / "engines"):
            made.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = (ours / "engines").resolve()  # a link changed later leads nobody elsewhere
        if _user() == ours.stat().st_uid:  # what else is cached there may have come first
            ours.chmod(ours.stat().st_mode & ~OTHERS_WRITE)
        _check_alone(folder)
    except OSError as error:
        log.warning("no TensorRT engine is kept: %s", error)
        return None
    return folder


# The threat: loading an engine runs what is in its file, so whoever can put a file there, or a
# folder in the place of this one, acts as this user at the next start. A folder can be replaced by
# those who may write to the one above it, and so on up to the root; where the sticky bit is set, as
# on /tmp, only by its owner.
def _check_alone(folder: Path) -> None:
    """Raises PermissionError: somebody beside the user and root could put an engine there."""
    user = _user()
    if user is None:
        return
    for place in (folder, *folder.parents):
        about = place.stat()
        if about.st_uid != user and (place == folder or about.st_uid != 0):
            raise PermissionError(f"{place} belongs to somebody else")
        sticky = place != folder and about.st_mode & stat.S_ISVTX
        if about.st_mode & OTHERS_WRITE and not sticky:
            raise PermissionError(
                f"others may write to {place}; if it is yours: chmod go-w {place}"
            )


def _user() -> int | None:
    """None where files have no owners that can be compared."""
    return os.getuid() if hasattr(os, "getuid") else None
