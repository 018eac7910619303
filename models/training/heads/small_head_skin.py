"""The skin of the small head: a grid of rings round the head, drawn onto its features.

Rings go from the crown down the face and the neck and out to the border of the bust; columns are
azimuths, denser in front. A ring is a superellipse from tables of half width and depth; then a
smooth warp carries chosen nodes of the grid to where lids, lips, nose and brows are to be. Eyes are
holes whose rim is the lids' margin, the mouth is a ring of which a piece is doubled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.training.heads.deform import smoothstep

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

EYE = np.array([3.1, 3.6, 8.0])  # centre of the left eyeball
BALL = 1.5  # its radius
_LID = 0.07  # the lids' margins lie so far outside the ball

# Azimuths of the left half's columns, degrees; eyes and lips have columns of their own.
_HALF = (
    [0, 2.3, 4.6, 6.8, 9, 11.3, 14, 16.7, 19.4, 22.1, 24.7, 27.4, 30.2, 33.2, 36.5, 40, 44, 48, 52]
    + [56, 60, 64, 68.5, 73, 77.5, 81, 84.5, 88, 91.5, 95, 98.5, 102, 107, 113, 120, 128, 137, 147]
    + [158, 169, 180]
)
# Heights of the rings on the mid-line, from below the crown to below the chin.
_RINGS = (
    [14.42, 14.1, 13.6, 13, 12.2, 11.3, 10.4, 9.5, 8.7, 8, 7.4, 6.85, 6.3, 5.85, 5.4, 5.0, 4.65]
    + [4.3, 3.95, 3.45, 3.0, 2.65, 2.3, 1.9, 1.5, 1.1, 0.7, 0.3, -0.1, -0.45, -0.8, -1.2, -1.55]
    + [-1.95, -2.42, -2.87, -3.36, -3.87, -4.38, -4.8, -5.3, -5.8, -6.3, -6.8, -7.2, -7.6, -8.0]
    + [-8.4, -8.8, -9.3]
)
_LIDS = (18, 19, 20)  # rings of the upper lid, the corners, the lower lid
_EYE_COLUMNS = (5, 11)
_SLIT, _SLIT_COLUMN = 36, 5  # the doubled ring, and the column of its corner
_BUST_RINGS = 10

# Height, half width, depth in front and behind: a head without nose, lips and ears.
_PROFILE = np.array(
    [
        [14.5, 0.0, 0.0, 0.0],
        [14.3, 2.6, 3.1, 2.6],
        [14.0, 3.9, 5.0, 3.7],
        [13.0, 5.3, 6.7, 5.2],
        [12.0, 6.2, 8.0, 6.4],
        [11.0, 6.8, 9.0, 7.1],
        [10.0, 7.25, 9.55, 7.8],
        [8.0, 7.75, 10.35, 8.4],
        [6.0, 7.85, 10.65, 8.65],
        [4.0, 7.65, 10.45, 8.55],
        [2.0, 7.4, 10.6, 8.0],
        [0.0, 7.15, 10.9, 7.3],
        [-2.0, 6.85, 11.25, 6.5],
        [-4.0, 6.4, 11.2, 5.9],
        [-5.5, 5.95, 10.95, 5.75],
        [-7.0, 5.3, 10.85, 5.7],
        [-8.0, 4.7, 10.3, 5.8],
        [-9.5, 4.2, 9.2, 6.2],
    ]
)
_NECK = np.array([[14.5, 5.6, 6.0, 5.8], [-7.0, 5.5, 6.1, 5.8], [-10.0, 5.9, 5.4, 6.5]])
# Lower edge of the jaw over azimuth.
_JAW = ([0, 8.5, 19, 30, 43, 52, 57, 62, 75, 180], [-8, -7.8, -7.4, -6.7, -4.9, -2.9, -1, 1, 2, 2])

# Where points of the left half shall be (68-point landmarks by number, and some between them).
_TARGETS: dict[int, tuple[float, float, float]] = {
    8: (0, -7.57, 10.43),
    9: (1.54, -7.26, 10.27),
    10: (3.05, -6.91, 8.77),
    11: (4.3, -6.21, 7.35),
    12: (5.72, -4.49, 6.13),
    13: (6.56, -2.36, 5.17),
    14: (6.94, -0.46, 4.53),
    15: (7.28, 1.49, 3.93),
    16: (7.36, 3.68, 3.66),
    22: (1.17, 5.91, 10.73),
    23: (2.41, 6.19, 10.48),
    24: (3.79, 6.26, 9.83),
    25: (4.93, 5.98, 8.99),
    26: (5.82, 5.2, 7.91),
    27: (0, 3.74, 10.73),
    28: (0, 2.63, 11.52),
    29: (0, 1.61, 12.31),
    30: (0, 0.41, 13.07),
    33: (0, -1.2, 11.57),
    34: (0.6, -1.14, 11.42),
    35: (1.25, -1.14, 10.87),
    51: (0, -2.48, 11.84),
    52: (0.73, -2.42, 11.73),
    53: (1.7, -2.78, 11.22),
    54: (2.53, -3.52, 10.19),
    55: (1.8, -4.06, 10.9),
    56: (1.03, -4.3, 11.39),
    57: (0, -4.38, 11.55),
}
_BETWEEN = (
    (0, -2.9, 12.02),  # the lips are fuller than their borders
    (1.1, -2.98, 11.6),
    (0, -3.88, 11.86),
    (1.1, -3.83, 11.45),
    (0, -5.25, 10.85),  # under the lower lip
    (0, -6.5, 11.05),  # chin
    (1.35, -0.2, 11.35),  # wings of the nose
    (1.75, -0.75, 10.75),
    (1.05, 0.9, 11.35),
    (1.25, 2.6, 10.1),  # beside its bridge
    (0, 5.2, 10.72),
    (3.4, 1.3, 9.75),  # cheeks
    (5.0, 0.4, 8.75),
    (4.6, -2.4, 8.85),
    (2.6, -1.9, 10.45),
    (3.1, 5.1, 9.75),  # under the brow
    (4.9, 4.4, 8.35),
    (0, 8.3, 10.3),  # forehead
    (3.6, 8.2, 9.6),
    (6.2, 7.0, 7.2),
    (0, -8.6, 8.4),
)


# Nodes (ring, column of the left half) that are landmarks whatever is near.
_NODES = {
    42: (19, 5),
    43: (18, 7),
    44: (18, 9),
    45: (19, 11),
    46: (20, 9),
    47: (20, 7),
    62: (36, 0),
    63: (36, 2),
    64: (36, 5),
}
# The same point of the other half.
MIRROR = (
    [16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 26, 25, 24, 23, 22, 21, 20, 19, 18]
    + [17, 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54]
    + [53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)
# The lids' margins from the inner corner outwards: x of the nodes; cubics through four landmarks.
_LID_X = np.array([1.84, 2.05, 2.4, 2.78, 3.33, 3.87, 4.15, 4.33, 4.46])
_UPPER_LID = np.polyfit([1.84, 2.78, 3.87, 4.46], [3.25, 3.94, 3.87, 3.43], 3)
_LOWER_LID = np.polyfit([1.84, 2.73, 3.86, 4.46], [3.25, 3.08, 3.07, 3.43], 3)
_SLIT_X = np.array([0, 0.5, 1.0, 1.45, 1.85, 2.21])


@dataclass(frozen=True, eq=False)
class Skin:
    """Vertices, and what other parts are tied to.

    Args:
        points: [N, 3].
        triangles: [T, 3], counter-clockwise from outside.
        tri_azimuth: [T, 3]; of each corner in degrees, 0 in front, > 0 to the person's left,
            without a jump inside a triangle.
        landmarks: [68].
        lids: Of the left and of the right eye: (upper, lower) margin from the inner corner to the
            outer one, 9 vertices each, the corners in both.
        lips: (upper, lower) from the right corner to the left one, 11 vertices, likewise.
        inner_lids: [32]; vertices behind the margins that close the gap to the ball, and in
            inner_of the vertices of the margins that they follow.
    """

    points: F64
    triangles: I64
    tri_azimuth: F64
    landmarks: I64
    lids: tuple[tuple[I64, I64], tuple[I64, I64]]
    lips: tuple[I64, I64]
    inner_lids: I64
    inner_of: I64


_MIDDLE = len(_HALF) - 1  # the column of azimuth 0
_COLUMNS = 2 * len(_HALF) - 2
_ROWS = len(_RINGS) + _BUST_RINGS
_AZIMUTH = np.array([-a for a in _HALF[:0:-1]] + _HALF[:-1], np.float64)


def make() -> Skin:
    """The skin of the mean head."""
    rings = _surface(_AZIMUTH[None, :], np.array(_RINGS, np.float64)[:, None])
    points = np.concatenate([rings, _bust(rings[-1])]).reshape(-1, 3)
    landmarks = _landmark_nodes()
    points = _warped(points, *_controls(points, landmarks))

    slit = _nodes(_SLIT, range(-_SLIT_COLUMN, _SLIT_COLUMN + 1))
    first_lower = len(points)
    lower = np.concatenate([slit[:1], first_lower + np.arange(len(slit) - 2), slit[-1:]])
    points = np.concatenate([points, points[slit[1:-1]]])
    points[lower[1:-1], 1] -= 0.04
    points[slit[1:-1], 1] += 0.03
    landmarks[[67, 66, 65]] = lower[[3, 5, 7]]
    lids = (_lids(1), _lids(-1))
    triangles, azimuth = _triangles(slit, lower, len(points))
    points = np.concatenate([points, [[0.0, 14.5, 0.2]]])

    loops = [np.concatenate([up, low[-2:0:-1]]) for up, low in lids]
    inner = []
    for side, loop in zip((1, -1), loops, strict=True):
        at = len(points) + np.arange(len(loop))
        inner.append(at)
        points = np.concatenate([points, _behind(points[loop], side)])
        band, turned = _band(loop, at), np.degrees(np.arctan2(points[loop, 0], points[loop, 2]))
        band = band[:, ::-1] if side > 0 else band
        triangles = np.concatenate([triangles, band])
        azimuth = np.concatenate([azimuth, np.full((len(band), 3), turned.mean())])
    return _compact(
        Skin(
            points,
            triangles,
            azimuth,
            landmarks,
            lids,
            (slit, lower),
            np.concatenate(inner),
            np.concatenate(loops),
        )
    )


def lip_line(x: npt.ArrayLike) -> F64:
    """Height of the line between the shut lips."""
    return -3.36 - 0.0266 * np.asarray(x, np.float64) ** 2


def lid_line(x: npt.ArrayLike, *, upper: bool) -> F64:
    """Height of a lid's margin at the left eye, held beyond the corners."""
    inside = np.clip(x, _LID_X[0], _LID_X[-1])
    return np.polyval(_UPPER_LID if upper else _LOWER_LID, inside)


