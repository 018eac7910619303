"""A beard as short strands that ride on the skin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.faces.traits import Traits
from models.training.heads.deform import smoothstep
from models.training.heads.hair_grow import scatter, unit
from models.training.heads.noise import Use, draws
from models.training.heads.skin_atlas import beard_mask

if TYPE_CHECKING:
    from models.training.heads.anatomy import Anatomy

F32 = npt.NDArray[np.float32]
POINTS = 4  # vertices of a strand
_STRANDS = 3600


@dataclass(frozen=True)
class Beard:
    """Args:
    root: [M] vertices that the strands are bound to.
    offset: [M, POINTS, 3] from those, cm, before the head is turned.
    tone: [M] brightness; width: share of a full strand's.
    """

    root: npt.NDArray[np.int64]
    offset: F32
    tone: F32
    width: float


def _density(p: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Of roots; denser above the lips, where strands are short and would show the skin."""
    moustache = smoothstep(-3.4, -2.8, p[:, 1]) * smoothstep(4.0, 3.0, np.abs(p[:, 0]))
    return np.asarray(beard_mask(p) ** 2 * (1 + 1.5 * moustache) + 1e-9)


def beard_of(anatomy: Anatomy, traits: Traits) -> Beard | None:
    """A person's beard, if it has one; the stubble under it is painted on the skin.

    Without that stubble strands look like a cactus. The roots are the same for everybody.
    """
    if traits["beard"] <= 0:
        return None
    rng = draws(Use.BEARD)
    p, normal, root = scatter(anatomy, _density, _STRANDS, rng)
    sideways = np.stack([p[:, 0] / 24, 0 * p[:, 0], 0 * p[:, 0]], 1)
    hang = normal * 0.55 + [0, -1.0, 0.25] + sideways + rng.normal(0, 0.22, (_STRANDS, 3))
    moustache = smoothstep(-2.0, -4.6, p[:, 1]) * 0.6 + 0.4  # shorter above the lips
    length = traits["beard"] * rng.uniform(0.6, 1.1, _STRANDS) * moustache
    s = np.linspace(0, 1, POINTS)[None, :, None]
    strands = (unit(hang)[:, None] + np.array([0, -0.35, -0.1]) * s) * s * length[:, None, None]
    offset = strands + (p - anatomy.mean[root])[:, None]
    tone = 1 + rng.normal(0, 0.15, _STRANDS)
    return Beard(
        root.astype(np.int64),
        offset.astype(np.float32),
        tone.astype(np.float32),
        float(smoothstep(0, 0.25, traits["beard"])),
    )
