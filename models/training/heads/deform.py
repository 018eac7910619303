"""From a head at rest to a head in the world: expressions, the turn of the neck, trailing hair.

Lengths are centimetres, x to the person's left, y up, z to the camera. The numpy functions at the
top make the few matrices of a frame; the kernels below go through its vertices.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.training.heads.jit import inlined, kernel

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

PIVOT = np.array([0.0, -4.0, -1.0], np.float32)  # the head turns about it
BUST = np.array([0.0, -14.0, -2.0])  # the shoulders turn about it
_STEPS = 32  # turns between none and all of the head's that the neck is made of


def smoothstep(low: float, high: float, x: npt.ArrayLike) -> F64:
    """0 below `low`, 1 above `high` (or the other way round if high < low), smooth between."""
    t = np.clip((np.asarray(x) - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def rotation(yaw: float, pitch: float, roll: float) -> F64:
    """Degrees -> [3, 3], Ry(yaw) Rx(-pitch) Rz(roll): the signs of `models.faces.state`."""
    y, p, r = np.radians([yaw, -pitch, roll])
    about_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    about_x = [[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]]
    about_z = [[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]]
    return np.array(about_y) @ np.array(about_x) @ np.array(about_z)


def axis_angle(turn: F64) -> tuple[F32, float]:
    """Unit axis and angle (radians, 0 .. pi) of a rotation. Heads stay well below pi, where the
    axis would be undefined.
    """
    angle = float(np.arccos(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0)))
    if angle < 1e-6:
        return np.array([0.0, 1.0, 0.0], np.float32), 0.0
    skew = [turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]
    return (np.array(skew) / (2.0 * np.sin(angle))).astype(np.float32), angle


def neck_weight(points: npt.NDArray[np.floating]) -> F32:
    """Share of the head's turn at rest positions [M, 3]: 1 on the head, 0 at the collar bones.

    The level tilts, so that the chin belongs to the head.
    """
    return smoothstep(-13.0, -4.5, points[:, 1] + 0.45 * points[:, 2]).astype(np.float32)


@inlined
def smooth(low, high, x):
    """`smoothstep` inside a kernel."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@kernel()
def deform(rest, index, offset, begin, weight, n, out):
    """out[:n] = rest + the sum of all active expressions, which are sparse.

    Args:
        rest: [N, 3]; the person without expression.
        index, offset: [Q], [Q, 3]: the vertices an expression moves and by how much, one expression
            after the other.
        begin: [53 + 1]: where each expression begins in them.
        weight: [53].
        n: Vertices wanted; those of a shut mouth come last and may be left out.
    """
    for i in range(n):
        for k in range(3):
            out[i, k] = rest[i, k]
    for e in range(weight.shape[0]):
        w = weight[e]
        if abs(w) < 1e-4:
            continue
        for q in range(begin[e], begin[e + 1]):
            i = index[q]
            if i < n:
                out[i, 0] += w * offset[q, 0]
                out[i, 1] += w * offset[q, 1]
                out[i, 2] += w * offset[q, 2]


@kernel()
def bend(v, w, n, axis, angle, pivot, torso, shift, out):
    """Turns the first n points by `angle * w` about `axis` through `pivot`, then by `torso`.

    Turning by a share of the *angle* keeps the neck's volume when the head looks sideways; a share
    of the way between two positions would pinch it.

    Args:
        v: [N, 3]; w: [N] shares in 0 .. 1; axis, pivot, shift: [3]; torso: [3, 3].
        out: [N, 3] = torso (turned(v - pivot) + pivot) + shift.
    """
    table = np.zeros((_STEPS + 2, 12), np.float32)
    for q in range(_STEPS + 2):
        c, s = math.cos(angle * q / _STEPS), math.sin(angle * q / _STEPS)
        m = np.zeros((3, 3), np.float32)
        for i in range(3):
            for j in range(3):
                m[i, j] = axis[i] * axis[j] * (1.0 - c) + (c if i == j else 0.0)
        m[0, 1] -= axis[2] * s
        m[0, 2] += axis[1] * s
        m[1, 0] += axis[2] * s
        m[1, 2] -= axis[0] * s
        m[2, 0] -= axis[1] * s
        m[2, 1] += axis[0] * s
        for i in range(3):
            for j in range(3):
                table[q, i * 3 + j] = (
                    torso[i, 0] * m[0, j] + torso[i, 1] * m[1, j] + torso[i, 2] * m[2, j]
                )
            table[q, 9 + i] = (
                torso[i, 0] * pivot[0] + torso[i, 1] * pivot[1] + torso[i, 2] * pivot[2] + shift[i]
            )
    for i in range(n):
        x, y, z = v[i, 0] - pivot[0], v[i, 1] - pivot[1], v[i, 2] - pivot[2]
        f = w[i] * _STEPS
        q = int(f)
        f -= q
        g = 1.0 - f
        for k in range(3):
            a = table[q, 3 * k] * g + table[q + 1, 3 * k] * f
            b = table[q, 3 * k + 1] * g + table[q + 1, 3 * k + 1] * f
            c = table[q, 3 * k + 2] * g + table[q + 1, 3 * k + 2] * f
            out[i, k] = a * x + b * y + c * z + table[q, 9 + k]


@kernel()
def follow(rest, n, old, out):
    """Loose hair (below the ears, or behind the head) stays part of the way where it was.

    Args:
        rest: [n, 3] on the unturned head, which says how loose a point is.
        old: [n, 3] where the pose of a moment ago would have it.
        out: [n, 3] where the pose has it; changed in place.
    """
    for i in range(n):
        k = 0.75 * smooth(2.0, -14.0, rest[i, 1])
        if rest[i, 2] < -9.0:
            k = max(k, 0.75 * smooth(-9.0, -13.0, rest[i, 2]))
        if k > 0.0:
            for c in range(3):
                out[i, c] += k * (old[i, c] - out[i, c])


@kernel()
def normals(tri, v, out):
    """Unit normals [N, 3] of a mesh's vertices, weighted by area; 0 where no triangle is."""
    out[:] = 0.0
    for t in range(tri.shape[0]):
        a, b, c = tri[t, 0], tri[t, 1], tri[t, 2]
        ux, uy, uz = v[b, 0] - v[a, 0], v[b, 1] - v[a, 1], v[b, 2] - v[a, 2]
        wx, wy, wz = v[c, 0] - v[a, 0], v[c, 1] - v[a, 1], v[c, 2] - v[a, 2]
        nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for k in (a, b, c):
            out[k, 0] += nx
            out[k, 1] += ny
            out[k, 2] += nz
    for i in range(out.shape[0]):
        r = 1.0 / math.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2 + 1e-20)
        for k in range(3):
            out[i, k] *= r