def _nodes(ring: int, columns: Iterable[int]) -> I64:
    """Vertices of a ring; columns count from the middle, > 0 to the left."""
    return np.array([ring * _COLUMNS + (_MIDDLE + c) % _COLUMNS for c in columns])


def _surface(azimuth: F64, y: F64) -> F64:
    """[..., 3]: the head without features, and the neck under the jaw."""
    sine, cosine = np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))

    def radius(table: F64, power: float) -> F64:
        half, front, back = (_smooth_table(table, k, y) for k in (1, 2, 3))
        depth = np.where(cosine > 0, front, back)
        inverse = np.abs(sine / half) ** power + np.abs(cosine / depth) ** power
        return inverse ** (-1.0 / power)

    jaw = np.interp(np.abs(azimuth), *_JAW)
    soft = np.interp(np.abs(azimuth), [0, 20, 45, 90, 180], [1.0, 1.5, 3.2, 6.0, 9.0])
    face = smoothstep(0.0, 1.0, (y - jaw + soft) / (soft + 0.4))
    r = radius(_NECK, 2.0)
    r = r + (radius(_PROFILE, 2.3) - r) * face
    ear = 1.75 * np.exp(-(((r * cosine + 0.9) / 1.35) ** 2) - ((y - 1.6) / 2.7) ** 4)
    r = r + ear * (np.abs(azimuth) > 60)
    return np.stack(np.broadcast_arrays(r * sine, y, r * cosine), -1)


