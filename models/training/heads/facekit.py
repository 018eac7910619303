"""Reading facekit.npz: ICT-FaceKit Light (MIT) as `pack` stores it, some 9 MB.

The file comes from a user and is not trusted: nothing in it is executed, no array is larger than
it says, and every index is checked before it is used. Shape modes are stored as the differences
of neighbours along a spanning tree of the mesh, in whole steps of `identity_step`; adding them
up is integer arithmetic, so every machine gets the same shapes.
"""

from __future__ import annotations

import math
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from models.errors import BadKit
from models.faces.state import EXPRESSIONS
from models.faces.traits import SHAPES
from models.training.heads import lashes
from models.training.heads.kit import LANDMARKS, PARTS, HeadKit

NAME = "ict-facekit-light"
_LARGEST_FILE = 64 << 20
_LARGEST_ARRAY = 64 << 20
_ARRAYS = (
    "neutral",
    "triangles",
    "triangles_uv",
    "uv",
    "triangle_part",
    "vertex_part",
    "part_names",
    "landmarks",
    "tree_order",
    "tree_parent",
    "identity_low",
    "identity_high",
    "identity_step",
    "expression_names",
    "expression_ptr",
    "expression_index",
    "expression_value",
    "expression_step",
)


# What reading a zip of arrays raises: of zipfile (RuntimeError: a password is wanted), of deflate,
# and of numpy's reader of headers, which parses them as Python literals.
_DAMAGE = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read(path: Path) -> HeadKit:
    """The kit in this file; parts that are never drawn are left out.

    Raises:
        BadKit: It is no facekit, is damaged or cannot be read; which array, and what is wrong.
    """
    arrays = _read_arrays(path)
    try:
        return _assemble(_Source(arrays))
    except BadKit as error:
        raise BadKit(f"{path}: {error}; make it anew with `stylewire heads pack`") from error


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise BadKit(f"{path} is larger than {_LARGEST_FILE >> 20} MiB; it is no facekit")
        with zipfile.ZipFile(path) as archive:
            return {name: _read_array(archive, name) for name in _ARRAYS}
    except _DAMAGE as error:
        raise BadKit(f"{path} is no facekit: {error}") from error


