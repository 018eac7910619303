"""The observer: a small network that reads faces, trained on the renderer's exact labels.

It says whether a picture holds a head, where its landmarks are and which of them can be seen, its
pose, gaze and expression, and who it is. It judges generators (`models.metrics.faces`), and its
first stages serve as a perceptual loss. It has seen rendered heads only: of photographs it knows
nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checkpoint import check_finite, check_layout, read_tensors
from models.checkpoint_files import check_header, read_file
from models.errors import BadCheckpoint
from models.faces.state import EXPRESSIONS
from models.faces.traits import COUNT

SIDE = 96  # pixels that it looks at
LANDMARKS = 68
EMBEDDING = 64
WEIGHTS = Path(__file__).parents[1] / "weights" / "observer.safetensors"
_CHANNELS = (16, 32, 48, 64, 96)  # of its stages; each halves the picture
_SUMMARY = 192
_MAX_BYTES = 16 << 20
# What the summary is read out into, and how many numbers each takes.
_READ_OUT = {
    "presence": 1,
    "landmarks": 2 * LANDMARKS,
    "visible": LANDMARKS,
    "pose": 3,
    "gaze": 2,
    "expression": len(EXPRESSIONS),
    "embedding": EMBEDDING,
}


class Observation(NamedTuple):
    """What it reads in N pictures.

    Args:
        presence: [N] logit of there being a head.
        landmarks: [N, 68, 2] x and y as shares of the picture's side, Multi-PIE order.
        visible: [N, 68] logits.
        pose: [N, 3] yaw, pitch and roll over 60 degrees, as in a face's code.
        gaze: [N, 2] over 30 degrees.
        expression: [N, 53] weights.
        embedding: [N, 64] who it is.
        traits: [N, 107] standardised numbers of that person.
    """

    presence: Tensor
    landmarks: Tensor
    visible: Tensor
    pose: Tensor
    gaze: Tensor
    expression: Tensor
    embedding: Tensor
    traits: Tensor


class _Stage(nn.Module):
    """Half the size, then a second convolution beside a way around it."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inner, outer, 3, stride=2, padding=1)
        self.same = nn.Conv2d(outer, outer, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.down(x), 0.1)
        return F.leaky_relu(x + self.same(x), 0.1)


class Observer(nn.Module):
    """See this file's head. Half a million numbers."""

    def __init__(self) -> None:
        super().__init__()
        inner = (3, *_CHANNELS[:-1])
        self.stages = nn.ModuleList(_Stage(a, b) for a, b in zip(inner, _CHANNELS, strict=True))
        left = SIDE >> len(_CHANNELS)
        self.summary = nn.Linear(_CHANNELS[-1] * left * left, _SUMMARY)
        self.heads = nn.ModuleDict({k: nn.Linear(_SUMMARY, n) for k, n in _READ_OUT.items()})
        self.who = nn.Linear(EMBEDDING, COUNT)

    def forward(self, pictures: Tensor) -> Observation:
        """Reads pictures [N, 3, 96, 96] in [-1, 1]."""
        x = self.features(pictures, len(_CHANNELS))[-1]  # [N, 96, 3, 3]
        x = F.leaky_relu(self.summary(x.flatten(1)), 0.1)
        read = {name: head(x) for name, head in self.heads.items()}
        return Observation(
            presence=read["presence"][:, 0],
            landmarks=read["landmarks"].view(-1, LANDMARKS, 2) + 0.5,
            visible=read["visible"],
            pose=read["pose"],
            gaze=read["gaze"],
            expression=read["expression"],
            embedding=read["embedding"],
            traits=self.who(F.leaky_relu(read["embedding"], 0.1)),
        )

    def features(self, pictures: Tensor, stages: int = 3) -> list[Tensor]:
        """What its first stages give, for a perceptual loss. Pictures [N, 3, H, W] in [-1, 1]."""
        found: list[Tensor] = []
        x = pictures
        for stage in self.stages[:stages]:
            x = stage(x)
            found.append(x)
        return found


def prepared(frames: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] of any size to what `Observer.forward` takes."""
    x = frames.float()
    if x.shape[-2:] != (SIDE, SIDE):
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return x / 127.5 - 1


@torch.inference_mode()
def observe(observer: Observer, frames: Tensor, *, at_once: int = 64) -> Observation:
    """What it reads in uint8 frames [N, 3, H, W]."""
    parts = [observer(prepared(part)) for part in frames.split(at_once)]
    return Observation(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def load(path: Path | None = None) -> Observer:
    """The shipped observer, or one of a file; in evaluation mode, without gradients.

    Raises:
        BadCheckpoint: There is none, or the file is damaged or of another network.
    """
    if path is None and not WEIGHTS.is_file():
        raise BadCheckpoint(
            "CKPT_NOT_FOUND",
            "no observer comes with this copy; name its weights (--observer FILE), which"
            " `stylewire train observer` makes",
        )
    path = path or WEIGHTS
    blob = read_file(path, _MAX_BYTES)
    check_header(blob)
    state = {key: x.float() for key, x in read_tensors(blob).items()}
    check_finite(state)
    observer = Observer()
    try:
        check_layout(observer.state_dict(), state)
    except BadCheckpoint as error:
        raise BadCheckpoint(error.code, f"{path.name} is no observer: {error}") from error
    observer.load_state_dict(state)
    return observer.eval().requires_grad_(False)
