"""Clips of a system as evaluation wants them: uint8, at times given in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from models.contracts import Identity, MotionCode, System

BATCH = 8  # pictures drawn at once; more gains little on a CPU


def to_bytes(pictures: Tensor) -> Tensor:
    """[-1, 1] to uint8, truncated: the published evaluation's rounding."""
    return (pictures * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def clip(
    system: System,
    times_s: Sequence[float],
    *,
    seed: int,
    motion_seed: int | None = None,
    psi: float = 1.0,
) -> Tensor:
    """One person moving.

    Args:
        times_s: Of the frames, seconds.
        seed: Who is seen.
        motion_seed: How they move; None: `seed`.
        psi: Truncation.
    Returns:
        uint8 [T, 3, R, R].
    """
    return torch.cat(list(pieces(system, times_s, seed=seed, motion_seed=motion_seed, psi=psi)))


def pieces(
    system: System,
    times_s: Sequence[float],
    *,
    seed: int,
    motion_seed: int | None = None,
    psi: float = 1.0,
) -> Iterator[Tensor]:
    """`clip` in runs of at most `BATCH` frames, for clips that are too long to keep."""
    moves = seed if motion_seed is None else motion_seed
    with torch.inference_mode():
        who = system.identity(seed=seed, psi=psi)
        motion = system.motion(seed=moves, who=seed)
    for first in range(0, len(times_s), BATCH):
        with torch.inference_mode():
            codes = [motion.sample(float(t)) for t in times_s[first : first + BATCH]]
            drawn = to_bytes(system.synthesizer(_repeated(who, len(codes)), _joined(codes)))
        yield drawn.expand(-1, 3, -1, -1) if drawn.shape[1] == 1 else drawn


def _repeated(who: Identity, count: int) -> Identity:
    return Identity(
        {key: x.expand(count, *x.shape[1:]).contiguous() for key, x in who.tensors.items()}
    )


def _joined(codes: Sequence[MotionCode]) -> MotionCode:
    names = codes[0].tensors
    return MotionCode(
        {key: torch.cat([c.tensors[key] for c in codes]) for key in names}, codes[0].t
    )
