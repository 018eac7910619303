"""Where each texel of the skin lies on the mean head, and what is there for everybody.

The skin has two square textures: tile 0 is the face, tile 1 the back of the head and the neck.
Everything here is drawn on the mean head once; `skin_paint` mixes it by a person's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.training.heads.deform import smoothstep
from models.training.heads.hair_grow import above_hairline, is_ear
from models.training.heads.noise import Use, noise
from models.training.heads.raster.triangles import triangles
from models.training.heads.strokes import blur, distance, spline

if TYPE_CHECKING:
    from models.training.heads.anatomy import Anatomy

F32 = npt.NDArray[np.float32]
_GROWN = 6  # texels beyond the skin's border that bilinear reads may touch
_BACK = 0.375  # size of tile 1 against tile 0


@dataclass(frozen=True)
class Tile:
    """One texture of size x size texels, row by row.

    Args:
        position: [size^2, 3] on the mean head, cm.
        zones: What lies where, 0 .. 1 or so: [size^2] each, by name.
    """

    size: int
    position: F32
    zones: dict[str, F32]


class SkinAtlas:
    """The two tiles.

    Args:
        size: Texels along the face's edge.
    """

    def __init__(self, anatomy: Anatomy, size: int) -> None:
        self.size = size
        first = _first_uv(anatomy)[anatomy.landmarks]
        self.landmarks = np.stack([first[:, 0] * size, (1 - first[:, 1]) * size], 1)
        tiles = []
        for tile, edge in enumerate((size, int(size * _BACK))):
            position = _positions(anatomy, tile, edge).reshape(-1, 3)
            tiles.append(Tile(edge, position, _zones(anatomy, position)))
        self.tiles = tuple(tiles)
        face = self.tiles[0].zones
        texel = 512 / size
        outline = spline(self.landmarks[48:60], 120, True)
        lips = distance(size, outline, closed=True, reach=30 / texel)
        face["lips"] = (lips * texel).ravel()
        face["lid_edge"] = _lid_edge(self.landmarks, size).ravel()
        face["lines"] = _lines(self.landmarks, size).ravel()


def atlas_of(anatomy: Anatomy, size: int) -> SkinAtlas:
    """The anatomy's atlas of this size, made at the first call."""
    kept: dict[int, SkinAtlas] = anatomy.__dict__.setdefault("_skin_atlases", {})
    if size not in kept:
        kept[size] = SkinAtlas(anatomy, size)
    return kept[size]


def _first_uv(anatomy: Anatomy) -> F32:
    """Where the face's vertices lie in tile 0: [n_skin, 2]."""
    skin = anatomy.mat == 0
    corners = anatomy.uv[skin].reshape(-1, 2)
    face = corners[:, 0] < 1
    uv = np.zeros((anatomy.n_skin, 2), np.float32)
    uv[anatomy.tri[skin].reshape(-1)[face]] = corners[face]
    return uv


def _positions(anatomy: Anatomy, tile: int, size: int) -> F32:
    """[size, size, 3] of the mean head under each texel; 0 where there is no skin."""
    skin = anatomy.mat == 0
    tri, uv = anatomy.tri[skin], anatomy.uv[skin]
    mine = (uv[:, :, 0].mean(1) >= tile) & (uv[:, :, 0].mean(1) < tile + 1)
    corner = uv[mine].reshape(-1, 2)
    x = np.ascontiguousarray((corner[:, 0] - tile) * size, np.float32)
    y = np.ascontiguousarray((1 - corner[:, 1]) * size, np.float32)
    t = np.arange(len(corner), dtype=np.int32).reshape(-1, 3)
    a, b, c = (np.stack([x[t[:, k]], y[t[:, k]]], 1) for k in range(3))
    turned = (b - a)[:, 0] * (c - a)[:, 1] > (b - a)[:, 1] * (c - a)[:, 0]
    t[turned] = t[turned][:, ::-1]
    depth, ids = np.zeros((size, size), np.float32), np.full((size, size), -1, np.int32)
    triangles(t, x, y, np.ones(len(corner), np.float32), depth, ids, True)

    inside = ids >= 0
    rows, columns = np.nonzero(inside)
    q = t[ids[inside]]
    a, b, c = (np.stack([x[q[:, k]], y[q[:, k]]], 1) for k in range(3))
    p = np.stack([columns + 0.5, rows + 0.5], 1)
    u, v, w = b - a, c - a, p - a
    det = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    wb = ((w[:, 0] * v[:, 1] - w[:, 1] * v[:, 0]) / det)[:, None]
    wc = ((u[:, 0] * w[:, 1] - u[:, 1] * w[:, 0]) / det)[:, None]
    corners = anatomy.mean[tri[mine]].reshape(-1, 3)
    position = np.zeros((size, size, 3), np.float32)
    position[inside] = corners[q[:, 0]] * (1 - wb - wc) + corners[q[:, 1]] * wb
    position[inside] += corners[q[:, 2]] * wc
    return _grow(position, inside)


