"""A distance field round the mean bust: it keeps hair off the skull and carries it to others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.training.heads.jit import kernel

F32 = npt.NDArray[np.float32]

STEP = 0.8  # cm between nodes
ORIGIN = np.array([-20.0, -34.0, -15.0], np.float32)
SHAPE = (51, 66, 42)  # nodes along x, y, z


@dataclass(frozen=True, eq=False)
class Field:
    """Numbers on a grid of nodes at ORIGIN + STEP * (i, j, k).

    Args:
        sdf: [51, 66, 42, 4] float32; distance to the bust in cm, negative inside, and its gradient.
        near: [51, 66, 42]; the vertex nearest to each node.
    """

    sdf: F32
    near: npt.NDArray[np.int64]
    origin: F32
    step: float

    def at(self, points: F32) -> F32:
        """[M, 3] -> [M, 4]: signed distance and its gradient."""
        out = np.zeros((len(points), 4), np.float32)
        trilinear(self.sdf, self.origin, self.step, np.ascontiguousarray(points, np.float32), out)
        return out

    def warp(self, displacement: F32) -> F32:
        """A smooth version of what a person's vertices are displaced by, on the grid.

        Args:
            displacement: [n, 3] from the mean head.
        Returns:
            [51, 66, 42, 3] float32, for `carry`.
        """
        out: npt.NDArray[np.floating] = displacement[self.near]
        for _ in range(2):
            for axis in range(3):
                out = (np.roll(out, 1, axis) + np.roll(out, -1, axis) + out) / 3
        return np.ascontiguousarray(out, np.float32)

    def carry(self, points: npt.NDArray[np.floating], warp: F32) -> F32:
        """Points [..., 3] made on the mean head, moved to where a person has them."""
        flat = np.ascontiguousarray(points.reshape(-1, 3), np.float32)
        moved = np.zeros_like(flat)
        trilinear(warp, self.origin, self.step, flat, moved)
        return (flat + moved).reshape(points.shape)


def around(points: F32, normals: F32, vertices: npt.NDArray[np.int64]) -> Field:
    """The field of a surface.

    Args:
        points, normals: [M, 3]; samples of the surface.
        vertices: [M]; what `near` calls them.
    """
    axes = [np.arange(size, dtype=np.float32) * STEP for size in SHAPE]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3) + ORIGIN
    near = np.zeros(len(nodes), np.int64)
    nearest(nodes, np.ascontiguousarray(points.T), near)
    away = nodes - points[near]
    outside = np.where((away * normals[near]).sum(1) > 0, 1, -1)
    distance = (np.linalg.norm(away, axis=1) * outside).reshape(SHAPE).astype(np.float32)
    gradient = np.stack(np.gradient(distance, STEP), -1)
    gradient /= np.linalg.norm(gradient, axis=-1, keepdims=True) + 1e-6
    sdf = np.concatenate([distance[..., None], gradient], -1).astype(np.float32)
    return Field(sdf, vertices[near].reshape(SHAPE), ORIGIN.copy(), STEP)


@kernel()
def nearest(nodes, points, out):
    """Index of the point nearest to each node. nodes: [G, 3]; points: [3, M]; out: [G]."""
    square = np.empty(points.shape[1], np.float32)
    for g in range(nodes.shape[0]):
        x, y, z = nodes[g, 0], nodes[g, 1], nodes[g, 2]
        best = np.float32(1e9)
        for i in range(points.shape[1]):  # whole vectors at a time
            dx, dy, dz = points[0, i] - x, points[1, i] - y, points[2, i] - z
            d = dx * dx + dy * dy + dz * dz
            square[i] = d
            best = min(best, d)
        for i in range(points.shape[1]):
            if square[i] == best:
                out[g] = i
                break


@kernel()
def trilinear(field, origin, step, p, out):
    """A field [X, Y, Z, C] read at points p [M, 3] -> out [M, C]; outside, its border."""
    nx, ny, nz, nc = field.shape
    for m in range(p.shape[0]):
        x = min(max((p[m, 0] - origin[0]) / step, 0.0), nx - 1.001)
        y = min(max((p[m, 1] - origin[1]) / step, 0.0), ny - 1.001)
        z = min(max((p[m, 2] - origin[2]) / step, 0.0), nz - 1.001)
        i, j, k = int(x), int(y), int(z)
        x, y, z = x - i, y - j, z - k
        for c in range(nc):
            a = field[i, j, k, c] * (1 - z) + field[i, j, k + 1, c] * z
            b = field[i, j + 1, k, c] * (1 - z) + field[i, j + 1, k + 1, c] * z
            left = a * (1 - y) + b * y
            a = field[i + 1, j, k, c] * (1 - z) + field[i + 1, j, k + 1, c] * z
            b = field[i + 1, j + 1, k, c] * (1 - z) + field[i + 1, j + 1, k + 1, c] * z
            right = a * (1 - y) + b * y
            out[m, c] = left * (1 - x) + right * x