def _smooth_table(table: F64, column: int, y: F64) -> F64:
    """A column of a table over falling heights, without its creases."""
    fine = np.arange(-20.0, 15.0, 0.05)
    values = np.interp(fine, table[::-1, 0], table[::-1, column])
    window = np.hanning(31)
    rounded = np.convolve(np.pad(values, 15, mode="edge"), window / window.sum(), "valid")
    near_crown = smoothstep(13.0, 12.0, fine)
    return np.interp(y, fine, values + (rounded - values) * near_crown)


def _bust(neck: F64) -> F64:
    """[10, C, 3]: rings from the last one of the neck to the border of the bust."""
    sine, cosine = np.sin(np.radians(_AZIMUTH)), np.cos(np.radians(_AZIMUTH))
    border = np.stack(
        [
            12.4 * np.sign(sine) * np.abs(sine) ** 0.75,
            -14.8 - 4.4 * smoothstep(-0.1, 0.8, cosine),
            np.where(cosine > 0, -1.5 + 7.3 * cosine, -1.5 + 7.7 * cosine),
        ],
        -1,
    )
    middle = 0.65 * neck + 0.35 * border
    middle[:, 1] = 0.45 * neck[:, 1] + 0.55 * border[:, 1]
    middle[:, 2] -= 3.6 * np.maximum(cosine, 0.0) ** 2
    t = (np.arange(1, _BUST_RINGS + 1) / _BUST_RINGS)[:, None, None]
    return (1 - t) ** 2 * neck + 2 * t * (1 - t) * middle + t**2 * border


