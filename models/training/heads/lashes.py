"""Lashes as hairs: found on the cards that a kit holds, and set into the lids of a frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.training.heads.kit import PART

POINTS = 3  # root, middle, tip
_ROWS = 6  # vertices of a card from root to tip
_CARDS = 6  # of one half (upper or lower) of an eye


def strands(
    world: npt.NDArray[np.float32],
    paths: npt.NDArray[np.int32],
    keep: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """The hairs of a frame, [P * 3, 3], root, middle and tip of one after the other.

    Args:
        world: [n, 3]; the vertices of the frame.
        paths: [P, 3]; `Anatomy.lash_paths`.
        keep: [P]; share of its length that each hair is given.
    """
    hair = world[paths.reshape(-1)].reshape(-1, POINTS, 3)
    root = hair[:, :1]
    return np.ascontiguousarray((root + (hair - root) * keep[:, None, None]).reshape(-1, 3))


def from_cards(
    neutral: npt.NDArray[np.float32],
    vertex_part: npt.NDArray[np.uint8],
    triangles: npt.NDArray[np.int64],
    tri_uv: npt.NDArray[np.float32],
    tri_part: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """`HeadKit.lash_paths` and `lash_upper`: the columns of the cards of ICT-FaceKit.

    Cards and columns are told apart by their UVs; climbing along edges by the distance from the
    eyeball wanders off.
    """
    paths: list[npt.NDArray[np.int64]] = []
    upper: list[bool] = []
    for side in "lr":
        mine = tri_part == PART[f"lashes_{side}"]
        ball = neutral[vertex_part == PART[f"sclera_{side}"]]
        if not (mine.any() and len(ball)):
            continue
        eye = ball.mean(0)
        vertex, first = np.unique(triangles[mine].reshape(-1), return_index=True)
        uv = tri_uv[mine].reshape(-1, 2)[first]
        row = np.clip((uv[:, 1] * 5.85).astype(int), 0, _CARDS - 1)
        card = (uv[:, 0] > uv[:, 0].mean()).astype(int) * _CARDS + row
        for c in np.unique(card):
            column = np.flatnonzero(card == c)
            column = column[np.argsort(uv[column, 0], kind="stable")]
            for s in range(0, len(column) - _ROWS + 1, _ROWS):
                hair = column[s : s + _ROWS]
                hair = vertex[hair[np.argsort(uv[hair, 1])]]
                away = np.linalg.norm(neutral[hair] - eye, axis=1)
                hair = hair if away[0] < away[-1] else hair[::-1]
                paths.append(hair[[0, 2, 5]])
                upper.append(bool(neutral[hair[0], 1] > eye[1] + 0.05))
    return np.array(paths, np.int32).reshape(-1, POINTS), np.array(upper, bool)
