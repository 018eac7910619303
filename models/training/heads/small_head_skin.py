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

from models.training.heads import small_head_plan as plan
from models.training.heads.deform import smoothstep

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


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


_MIDDLE = len(plan.HALF) - 1  # the column of azimuth 0
_COLUMNS = 2 * len(plan.HALF) - 2
_ROWS = len(plan.RINGS) + plan.BUST_RINGS
_AZIMUTH = np.array([-a for a in plan.HALF[:0:-1]] + plan.HALF[:-1], np.float64)


def make() -> Skin:
    """The skin of the mean head."""
    rings = _surface(_AZIMUTH[None, :], np.array(plan.RINGS, np.float64)[:, None])
    points = np.concatenate([rings, _bust(rings[-1])]).reshape(-1, 3)
    landmarks = _landmark_nodes()
    points = _warped(points, *_controls(points, landmarks))

    slit = _nodes(plan.SLIT, range(-plan.SLIT_COLUMN, plan.SLIT_COLUMN + 1))
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
        band = _band(at, loop) if side > 0 else _band(loop, at)
        turned = np.degrees(np.arctan2(points[loop, 0], points[loop, 2])).mean()
        triangles = np.concatenate([triangles, band])
        azimuth = np.concatenate([azimuth, np.full((len(band), 3), turned)])
    behind, margins = np.concatenate(inner), np.concatenate(loops)
    return _compact(
        Skin(points, triangles, azimuth, landmarks, lids, (slit, lower), behind, margins)
    )


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

    jaw = np.interp(np.abs(azimuth), *plan.JAW)
    soft = np.interp(np.abs(azimuth), [0, 20, 45, 90, 180], [1.0, 1.5, 3.2, 6.0, 9.0])
    face = smoothstep(0.0, 1.0, (y - jaw + soft) / (soft + 0.4))
    r = radius(plan.NECK, 2.0)
    r = r + (radius(plan.PROFILE, 2.3) - r) * face
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
    t = (np.arange(1, plan.BUST_RINGS + 1) / plan.BUST_RINGS)[:, None, None]
    return (1 - t) ** 2 * neck + 2 * t * (1 - t) * middle + t**2 * border


def _landmark_nodes() -> I64:
    """[68] grid nodes; those of the lower inner lip are set later."""
    nodes = dict(plan.NODES)
    for left, target in plan.TARGETS.items():
        ring = int(np.abs(np.array(plan.RINGS) - target[1]).argmin())
        turned = np.degrees(np.arctan2(target[0], target[2]))
        nodes[left] = (ring, int(np.abs(np.array(plan.HALF) - turned).argmin()))
    found = np.zeros(68, np.int64)
    for left, (ring, column) in nodes.items():
        found[left] = _nodes(ring, [column])[0]
        found[plan.MIRROR[left]] = _nodes(ring, [-column])[0]
    return found


def _controls(points: F64, landmarks: I64) -> tuple[F64, F64]:
    """Points of the surface [M, 3], and where the warp has to bring them."""
    before, after = [], []
    for left, target in plan.TARGETS.items():
        before.append(points[landmarks[left]])
        after.append(np.array(target))
    for upper, lower in (_lids(1),):
        for vertices, curve in ((upper, plan.UPPER_LID), (lower[1:-1], plan.LOWER_LID)):
            x = plan.LID_X if curve is plan.UPPER_LID else plan.LID_X[1:-1]
            before += list(points[vertices])
            after += list(_on_ball(x, np.polyval(curve, x)))
    for column, x in enumerate(plan.SLIT_X):
        before.append(points[_nodes(plan.SLIT, [column])[0]])
        after.append(np.array([x, float(plan.lip_line(x)), 11.27 - 0.233 * x * x]))
    for target in plan.BETWEEN:
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
    reach = (plan.BALL + plan.LID) ** 2 - (x - plan.EYE[0]) ** 2 - (y - plan.EYE[1]) ** 2
    z = plan.EYE[2] + np.sqrt(np.maximum(reach, 0.3))
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
    first, last = plan.EYE_COLUMNS
    upper_ring, middle, lower_ring = plan.LIDS
    between = [side * c for c in range(first, last + 1)]
    inner, outer = _nodes(middle, [side * first]), _nodes(middle, [side * last])
    upper = np.concatenate([inner, _nodes(upper_ring, between), outer])
    return upper, np.concatenate([inner, _nodes(lower_ring, between), outer])


def _triangles(slit: I64, lower: I64, crown: int) -> tuple[I64, F64]:
    """All cells but the eyes', with the azimuths of their corners."""
    below = {int(up): int(low) for up, low in zip(slit, lower, strict=True)}
    triangles: list[tuple[int, int, int]] = []
    turned: list[tuple[float, float, float]] = []
    hole = range(plan.EYE_COLUMNS[0], plan.EYE_COLUMNS[1])
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
            if in_eye and ring in plan.LIDS[:2]:
                continue
            a, b = (ring * _COLUMNS + k for k in (column, right))
            if ring == plan.SLIT:
                a, b = below.get(a, a), below.get(b, b)
            triangles += [(a, c, d), (a, d, b)]
            turned += [(left_at, left_at, right_at), (left_at, right_at, right_at)]
    return np.array(triangles), np.array(turned)


def _behind(rim: F64, side: int) -> F64:
    """The margins' loop moved into the eyeball, so that nothing is seen between lid and ball."""
    centre = plan.EYE * [side, 1.0, 1.0]
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
