"""All that a run must know to go on bit for bit, as a pair of files.

    state-00001200.safetensors    net/G/...  ema/G/...  opt/G/PARAMETER/exp_avg ...  aux/...
    state-00001200.json           step, configuration, hash of the tensors, what computed them

Each is written beside its place, flushed to the disk and renamed, the JSON last: a pair whose JSON
is there and whose hash fits is whole, whatever happened meanwhile. Older pairs go only when a newer
one has been read back. Randomness needs no state, see `draws`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from models.checkpoint import MAX_BYTES, check_finite, read_tensors
from models.checkpoint_files import parse_json, read_file
from models.errors import BadCheckpoint
from models.training.contracts import Trainer

FORMAT, VERSION = "stylewire-run", 1
_CODES = {  # of the safetensors format
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
        step: Training steps taken.
        images: Frames seen.
        seconds: Spent training, over all its sittings.
    """

    step: int = 0
    images: int = 0
    seconds: float = 0.0


def collect(trainer: Trainer) -> dict[str, Tensor]:
    """Every tensor of a run by name; views, not copies."""
    found: dict[str, Tensor] = {}
    for kind, networks in (("net", trainer.networks), ("ema", trainer.averages)):
        for name, network in networks.items():
            for key, tensor in network.state_dict().items():
                found[f"{kind}/{name}/{key}"] = tensor
    for name, optimizer in trainer.optimizers.items():
        for key, parameter in trainer.networks[name].named_parameters():
            # A parameter that never had a gradient has no moments, and gets none.
            for part, value in optimizer.state.get(parameter, {}).items():
                found[f"opt/{name}/{key}/{part}"] = torch.as_tensor(value)
    found |= {f"aux/{key}": tensor for key, tensor in trainer.aux_state().items()}
    return found


@torch.no_grad()
def restore(trainer: Trainer, found: Mapping[str, Tensor]) -> None:
    """Puts what `collect` gave into a trainer of the same configuration.

    Raises:
        BadCheckpoint: CKPT_ARCH_MISMATCH, names or shapes differ.
    """
    parts = _by_prefix(found)
    for kind, networks in (("net", trainer.networks), ("ema", trainer.averages)):
        for name, network in networks.items():
            try:
                network.load_state_dict(parts.pop(f"{kind}/{name}", {}), strict=True)
            except RuntimeError as error:
                raise BadCheckpoint(
                    "CKPT_ARCH_MISMATCH", f"{kind}/{name} of the state: {str(error)[:300]}"
                ) from error
    for name, optimizer in trainer.optimizers.items():
        _restore_moments(name, optimizer, trainer.networks[name], parts.pop(f"opt/{name}", {}))
    trainer.load_aux_state(parts.pop("aux", {}))
    if parts:
        raise BadCheckpoint("CKPT_ARCH_MISMATCH", f"the state has an unknown {min(parts)!r}")


def _restore_moments(
    name: str,
    optimizer: torch.optim.Optimizer,
    network: nn.Module,
    found: Mapping[str, Tensor],
) -> None:
    """`PARAMETER/exp_avg` and so on into an optimiser."""
    moments: dict[str, dict[str, Tensor]] = {}
    for full, value in found.items():
        key, _, part = full.rpartition("/")
        moments.setdefault(key, {})[part] = value
    optimizer.state.clear()
    for key, parameter in network.named_parameters():
        if key in moments:
            # Adam's count of steps stays on the CPU, where the optimiser made it.
            optimizer.state[parameter] = {
                part: value.clone() if value.ndim == 0 else value.to(parameter.device).clone()
                for part, value in moments.pop(key).items()
            }
    if moments:
        raise BadCheckpoint(
            "CKPT_ARCH_MISMATCH", f"opt/{name} of the state knows no parameter {min(moments)!r}"
        )


