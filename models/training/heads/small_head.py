"""A small head of our own: made by code, with the interface of any kit, for tests and examples.

It sits in the same coordinates as ICT-FaceKit Light, so that hairlines, collars and cameras fit it,
has eyes, lashes, a mouth with teeth and tongue, 24 identity modes and all 53 expressions. It is no
portrait, but everything that is drawn, labelled or learnt can be tried on it without a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.faces.state import EXPRESSION, EXPRESSIONS
from models.faces.traits import SHAPES
from models.training.heads import small_head_shapes as shapes
from models.training.heads import small_head_skin as skins
from models.training.heads.deform import smoothstep
from models.training.heads.kit import PART, HeadKit
from models.training.heads.small_head_plan import BALL, EYE, lid_line
from models.training.heads.small_head_skin import F64, I64

NAME = "small"
_MOUTH = np.array([0.0, -3.4, 10.5])
_FACE_BACK, _FACE_LOW = 102.0, -9.9  # degrees, cm; what is drawn from the face's tile


@dataclass
class _Mesh:
    """Parts put together: lists of arrays, one entry a part."""

    points: list[F64] = field(default_factory=list)
    vertex_part: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    identity: list[F64] = field(default_factory=list)
    expression: list[F64] = field(default_factory=list)
    triangles: list[I64] = field(default_factory=list)
    tri_part: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    uv: list[F64] = field(default_factory=list)

    def add(self, part: str, points: F64, identity: F64, expression: F64) -> int:
        """Vertices of a part; returns the number of the first."""
        first = sum(map(len, self.points))
        self.points.append(points)
        self.vertex_part.append(np.full(len(points), PART[part], np.uint8))
        self.identity.append(np.broadcast_to(identity, (shapes.MODES, len(points), 3)))
        self.expression.append(np.broadcast_to(expression, (len(EXPRESSIONS), len(points), 3)))
        return first

    def draw(self, part: str, triangles: I64, uv: F64 | None = None) -> None:
        self.triangles.append(triangles)
        self.tri_part.append(np.full(len(triangles), PART[part], np.uint8))
        self.uv.append(np.full((len(triangles), 3, 2), 0.5) if uv is None else uv)


def make() -> HeadKit:
    """The small head; some 6,000 vertices, 0.2 s."""
    skin = skins.make()
    identity = shapes.identity(skin.points)
    expression = _skin_expression(skin)
    mesh = _Mesh()
    mesh.add("face", skin.points, identity, expression)
    face_tile = _draw_skin(mesh, skin)
    mesh.vertex_part[0][:] = PART["head_neck"]
    mesh.vertex_part[0][np.unique(skin.triangles[face_tile])] = PART["face"]
    for side, letter in ((1.0, "l"), (-1.0, "r")):
        _add_eyeball(mesh, side, f"sclera_{letter}")
    paths, upper = _add_lashes(mesh, skin, identity, expression)
    _add_socket(mesh, skin)
    _add_teeth_and_tongue(mesh)
    return _kit(mesh, skin, paths, upper)


def _kit(mesh: _Mesh, skin: skins.Skin, paths: list[I64], upper: list[bool]) -> HeadKit:
    points = np.concatenate(mesh.points)
    modes = np.zeros((SHAPES, len(points), 3), np.float32)
    modes[: shapes.MODES] = np.concatenate(mesh.identity, 1)
    tri_part = np.concatenate(mesh.tri_part)
    inner = [PART[p] for p in ("gums_tongue", "teeth", "mouth_socket")]
    return HeadKit(
        name=NAME,
        neutral=points.astype(np.float32),
        triangles=np.concatenate(mesh.triangles).astype(np.int32),
        tri_uv=np.concatenate(mesh.uv).astype(np.float32),
        tri_part=tri_part,
        vertex_part=np.concatenate(mesh.vertex_part),
        landmarks=skin.landmarks.astype(np.int32),
        identity=modes,
        expression=np.concatenate(mesh.expression, 1).astype(np.float32),
        lash_paths=np.array(paths, np.int32),
        lash_upper=np.array(upper, bool),
        mouth_seen=np.isin(tri_part, inner),
    )


def _draw_skin(mesh: _Mesh, skin: skins.Skin) -> npt.NDArray[np.bool_]:
    """Which triangles are drawn from the face's tile. The scale of that tile is ICT-FaceKit's, 25
    cm a unit in front, because brows and lips are painted in texels.
    """
    y, turned = skin.points[skin.triangles, 1], skin.tri_azimuth
    face = (np.abs(turned).max(1) <= _FACE_BACK) & (y.min(1) > _FACE_LOW)
    away = np.radians(np.abs(turned))
    corner = np.radians(75.0)
    u = np.where(away < corner, 0.402 * np.sin(away), 0.3883 + 0.2 * (away - corner))
    v = np.where(y < 6.0, 0.578 + 0.0389 * y, 0.8114 + 0.0215 * (y - 6.0))
    front = np.stack([0.5 + np.sign(turned) * u, v], -1)
    back = np.stack([1.01 + 0.98 * (turned + 180.0) / 360.0, 0.01 + 0.98 * (y + 19.3) / 34.0], -1)
    mesh.draw("face", skin.triangles[face], front[face])
    mesh.draw("head_neck", skin.triangles[~face], back[~face])
    return face


def _skin_expression(skin: skins.Skin) -> F64:
    """[53, N, 3]."""
    p = skin.points
    out = shapes.expression(p)
    jaw = shapes.hinged(p, shapes.jaw_share(p))
    out[EXPRESSION["jawOpen"]] = jaw
    lip = shapes.Bump((0.0, -3.9, 11.3), (2.4, 1.0, 2.0), (1.0, 1.0, 1.0))
    out[EXPRESSION["mouthClose"]] = -jaw * lip(p)
    for side, letter, (upper, lower) in zip((1.0, -1.0), "LR", skin.lids, strict=True):
        _add_lids(out, p, side, letter, upper, lower)
    # What closes the gap behind the lids goes where they go.
    out[:, skin.inner_lids] = out[:, skin.inner_of]
    return out


def _add_lids(out: F64, p: F64, side: float, letter: str, upper: I64, lower: I64) -> None:
    """The six shapes that move an eye's lids."""
    x = side * p[:, 0]
    near = smoothstep(1.3, 1.9, x) * smoothstep(5.2, 4.4, x) * smoothstep(6.5, 7.5, p[:, 2])
    over = p[:, 1] - lid_line(x, upper=True)
    under = lid_line(x, upper=False) - p[:, 1]
    top = near * smoothstep(1.5, 0.0, over) * (over > -0.06)
    bottom = near * smoothstep(1.0, 0.0, under) * (under > -0.06)
    for share, mine, other in ((top, upper, lower), (bottom, lower, upper)):
        share[other[1:-1]] = 0.0
        share[mine[1:-1]] = 1.0
        share[mine[[0, -1]]] = 0.0
    # To the lower margin at the same place: a little above, so that they touch and do not cross.
    order = np.argsort(side * p[upper, 0])
    drop = (p[lower] - p[upper] + [0.0, 0.05, 0.03])[order]
    shut = np.stack([np.interp(x, side * p[upper, 0][order], drop[:, k]) for k in range(3)], -1)

    def add(shape: str, at_top: F64, at_bottom: tuple[float, float, float]) -> None:
        moved = top[:, None] * at_top + bottom[:, None] * np.array(at_bottom)
        out[EXPRESSION[f"{shape}_{letter}"]] += moved

    add("eyeBlink", shut, (0.0, 0.04, 0.0))
    add("eyeLookDown", 0.45 * shut, (0.0, -0.12, 0.0))
    add("eyeWide", np.array([0.0, 0.3, -0.08]), (0.0, -0.05, 0.0))
    add("eyeLookUp", np.array([0.0, 0.3, -0.08]), (0.0, 0.08, 0.0))
    add("eyeLookIn", np.array([-0.12 * side, 0.0, 0.02]), (-0.1 * side, 0.0, 0.0))
    add("eyeLookOut", np.array([0.12 * side, 0.0, 0.0]), (0.1 * side, 0.0, 0.0))