def _landmark_nodes() -> I64:
    """[68] grid nodes; those of the lower inner lip are set later."""
    nodes = dict(_NODES)
    for left, target in _TARGETS.items():
        ring = int(np.abs(np.array(_RINGS) - target[1]).argmin())
        turned = np.degrees(np.arctan2(target[0], target[2]))
        nodes[left] = (ring, int(np.abs(np.array(_HALF) - turned).argmin()))
    found = np.zeros(68, np.int64)
    for left, (ring, column) in nodes.items():
        found[left] = _nodes(ring, [column])[0]
        found[MIRROR[left]] = _nodes(ring, [-column])[0]
    return found


def _controls(points: F64, landmarks: I64) -> tuple[F64, F64]:
    """Points of the surface [M, 3], and where the warp has to bring them."""
    before, after = [], []
    for left, target in _TARGETS.items():
        before.append(points[landmarks[left]])
        after.append(np.array(target))
    for upper, lower in (_lids(1),):
        for vertices, curve in ((upper, _UPPER_LID), (lower[1:-1], _LOWER_LID)):
            x = _LID_X if curve is _UPPER_LID else _LID_X[1:-1]
            before += list(points[vertices])
            after += list(_on_ball(x, np.polyval(curve, x)))
    for column, x in enumerate(_SLIT_X):
        before.append(points[_nodes(_SLIT, [column])[0]])
        after.append(np.array([x, float(lip_line(x)), 11.27 - 0.233 * x * x]))
    for target in _BETWEEN:
        turned = np.degrees(np.arctan2(target[0], target[2]))
        before.append(_surface(np.array(turned), np.array(target[1])))
        after.append(np.array(target))
    still = np.stack(np.meshgrid([78.0, 90.0], np.arange(-9.0, 12.0, 2.5)), -1).reshape(-1, 2)
    anchors = _surface(still[:, 0], still[:, 1])
    anchors = np.concatenate([anchors, _surface(np.array([0.0, 40.0]), np.array([12.0, 11.0]))])
    start = np.concatenate([np.array(before), anchors])
    end = np.concatenate([np.array(after), anchors])
    mirror = start[:, 0] > 1e-6  # the mid-line is its own mirror image
    flip = np.array([-1.0, 1.0, 1.0])
    return np.concatenate([start, start[mirror] * flip]), np.concatenate([end, end[mirror] * flip])


