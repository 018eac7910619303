"""The project's checkpoints: `NAME.safetensors` with the weights, `NAME.json` with everything else.

The only format the runtime loads. The JSON names the family, the generator's constructor arguments
and the SHA-256 of the tensor file; nothing in either file is code or a path. Foreign files are
converted once (`stylewire convert FILE`), see `models/pickle_import`.

Refusals are `BadCheckpoint`s with one of these codes. (P: only while converting a pickle.)

    CKPT_NOT_FOUND              no such file
    CKPT_UNKNOWN_FORMAT         neither our format nor, on conversion, a pickle of protocol 2 to 5
    CKPT_NEEDS_CONVERSION       a pickle given to the runtime
    CKPT_TOO_BIG                more bytes than allowed, in the file or once unpacked
    CKPT_TRUNCATED              ends too early
    CKPT_LENGTH_LIE             announces more bytes than there are
    CKPT_CORRUPT                cannot be read, or holds what this format never holds
    CKPT_TOO_DEEP               containers nested beyond any published file
    CKPT_TOO_MANY_OBJECTS       P, likewise CKPT_TOO_MANY_TENSORS and CKPT_TOO_MANY_GLOBALS
    CKPT_FORBIDDEN_GLOBAL       P, names a function or class that is not on the list
    CKPT_PERSISTENT_ID          P, CKPT_EXT: pickle features these files never use
    CKPT_SHAPE_EXCEEDS_STORAGE  a tensor that its bytes do not hold, or that overlaps itself
    CKPT_DUPLICATE_KEY          a key twice in a JSON table
    CKPT_HASH_MISMATCH          the tensor file is not the one the JSON was written for
    CKPT_UNKNOWN_FAMILY         a family without a network here
    CKPT_BAD_CONFIG             a constructor argument that is unknown, missing or out of range
    CKPT_ARCH_MISMATCH          tensors missing, left over, of another shape or element type;
                                filters that differ
    CKPT_NONFINITE              NaN or infinity among the weights
    CKPT_TIMEOUT, CKPT_MEMORY   P, the conversion reached its limit and was stopped
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from models.checkpoint_config import check_config, most_elements
from models.checkpoint_files import check_header, parse_json, read_file
from models.errors import BadCheckpoint, BadConfig

FORMAT = "stylewire-checkpoint"
VERSION = 1
MAX_BYTES = 8 << 30  # of the tensor file
MAX_JSON_BYTES = 1 << 20
STORED = ("float32", "float16")  # how a tensor file may store float32 weights
MOST_HALF = 6e4  # magnitude; float16 ends at 65504
# A network that may have more numbers than this, or than so many times those of its tensors, is
# first made without memory. For others torch's machinery for that costs more: 1 s once.
OUTLINE_FROM = 1 << 24
OUTLINE_TIMES = 4
GENERATORS = {  # family -> module with its `Generator`
    "stylegan2": "models.backbones.stylegan2",
    "stylegan3": "models.backbones.stylegan3",
    "stylegan_v": "models.stylegan_v.networks",
}


@dataclass(frozen=True)
class Checkpoint:
    """A generator's weights and how to construct it.

    Args:
        family: "stylegan2", "stylegan3" or "stylegan_v".
        config: Constructor arguments of the family's Generator.
        state: Name -> tensor on the CPU.
        meta: What a person or a system wants to know: licence, source hash, fps, trained.
    """

    family: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    meta: Mapping[str, Any]


def stem(path: Path | str) -> Path:
    """The common part of a checkpoint's two paths, from either of them or from itself."""
    path = Path(path)
    return path.with_suffix("") if path.suffix in (".safetensors", ".json") else path


def _pair(path: Path | str) -> tuple[Path, Path]:
    base = stem(path)
    return base.with_name(base.name + ".safetensors"), base.with_name(base.name + ".json")