def _add_eyeball(mesh: _Mesh, side: float, part: str) -> None:
    """A ball without its back, its pole at the pupil; it moves with the modes as a whole."""
    centre = EYE * [side, 1.0, 1.0]
    across, around = 11, 24
    polar = np.radians(np.linspace(0.0, 110.0, across + 1))[1:, None]
    turn = np.radians(np.arange(around) * 360.0 / around)[None, :]
    ring = np.stack(
        np.broadcast_arrays(
            np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)
        ),
        -1,
    ).reshape(-1, 3)
    points = centre + BALL * np.concatenate([[[0.0, 0.0, 1.0]], ring])
    moved = shapes.identity(centre[None])
    first = mesh.add(part, points, moved, np.zeros((len(EXPRESSIONS), 1, 3)))
    k = np.arange(around)
    fan = np.stack([0 * k, 1 + k, 1 + (k + 1) % around], 1)
    rows = [_strip(1 + r * around + k, 1 + (r + 1) * around + k, True) for r in range(across - 1)]
    mesh.draw(part, first + np.concatenate([fan, *rows]))


def _strip(a: I64, b: I64, closed: bool = False) -> I64:
    """Triangles between two rows of vertices, b on the right of a seen along them from outside."""
    if closed:
        a, b = np.append(a, a[0]), np.append(b, b[0])
    first = np.stack([a[:-1], b[:-1], b[1:]], 1)
    return np.concatenate([first, np.stack([a[:-1], b[1:], a[1:]], 1)])


