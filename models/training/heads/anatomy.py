"""What no person changes: the mesh that is drawn, its neighbourhoods, a distance field round it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.faces.state import EXPRESSION
from models.faces.traits import INDEX, SHAPES, Traits
from models.training.heads import field, shirt
from models.training.heads.deform import neck_weight, normals
from models.training.heads.kit import PART, HeadKit

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

# What a triangle is made of: `Anatomy.mat`.
SKIN, EYE, SHIRT, GUMS, TEETH, SOCKET = range(6)
_INNER = {GUMS: "gums_tongue", TEETH: "teeth", SOCKET: "mouth_socket"}

_MOVES = 1e-3  # cm; expressions forget vertices that they move by less
_BALL_DEPTH = 1.75  # cm behind the foremost point of the eyes, from where on they are never seen


class Anatomy:
    """The drawn subset of a kit. Read-only once made; 1 to 2 s for ICT-FaceKit.

    Vertices come in this order, so that a shut mouth is left out by shortening every loop:

        skin 0 .. n_skin | eyeballs, left then right, eye0 .. | shirt shirt0 .. | lashes lash0 .. |
        inner mouth mouth0 .. n

    Attributes:
        kit: The geometry it was made from.
        E: Expression name -> index, as `models.faces.state.EXPRESSION`.
        n, n_skin, n_eye, eye0, shirt0, lash0, mouth0: Counts and beginnings of the above.
        source: [n] int64; the kit's vertex behind each drawn one.
        mean: [n, 3] float32; the mean head. mean_normal: [n, 3]; 0 at lashes.
        tri: [T, 3] int32, uv: [T, 3, 2] float32, mat: [T] uint8 (SKIN, EYE, SHIRT, GUMS, TEETH,
            SOCKET). The first `tri_closed` triangles are those outside the mouth.
        landmarks: [68] int64; part: [n] uint8, index into PARTS; is_teeth: [n] bool.
        eye_side: [n_eye]; 0 left, 1 right. n_left: how many are 0; they come first.
        identity: [32, n, 3] float32; one standard deviation each, the shirt along with the skin.
        softness: [32] float32; what `soft` = 1 adds to the coefficients.
        ex_idx, ex_val, ex_ptr: Sparse expressions for `deform.deform`: [Q] int32, [Q, 3] float32,
            [54] int32.
        weight: [n] float32; share of the head's turn, for `deform.bend`.
        nb, nb_ptr: Neighbours of skin vertex i along edges: nb[nb_ptr[i] : nb_ptr[i + 1]], int32.
        field: `field.Field` round head and shirt; sdf, near, origin, step are its parts.
        lash_paths: [P, 3] int32 root, middle, tip; lash_upper: [P] bool.
    """

    def __init__(self, kit: HeadKit) -> None:
        self.kit, self.E = kit, EXPRESSION
        where = self._choose_vertices(kit)
        self._choose_triangles(kit, where)
        self.mean = np.ascontiguousarray(kit.neutral[self.source])
        self.mean[self.shirt0 : self.lash0] = self.shirt.rest
        self.landmarks = where[kit.landmarks]
        self.part = kit.vertex_part[self.source]
        self.is_teeth = self.part == PART["teeth"]
        self.eye_side = (self.part[self.eye0 : self.shirt0] == PART["sclera_r"]).astype(np.int64)
        self.n_left = int((self.eye_side == 0).sum())
        self.identity = np.ascontiguousarray(kit.identity[:, self.source])
        self.softness = self._soft_direction()
        self._sparse_expressions()
        self.weight = neck_weight(self.mean)
        self.weight[self.shirt0 : self.lash0] *= 0.9
        self._neighbours()
        self._make_field()
        self.lash_paths = where[kit.lash_paths].astype(np.int32)
        self.lash_upper = kit.lash_upper

    def coefficients(self, traits: Traits) -> F32:
        """[32] coefficients of the shape modes: the person's own, and how soft it is."""
        return traits.vector[:SHAPES] + traits.vector[INDEX["soft"]] * self.softness

    def displacement(self, traits: Traits) -> F32:
        """[n, 3] from the mean head to this person's."""
        return np.tensordot(self.coefficients(traits), self.identity, 1).astype(np.float32)

    def _choose_vertices(self, kit: HeadKit) -> npt.NDArray[np.int64]:
        """Sets `source` and where the groups begin; returns kit vertex -> drawn vertex or -1."""

        def of(*parts: str) -> npt.NDArray[np.int64]:
            return np.flatnonzero(np.isin(kit.vertex_part, [PART[p] for p in parts]))

        skin, lashes = of("face", "head_neck"), of("lashes_l", "lashes_r")
        eyes = np.concatenate([of("sclera_l"), of("sclera_r")])
        mouth = np.setdiff1d(kit.triangles[kit.mouth_seen], skin)
        is_skin = np.isin(kit.tri_part, [PART["face"], PART["head_neck"]])
        self.shirt = shirt.make(kit.neutral, kit.triangles[is_skin])
        groups = [skin, eyes, self.shirt.source, lashes, mouth]
        self.source = np.concatenate(groups).astype(np.int64)
        begin = np.cumsum([0, *(len(group) for group in groups)])
        self.n_skin, self.n_eye, self.n = len(skin), len(eyes), int(begin[-1])
        self.eye0, self.shirt0, self.lash0, self.mouth0 = (int(b) for b in begin[1:5])
        where = np.full(len(kit.neutral), -1)
        for group, at in ((skin, 0), (eyes, self.eye0), (lashes, self.lash0), (mouth, self.mouth0)):
            where[group] = at + np.arange(len(group))
        return where

    def _choose_triangles(self, kit: HeadKit, where: npt.NDArray[np.int64]) -> None:
        def of(*parts: str) -> npt.NDArray[np.bool_]:
            return np.isin(kit.tri_part, [PART[p] for p in parts])

        depth = kit.neutral[self.source[self.eye0 : self.shirt0], 2].max() - _BALL_DEPTH
        in_front = kit.neutral[kit.triangles, 2].mean(1) > depth
        taken = [(SKIN, of("face", "head_neck")), (EYE, of("sclera_l", "sclera_r") & in_front)]
        taken += [(material, of(part) & kit.mouth_seen) for material, part in _INNER.items()]
        tri = [where[kit.triangles[mask]] for _, mask in taken]
        uv = [kit.tri_uv[mask] for _, mask in taken]
        mat = [np.full(mask.sum(), material, np.uint8) for material, mask in taken]
        cloth = self.shirt.triangles + self.shirt0
        tri.insert(2, cloth)
        uv.insert(2, np.zeros((len(cloth), 3, 2), np.float32))
        mat.insert(2, np.full(len(cloth), SHIRT, np.uint8))
        self.tri = np.concatenate(tri).astype(np.int32)
        self.uv = np.concatenate(uv).astype(np.float32)
        self.mat = np.concatenate(mat)
        self.tri_closed = int((self.mat <= SHIRT).sum())

    def _soft_direction(self) -> F32:
        """Direction along which faces get softer: measured on landmarks, one mode at a time.

        Jaw, nose and brow ridge shrink, lips and eyes grow. Its length is two standard deviations.
        """
        base = _soft_measures(self.mean[self.landmarks])
        moved = [
            _soft_measures(self.mean[self.landmarks] + e[self.landmarks]) for e in self.identity
        ]
        change = np.stack(moved) - base  # [32, measures]
        direction = (change / (np.linalg.norm(change, axis=0) + 1e-9)).sum(1)
        return (direction / (np.linalg.norm(direction) + 1e-9) * 2.0).astype(np.float32)

    def _sparse_expressions(self) -> None:
        index, value, begin = [], [], [0]
        for dense in self.kit.expression:
            offset = dense[self.source]
            offset[self.shirt0 : self.lash0] = 0
            active = np.flatnonzero(np.abs(offset).max(1) > _MOVES)
            index.append(active.astype(np.int32))
            value.append(offset[active])
            begin.append(begin[-1] + len(active))
        self.ex_idx, self.ex_val = np.concatenate(index), np.concatenate(value)
        self.ex_ptr = np.array(begin, np.int32)

    def _neighbours(self) -> None:
        skin = self.tri[self.mat == SKIN]
        pairs = [skin[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2))]
        edges = np.unique(np.concatenate(pairs), axis=0)
        self.nb_ptr = np.searchsorted(edges[:, 0], np.arange(self.n_skin + 1)).astype(np.int32)
        self.nb = np.ascontiguousarray(edges[:, 1], np.int32)

    def _make_field(self) -> None:
        self.mean_normal = np.zeros((self.n, 3), np.float32)
        normals(self.tri, self.mean, self.mean_normal)
        # Every second vertex of the skin: they lie closer than the grid's nodes.
        taken = [np.arange(0, self.n_skin, 2), np.arange(self.shirt0, self.lash0)]
        near = np.concatenate(taken)
        self.field = field.around(self.mean[near], self.mean_normal[near], near)
        self.sdf, self.near = self.field.sdf, self.field.near
        self.origin, self.step = self.field.origin, self.field.step


def _soft_measures(q: F32) -> npt.NDArray[np.float64]:
    """Nine numbers of a face's landmarks [68, 3]; all grow as it gets softer."""

    def gap(a: int, b: int) -> float:
        return float(np.linalg.norm(q[a] - q[b]))

    width = gap(0, 16)
    return np.array(
        [
            -gap(4, 12) / width,  # jaw
            -gap(31, 35) / width,  # nose: width, length, tip
            -gap(27, 33) / width,
            -gap(27, 30) / width,
            gap(51, 57) / width,  # lips
            (gap(37, 41) + gap(44, 46)) / width,  # eyes
            (q[19, 1] + q[24, 1] - q[37, 1] - q[44, 1]) / width,  # brows: height, depth
            -(q[19, 2] + q[24, 2] - q[37, 2] - q[44, 2]) / width,
            -gap(8, 57) / width,  # chin
        ]
    )