def _grow(position: F32, inside: npt.NDArray[np.bool_]) -> F32:
    for _ in range(_GROWN):
        for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            beside = np.roll(inside, step, (0, 1))
            new = ~inside & beside
            position[new] = np.roll(position, step, (0, 1))[new]
            inside = inside | new
    return position


def _zones(anatomy: Anatomy, p: F32) -> dict[str, F32]:
    """Soft regions of the mean face, and the noise that everybody shares."""
    nose, middle = anatomy.mean[anatomy.landmarks[30]], anatomy.mean[anatomy.landmarks[29]]
    eyeballs = anatomy.mean[anatomy.eye0 : anatomy.shirt0]
    eyes = [eyeballs[anatomy.eye_side == side].mean(0) for side in (0, 1)]
    beside = smoothstep(7.6, 8.4, np.abs(p[:, 0])) * smoothstep(-4.0, -2.0, p[:, 1])
    ear = beside * (p[:, 1] < 5)

    def near(centre: npt.ArrayLike, reach: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return np.exp(-(((p - np.asarray(centre)) / np.asarray(reach)) ** 2).sum(1))

    def pair(x: float, y: float, z: float, reach: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return near([x, y, z], reach) + near([-x, y, z], reach)

    zones = {
        # Where blood shines through: cheeks, tip of the nose, chin, ears; least on the forehead.
        "red": 0.8 * pair(4.9, 0.2, 8.6, [2.8, 2.3, 3.2])
        + 0.7 * near(nose, [1.5, 1.6, 1.8])
        + 0.3 * near([0, -7.6, 10], [2, 1.3, 2])
        + 0.8 * ear
        - 0.25 * near([0, 8.5, 9.5], [5, 2.5, 4]),
        "blush": 0.8 * pair(5.6, 0.9, 8.0, [2.6, 1.7, 3.0]),
        "under": near(eyes[0] + [0, -1.5, 1.2], [1.6, 0.55, 2.5])
        + near(eyes[1] + [0, -1.5, 1.2], [1.6, 0.55, 2.5]),
        "lid": near(eyes[0] + [0, 0.55, 1.2], [1.9, 0.75, 2.5])
        + near(eyes[1] + [0, 0.55, 1.2], [1.9, 0.75, 2.5]),
        "freckle": 0.15 + near([0, 1, 10], [6.5, 2.8, 5]),
        "rough": 0.53 - 0.10 * near(middle, [2, 3.5, 3]) - 0.06 * near([0, 8.5, 10], [4, 2, 4]),
        "beard": beard_mask(p),
        "above": above_hairline(p, 0.0) + 0.45 * noise(p, 0.8, 3, Use.HAIRLINE),
        "rise": above_hairline(p, 0.0) - above_hairline(p, 1.0),
        "scalp": np.where(is_ear(p), 0.0, 1.0),
        "big": noise(p, 0.30, 3, Use.SKIN),
        "mid": noise(p, 1.4, 3, Use.SKIN),
        "fine": noise(p, 6.0, 2, Use.SKIN),
        "bump_x": noise(p, 7.0, 2, Use.SKIN),
        "bump_y": noise(p + 31.0, 7.0, 2, Use.SKIN),
    }
    return {name: np.asarray(zone, np.float32) for name, zone in zones.items()}


def beard_mask(p: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Where a beard grows on the mean head: points [n, 3] -> 0 .. 1."""
    x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
    top = np.interp(x, [0, 2.6, 3.2, 4.6, 6.0, 7.2], [-2.7, -2.7, -3.4, -4.3, -3.2, 2.5])
    cheeks = smoothstep(1.0, -0.9, y - top) * smoothstep(-9.7, -7.9, y + 0.12 * (10 - z))
    cheeks = cheeks * smoothstep(1.0, 2.5, z)
    # The lips' borders; without them a moustache would cover the lips.
    upper = np.interp(x, [0, 0.73, 1.7, 2.53, 3], [-2.48, -2.42, -2.78, -3.45, -3.6])
    lower = np.interp(x, [0, 1.03, 1.8, 2.53, 3], [-4.38, -4.3, -4.06, -3.55, -3.5])
    moustache = smoothstep(0.0, 0.3, y - upper) * smoothstep(-1.2, -1.7, y)
    moustache = moustache * smoothstep(3.3, 2.3, x) * (z > 8)
    lips = smoothstep(0.12, -0.05, y - upper) * smoothstep(-0.3, -0.05, y - lower)
    lips = lips * smoothstep(2.8, 2.6, x)
    bare = np.exp(-(((x / 1.5) ** 2 + ((y + 4.95) / 0.35) ** 2) ** 2))
    bare = bare * (1 - np.exp(-((x / 0.5) ** 2)) * 0.8)
    return np.clip(np.maximum(cheeks, moustache) * (1 - lips) - 0.7 * bare, 0, 1)


def _lid_edge(landmarks: F32, size: int) -> F32:
    """The margins of the lids: roots of the lashes, and the liner where there is one."""
    mask = np.zeros((size, size), np.float32)
    texel = size / 512
    for first in (36, 42):
        ring = landmarks[first : first + 6]
        for line, strength in ((ring[[0, 1, 2, 3]], 1.0), (ring[[3, 4, 5, 0]], 0.5)):
            away = distance(size, spline(line, 80, False), closed=False, reach=8 * texel)
            mask = np.maximum(mask, strength * smoothstep(3.0, 1.0, away / texel)).astype(
                np.float32
            )
    return np.clip(blur(mask, 1), 0, 1)


def _lines(landmarks: F32, size: int) -> F32:
    """Lines of age: from nose to mouth, at the eyes' corners, under the eyes, on the forehead."""
    unit = float(np.linalg.norm(landmarks[45] - landmarks[36])) / 10
    mask = np.zeros((size, size), np.float32)

    def draw(points: list[npt.NDArray[np.floating]], width: float, strength: float) -> None:
        nonlocal mask
        line = spline(np.array(points), 60, False)
        away = distance(size, line, closed=False, reach=3 * width * unit) / (width * unit)
        mask = np.maximum(mask, strength * np.exp(-(away**2))).astype(np.float32)

    for outer, wing, corner, side in ((36, 31, 48, -1.0), (45, 35, 54, 1.0)):
        a, b = landmarks[wing], landmarks[corner]
        draw(
            [
                a + [side * 0.5 * unit, -0.6 * unit],
                (a + b) / 2 + [side * 1.0 * unit, 0],
                b + [side * 0.9 * unit, 0.2 * unit],
            ],
            0.22,
            1.0,
        )
        c = landmarks[outer]
        for rise in (-0.75, -0.1, 0.55):
            draw(
                [
                    c + [side * 0.7 * unit, 0.6 * rise * unit],
                    c + [side * 1.9 * unit, 1.4 * rise * unit],
                ],
                0.12,
                0.6,
            )
    brow = landmarks[[19, 24]].mean(0)
    for k, rise in enumerate((1.9, 2.8, 3.7)):
        span = np.linspace(-3.0, 3.0, 7) * (1 - 0.08 * k)
        wave = 0.12 * np.cos(span * 1.7 + k)
        draw(
            [brow + [x * unit, (-rise + w) * unit] for x, w in zip(span, wave, strict=True)],
            0.15,
            0.55,
        )
    return mask