def _add_lashes(
    mesh: _Mesh, skin: skins.Skin, identity: F64, expression: F64
) -> tuple[list[I64], list[bool]]:
    """Hairs along the margins; they move with the margin's two nearest vertices."""
    paths: list[I64] = []
    upper: list[bool] = []
    for side, letter, margins in zip((1.0, -1.0), "lr", skin.lids, strict=True):
        for margin, up, count in ((margins[0], True, 16), (margins[1], False, 11)):
            at = np.linspace(0.7, len(margin) - 1.2, count)
            k = at.astype(int)
            f = (at - k)[:, None]
            a, b = margin[k], margin[k + 1]
            root = skin.points[a] * (1 - f) + skin.points[b] * f
            fan = 0.45 * (root[:, 0] - side * EYE[0])
            away = np.stack([fan, np.full(count, 0.5 if up else -0.5), np.full(count, 0.8)], -1)
            length = 0.85 if up else 0.5
            away *= length / np.linalg.norm(away, axis=1, keepdims=True)
            sag = np.array([0.0, -0.09 if up else 0.05, 0.0])
            hair = np.stack([root, root + 0.5 * away + sag, root + away], 1).reshape(-1, 3)

            def along(moves: F64, a: I64 = a, b: I64 = b, f: F64 = f) -> F64:
                return np.repeat(moves[:, a] * (1 - f) + moves[:, b] * f, 3, axis=1)

            first = mesh.add(f"lashes_{letter}", hair, along(identity), along(expression))
            paths += list(first + np.arange(3 * count).reshape(-1, 3))
            upper += [up] * count
    return paths, upper


