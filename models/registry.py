"""Which systems there are, and a system from a name or a file.

The map is explicit and its modules are imported on first use: knowing of a system costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, cast

from models.contracts import System
from models.errors import BadConfig, ModelError

if TYPE_CHECKING:
    import torch

    from models.checkpoint import Checkpoint
    from models.training.config import TrainConfig
    from models.training.contracts import DataInfo, Trainer

SYSTEMS: dict[str, str] = {  # family of a checkpoint -> module with `build(checkpoint, name=)`
    "stylegan2": "models.stylegan",
    "stylegan3": "models.stylegan",
    "stylegan_v": "models.stylegan_v",
}

# System of a training run -> module with `build(config, info, device)`.
TRAINERS: dict[str, str] = {
    "stylegan_v": "models.stylegan_v.training",
    "stylegan_v_fit": "models.stylegan_v.fit",
    "observer": "models.metrics.observer_training",
}


def names() -> list[str]:
    """The shipped models, the default first."""
    from models import shipped  # on demand: it knows every network

    return list(shipped.MODELS)


def load_model(name_or_path: str) -> System:
    """A system, ready to be sampled.

    Args:
        name_or_path: One of `names()`, or "default" for the first of them; or a checkpoint:
            `NAME.safetensors`, `NAME.json` or their common stem. A shipped name wins over a file of
            that name; write `./NAME` for the file.
    Raises:
        ModelError: Neither a shipped model nor a file; the message names the shipped ones.
        BadCheckpoint: The file is refused.
        BadConfig: It asks for something impossible.
    """
    from models import checkpoint, shipped

    load = shipped.MODELS.get(shipped.DEFAULT if name_or_path == "default" else name_or_path)
    if load is not None:
        return load()
    stem = checkpoint.stem(name_or_path)
    # What looks like a path is reported as one that cannot be read; a bare word as a wrong name.
    written_as_path = os.sep in name_or_path or str(stem) != name_or_path
    if not written_as_path and not any(
        os.path.exists(f"{stem}{suffix}") for suffix in ("", ".json", ".safetensors")
    ):
        known = ", ".join(names()) or "none"
        raise ModelError(
            f"no model is called {name_or_path!r}; shipped are {known}; or give the path of a"
            " converted checkpoint (stylewire convert FILE.pkl)"
        )
    return build(checkpoint.load(name_or_path), name=stem.name)


def build(checkpoint: Checkpoint, *, name: str | None = None) -> System:
    """The system of a checkpoint.

    Raises:
        BadConfig: No system is registered for its family; the message names those that are.
        BadCheckpoint: The tensors do not fit the configuration.
    """
    module = SYSTEMS.get(checkpoint.family)
    if module is None:
        raise BadConfig(
            f"family {checkpoint.family!r} has no system here; known are {', '.join(SYSTEMS)}"
        )
    return cast(System, importlib.import_module(module).build(checkpoint, name=name))


def build_trainer(config: TrainConfig, info: DataInfo, device: torch.device) -> Trainer:
    """What trains the system of a run: fresh networks, made from the run's seed.

    Args:
        info: Of the data it will learn from.
    Raises:
        BadConfig: Nothing trains this system here, or it refuses its tables.
    """
    module = TRAINERS.get(config.system)
    if module is None:
        raise BadConfig(f"nothing trains {config.system!r}; known are {', '.join(TRAINERS)}")
    return cast("Trainer", importlib.import_module(module).build(config, info, device))
