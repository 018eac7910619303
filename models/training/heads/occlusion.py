"""How much of the surroundings each point sees, baked once per person from depth maps all round.

A value baked on the mean head would miss the shade under a fringe, which is what seats hair on a
face.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.training.heads.deform import normals
from models.training.heads.hair_grow import POINTS
from models.training.heads.jit import kernel
from models.training.heads.raster.project import frame_of, project_parallel
from models.training.heads.raster.strands import strands_depth
from models.training.heads.raster.triangles import triangles

if TYPE_CHECKING:
    from models.training.heads.anatomy import Anatomy

F32 = npt.NDArray[np.float32]
_DIRECTIONS = 40
_MAP = 160  # texels along a depth map's edge
_WIDTH = 42.0  # cm that it shows
_CENTRE = np.array([0.0, -2.0, 0.0], np.float32)


@kernel()
def _see_skin(nrm, forward, sx, sy, iz, depth, hair, total, seen):
    size, weight = depth.shape[0], 0.75 + 0.25 * forward[1]
    for i in range(nrm.shape[0]):
        facing = nrm[i, 0] * forward[0] + nrm[i, 1] * forward[1] + nrm[i, 2] * forward[2]
        if facing <= 0:
            continue
        x, y = min(max(int(sx[i]), 0), size - 1), min(max(int(sy[i]), 0), size - 1)
        light = min(max(1.6 - (depth[y, x] - iz[i] - 0.12) * 4.0, 0.0), 1.0)
        if hair[y, x] > iz[i] + 0.25:
            light *= 0.35  # hair lets some of it through
        total[i] += facing * weight
        seen[i] += facing * weight * light


@kernel()
def _see_hair(weight, sx, sy, iz, depth, hair, seen):
    size = depth.shape[0]
    for i in range(seen.shape[0]):
        x, y = min(max(int(sx[i]), 0), size - 1), min(max(int(sy[i]), 0), size - 1)
        light = min(max(1.5 - (depth[y, x] - iz[i] - 0.15) * 3.0, 0.0), 1.0)
        behind = min(max(hair[y, x] - iz[i] - 0.2, 0.0), 10.0)
        seen[i] += weight * light * np.exp(-behind * 0.9)


def bake(anatomy: Anatomy, rest: F32, hair: F32) -> tuple[F32, F32]:
    """Ambient occlusion of the head's vertices [n] and of the hair's [m], 0 (none seen) to about 1.

    Args:
        rest: [n, 3]; hair: [m, 3] vertices of strands, on the same head.
    """
    nrm = np.zeros((len(rest), 3), np.float32)
    normals(anatomy.tri, rest, nrm)
    total, seen = np.zeros(len(rest), np.float32), np.zeros(len(rest), np.float32)
    hair_seen, hair_total = np.zeros(len(hair), np.float32), 1e-6
    buffers = [np.zeros(len(rest), np.float32) for _ in range(3)]
    hair_buffers = [np.zeros(len(hair), np.float32) for _ in range(3)]
    closed, no_ids = anatomy.tri[: anatomy.tri_closed], np.zeros((1, 1), np.int32)
    scale, size = np.float32(_MAP / _WIDTH), np.float32(_MAP)
    for direction in _directions():
        right, up, forward = frame_of(direction)
        project_parallel(rest, right, up, forward, _CENTRE, scale, size, *buffers)
        depth = np.full((_MAP, _MAP), -1e3, np.float32)
        triangles(closed, *buffers, depth, no_ids, False)
        over = np.full((_MAP, _MAP), -1e3, np.float32)
        if len(hair):
            project_parallel(hair, right, up, forward, _CENTRE, scale, size, *hair_buffers)
            strands_depth(POINTS, *hair_buffers, over, 2)
            weight = 0.6 + 0.4 * float(forward[1])
            _see_hair(weight, *hair_buffers, depth, over, hair_seen)
            hair_total += weight
        _see_skin(nrm, forward, *buffers, depth, over, total, seen)
    return seen / np.maximum(total, 1e-3), hair_seen / np.float32(hair_total / 1.9)


def _directions() -> npt.NDArray[np.float64]:
    k = np.arange(_DIRECTIONS) + 0.5
    phi, z = np.pi * (1 + 5**0.5) * k, 1 - 2 * k / _DIRECTIONS
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(phi), z, flat * np.sin(phi)], 1)