def _read_array(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """One array, after its header has been held against the size of what follows it."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > _LARGEST_ARRAY:
        raise BadKit(f"array {name!r} takes {info.file_size} bytes; none may take {_LARGEST_ARRAY}")
    with archive.open(info) as file:
        shape, fortran, dtype = _read_header(file)
        data = file.read(_LARGEST_ARRAY)
    if dtype.hasobject or dtype.kind not in "iufU":
        raise BadKit(f"array {name!r} is of type {dtype}; only numbers and names are expected")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise BadKit(f"array {name!r} is {dtype} {list(shape)}, but has {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that only Python 2 could have written
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        return np.lib.format.read_array_header_2_0(file)


class _Source:
    """The arrays of a file, each checked when it is asked for."""

    def __init__(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._arrays = arrays
        self.vertices = len(self.numbers("neutral", (-1, 3)))

    def numbers(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """An array of numbers; -1 in the shape is any length."""
        array = self._arrays[name]
        fits = array.ndim == len(shape) and all(
            want in (-1, have) for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype.kind == "U":
            need = str(list(shape)).replace("-1", "any")
            raise BadKit(f"array {name!r} is {array.dtype} {list(array.shape)}; need {need}")
        return array

    def indices(self, name: str, shape: tuple[int, ...], below: int) -> npt.NDArray[np.int64]:
        array = self.numbers(name, shape)
        if array.dtype.kind not in "iu":
            raise BadKit(f"array {name!r} is {array.dtype}; indices are integers")
        if array.size and not (0 <= int(array.min()) and int(array.max()) < below):
            span = f"{array.min()} .. {array.max()}"
            raise BadKit(f"array {name!r} spans {span}; its indices must be in 0 .. {below - 1}")
        return array.astype(np.int64)

    def step(self, name: str) -> np.float32:
        step = np.float32(self.numbers(name, ()))
        if not 0 < step < 1:
            raise BadKit(f"{name!r} is {step}; a rounding step is a small positive number")
        return step

    def names(self, name: str) -> list[str]:
        return [str(text) for text in self._arrays[name].reshape(-1)]


def _assemble(source: _Source) -> HeadKit:
    n = source.vertices
    neutral = source.numbers("neutral", (n, 3)).astype(np.float32)
    triangles = source.indices("triangles", (-1, 3), n)
    uv = source.numbers("uv", (-1, 2)).astype(np.float32)
    tri_uv = uv[source.indices("triangles_uv", (len(triangles), 3), len(uv))]
    names = source.names("part_names")
    part_of = np.array([PARTS.index(p) if p in PARTS else len(PARTS) for p in names], np.uint8)
    missing = sorted(set(PARTS) - set(names))
    if missing:
        raise BadKit(f"array 'part_names' lacks {', '.join(missing)}")
    tri_part = part_of[source.indices("triangle_part", (len(triangles),), len(names))]
    vertex_part = part_of[source.indices("vertex_part", (n,), len(names))]

    kept = vertex_part < len(PARTS)
    place = np.cumsum(kept) - 1
    drawn = (tri_part < len(PARTS)) & kept[triangles].all(1)
    landmarks = source.indices("landmarks", (LANDMARKS,), n)
    if not kept[landmarks].all():
        raise BadKit("array 'landmarks' names a vertex of a part that is not drawn")
    triangles, tri_uv, tri_part = place[triangles[drawn]], tri_uv[drawn], tri_part[drawn]
    neutral, vertex_part = neutral[kept], vertex_part[kept]
    paths, upper = lashes.from_cards(neutral, vertex_part, triangles, tri_uv, tri_part)
    return HeadKit(
        name=NAME,
        neutral=np.ascontiguousarray(neutral),
        triangles=np.ascontiguousarray(triangles, np.int32),
        tri_uv=np.ascontiguousarray(tri_uv, np.float32),
        tri_part=np.ascontiguousarray(tri_part),
        vertex_part=np.ascontiguousarray(vertex_part),
        landmarks=place[landmarks].astype(np.int32),
        identity=_identity(source, kept),
        expression=_expression(source, kept),
        lash_paths=paths,
        lash_upper=upper,
        mouth_seen=_seen_in_the_mouth(neutral, triangles, tri_part),
    )


def _identity(source: _Source, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """[32, kept, 3]: residuals added up from the roots of the tree."""
    n = source.vertices
    order = source.indices("tree_order", (n,), n)
    parent = source.indices("tree_parent", (n,), n)
    rank = np.full(n, -1)
    rank[order] = np.arange(n)
    if (rank < 0).any():
        raise BadKit("array 'tree_order' does not name every vertex once")
    root = parent == np.arange(n)
    if not (root | (rank[parent] < rank)).all():
        raise BadKit("array 'tree_parent': a parent comes after its child in 'tree_order'")
    low = source.numbers("identity_low", (-1, 3, n))[:SHAPES].astype(np.int64)
    high = source.numbers("identity_high", (-1, 3, n))[:SHAPES].astype(np.int64)
    if len(low) < SHAPES or len(high) < SHAPES:
        raise BadKit(f"there are {min(len(low), len(high))} shape modes; need {SHAPES} at least")
    residual = (low + (high << 8)).transpose(2, 0, 1).reshape(n, -1)  # [N, 32 * 3], tree order
    total = np.zeros_like(residual)
    for row, vertex in enumerate(order.tolist()):
        total[vertex] = residual[row]
        if not root[vertex]:
            total[vertex] += total[parent[vertex]]
    shape = total[kept].reshape(-1, SHAPES, 3).transpose(1, 0, 2)
    return np.ascontiguousarray(shape, np.float32) * source.step("identity_step")


def _expression(source: _Source, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """[53, kept, 3]."""
    if tuple(source.names("expression_names")) != EXPRESSIONS:
        raise BadKit("array 'expression_names' is not the 53 names of models.faces in their order")
    index = source.indices("expression_index", (-1,), source.vertices)
    value = source.numbers("expression_value", (len(index), 3)).astype(np.float32)
    begin = source.indices("expression_ptr", (len(EXPRESSIONS) + 1,), len(index) + 1)
    if begin[0] != 0 or begin[-1] != len(index) or (np.diff(begin) < 0).any():
        raise BadKit("array 'expression_ptr' must rise from 0 to the length of 'expression_index'")
    out = np.zeros((len(EXPRESSIONS), source.vertices, 3), np.float32)
    for e in range(len(EXPRESSIONS)):
        where = slice(begin[e], begin[e + 1])
        out[e, index[where]] = value[where] * source.step("expression_step")
    return np.ascontiguousarray(out[:, kept])


def _seen_in_the_mouth(
    neutral: npt.NDArray[np.float32],
    triangles: npt.NDArray[np.int64],
    part: npt.NDArray[np.uint8],
) -> npt.NDArray[np.bool_]:
    """Triangles inside the mouth that an open mouth can show: in front, facing forward."""
    corners = neutral[triangles]  # [T, 3, 3]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    forward = normal[:, 2] / (np.linalg.norm(normal, axis=1) + 1e-9)
    z = corners[:, :, 2].mean(1)
    teeth, gums, socket = (part == PARTS.index(p) for p in ("teeth", "gums_tongue", "mouth_socket"))
    return (teeth & (z > 7.0) & (forward > -0.15)) | (gums & (z > 5.5) & (forward > -0.35)) | socket
