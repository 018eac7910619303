"""The geometry that heads are made of: one mesh, its shape modes and its expressions.

Two kits exist: a packed copy of ICT-FaceKit Light that the user names (`facekit`), and a small head
of our own that is made by code (`small_head`). Everything else in this folder works on either, in
the same coordinates: centimetres, x to the person's left, y up, z to the camera; hairline, collar,
cheeks and camera are placed by numbers in them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import BadKit
from models.faces.state import EXPRESSIONS
from models.faces.traits import SHAPES

PARTS = (
    "face",
    "head_neck",
    "sclera_l",
    "sclera_r",
    "lashes_l",
    "lashes_r",
    "gums_tongue",
    "teeth",
    "mouth_socket",
)
PART = {name: k for k, name in enumerate(PARTS)}
LANDMARKS = 68  # Multi-PIE

_FAR = 200.0  # cm; no head reaches there


@dataclass(frozen=True, eq=False)
class HeadKit:
    """A head that can take many shapes and expressions. All arrays are C-contiguous.

    Args:
        name: "ict-facekit-light" or "small".
        neutral: [N, 3] float32; the mean head at rest, with neck and shoulders.
        triangles: [T, 3] int32; counter-clockwise seen from outside.
        tri_uv: [T, 3, 2] float32; v upwards; u's integer part is the tile: 0 the face, 1 the back
            of the head and the neck.
        tri_part, vertex_part: [T], [N] uint8; indices into PARTS.
        landmarks: [68] int32; vertices of the skin in Multi-PIE order.
        identity: [32, N, 3] float32; a coefficient of 1 is one standard deviation. Modes that a kit
            lacks are zero.
        expression: [53, N, 3] float32; in the order of `models.faces.state.EXPRESSIONS`.
        lash_paths: [P, 3] int32; root, middle and tip of each lash.
        lash_upper: [P] bool.
        mouth_seen: [T] bool; triangles of the inner mouth that an open mouth can show.
    Raises:
        BadKit: An array has another shape or type, points nowhere or lies far out.
    """

    name: str
    neutral: npt.NDArray[np.float32]
    triangles: npt.NDArray[np.int32]
    tri_uv: npt.NDArray[np.float32]
    tri_part: npt.NDArray[np.uint8]
    vertex_part: npt.NDArray[np.uint8]
    landmarks: npt.NDArray[np.int32]
    identity: npt.NDArray[np.float32]
    expression: npt.NDArray[np.float32]
    lash_paths: npt.NDArray[np.int32]
    lash_upper: npt.NDArray[np.bool_]
    mouth_seen: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        n, t, p = len(self.neutral), len(self.triangles), len(self.lash_paths)
        layout: dict[str, tuple[type, tuple[int, ...]]] = {
            "neutral": (np.float32, (n, 3)),
            "triangles": (np.int32, (t, 3)),
            "tri_uv": (np.float32, (t, 3, 2)),
            "tri_part": (np.uint8, (t,)),
            "vertex_part": (np.uint8, (n,)),
            "landmarks": (np.int32, (LANDMARKS,)),
            "identity": (np.float32, (SHAPES, n, 3)),
            "expression": (np.float32, (len(EXPRESSIONS), n, 3)),
            "lash_paths": (np.int32, (p, 3)),
            "lash_upper": (np.bool_, (p,)),
            "mouth_seen": (np.bool_, (t,)),
        }
        for name, (dtype, shape) in layout.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape:
                need = f"{np.dtype(dtype).name} {list(shape)}"
                raise BadKit(f"{name} is {array.dtype} {list(array.shape)}; need {need}")
            if not array.flags.c_contiguous:
                raise BadKit(f"{name} is not C-contiguous; use numpy.ascontiguousarray")
        self._check_numbers()
        self._check_parts()

    def _check_numbers(self) -> None:
        for name in ("neutral", "identity", "expression", "tri_uv"):
            largest = np.abs(getattr(self, name)).max(initial=0.0)
            if not largest < _FAR:  # also when it is not a number
                raise BadKit(f"{name} holds {largest:g}; its numbers must be within +-{_FAR:g}")
        for name, below in (
            ("triangles", len(self.neutral)),
            ("landmarks", len(self.neutral)),
            ("lash_paths", len(self.neutral)),
            ("tri_part", len(PARTS)),
            ("vertex_part", len(PARTS)),
        ):
            array = getattr(self, name).astype(np.int64)
            if array.size and not (0 <= array.min() and array.max() < below):
                span = f"{array.min()} .. {array.max()}"
                raise BadKit(f"{name} spans {span}; its indices must be in 0 .. {below - 1}")

    def _check_parts(self) -> None:
        for name in PARTS[:4]:
            if not ((self.vertex_part == PART[name]).any() and (self.tri_part == PART[name]).any()):
                raise BadKit(f"there is no {name}: neither head nor eyes can be left out")
        if not np.isin(self.vertex_part[self.landmarks], [PART["face"], PART["head_neck"]]).all():
            raise BadKit("a landmark is not a vertex of face or head_neck; all 68 must be")
        for name in ("face", "head_neck", "sclera_l", "sclera_r"):
            corners = self.triangles[self.tri_part == PART[name]]
            skin = ("face", "head_neck") if name in PARTS[:2] else (name,)
            if not np.isin(self.vertex_part[corners], [PART[s] for s in skin]).all():
                raise BadKit(f"a triangle of {name} has a corner in another part")

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{field.name} {list(getattr(self, field.name).shape)}" for field in fields(self)[1:3]
        )
        return f"HeadKit({self.name!r}, {sizes})"


def load(path: Path | None) -> HeadKit:
    """The kit of a facekit.npz; without a path, the small head.

    Raises:
        BadKit: The file is no facekit, is damaged or cannot be read.
    """
    if path is None:
        from models.training.heads.small_head import make

        return make()
    from models.training.heads.facekit import read

    return read(path)