def _add_socket(mesh: _Mesh, skin: skins.Skin) -> None:
    """A pocket behind the lips, seen from inside."""
    top, bottom = skin.lips
    loop = np.concatenate([top, bottom[-2:0:-1]])
    rim = skin.points[loop]
    is_top = np.arange(len(loop)) < len(top)
    is_corner = np.isin(loop, top[[0, -1]])
    jaw = np.where(is_corner, 0.5, np.where(is_top, 0.0, 1.0))
    lift = np.where(is_corner, 0.0, np.where(is_top, 1.0, -1.0))
    rows = [loop]
    for back, open_, wide, stays in (
        (0.5, 0.35, 1.0, 0.9),
        (2.0, 1.3, 1.15, 0.6),
        (6.0, 1.2, 1.0, 0),
    ):
        points = rim * [wide, 1.0, 1.0] + np.stack([0 * lift, open_ * lift, 0 * lift - back], -1)
        moves = shapes.expression(points) * stays
        moves[EXPRESSION["jawOpen"]] = shapes.hinged(points, jaw * (0.4 + 0.6 * stays))
        moves[EXPRESSION["mouthClose"]] = -moves[EXPRESSION["jawOpen"]] * stays
        first = mesh.add("mouth_socket", points, shapes.identity(points), moves)
        rows.append(first + np.arange(len(loop)))
    back_wall = mesh.add(
        "mouth_socket",
        np.array([[0.0, -3.6, 4.5]]),
        np.zeros((shapes.MODES, 1, 3)),
        np.zeros((len(EXPRESSIONS), 1, 3)),
    )
    walls = [_strip(a, b, True) for a, b in zip(rows[:-1], rows[1:], strict=True)]
    last = rows[-1]
    fan = np.stack([last, np.full(len(last), back_wall), np.roll(last, -1)], 1)
    mesh.draw("mouth_socket", np.concatenate([*walls, fan]))


def _add_teeth_and_tongue(mesh: _Mesh) -> None:
    """Two arcs of teeth with gums, and a tongue that goes with the lower ones."""
    angle = np.radians(np.linspace(-66.0, 66.0, 17))

    def arc(y: float, width: float, front: float) -> F64:
        return np.stack(
            [width * np.sin(angle), y + 0 * angle, front - 3.9 * (1 - np.cos(angle))], -1
        )

    upper = [arc(-0.9, 2.6, 10.2), arc(-2.2, 2.75, 10.45), arc(-3.0, 2.8, 10.55)]
    upper += [arc(-3.75, 2.75, 10.45), arc(-3.7, 2.55, 10.1)]
    lower = [arc(-3.95, 2.35, 9.75), arc(-3.9, 2.55, 10.1), arc(-4.6, 2.6, 10.15)]
    lower += [arc(-5.2, 2.5, 10.0), arc(-6.0, 2.3, 9.6)]
    for rows, is_jaw, gum in ((upper, False, 0), (lower, True, 3)):
        points = np.concatenate(rows)
        first = {}
        for part in ("teeth", "gums_tongue"):  # parts do not share vertices
            first[part] = mesh.add(part, points, _rigid(), _of_jaw(points, is_jaw))
        for row in range(len(rows) - 1):
            part = "gums_tongue" if row == gum else "teeth"
            a = first[part] + row * len(angle) + np.arange(len(angle))
            mesh.draw(part, _strip(a, a + len(angle)))
    u, v = np.meshgrid(np.linspace(-1.0, 1.0, 9), np.linspace(0.0, 1.0, 8))
    height = -4.15 - 0.75 * u**2 - 1.1 * v**6
    tip = 1.0 - 0.18 * v**4
    points = np.stack([1.75 * u * tip, height, 5.0 + 4.6 * v * (1 - 0.1 * u**2)], -1).reshape(-1, 3)
    first_tongue = mesh.add("gums_tongue", points, _rigid(), _of_jaw(points, True))
    rows_of = first_tongue + np.arange(len(points)).reshape(u.shape)
    mesh.draw(
        "gums_tongue",
        np.concatenate([_strip(a, b) for a, b in zip(rows_of, rows_of[1:], strict=False)]),
    )


def _rigid() -> F64:
    """[24, 1, 3]: what is inside the mouth moves with the modes as a whole."""
    return shapes.identity(_MOUTH[None])


def _of_jaw(points: F64, is_jaw: bool) -> F64:
    """[53, M, 3] of teeth: the lower ones go with the jaw, and nothing else moves them."""
    out = np.zeros((len(EXPRESSIONS), len(points), 3))
    if is_jaw:
        out[EXPRESSION["jawOpen"]] = shapes.hinged(points, np.ones(len(points)))
        sideways = shapes.expression(np.array([[0.0, -6.0, 10.2]]))
        for name in ("jawForward", "jawLeft", "jawRight"):
            out[EXPRESSION[name]] = sideways[EXPRESSION[name]]
    return out
