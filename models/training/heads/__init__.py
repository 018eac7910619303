"""Rendered heads: people drawn from `models.faces`, with exact labels.

Everything here is imported on demand, inside functions, by whoever is outside this folder: it needs
numba, and its kernels compile at their first call.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from models.faces.state import FaceState
from models.faces.traits import Traits

if TYPE_CHECKING:
    from models.training.heads.anatomy import Anatomy
    from models.training.heads.camera import Camera
    from models.training.heads.person import Person
    from models.training.heads.renderer import HeadRenderer, Rendered


def render(
    traits: Traits,
    state: FaceState,
    *,
    size: int = 256,
    samples: int = 2,
    camera: Camera | None = None,
    facekit: Path | None = None,
) -> Rendered:
    """One frame: a picture, a mask and labels. For a stream of frames use `renderer.HeadRenderer`.

    What can be used again (the kit, buffers of a size, the last people) is kept; so only one thread
    at a time.

    Args:
        size: Pixels along an edge. samples: along a pixel's edge.
        facekit: The packed head model; without it, the small head.
    Raises:
        BadKit: The facekit is refused.
        BadConfig: An argument is out of range.
    """
    from models.training.heads.camera import Camera

    who = _person(facekit, traits.vector.tobytes())
    return _renderer(facekit, size, samples).render(who, state, camera or Camera())


@functools.lru_cache(maxsize=2)
def _anatomy(facekit: Path | None) -> Anatomy:
    from models.training.heads.anatomy import Anatomy
    from models.training.heads.kit import load

    return Anatomy(load(facekit))


@functools.lru_cache(maxsize=4)
def _renderer(facekit: Path | None, size: int, samples: int) -> HeadRenderer:
    from models.training.heads.renderer import HeadRenderer

    return HeadRenderer(_anatomy(facekit), size, samples)


@functools.lru_cache(maxsize=16)
def _person(facekit: Path | None, vector: bytes) -> Person:
    import numpy as np

    from models.training.heads.person import make_person

    return make_person(_anatomy(facekit), Traits(np.frombuffer(vector, np.float32)))
