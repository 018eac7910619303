"""StyleGAN2 and StyleGAN3 as systems: the published generator draws, a walk in W moves.

The identity is a seed's w, truncated; motion adds to it a smooth random curve (`models/walk.py`)
that never ends, can be entered at any time and takes constant memory. Nothing of this is in the
papers, which are about still images; the pictures at a standstill are theirs.
"""

from __future__ import annotations

from models import checkpoint as checkpoints
from models.checkpoint import Checkpoint
from models.stylegan.system import System, WalkSynthesizer

__all__ = ["System", "WalkSynthesizer", "build"]


def build(checkpoint: Checkpoint, *, name: str | None = None) -> System:
    """The system of a checkpoint.

    Args:
        checkpoint: Of family "stylegan2" or "stylegan3". Its `meta` may name `trained`,
            `walk_speed`, `walk_radius` and `walk_loop`.
        name: As it is shown; the family's if left out.
    Raises:
        BadCheckpoint: The tensors do not fit the configuration.
        BadConfig: A setting of the walk is out of range.
    """
    settings = {
        key: checkpoint.meta[key]
        for key in ("walk_speed", "walk_radius", "walk_loop")
        if key in checkpoint.meta
    }
    return System(
        name or checkpoint.family,
        checkpoints.build(checkpoint),
        trained=checkpoint.meta.get("trained") is not False,
        **settings,
    )
