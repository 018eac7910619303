"""Packing ICT-FaceKit Light, a folder of OBJ files, into the one small file that `facekit` reads.

Shape modes are rounded to `identity_step`, predicted along a spanning tree of the mesh and stored
as differences, in which deflate finds small numbers: 9 MB instead of 400. Expressions are sparse.
Afterwards the file is read back and held against the source.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import BadKit
from models.faces.state import EXPRESSIONS
from models.faces.traits import SHAPES
from models.training.heads import facekit
from models.training.heads.kit import LANDMARKS, PARTS

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_STEP_IDENTITY, _STEP_EXPRESSION = 1.0e-4, 3.0e-4  # cm
_NEUTRAL, _INDICES = "generic_neutral_mesh.obj", "vertex_indices.json"


@dataclass(frozen=True)
class Layout:
    """Which vertices and polygons of the OBJ files are what.

    Args:
        parts: Names; those of `kit.PARTS` must be among them.
        first_vertex, first_polygon: Of each part, rising.
        vertices: In all.
    """

    parts: tuple[str, ...]
    first_vertex: tuple[int, ...]
    first_polygon: tuple[int, ...]
    vertices: int


# From the table in the README of ICT-FaceKit Light.
_ICT_TABLE = (
    ("face", 0, 0),
    ("head_neck", 9409, 9230),
    ("mouth_socket", 11248, 11144),
    ("eye_socket_l", 13294, 13226),
    ("eye_socket_r", 13678, 13630),
    ("gums_tongue", 14062, 14034),
    ("teeth", 17039, 17006),
    ("sclera_l", 21451, 21496),
    ("iris_l", 22221, 22296),
    ("sclera_r", 23021, 23094),
    ("iris_r", 23791, 23894),
    ("lacrimal_l", 24591, 24692),
    ("lacrimal_r", 24795, 24855),
    ("eye_blend_l", 24999, 25018),
    ("eye_blend_r", 25023, 25033),
    ("eye_occlusion_l", 25047, 25048),
    ("eye_occlusion_r", 25199, 25176),
    ("lashes_l", 25351, 25304),
    ("lashes_r", 26035, 25844),
)
ICT = Layout(
    tuple(name for name, _, _ in _ICT_TABLE),
    tuple(vertex for _, vertex, _ in _ICT_TABLE),
    tuple(polygon for _, _, polygon in _ICT_TABLE),
    26719,
)


@dataclass(frozen=True)
class Packed:
    """What was written.

    Args:
        size: Bytes.
        identity_error, expression_error: Of the file against the source, largest, cm.
    """

    path: Path
    size: int
    triangles: int
    modes: int
    identity_error: float
    expression_error: float


def pack(
    folder: Path,
    out: Path,
    *,
    modes: int = 100,
    layout: Layout = ICT,
    progress: Callable[[int, int], None] | None = None,
) -> Packed:
    """Packs `folder` (FaceXModel of the public repository) into `out`.

    Args:
        modes: Shape modes to keep, at least 32.
        progress: Called with how many files have been read, and of how many.
    Raises:
        BadKit: A file is missing or does not fit the others; which, and what is wrong.
        OSError: `out` cannot be written. Nothing is left of it then.
    """
    if not SHAPES <= modes <= 999:
        raise BadKit(f"cannot keep {modes} shape modes; need {SHAPES} .. 999")
    neutral = _vertices(folder / _NEUTRAL)
    if len(neutral) != layout.vertices:
        raise BadKit(f"{folder / _NEUTRAL} has {len(neutral)} vertices, not {layout.vertices}")
    mesh, landmarks = _mesh(folder / _NEUTRAL, layout), _landmarks(folder / _INDICES)
    files = [folder / f"identity{k:03d}.obj" for k in range(modes)]
    files += [folder / f"{name}.obj" for name in EXPRESSIONS]
    moves = []
    for k, file in enumerate(files):
        moved = _vertices(file)
        if moved.shape != neutral.shape:
            raise BadKit(f"{file} has {len(moved)} vertices, but the neutral mesh {len(neutral)}")
        moves.append(moved - neutral)
        if progress is not None:
            progress(k + 1, len(files))
    identity, expression = np.stack(moves[:modes]), np.stack(moves[modes:])
    arrays = {
        "neutral": neutral.astype(np.float32),
        **mesh,
        "part_names": np.array(layout.parts),
        "vertex_part": _part_of(np.arange(len(neutral)), layout.first_vertex),
        "landmarks": landmarks,
        **_packed_identity(identity, mesh["triangles"]),
        **_packed_expression(expression),
    }
    _write(out, arrays)
    return _checked(out, layout, identity, expression)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError as error:
        raise BadKit(f"cannot read {path}: {error}; is this FaceXModel of ICT-FaceKit?") from error


def _vertices(path: Path) -> F64:
    """[N, 3]; the `v` lines of an OBJ file."""
    rows = [line.split()[1:4] for line in _lines(path) if line.startswith("v ")]
    try:
        found = np.array(rows, np.float64)
    except ValueError as error:
        raise BadKit(f"{path} has a vertex that is not three numbers: {error}") from error
    if found.ndim != 2 or found.shape[1] != 3 or not np.isfinite(found).all():
        raise BadKit(f"{path} holds no vertices, or some that are not finite")
    return found


def _mesh(path: Path, layout: Layout) -> dict[str, npt.NDArray]:
    """Polygons as fans of triangles, with their UVs and parts."""
    uv: list[list[float]] = []
    triangles, corners, parts = [], [], []
    polygon = 0
    for line in _lines(path):
        if line.startswith("vt "):
            uv.append([float(x) for x in line.split()[1:3]])
        elif line.startswith("f "):
            try:
                pairs = [[int(x) for x in corner.split("/")[:2]] for corner in line.split()[1:]]
                v, t = zip(*pairs, strict=True)
            except ValueError as error:
                raise BadKit(f"{path}: face {line!r} is not vertex/uv indices") from error
            part = int(_part_of(np.array(polygon), layout.first_polygon))
            for k in range(1, len(v) - 1):
                triangles.append((v[0], v[k], v[k + 1]))
                corners.append((t[0], t[k], t[k + 1]))
                parts.append(part)
            polygon += 1
    if not triangles:
        raise BadKit(f"{path} has no faces")
    tri, tri_uv = np.array(triangles) - 1, np.array(corners) - 1
    for name, index, count in (("vertex", tri, layout.vertices), ("uv", tri_uv, len(uv))):
        if not (0 <= index.min() and index.max() < min(count, 1 << 16)):
            raise BadKit(f"{path}: a face has a {name} beyond the {count} there are")
    return {
        "uv": np.array(uv, np.float32),
        "triangles": tri.astype(np.uint16),
        "triangles_uv": tri_uv.astype(np.uint16),
        "triangle_part": np.array(parts, np.uint8),
    }


def _part_of(index: npt.NDArray, first: Sequence[int]) -> npt.NDArray[np.uint8]:
    return (np.searchsorted(first, index, side="right") - 1).astype(np.uint8)


def _landmarks(path: Path) -> npt.NDArray[np.int32]:
    try:
        info = json.loads("\n".join(_lines(path)))
        names, found = info["expressions"], np.array(info["idx_to_landmark_verts"], np.int32)
    except (ValueError, KeyError, TypeError) as error:
        raise BadKit(f"{path} has no 'expressions' and 'idx_to_landmark_verts'") from error
    if tuple(names) != EXPRESSIONS or found.shape != (LANDMARKS,):
        raise BadKit(f"{path} lists other expressions or landmarks than ICT-FaceKit Light's")
    return found


def _packed_identity(identity: F64, triangles: npt.NDArray) -> dict[str, npt.NDArray]:
    """[K, N, 3] -> differences along a spanning tree, in tree order, low and high bytes apart."""
    order, parent = spanning_tree(triangles.astype(np.int64), identity.shape[1])
    steps = np.round(identity / _STEP_IDENTITY).astype(np.int64)
    root = parent == np.arange(len(parent))
    difference = steps - np.where(root[None, :, None], 0, steps[:, parent])
    if np.abs(difference).max() >= 1 << 15:
        raise BadKit("neighbours of a shape mode are more than 3.2 cm apart; this is no face")
    stored = np.ascontiguousarray(difference[:, order].transpose(0, 2, 1))  # [K, 3, N]
    return {
        "tree_order": order.astype(np.int32),
        "tree_parent": parent.astype(np.int32),
        "identity_low": (stored & 0xFF).astype(np.uint8),
        "identity_high": (stored >> 8).astype(np.int8),
        "identity_step": np.array(_STEP_IDENTITY, np.float32),
    }


def spanning_tree(triangles: I64, vertices: int) -> tuple[I64, I64]:
    """Order in which to visit the vertices, and the parent of each; roots are their own."""
    pairs = [triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2))]
    edges = np.unique(np.concatenate(pairs), axis=0)
    begin = np.searchsorted(edges[:, 0], np.arange(vertices + 1)).tolist()
    neighbour = edges[:, 1].tolist()
    parent = [-1] * vertices
    order: list[int] = []
    for start in range(vertices):
        if parent[start] >= 0:
            continue
        parent[start] = start
        queue = [start]
        for v in queue:  # grows as it is walked: breadth first
            for u in neighbour[begin[v] : begin[v + 1]]:
                if parent[u] < 0:
                    parent[u] = v
                    queue.append(u)
        order += queue
    return np.array(order), np.array(parent)


def _packed_expression(expression: F64) -> dict[str, npt.NDArray]:
    index, value, begin = [], [], [0]
    for moved in expression:
        active = np.flatnonzero(np.abs(moved).max(1) > 0.75 * _STEP_EXPRESSION)
        index.append(active)
        value.append(np.round(moved[active] / _STEP_EXPRESSION))
        begin.append(begin[-1] + len(active))
    if max(np.abs(v).max(initial=0.0) for v in value) >= 1 << 15:
        raise BadKit("an expression moves a vertex by more than 9 cm; this is no face")
    return {
        "expression_names": np.array(EXPRESSIONS),
        "expression_ptr": np.array(begin, np.int32),
        "expression_index": np.concatenate(index).astype(np.uint16),
        "expression_value": np.concatenate(value).astype(np.int16),
        "expression_step": np.array(_STEP_EXPRESSION, np.float32),
    }


def _write(out: Path, arrays: dict[str, npt.NDArray]) -> None:
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _checked(out: Path, layout: Layout, identity: F64, expression: F64) -> Packed:
    kit = facekit.read(out)
    part = _part_of(np.arange(layout.vertices), layout.first_vertex)
    kept = np.isin(np.array(layout.parts)[part], PARTS)
    return Packed(
        path=out,
        size=out.stat().st_size,
        triangles=len(kit.triangles),
        modes=len(identity),
        identity_error=float(np.abs(kit.identity - identity[:SHAPES, kept]).max()),
        expression_error=float(np.abs(kit.expression - expression[:, kept]).max()),
    )
