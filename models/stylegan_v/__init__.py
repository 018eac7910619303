"""StyleGAN-V: A Continuous Video Generator with the Price, Image Quality and Perks of StyleGAN2.
Skorokhodov, Tulyakov, Elhoseiny, CVPR 2022, https://arxiv.org/abs/2112.14683

A frame is a pure function of content w, a few motion noise codes around its time, and the time
itself. Codes are smoothed, give waves their frequency and phase, and the waves enter StyleGAN2's
4x4 input; nothing else moves. So frames are independent of each other, and time is continuous.

`networks.py` has what is trained; `motion.py` plays its motion for ever, from any time, in constant
memory; `system.py` joins the two for the engine.
"""

from __future__ import annotations

from models import checkpoint as checkpoints
from models.checkpoint import Checkpoint
from models.stylegan_v.networks import Generator
from models.stylegan_v.system import FrameSynthesizer, System

__all__ = ["FrameSynthesizer", "System", "build"]


def build(checkpoint: Checkpoint, *, name: str | None = None) -> System:
    """The system of a checkpoint.

    Args:
        checkpoint: Of family "stylegan_v". Its `meta` may name `trained` and `fps`.
        name: As it is shown; the family's if left out.
    Raises:
        BadCheckpoint: The tensors do not fit the configuration.
        BadConfig: `fps` is not positive.
    """
    generator = checkpoints.build(checkpoint)
    assert isinstance(generator, Generator)  # the registry sends this family here
    return System(
        name or checkpoint.family,
        generator,
        trained=checkpoint.meta.get("trained") is not False,
        fps=checkpoint.meta.get("fps"),
    )
