"""Cameras and the maps of lights: where points fall and how near they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.training.heads.jit import kernel

F32 = npt.NDArray[np.float32]


@kernel()
def project(v, cx, cy, focal, dist, sx, sy, iz):
    """Pinhole at (0, 0, dist) that looks along -z: samples, y down, and 1 / depth."""
    for i in range(v.shape[0]):
        d = np.float32(1.0) / max(dist - v[i, 2], np.float32(0.5))
        sx[i] = cx + focal * v[i, 0] * d
        sy[i] = cy - focal * v[i, 1] * d
        iz[i] = d


@kernel()
def project_parallel(v, right, up, forward, centre, scale, size, sx, sy, iz):
    """A map seen from direction `forward`; `iz` grows towards whoever looks."""
    for i in range(v.shape[0]):
        x, y, z = v[i, 0] - centre[0], v[i, 1] - centre[1], v[i, 2] - centre[2]
        sx[i] = size * np.float32(0.5) + scale * (x * right[0] + y * right[1] + z * right[2])
        sy[i] = size * np.float32(0.5) - scale * (x * up[0] + y * up[1] + z * up[2])
        iz[i] = x * forward[0] + y * forward[1] + z * forward[2]


def frame_of(direction: npt.ArrayLike) -> tuple[F32, F32, F32]:
    """Right, up and forward [3] of a map that is seen from `direction` [3]."""
    forward = np.asarray(direction, np.float32)
    forward = forward / np.linalg.norm(forward)
    helper = np.array([0, 1, 0] if abs(forward[1]) < 0.95 else [1, 0, 0], np.float32)
    right = np.cross(helper, forward)
    right = (right / np.linalg.norm(right)).astype(np.float32)
    return right, np.cross(forward, right).astype(np.float32), forward