def _by_prefix(found: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """`net/G/key` to {"net/G": {"key": ...}}; `aux/key` to {"aux": {"key": ...}}."""
    parts: dict[str, dict[str, Tensor]] = {}
    for full, tensor in found.items():
        cut = 1 if full.startswith("aux/") else 2
        words = full.split("/", cut)
        parts.setdefault("/".join(words[:cut]), {})[words[-1]] = tensor
    return parts


def save(
    folder: Path, trainer: Trainer, progress: Progress, about: Mapping[str, Any], *, keep: int = 2
) -> Path:
    """Writes a pair, reads it back, and removes all but the `keep` newest.

    Args:
        about: Configuration and whatever else belongs into the JSON.
    Returns:
        The JSON's path.
    Raises:
        BadCheckpoint: CKPT_NONFINITE, the run has diverged; nothing is written then.
        OSError: The disk is full, or another trouble; nothing half-written stays.
    """
    state = collect(trainer)
    check_finite(state)
    name = f"state-{progress.step:08d}"
    tensors, text = folder / f"{name}.safetensors", folder / f"{name}.json"
    _remove_halves(folder)
    digest, size = _write(tensors, lambda file: _write_tensors(file, state))
    content = {
        "format": FORMAT,
        "version": VERSION,
        "step": progress.step,
        "images": progress.images,
        "seconds": progress.seconds,
        "tensors": {"sha256": digest, "bytes": size},
        **about,
    }
    encoded = (json.dumps(content, indent=1) + "\n").encode()
    _write(text, lambda file: _Hashed(file).write(encoded))
    if _digest(tensors) != digest:
        text.unlink(missing_ok=True)
        raise OSError(f"{tensors} does not read back as it was written; check the disk")
    for old in _pairs(folder)[keep:]:
        old.unlink(missing_ok=True)  # the JSON first: a half pair is no pair
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    return text


def load(folder: Path) -> tuple[Progress, dict[str, Any], dict[str, Tensor]] | None:
    """The newest whole pair: progress, the JSON, the tensors. None where there is no pair.

    Raises:
        BadCheckpoint: There are pairs, and none of them is whole; the newest one's fault.
    """
    first: BadCheckpoint | None = None
    for path in _pairs(folder):
        try:
            about = parse_json(read_file(path, 1 << 20), path.name)
            if (about.get("format"), about.get("version")) != (FORMAT, VERSION):
                raise BadCheckpoint(
                    "CKPT_UNKNOWN_FORMAT", f"{path.name} is not a {FORMAT} of version {VERSION}"
                )
            blob = read_file(path.with_suffix(".safetensors"), MAX_BYTES)
            if hashlib.sha256(blob).hexdigest() != about["tensors"]["sha256"]:
                raise BadCheckpoint("CKPT_HASH_MISMATCH", f"the tensors of {path.name} are others")
            progress = Progress(int(about["step"]), int(about["images"]), float(about["seconds"]))
            return progress, about, read_tensors(blob)
        except (KeyError, TypeError, ValueError) as error:
            first = first or BadCheckpoint("CKPT_CORRUPT", f"{path.name} lacks {error}")
        except BadCheckpoint as error:
            first = first or error
    if first:
        raise first
    return None


def _pairs(folder: Path) -> list[Path]:
    """JSON files of states, the newest first."""
    found = [p for p in folder.glob("state-*.json") if re.fullmatch(r"state-\d{8,}", p.stem)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("state-")), reverse=True)


def _remove_halves(folder: Path) -> None:
    """What an interrupted save left."""
    whole = {path.stem for path in _pairs(folder)}
    for path in folder.glob("state-*.safetensors"):
        if path.stem not in whole:
            path.unlink(missing_ok=True)
    for path in folder.glob(".state-*.part"):
        path.unlink(missing_ok=True)


class _Hashed:
    """A file that knows the hash and length of what went into it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, content: bytes) -> _Hashed:
        self._file.write(content)
        self._hash.update(content)
        self.size += len(content)
        return self

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _write(path: Path, put: Any) -> tuple[str, int]:
    """A file in its place, whole or not at all; its hash and length."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            done: _Hashed = put(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return done.digest, done.size


def _write_tensors(file: BinaryIO, state: Mapping[str, Tensor]) -> _Hashed:
    """A safetensors file, tensor after tensor: large states are never in memory twice."""
    header: dict[str, Any] = {}
    at = 0
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))  # aligned
    for name in names:
        tensor = state[name]
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out = _Hashed(file).write(len(text).to_bytes(8, "little")).write(text)
    for name in names:
        flat = state[name].detach().cpu().contiguous().reshape(-1)
        if flat.numel():  # a view of bytes: numpy knows no bfloat16
            out.write(flat.view(torch.uint8).numpy().tobytes())
    return out


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