def _on_ball(x: F64, y: F64) -> F64:
    """[M, 3]: the lids' margins lie on the eyeball, but for the inner corner, which stands out."""
    reach = (BALL + _LID) ** 2 - (x - EYE[0]) ** 2 - (y - EYE[1]) ** 2
    z = EYE[2] + np.sqrt(np.maximum(reach, 0.3))
    return np.stack([x, y, np.maximum(z, 9.2 - 0.9 * (x - 1.84))], -1)


def _warped(points: F64, before: F64, after: F64) -> F64:
    """A smooth displacement of space that carries `before` to `after`, fading behind the cheeks."""
    round_ = 0.5  # cm; the sharpest feature it makes

    def kernel(p: F64) -> F64:
        return np.sqrt(((p[:, None] - before[None]) ** 2).sum(-1) + round_**2)

    weights = np.linalg.solve(kernel(before), after - before)
    turned = np.abs(np.degrees(np.arctan2(points[:, 0], points[:, 2])))
    share = smoothstep(92.0, 76.0, turned) * smoothstep(-10.5, -9.0, points[:, 1])
    share *= smoothstep(14.3, 12.5, points[:, 1])
    return points + kernel(points) @ weights * share[:, None]


def _lids(side: int) -> tuple[I64, I64]:
    """(upper, lower) margin of the left (1) or right (-1) eye, from the inner corner outwards."""
    first, last = _EYE_COLUMNS
    upper_ring, middle, lower_ring = _LIDS
    between = [side * c for c in range(first, last + 1)]
    inner, outer = _nodes(middle, [side * first]), _nodes(middle, [side * last])
    upper = np.concatenate([inner, _nodes(upper_ring, between), outer])
    return upper, np.concatenate([inner, _nodes(lower_ring, between), outer])


def _triangles(slit: I64, lower: I64, crown: int) -> tuple[I64, F64]:
    """All cells but the eyes', with the azimuths of their corners."""
    below = {int(up): int(low) for up, low in zip(slit, lower, strict=True)}
    triangles: list[tuple[int, int, int]] = []
    turned: list[tuple[float, float, float]] = []
    hole = range(_EYE_COLUMNS[0], _EYE_COLUMNS[1])
    for ring in range(-1, _ROWS - 1):
        for column in range(_COLUMNS):
            right = (column + 1) % _COLUMNS
            left_at, right_at = float(_AZIMUTH[column]), float(_AZIMUTH[right] or 0.0)
            right_at += 360.0 if right_at < left_at else 0.0
            c, d = ((ring + 1) * _COLUMNS + k for k in (column, right))
            if ring < 0:
                triangles.append((crown, c, d))
                turned.append(((left_at + right_at) / 2, left_at, right_at))
                continue
            from_middle = column - _MIDDLE
            in_eye = from_middle in hole or -from_middle - 1 in hole
            if in_eye and ring in _LIDS[:2]:
                continue
            a, b = (ring * _COLUMNS + k for k in (column, right))
            if ring == _SLIT:
                a, b = below.get(a, a), below.get(b, b)
            triangles += [(a, c, d), (a, d, b)]
            turned += [(left_at, left_at, right_at), (left_at, right_at, right_at)]
    return np.array(triangles), np.array(turned)


def _behind(rim: F64, side: int) -> F64:
    """The margins' loop moved into the eyeball, so that nothing is seen between lid and ball."""
    centre = EYE * [side, 1.0, 1.0]
    away = rim - centre
    return centre + away * 0.8 - [0.0, 0.0, 0.25]


def _band(outer: I64, inner: I64) -> I64:
    """Triangles between two loops of equal length."""
    a, b, c, d = outer, np.roll(outer, -1), inner, np.roll(inner, -1)
    return np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])


def _compact(skin: Skin) -> Skin:
    """Without the nodes inside the eyes' holes."""
    used = np.unique(skin.triangles)
    place = np.full(len(skin.points), -1)
    place[used] = np.arange(len(used))
    return Skin(
        skin.points[used],
        place[skin.triangles],
        skin.tri_azimuth,
        place[skin.landmarks],
        tuple((place[up], place[low]) for up, low in skin.lids),  # type: ignore[arg-type]
        (place[skin.lips[0]], place[skin.lips[1]]),
        place[skin.inner_lids],
        place[skin.inner_of],
    )
