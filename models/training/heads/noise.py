"""Randomness that is the same for everybody: noise in space and tables of draws.

A picture is a function of a person's numbers. What looks random in it (freckles, strands, fibres of
an iris) is drawn from tables that are fixed for good; a person only says how much of it there is.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from models.training.heads.jit import kernel

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
_TABLE = 4096  # entries of a hash; a power of two


class Use(IntEnum):
    """What a table is for: each use has draws of its own."""

    SKIN = 1
    HAIRLINE = 2
    CLOTH = 3
    IRIS = 4
    BROWS = 5
    BEARD = 6
    BACKDROP = 7
    LASHES = 8
    HAIR = 100  # + the style's number


def draws(use: int, stream: int = 0) -> np.random.Generator:
    """A generator in its first state: whoever asks for the same use gets the same numbers."""
    return np.random.Generator(np.random.Philox(key=np.array([use, stream], np.uint64)))


def hash_table(use: int) -> F32:
    """[4096] uniform numbers for `noise3`."""
    return draws(use, 1).random(_TABLE).astype(np.float32)


@kernel()
def noise3(p, frequency, octaves, table, out):
    """Value noise at points [n, 3]: mean 0, about +-1, smooth at 1 / frequency."""
    for i in range(p.shape[0]):
        total, amplitude, f, norm = 0.0, 1.0, frequency, 0.0
        for o in range(octaves):
            x, y, z = p[i, 0] * f + 17.3 * o, p[i, 1] * f - 5.1 * o, p[i, 2] * f + 3.7 * o
            ix, iy, iz = int(math.floor(x)), int(math.floor(y)), int(math.floor(z))
            fx, fy, fz = x - ix, y - iy, z - iz
            fx, fy, fz = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy), fz * fz * (3 - 2 * fz)
            value = 0.0
            for corner in range(8):
                dx, dy, dz = corner & 1, (corner >> 1) & 1, corner >> 2
                h = (ix + dx) * 73856093 ^ (iy + dy) * 19349663 ^ (iz + dz) * 83492791
                weight = fx if dx else 1 - fx
                weight *= fy if dy else 1 - fy
                weight *= fz if dz else 1 - fz
                value += table[h & 4095] * weight
            total += amplitude * (value * 2 - 1)
            norm += amplitude
            amplitude *= 0.5
            f *= 2.03
        out[i] = total / norm * 1.6


def noise(points: npt.NDArray[np.floating], frequency: float, octaves: int, use: int) -> F32:
    """`noise3` of points [..., 3] -> [...]."""
    flat = np.ascontiguousarray(points.reshape(-1, 3), np.float32)
    out = np.zeros(len(flat), np.float32)
    noise3(flat, frequency, octaves, hash_table(use), out)
    return out.reshape(points.shape[:-1])
