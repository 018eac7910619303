"""A synthesizer as one graph of plain operators on plain tensors: what compilers take.

`torch.export` runs the network's Python once and keeps what it did to tensors. Nothing else is left
in the graph: no dictionary of codes, no choice of implementation, no device to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from kernels_triton import implementation
from models.contracts import Identity, MotionCode, Synthesizer

Codes = tuple[Identity, MotionCode]
ALLOWED = 0.02  # error of a compiled picture, rms over rms: rounding of half floats stays below


class Flat(nn.Module):
    """A synthesizer as a function of tensors: the identity's in the order of their names, then the
    motion's.

    Args:
        codes: Whose names it takes.
    """

    def __init__(self, synthesizer: Synthesizer, codes: Codes) -> None:
        super().__init__()
        self.synthesizer = synthesizer
        self._names = tuple(tuple(sorted(code.tensors)) for code in codes)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Pictures [N, C, R, R]."""
        who, how = self._names
        return self.synthesizer(
            Identity(dict(zip(who, tensors[: len(who)], strict=True))),
            MotionCode(dict(zip(how, tensors[len(who) :], strict=True)), 0.0),
        )


def flat(codes: Codes) -> tuple[Tensor, ...]:
    """The tensors of codes in the order in which `Flat` takes them."""
    return tuple(code.tensors[name] for code in codes for name in sorted(code.tensors))


def example(synthesizer: Synthesizer, device: torch.device) -> Codes:
    """Codes of the shapes of every session, on `device`, of ordinary size: not zeros, at which
    errors hide.

    Raises:
        NotImplementedError: The synthesizer does not tell the shapes.
    """
    random = torch.Generator().manual_seed(0)

    def drawn(zeros: Tensor) -> Tensor:
        return torch.randn(zeros.shape, generator=random).to(device, zeros.dtype)

    identity, motion = synthesizer.example()
    return (
        Identity({name: drawn(zeros) for name, zeros in identity.tensors.items()}),
        MotionCode({name: drawn(zeros) for name, zeros in motion.tensors.items()}, 0.0),
    )


def export(
    synthesizer: Synthesizer, identity: Identity, motion: MotionCode, way: str = "reference"
) -> ExportedProgram:
    """The graph of one picture. Takes seconds, runs nothing on the device.

    Args:
        synthesizer: In evaluation mode, where it will be drawn; the program shares its weights.
        identity, motion: Examples of the shapes, on the same device; see `flat` for their order.
        way: Which implementation of the ops goes into it: "reference", the definition in the
            fewest kinds of operators, or "torch", rearranged for speed.
    """
    codes = (identity, motion)
    with torch.no_grad(), implementation(way):
        return torch.export.export(Flat(synthesizer, codes), flat(codes), strict=False)


def of_codes(
    function: Callable[..., Any], codes: Codes
) -> Callable[[Identity, MotionCode], Tensor]:
    """A function of plain tensors as one of codes. Shapes are checked here: a compiled function
    would read beyond their ends.

    Args:
        function: Takes tensors as `flat` gives them; returns the pictures, alone or first in a
            sequence.
        codes: The shapes it was made for.
    """
    wanted = [tuple(tensor.shape) for tensor in flat(codes)]

    def forward(identity: Identity, motion: MotionCode) -> Tensor:
        tensors = flat((identity, motion))
        found = [tuple(tensor.shape) for tensor in tensors]
        if found != wanted:
            raise ValueError(f"codes have the shapes {found}; this model was compiled for {wanted}")
        image = function(*(tensor.contiguous() for tensor in tensors))
        return image if isinstance(image, Tensor) else image[0]

    return forward


@torch.inference_mode()
def check(
    forward: Callable[[Identity, MotionCode], Tensor], synthesizer: Synthesizer, codes: Codes
) -> None:
    """Draws twice: compiles what is compiled at the first call, and proves the second one.

    Raises:
        ArithmeticError: The picture is not the plain forward's.
    """
    forward(*codes)
    found, wanted = forward(*codes).float(), synthesizer(*codes).float()
    error = float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())
    if not error <= ALLOWED:  # NaN is not either
        raise ArithmeticError(
            f"its picture differs from the plain forward's by {error:.2g} of its strength"
        )
