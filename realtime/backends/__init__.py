"""How a synthesizer is run on this machine, and why it is run that way.

A backend turns a synthesizer into a renderer; a renderer draws codes into an I420 slot. `choose`
names what was taken and why nothing faster was; a backend that does not run here is never offered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from models.contracts import Identity, MotionCode, Synthesizer
from realtime.errors import BackendUnavailable, RealtimeError

NAMES = ("auto", "cpu")


class FrameBroken(RealtimeError):
    """The model drew something that is no picture; the last good one should be shown again."""


class Renderer(Protocol):
    """Draws for one synthesizer. Used by the render thread only."""

    def render(self, identity: Identity, motion: MotionCode, out: np.ndarray) -> None:
        """Draw one picture.

        Args:
            identity: Who.
            motion: How they move now.
            out: uint8 [S*3//2, S], I420, BT.601 limited; the picture is resampled to S x S.
        Raises:
            FrameBroken: The picture holds NaN or infinity; `out` is untouched.
        """
        ...

    def picture(self, identity: Identity, motion: MotionCode, size: int) -> np.ndarray:
        """The picture as uint8 [size, size, 3] RGB, for thumbnails.

        Raises:
            FrameBroken: As `render`.
        """
        ...


class Backend(Protocol):
    """One way of running synthesizers."""

    name: str
    device: torch.device
    why: str  # this one and no other, in a sentence

    def prepare(self, synthesizer: Synthesizer) -> Renderer:
        """Place the synthesizer on the device and be ready to render. May take seconds."""
        ...


@dataclass(frozen=True)
class Option:
    """One line of `report`."""

    name: str
    available: bool
    why: str


def report(device: str = "auto") -> list[Option]:
    """What can run here and what cannot, for people."""
    options = []
    for name in NAMES:
        try:
            options.append(Option(name, True, choose(name, device).why))
        except BackendUnavailable as error:
            options.append(Option(name, False, f"{error.why}. {error.how}"))
    return options


def choose(name: str = "auto", device: str = "auto") -> Backend:
    """The backend to use.

    Args:
        name: One of NAMES.
        device: "auto", "cpu", or a torch device such as "cuda:0".
    Raises:
        BackendUnavailable: It is unknown, or cannot run on this machine.
    """
    if name not in NAMES:
        raise BackendUnavailable(name, "it does not exist", f"Choose one of {', '.join(NAMES)}.")
    place, reason = _device(name, device)
    from realtime.backends.eager import Eager  # on demand: importing this package stays cheap

    chosen = "eager forward" if name == "cpu" else "eager forward, the only way there is so far"
    return Eager(place, f"{chosen}; {reason}")


def _device(name: str, device: str) -> tuple[torch.device, str]:
    """The torch device meant, and why."""
    if device == "auto":
        if name == "auto" and torch.cuda.is_available():
            return torch.device("cuda"), f"on {torch.cuda.get_device_name()}"
        reason = (
            "asked for the CPU" if name == "cpu" else "on the CPU, as torch finds no CUDA device"
        )
        return torch.device("cpu"), reason
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise BackendUnavailable(
            name, f"{device!r} is no torch device", "Use 'auto', 'cpu' or 'cuda:0'."
        ) from error
    if place.type == "cuda" and name == "cpu":
        raise BackendUnavailable(
            name, "it does not use CUDA", "Use --backend auto with --device cuda."
        )
    if place.type == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(
            name,
            "torch finds no CUDA device",
            "Install a CUDA build of torch, or use --device cpu.",
        )
    if place.type not in ("cpu", "cuda"):
        raise BackendUnavailable(
            name, f"device {place.type!r} is not supported", "Use cpu or cuda."
        )
    return place, f"on {place}, as asked"
