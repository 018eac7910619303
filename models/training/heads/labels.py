"""What is known about a rendered frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.faces.state import FaceState
from models.training.heads.anatomy import Anatomy
from models.training.heads.camera import Camera
from models.training.heads.person import Person
from models.training.heads.posing import Posed
from models.training.heads.raster.triangles import STRAND
from models.training.heads.shade.pixel import SKIN

F32 = npt.NDArray[np.float32]
_BEHIND_CM = 0.6  # the nearest surface, from where on a landmark counts as covered


@dataclass(frozen=True, eq=False)
class Labels:
    """Args:
    traits: [107]. pose: [3], gaze: [2] degrees. expression: [53] weights as drawn.
    landmarks: [68, 2] pixels, x to the right and y down, pixel centres at .5.
    visible: [68]; inside the picture and behind nothing.
    light: [39] of `lights.Light.vector`. camera: [2] field of view in degrees, zoom.
    """

    traits: F32
    pose: F32
    gaze: F32
    expression: F32
    landmarks: F32
    visible: npt.NDArray[np.bool_]
    light: F32
    camera: F32

    def behind(self, visible: npt.NDArray[np.bool_]) -> Labels:
        """The same with other visible landmarks."""
        return replace(self, visible=visible)


class Samples(NamedTuple):
    """What was drawn, [S * samples, S * samples] each.

    Args:
        depth: 1 / depth, with strands. mesh_depth: without.
        ids: Triangle, EMPTY or STRAND. tags: class of the strand.
        samples: Along a pixel's edge.
    """

    depth: F32
    mesh_depth: F32
    ids: npt.NDArray[np.int32]
    tags: npt.NDArray[np.uint8]
    samples: int


def labels_of(
    anatomy: Anatomy,
    person: Person,
    state: FaceState,
    posed: Posed,
    camera: Camera,
    drawn: Samples,
) -> Labels:
    """The labels of a frame."""
    edge = len(drawn.depth)
    size = edge // drawn.samples
    at, near = camera.project(posed.world[anatomy.landmarks], size, person.fit)
    inside = ((at >= 0) & (at < size)).all(1)
    x, y = np.clip((at * drawn.samples).astype(int), 0, edge - 1).T
    # Hair covers a face, lashes and beard are part of it: no lid is hidden behind its own lashes.
    own = (drawn.ids[y, x] == STRAND) & (drawn.tags[y, x] == SKIN)
    surface = np.where(own, drawn.mesh_depth[y, x], drawn.depth[y, x])
    covered = 1 / near - 1 / np.maximum(surface, 1e-6) >= _BEHIND_CM
    return Labels(
        person.traits.vector,
        np.array(state.pose, np.float32),
        np.array(state.gaze, np.float32),
        posed.expression,
        at.astype(np.float32),
        inside & ~covered,
        person.light.vector,
        camera.vector(),
    )
