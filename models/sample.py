"""One frame of a model as a PNG."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from models.contracts import Identity, MotionCode, System
from models.errors import BadConfig, ModelError
from models.registry import load_model, names

# The picture of a model as uint8 [S, S, 3] RGB; the last argument is S, or None for the model's.
Paint = Callable[[System, Identity, MotionCode, int | None], np.ndarray]


def plain(
    system: System, identity: Identity, motion: MotionCode, resolution: int | None
) -> np.ndarray:
    """By the plain forward on the CPU. See `Paint`."""
    picture = system.synthesizer(identity, motion)
    if resolution is not None and resolution != system.resolution:
        picture = F.interpolate(picture, (resolution, resolution), mode="bicubic", antialias=True)
    # Truncated, not rounded: the published tools make their pictures so.
    rgb = (picture[0] * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return np.repeat(rgb, 3, axis=2) if rgb.shape[2] == 1 else rgb


def draw(
    model: str | None,
    out: Path,
    seed: int,
    t: float,
    psi: float,
    resolution: int | None = None,
    motion_seed: int = 0,
    paint: Paint = plain,
) -> str:
    """Writes the frame of identity `seed` at time `t` and gives a word on what is shown.

    Args:
        model: A shipped name or a checkpoint's path, as `load_model` takes; None is the default.
        out: The PNG; its folder is made.
        seed: Who is seen.
        t: Seconds.
        psi: Truncation.
        resolution: Side of the picture, pixels; None is the model's.
        motion_seed: Of the motion; streams and recordings have 0.
        paint: Draws it.
    Raises:
        ModelError: The model cannot be loaded or the picture not be written.
        BadConfig: `t` or `psi` is not a finite number.
    """
    if not (math.isfinite(t) and math.isfinite(psi)):
        raise BadConfig(f"t is {t} and psi is {psi}; both must be finite numbers")
    if out.suffix.lower() != ".png":
        raise ModelError(f"{out} is not a .png; give a name that ends in .png")
    system = load_model(names()[0] if model is None else model)
    with torch.inference_mode():
        code = system.motion(seed=motion_seed, who=seed).sample(t)
        rgb = paint(system, system.identity(seed=seed, psi=psi), code, resolution)
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(rgb[:, :, ::-1]))
    if not done:
        raise ModelError(f"the picture of {system.name} cannot be encoded")
    _write(out, encoded.tobytes())
    return system.name if system.trained else f"{system.name}, untrained: seeded random weights"


def _write(out: Path, content: bytes) -> None:
    """The file, whole or not at all. Raises ModelError."""
    part = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            os.replace(part, out)
        except OSError:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ModelError(f"cannot write {out}: {error.strerror or error}") from error
