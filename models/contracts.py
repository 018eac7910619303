"""What every method offers: who is seen (Identity), how they move at time t (MotionCode), pixels.

Shapes are fixed for the life of a session, so that one captured graph can serve every frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from models.errors import CannotFuse

if TYPE_CHECKING:
    from models.fused import Packed


@dataclass(frozen=True)
class Identity:
    """What stays for a session: w, W+, appearance or reference features; psi applied."""

    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class MotionCode:
    """What makes this frame differ from the next one of the same identity. `t` in seconds."""

    tensors: Mapping[str, Tensor]
    t: float


class MotionSource(Protocol):
    """Motion as a function of time: O(1) memory, any order of times, negative ones too."""

    def sample(self, t: float) -> MotionCode: ...


class Driver(Protocol):
    """Turns captured frames into motion codes."""

    def encode(self, rgb: Tensor) -> MotionCode: ...  # uint8 [3, H, W]


class Synthesizer(nn.Module):
    """Codes to image."""

    def forward(self, identity: Identity, motion: MotionCode) -> Tensor:
        """Image [N, 3, H, W], RGB, nominally in [-1, 1]."""
        raise NotImplementedError

    def example(self) -> tuple[Identity, MotionCode]:
        """Codes of one picture, zeros in the shapes of every session: for who compiles a network
        before there is a session.

        Raises:
            NotImplementedError: This synthesizer does not tell.
        """
        raise NotImplementedError(f"{type(self).__name__} does not tell the shapes of its codes")

    def pack(self, device: torch.device, dtype: torch.dtype) -> Packed:
        """The same for inference alone, see `models.fused.pack`; a synthesizer offers it if its
        network can.

        Raises:
            CannotFuse: It cannot, and why.
        """
        raise CannotFuse(f"{type(self).__name__} has no packed form; run it as it is")


@runtime_checkable
class System(Protocol):
    """One published method, or a generator with a walk, ready to be sampled."""

    name: str
    resolution: int  # side of the square picture, pixels
    synthesizer: Synthesizer
    trained: bool  # False: seeded random weights, and whoever shows the picture says so

    def identity(self, *, seed: int, psi: float = 1.0) -> Identity: ...

    def blend(self, a: Identity, b: Identity, amount: float) -> Identity:
        """From `a` (amount 0) to `b` (amount 1): a change of seed is a movement, not a cut."""
        ...

    def motion(self, *, seed: int, who: int | None = None) -> MotionSource:
        """Motion of its own `seed`, for any identity. `who` is the identity's seed: a model with
        classes moves within that one's class (without it, within that of `seed`).

        Raises NotGenerative where the method has no motion of its own.
        """
        ...
