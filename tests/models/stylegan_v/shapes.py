"""People made of coloured discs: pictures that are a simple function of the numbers of a person and
of a face, so that fitting can be tested in seconds and without a renderer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.faces.prior import Prior, person
from models.faces.state import FaceState
from models.faces.tracks import Track, TrackStyle
from models.training.contracts import ClipBatch, ClipRequest, DataInfo

MASK = {"background": 0, "skin": 1, "cloth": 6}


class Discs:
    """A `ClipSource`. A head's colour, size and backdrop are its person's, its place its pose's.

    Args:
        size: Of a frame, pixels.
        people: How many; video v is person v on track v.
    """

    def __init__(self, size: int = 16, people: int = 4) -> None:
        lengths = np.full(people, 250, np.int64)
        self.info = DataInfo("discs", size, 25.0, lengths=lengths)

    def clips(self, requests: Sequence[ClipRequest]) -> ClipBatch:
        made = [self._clip(request) for request in requests]
        frames, masks, codes, traits = (np.stack(parts) for parts in zip(*made, strict=True))
        extra = {"traits": traits, "code": codes, "mask": masks}
        return ClipBatch(
            torch.from_numpy(frames),
            torch.tensor([request.times for request in requests], dtype=torch.float64),
            torch.zeros(len(requests), 0),
            {name: torch.from_numpy(value) for name, value in extra.items()},
        )

    def _clip(self, request: ClipRequest) -> tuple[np.ndarray, ...]:
        who = person(request.video, Prior.NARROW)
        codes = Track(request.video, TrackStyle()).codes(np.array(request.times) / 25.0)
        drawn = [self._frame(who, FaceState.from_code(code)) for code in codes]
        frames, masks = (np.stack(parts) for parts in zip(*drawn, strict=True))
        return frames, masks, codes, who.vector

    def _frame(self, who, state: FaceState) -> tuple[np.ndarray, np.ndarray]:
        size = self.info.resolution
        y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
        yaw, pitch, _ = state.pose
        inside = (x - yaw / 60) ** 2 + (y + pitch / 40) ** 2 < 0.3
        skin = 0.9 - 0.12 * who["tone"]
        colours = np.array([[who["backdrop_a_l"], 0.3, 0.5], [skin, 0.8 * skin, 0.7 * skin]])
        colours[1, 0] *= 1 - 0.5 * state.expression[26]
        frame = colours[inside.astype(int)].transpose(2, 0, 1)
        return (frame * 255).round().clip(0, 255).astype(np.uint8), inside.astype(np.uint8)

    def close(self) -> None:
        pass
