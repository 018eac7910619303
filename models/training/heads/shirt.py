"""The shirt: a copy of the bust below the collar, with a skirt that makes shoulders.

It is a copy, not cloth: pushed out a little below the collar's line and drawn under the skin above
it, it crosses the skin in a clean line. It follows the identity of the skin it was taken from, or
that line would fray.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Rows that the rim is drawn out to: outwards and downwards, cm at the shoulders' tips.
_ROWS = ((2.6, 0.9), (5.2, 3.0), (6.5, 8.0), (7.0, 18.0))
_HALF_WIDTH = 12.4  # of the bust


@dataclass(frozen=True, eq=False)
class Shirt:
    """The cloth on the mean bust.

    Args:
        rest: [S, 3] float32; before anything pushes it out.
        source: [S]; the vertex of the kit that each one follows.
        triangles: [U, 3] int32; indices into `rest`.
    """

    rest: npt.NDArray[np.float32]
    source: npt.NDArray[np.int64]
    triangles: npt.NDArray[np.int32]


def make(neutral: npt.NDArray[np.float32], skin: npt.NDArray[np.int32]) -> Shirt:
    """The shirt of a kit.

    Args:
        neutral: [N, 3]; the mean head with its shoulders.
        skin: [T, 3]; its triangles of skin.
    """
    # A little above the highest collar; a copy up to the chin would show when the jaw opens.
    low = neutral[:, 1] + 0.36 * neutral[:, 2] < -9.2
    triangles = skin[low[skin].all(1)]
    used = np.unique(triangles)
    place = np.full(len(neutral), -1)
    place[used] = np.arange(len(used))
    cloth = place[triangles]
    position = neutral[used]
    rim = _rim(cloth, position)
    ring = np.unique(rim)
    sources, rows = [used], []
    positions: list[npt.NDArray[np.floating]] = [position]
    for row, (out, down) in enumerate(_ROWS):
        rows.append(np.full(len(used), -1))
        rows[row][ring] = len(used) + row * len(ring) + np.arange(len(ring))
        sources.append(used[ring])
        positions.append(_drawn_out(position[ring], row, out, down))
    extra, a, b = [], rim[:, 0], rim[:, 1]
    for at in rows:
        below_a, below_b = at[rim[:, 0]], at[rim[:, 1]]
        extra += [np.stack([b, a, below_a], 1), np.stack([b, below_a, below_b], 1)]
        a, b = below_a, below_b
    return Shirt(
        np.concatenate(positions).astype(np.float32),
        np.concatenate(sources),
        np.concatenate([cloth, *extra]).astype(np.int32),
    )


def _rim(
    triangles: npt.NDArray[np.int64], position: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Directed border edges [R, 2] at the sides, the back and below: not the collar's."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    count = len(position)
    key, back = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    edges = edges[~np.isin(key, back)]
    start, end = position[edges[:, 0]], position[edges[:, 1]]
    below = np.minimum(start[:, 1], end[:, 1]) < -10.5
    outside = (np.abs(start[:, 0]) > 9) | (start[:, 1] < -14) | (start[:, 2] < -8)
    return np.unique(edges[below & outside], axis=0)


def _drawn_out(
    ring: npt.NDArray[np.float32], row: int, out: float, down: float
) -> npt.NDArray[np.float64]:
    p = ring.astype(np.float64)
    side = np.abs(p[:, 0]) / _HALF_WIDTH
    p[:, 0] += np.sign(p[:, 0]) * out * side**2
    p[:, 1] -= down * (0.25 + 0.75 * side) + (0.0 if row < 1 else 2.0) * (1 - side)
    p[:, 2] *= 1.0 + 0.06 * row
    return p
