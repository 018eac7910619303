"""What every way of drawing has in common: submit pictures, then wait for them.

Two phases, because a GPU draws while its CPU does something else: `submit` hands the work over,
`Pending.wait` finishes it into the caller's memory. A renderer without a device of its own does
all of it in `submit`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from models.contracts import Identity, MotionCode, Synthesizer
from realtime.errors import RealtimeError

BATCHES = (1, 2, 4, 8)  # how many pictures a GPU is asked for at once


class FrameBroken(RealtimeError):
    """The model drew something that is no picture; the last good one should be shown again."""


NOT_FINITE = "the model drew NaN or infinity; the last good picture stays."


@dataclass(frozen=True)
class Drawing:
    """One picture to be drawn.

    Args:
        identity: Who.
        motion: How they move now.
        out: uint8 [S*3//2, S], I420, BT.601 limited; the picture is resampled to S x S. Of a broken
            picture, what is in it afterwards is arbitrary.
    """

    identity: Identity
    motion: MotionCode
    out: np.ndarray


class Pending(Protocol):
    """Pictures on their way."""

    def wait(self) -> list[FrameBroken | None]:
        """Finish every picture into its `out`. Called once, by any one thread.

        Returns:
            In the order submitted: None, or why this one is broken.
        """
        ...


@dataclass(frozen=True)
class Done:
    """Pictures that were finished in `submit`."""

    broken: list[FrameBroken | None]

    def wait(self) -> list[FrameBroken | None]:
        return self.broken


class Renderer(ABC):
    """Draws for one synthesizer. `submit` and `picture` are called by one thread, the render
    thread's or before it the loader's; `warm` also beside it.

    Args:
        backend: Which backend draws, after any fall-back.
        why: This one and no other, in a sentence.
    """

    # Whether `wait` has something to wait for: then another thread does the waiting.
    asynchronous = False

    def __init__(self, backend: str, why: str) -> None:
        self.backend = backend
        self.why = why

    def batches(self, size: int) -> tuple[int, ...]:
        """How many pictures of `size` may be submitted together, ascending, beginning with 1."""
        return (1,)

    def ready(self, size: int) -> bool:
        """Whether pictures of `size` can be drawn without a pause for preparation."""
        return True

    def warm(self, size: int) -> None:
        """Make `ready(size)` true. May take seconds; runs beside a stream."""
        return

    @abstractmethod
    def submit(self, items: Sequence[Drawing]) -> Pending:
        """Begin to draw.

        Args:
            items: As many as `batches` allows, all of one size. Their arrays are written until
                `wait` has returned.
        """

    @abstractmethod
    def picture(self, identity: Identity, motion: MotionCode, size: int) -> np.ndarray:
        """The picture as uint8 [size, size, 3] RGB, for thumbnails.

        Raises:
            FrameBroken: It holds NaN or infinity.
        """

    def render(self, identity: Identity, motion: MotionCode, out: np.ndarray) -> None:
        """Draw one picture and wait for it.

        Raises:
            FrameBroken: It holds NaN or infinity.
        """
        (broken,) = self.submit([Drawing(identity, motion, out)]).wait()
        if broken is not None:
            raise broken


class Backend(Protocol):
    """One way of running synthesizers."""

    name: str
    device: torch.device
    why: str  # this one and no other, in a sentence

    def prepare(
        self, synthesizer: Synthesizer, check: Callable[[], None] = lambda: None
    ) -> Renderer:
        """Place the synthesizer on the device and be ready to render. May take minutes.

        A synthesizer that this backend cannot run is drawn by the eager one, which is logged and
        said in the renderer's `backend` and `why`.

        Args:
            check: Called between the stages, and every tenth of a second while another process is
                waited for; what it raises ends the work, that process with it, and is raised.
        """
        ...


def on(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the current one, where Triton launches whatever memory it is given."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def settle(device: torch.device) -> None:
    """Wait for what was launched on the current stream."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def levels(image: np.ndarray) -> np.ndarray:
    """float in [-1, 1], clamped, to the uint8 that people look at; any shape."""
    return np.rint((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)
