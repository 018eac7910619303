"""A coarser mesh for shadow maps: most of a head's triangles are smaller than their texels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.training.heads.anatomy import Anatomy

I32 = npt.NDArray[np.int32]


def coarse_triangles(anatomy: Anatomy, cell: float) -> I32:
    """Triangles [T, 3] of skin, eyes and shirt whose corners are every so many vertices.

    Vertices in the same cube of the mean head are taken for the one that is nearest to their
    middle; so the mesh follows every expression and pose that the vertices follow.

    Args:
        cell: Edge of a cube, cm.
    """
    tri, material = anatomy.tri[: anatomy.tri_closed], anatomy.mat[: anatomy.tri_closed]
    kind = np.zeros(anatomy.n, np.int64)  # a cube of one part must not swallow another's vertices
    for m in np.unique(material):
        kind[np.unique(tri[material == m])] = m + 1
    cube = np.floor(anatomy.mean / cell).astype(np.int64) + 512
    key = ((kind << 10 | cube[:, 0]) << 10 | cube[:, 1]) << 10 | cube[:, 2]
    _, group, count = np.unique(key, return_inverse=True, return_counts=True)
    middle = np.zeros((len(count), 3))
    np.add.at(middle, group, anatomy.mean)
    away = np.linalg.norm(anatomy.mean - (middle / count[:, None])[group], axis=1)
    order = np.lexsort((away, group))
    first = np.concatenate([[True], group[order][1:] != group[order][:-1]])
    corner = order[first][group[tri]]
    whole = (corner != np.roll(corner, 1, axis=1)).all(1)
    return np.unique(np.ascontiguousarray(corner[whole], np.int32), axis=0)