def save(
    path: Path | str,
    *,
    family: str,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    meta: Mapping[str, Any] | None = None,
    half: Collection[str] = (),
) -> Path:
    """Writes both files beside each other, each whole or not at all, and gives the JSON's path.

    Args:
        path: Folder and name; a suffix `.json` or `.safetensors` is ignored.
        meta: Anything JSON can hold.
        half: Names of float32 tensors to store in half precision; they are float32 again when
            loaded. For weights alone: frequencies and filters need all of their digits.

    Raises:
        BadCheckpoint: What would not load again.
    """
    check_config(family, config)
    check_finite(state)
    state = {**state, **{key: _halved(key, state) for key in half}}
    tensors_path, json_path = _pair(path)
    blob = tensor_bytes(state)
    about = {
        "format": FORMAT,
        "format_version": VERSION,
        "family": family,
        "config": dict(config),
        "tensors": {
            "sha256": hashlib.sha256(blob).hexdigest(),
            "bytes": len(blob),
            **({"stored": "float16"} if half else {}),
        },
        "meta": dict(meta or {}),
    }
    text = json.dumps(about, indent=2, allow_nan=False) + "\n"
    if len(text.encode()) > MAX_JSON_BYTES:
        raise BadCheckpoint(
            "CKPT_TOO_BIG", f"meta makes a JSON of {len(text)} bytes; 1 MiB is allowed"
        )
    json_path.parent.mkdir(parents=True, exist_ok=True)
    # The JSON comes last: until it is in place its hash refuses the new tensors, never mixes them.
    with _replacing(tensors_path, blob) as put_tensors, _replacing(json_path, text.encode()) as put:
        put_tensors()
        put()
    return json_path


def _halved(key: str, state: Mapping[str, Tensor]) -> Tensor:
    tensor = state.get(key)
    if tensor is None or tensor.dtype != torch.float32:
        raise BadCheckpoint(
            "CKPT_ARCH_MISMATCH", f"{ascii(key[:60])} is no float32 tensor to be stored as float16"
        )
    largest = float(tensor.abs().max()) if tensor.numel() else 0.0
    if largest > MOST_HALF:
        raise BadCheckpoint(
            "CKPT_NONFINITE", f"tensor {ascii(key[:60])} reaches {largest:g}; float16 ends at 65504"
        )
    return tensor.half()


@contextmanager
def _replacing(path: Path, content: bytes) -> Iterator[Callable[[], None]]:
    """Writes `content` beside `path`; calling the result moves it there. Leaves nothing else."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        yield lambda: os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def load(path: Path | str, *, max_bytes: int = MAX_BYTES) -> Checkpoint:
    """Reads and checks a checkpoint from either of its paths or their common stem.

    Raises:
        BadCheckpoint: see the table above.
    """
    given = Path(path)
    if given.is_file() and given.suffix not in (".json", ".safetensors"):
        _check_kind(read_file(given, max_bytes, first=16), given)
    tensors_path, json_path = _pair(given)
    about = _read_about(json_path)
    blob = read_file(tensors_path, max_bytes)
    _check_kind(blob, tensors_path)
    digest = hashlib.sha256(blob).hexdigest()
    wanted = about["tensors"].get("sha256")
    if digest != wanted:
        raise BadCheckpoint(
            "CKPT_HASH_MISMATCH",
            f"{tensors_path.name} has SHA-256 {digest}, {json_path.name} names "
            f"{str(wanted)[:64]!r}; copy both files again from the same place",
        )
    state = read_tensors(blob)
    if about["tensors"].get("stored") == "float16":
        state = {k: x.float() if x.dtype == torch.float16 else x for k, x in state.items()}
    return Checkpoint(about["family"], about["config"], state, about["meta"])


def tensor_bytes(state: Mapping[str, Tensor]) -> bytes:
    """A safetensors file of tensors, which `read_tensors` reads; equal ones give equal bytes."""
    # Clones, since safetensors refuses tensors that share memory.
    plain = {key: state[key].detach().cpu().contiguous().clone() for key in sorted(state)}
    return safetensors.torch.save(plain)


def read_tensors(blob: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file, its header and numbers checked.

    Raises:
        BadCheckpoint: see the table above.
    """
    check_header(blob)
    try:
        state: dict[str, Tensor] = safetensors.torch.load(blob)
    except safetensors.SafetensorError as error:
        raise BadCheckpoint("CKPT_CORRUPT", f"the tensor file: {ascii(str(error)[:80])}") from error
    check_finite(state)
    return state


def _check_kind(head: bytes, path: Path) -> None:
    """Refuses, by its first bytes, what is not safetensors: names may lie."""
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise BadCheckpoint(
            "CKPT_NEEDS_CONVERSION",
            f"{path.name} is a pickle and can contain code. Convert once: stylewire convert {path}",
        )
    if head[:2] == b"PK" or head[8:9] not in (b"{", b""):
        raise BadCheckpoint(
            "CKPT_UNKNOWN_FORMAT",
            f"{path.name} is not a checkpoint this engine knows; expected .safetensors with its "
            ".json, or a StyleGAN .pkl to convert",
        )


