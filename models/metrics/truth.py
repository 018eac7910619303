"""What a frame should have looked like: the renderer's picture of the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.errors import BadConfig
from models.faces.state import FaceState
from models.faces.traits import Traits

SAMPLES = 2  # per pixel, along each side: as the data that models are trained on


@dataclass(frozen=True)
class TrueFrames:
    """T rendered frames.

    Args:
        frames: uint8 [T, 3, R, R].
        landmarks: float32 [T, 68, 2], shares of the side.
        visible: bool [T, 68].
        head: bool [T, R, R], where somebody is seen.
    """

    frames: Tensor
    landmarks: Tensor
    visible: Tensor
    head: Tensor


class Truth:
    """Renders what numbers describe. Importing the renderer and making its anatomy take seconds.

    Args:
        resolution: Side of the frames, pixels.
        facekit: The packed head model that the judged one was trained on; None is the small head.
    """

    def __init__(self, resolution: int, facekit: Path | None) -> None:
        from models.training.heads import kit  # on demand, like all of that folder
        from models.training.heads.anatomy import Anatomy
        from models.training.heads.person import make_person
        from models.training.heads.renderer import HeadRenderer

        self.resolution = resolution
        self._anatomy = Anatomy(kit.load(facekit))
        self._renderer = HeadRenderer(self._anatomy, resolution, SAMPLES)
        self._make = make_person

    def frames(self, traits: Traits, codes: npt.NDArray[np.float32]) -> TrueFrames:
        """A person at codes [T, 67].

        Raises:
            BadConfig: There are none.
        """
        if not len(codes):
            raise BadConfig("no moment to render; give one code at least")
        texture = 256 if self.resolution < 200 else 512
        who = self._make(self._anatomy, traits, texture=texture)
        drawn = [self._renderer.render(who, FaceState.from_code(code)) for code in codes]
        marks = np.stack([d.labels.landmarks for d in drawn]) / self.resolution
        return TrueFrames(
            frames=_stacked([d.rgb for d in drawn]).permute(0, 3, 1, 2).contiguous(),
            landmarks=torch.from_numpy(marks.astype(np.float32)),
            visible=_stacked([d.labels.visible for d in drawn]),
            head=_stacked([d.mask for d in drawn]) > 0,
        )


def _stacked(arrays: Sequence[npt.NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
