"""Reading, understanding and converting one file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models import checkpoint
from models.checkpoint_config import check_config
from models.checkpoint_files import read_file
from models.errors import BadCheckpoint
from models.pickle_import import networks, stand_ins
from models.pickle_import.inert import Record
from models.pickle_import.limits import Limits, quote
from models.pickle_import.nvidia import Facts, stylegan2_arguments, stylegan3_arguments
from models.pickle_import.stylegan_v import stylegan_v_arguments

# Buffers that follow from the configuration: recomputed, compared, and then the stored ones used.
DESIGNED = ("resample_filter", "up_filter", "down_filter", "time_encoder.freqs", "phase_scales")
FILTER_TOLERANCE = 1e-6
NVIDIA_LICENCE = (
    "NVIDIA's published StyleGAN weights are licensed for non-commercial use only; "
    "the licence the file came with applies to the converted weights too."
)
OTHER_LICENCE = "The file states no licence; the terms it was published under apply."
_ARGUMENTS = {
    "stylegan2": stylegan2_arguments,
    "stylegan3": stylegan3_arguments,
    "stylegan_v": stylegan_v_arguments,
}
_COMPARABLE = (type(None), bool, int, float, str, list, tuple, np.ndarray)
Progress = Callable[[str, float], None]  # what is being done, and the fraction of all that is done


@dataclass(frozen=True)
class Conversion:
    """A generator as a file describes it, not yet built.

    `modules` are the file's layers by dotted name, with what each stored about itself.
    """

    family: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    modules: Mapping[str, Record]


def read_pickle(path: Path | str, limits: Limits | None = None) -> Any:
    """The inert tree of a pickle file: plain data, `Record`s, `Tensor`s, `Array`s.

    Raises:
        BadCheckpoint: see the table in `models.checkpoint`.
    """
    limits = limits or Limits()
    return read_bytes(read_file(Path(path), limits.file_bytes), limits)


def read_bytes(data: bytes, limits: Limits) -> Any:
    """The same from bytes in hand."""
    if data[:1] != b"\x80":
        what = "a zip (.pth)" if data[:2] == b"PK" else "something else"
        if data[8:9] == b"{":
            what = "a safetensors file, which needs no conversion if its .json is beside it"
        raise BadCheckpoint(
            "CKPT_UNKNOWN_FORMAT",
            f"not a StyleGAN .pkl (a pickle of protocol 2 to 5) but {what}"
            if data
            else "the file is empty",
        )
    return stand_ins.read(data, limits)


def interpret(tree: Any, which: str, file_bytes: int, limits: Limits) -> Conversion:
    """The network `which` of a tree: family, constructor arguments, tensors.

    Args:
        file_bytes: Size of the file the tree was read from; bounds what the tensors may take.
    Raises:
        BadCheckpoint: see the table in `models.checkpoint`.
    """
    modules = networks.layers(networks.select(tree, which), limits)
    found = networks.tensors(modules, limits)
    family = family_of(found)
    config = _ARGUMENTS[family](Facts(modules, found, limits))
    check_config(family, config)
    # Stored as float16 they double, and nothing legitimate is stored twice.
    state = dict(networks.arrays(found, 2 * file_bytes))
    return Conversion(family, config, state, modules)


def family_of(found: Mapping[str, object]) -> str:
    """The family by the tensors: every class is called Generator.

    Raises:
        BadCheckpoint: CKPT_ARCH_MISMATCH.
    """
    if "synthesis.input.freqs" in found:
        return "stylegan3"
    if any(name.startswith(("synthesis.motion_encoder.", "synthesis.b4.input.")) for name in found):
        return "stylegan_v"
    if "synthesis.b4.const" in found:
        return "stylegan2"
    raise BadCheckpoint(
        "CKPT_ARCH_MISMATCH",
        "the network is neither a StyleGAN2, a StyleGAN3 nor a StyleGAN-V generator; "
        "choose the generator with --which G_ema",
    )


def convert(
    path: Path | str,
    out: Path | str,
    *,
    which: str = "G_ema",
    limits: Limits | None = None,
    progress: Progress = lambda what, done: None,
) -> Path:
    """Writes `out`.safetensors and `out`.json for one network of a foreign file.

    Returns:
        The path of the JSON.
    Raises:
        BadCheckpoint: see the table in `models.checkpoint`; then nothing was written.
    """
    path, limits = Path(path), limits or Limits()
    progress("reading", 0.0)
    data = read_file(path, limits.file_bytes)
    digest = hashlib.sha256(data).hexdigest()
    progress("checking", 0.2)
    found = interpret(read_bytes(data, limits), which, len(data), limits)
    progress("building", 0.5)
    network = verify(found)
    progress("writing", 0.7)
    meta = {
        "source": path.name[:100],
        "source_sha256": digest,
        "network": which,
        "parameters": sum(tensor.numel() for tensor in network.parameters()),
        "trained": True,
        "licence": OTHER_LICENCE if found.family == "stylegan_v" else NVIDIA_LICENCE,
    }
    written = checkpoint.save(
        out, family=found.family, config=found.config, state=found.state, meta=meta
    )
    progress("done", 1.0)
    return written


def verify(found: Conversion) -> nn.Module:
    """Our own network from the file's arguments; it must agree with all that the file says.

    Returns:
        The network with the file's tensors.
    Raises:
        BadCheckpoint: CKPT_ARCH_MISMATCH, CKPT_BAD_CONFIG.
    """
    made = checkpoint.construct(found.family, found.config, found.state)
    designed = made.state_dict()
    for name, stored in found.state.items():
        if name.endswith(DESIGNED) and not _close(stored, designed[name]):
            raise BadCheckpoint(
                "CKPT_ARCH_MISMATCH",
                f"the filter {quote(name)} differs from the one its arguments give",
            )
    ours = dict(made.named_modules(remove_duplicate=False))
    for name, record in found.modules.items():
        if name not in ours:
            raise BadCheckpoint(
                "CKPT_ARCH_MISMATCH", f"the network of its arguments has no layer {quote(name)}"
            )
        _check_attributes(name, record, ours[name])
    made.load_state_dict(found.state, strict=True)
    return made


def _close(stored: Tensor, designed: Tensor) -> bool:
    return bool(torch.allclose(stored, designed, rtol=FILTER_TOLERANCE, atol=FILTER_TOLERANCE))


def _check_attributes(name: str, record: Record, made: nn.Module) -> None:
    """What a layer stored about itself must be what ours has, wherever both say it."""
    assert type(record.state) is dict
    for key, value in record.state.items():
        if type(key) is not str or key.startswith("_") or key == "training":
            continue
        if key not in made.__dict__ or not isinstance(made.__dict__[key], _COMPARABLE):
            continue
        theirs, ours = networks.plain(value), made.__dict__[key]
        if (theirs is None and value is not None) or _same(theirs, ours):
            continue
        raise BadCheckpoint(
            "CKPT_ARCH_MISMATCH",
            f"{quote(name)} was written with {quote(key)} {str(theirs)[:40]!r}; the network its "
            f"arguments give has {str(ours)[:40]!r}",
        )


def _same(theirs: Any, ours: Any) -> bool:
    """Equal, numbers within the tolerance; one number stands for a list of equal ones."""
    if theirs is None or ours is None or isinstance(theirs, str) or isinstance(ours, str):
        return bool(type(theirs) is type(ours) and theirs == ours)
    if isinstance(theirs, list) or not isinstance(ours, int | float):
        ours = [ours] if isinstance(ours, int | float) else list(ours)
        theirs = theirs if isinstance(theirs, list) else [theirs]
        length = max(len(ours), len(theirs))
        ours = ours * length if len(ours) == 1 else ours
        theirs = theirs * length if len(theirs) == 1 else theirs
        return len(ours) == len(theirs) and all(map(_same, theirs, ours))
    return math.isclose(theirs, ours, rel_tol=FILTER_TOLERANCE)