def _read_about(path: Path) -> dict[str, Any]:
    """The JSON file, every field of the right type."""
    about = parse_json(read_file(path, MAX_JSON_BYTES), path.name)
    if about.get("format") != FORMAT or about.get("format_version") != VERSION:
        raise BadCheckpoint(
            "CKPT_UNKNOWN_FORMAT", f"{path.name} is not a {FORMAT} of version {VERSION}"
        )
    fields = {"format", "format_version", "family", "config", "tensors", "meta"}
    if set(about) != fields:
        odd = sorted(set(about) ^ fields)[:5]
        raise BadCheckpoint(
            "CKPT_CORRUPT", f"{path.name}: unknown or missing fields {str(odd)[:80]}"
        )
    if not all(isinstance(about[field], dict) for field in ("config", "tensors", "meta")):
        raise BadCheckpoint("CKPT_CORRUPT", f"{path.name}: config, tensors and meta must be tables")
    stored = about["tensors"].get("stored", "float32")
    if stored not in STORED:
        raise BadCheckpoint(
            "CKPT_CORRUPT",
            f"{path.name}: tensors are stored as {ascii(str(stored)[:40])}; known are "
            + ", ".join(STORED),
        )
    check_config(about["family"], about["config"])
    return about


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Raises BadCheckpoint (CKPT_NONFINITE) with the first tensor that holds NaN or infinity."""
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BadCheckpoint("CKPT_NONFINITE", f"tensor {ascii(key[:60])} holds NaN or infinity")


def build(checkpoint: Checkpoint) -> nn.Module:
    """The family's Generator with the checkpoint's weights, in evaluation mode, without gradients.

    Raises:
        BadCheckpoint: CKPT_UNKNOWN_FAMILY, CKPT_BAD_CONFIG, CKPT_ARCH_MISMATCH.
    """
    module = construct(checkpoint.family, checkpoint.config, checkpoint.state)
    module.load_state_dict(dict(checkpoint.state), strict=True)
    return module.eval().requires_grad_(False)


def construct(family: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """The family's Generator as it is made, checked to take exactly the tensors of `state`.

    What may be large is first made without memory: a config that asks for more than the file holds
    is refused before anything of that size exists. The global random state is left as it was.

    Raises:
        BadCheckpoint: CKPT_UNKNOWN_FAMILY, CKPT_BAD_CONFIG, CKPT_ARCH_MISMATCH.
    """
    check_config(family, config)
    generator = importlib.import_module(GENERATORS[family]).Generator
    with torch.random.fork_rng(devices=[]):
        stored = sum(tensor.numel() for tensor in state.values())
        try:
            if most_elements(family, config) > OUTLINE_FROM + OUTLINE_TIMES * stored:
                with torch.device("meta"):
                    check_layout(generator(**config).state_dict(), state)
            made: nn.Module = generator(**config)
        except (BadConfig, ValueError) as error:
            raise BadCheckpoint(
                "CKPT_BAD_CONFIG", f"the {family} generator refuses its config: {str(error)[:200]}"
            ) from error
    check_layout(made.state_dict(), state)
    return made


def check_layout(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raises BadCheckpoint (CKPT_ARCH_MISMATCH) unless names, shapes and element types agree."""
    missing = [key for key in wanted if key not in found]
    extra = [key for key in found if key not in wanted]
    shapes = [
        f"{key} {list(found[key].shape)} instead of {list(wanted[key].shape)}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    # `load_state_dict` would convert silently: a double of 1e300 to infinity, a bool to a weight.
    types = [
        f"{key} {_type(found[key])} instead of {_type(wanted[key])}"
        for key in wanted
        if key in found and found[key].dtype != wanted[key].dtype
    ]
    for what, names in (
        ("missing", missing),
        ("not known", extra),
        ("of another shape", shapes),
        ("of another element type", types),
    ):
        if names:
            first = ", ".join(ascii(name[:100])[1:-1] for name in names[:5])
            raise BadCheckpoint(
                "CKPT_ARCH_MISMATCH",
                f"{len(names)} tensors are {what}: {first}. The config describes another network "
                "than the one the tensors belong to; convert the original file again",
            )


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
