"""Packing: OBJ files in, a kit out that is the same head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.errors import BadKit
from models.faces.state import EXPRESSIONS
from models.training.heads.kit import PARTS, HeadKit, load
from models.training.heads.pack import ICT, Layout, pack, spanning_tree


def write_obj(path: Path, points: np.ndarray, faces: str = "") -> None:
    rows = [f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in points.tolist()]
    path.write_text("# written by a test\n" + "\n".join(rows) + "\nvn 0 0 1\n" + faces)


def write_folder(folder: Path, kit: HeadKit) -> tuple[Layout, np.ndarray]:
    """The kit as OBJ files, vertices and triangles in the order of parts. Triangles that follow
    each other and share an edge become a quad. Returns the layout and the new order of vertices.
    """
    order = np.argsort(kit.vertex_part, kind="stable")
    place = np.argsort(order)
    faces = ""
    first_polygon, polygons = [], 0
    for part in range(len(PARTS)):
        first_polygon.append(polygons)
        mine, k = np.flatnonzero(kit.tri_part == part).tolist(), 0
        while k < len(mine):
            t = mine[k]
            corners = [(v, 3 * t + c) for c, v in enumerate(kit.triangles[t].tolist())]
            if k + 1 < len(mine) and mine[k + 1] == t + 1:
                a, b, c = kit.triangles[t + 1].tolist()
                same_uv = np.array_equal(kit.tri_uv[t, [0, 2]], kit.tri_uv[t + 1, :2])
                if (a, b) == (corners[0][0], corners[2][0]) and same_uv:
                    corners.append((c, 3 * t + 5))
            faces += "f " + " ".join(f"{place[v] + 1}/{uv + 1}/1" for v, uv in corners) + "\n"
            polygons, k = polygons + 1, k + len(corners) - 2
    uv = "".join(f"vt {u:.7f} {v:.7f}\n" for u, v in kit.tri_uv.reshape(-1, 2).tolist())
    first_vertex = np.searchsorted(kit.vertex_part[order], np.arange(len(PARTS))).tolist()
    points = kit.neutral[order].astype(np.float64)
    write_obj(folder / "generic_neutral_mesh.obj", points, uv + faces)
    for k, mode in enumerate(kit.identity):
        write_obj(folder / f"identity{k:03d}.obj", points + mode[order])
    for name, moved in zip(EXPRESSIONS, kit.expression, strict=True):
        write_obj(folder / f"{name}.obj", points + moved[order])
    indices = {
        "expressions": list(EXPRESSIONS),
        "idx_to_landmark_verts": place[kit.landmarks].tolist(),
    }
    (folder / "vertex_indices.json").write_text(json.dumps(indices))
    return Layout(PARTS, tuple(first_vertex), tuple(first_polygon), len(points)), order


@pytest.fixture(scope="module")
def source(small, tmp_path_factory) -> tuple[Path, Layout, np.ndarray]:
    folder = tmp_path_factory.mktemp("obj")
    return folder, *write_folder(folder, small)


def test_what_is_packed_is_the_same_head(small, source, tmp_path):
    folder, layout, order = source
    assert layout.first_polygon[-1] < 0.7 * len(small.triangles)  # most polygons are quads
    seen: list[tuple[int, int]] = []
    out, again = tmp_path / "kit.npz", tmp_path / "again.npz"
    done = pack(folder, out, modes=32, layout=layout, progress=lambda k, n: seen.append((k, n)))
    kit = load(out)
    assert seen == [(k + 1, 85) for k in range(85)]
    assert np.abs(kit.neutral - small.neutral[order]).max() < 1e-6
    assert np.array_equal(order[kit.landmarks], small.landmarks)
    by_part = np.argsort(small.tri_part, kind="stable")
    assert np.array_equal(order[kit.triangles], small.triangles[by_part])
    assert np.allclose(kit.tri_uv, small.tri_uv[by_part], atol=1e-6)
    assert np.abs(kit.identity - small.identity[:, order]).max() < 0.6e-4
    # Offsets below three quarters of a step are not stored.
    assert np.abs(kit.expression - small.expression[:, order]).max() < 0.8 * 3e-4
    assert done.identity_error < 0.6e-4 and done.expression_error < 0.8 * 3e-4
    assert done.size == out.stat().st_size and done.modes == 32

    pack(folder, again, modes=32, layout=layout)
    assert out.read_bytes() == again.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.npz", "kit.npz"]


def test_a_tree_spans_every_piece():
    triangles = np.array([[0, 1, 2], [2, 1, 3], [5, 6, 7]])
    order, parent = spanning_tree(triangles, 9)
    assert sorted(order.tolist()) == list(range(9))
    rank = np.argsort(order)
    roots = {k for k in range(9) if parent[k] == k}
    assert roots == {0, 4, 5, 8}
    assert all(rank[parent[k]] < rank[k] for k in range(9) if k not in roots)


def test_the_layout_of_the_published_mesh():
    assert set(PARTS) <= set(ICT.parts)
    assert list(ICT.first_vertex) == sorted(ICT.first_vertex) and ICT.first_vertex[-1] < 26719


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("identity003.obj", None, "cannot read .*identity003.obj"),
        ("jawOpen.obj", "v 0 0 0\n", "jawOpen.obj has 1 vertices"),
        ("identity000.obj", "v 0 zero 0\n", "not three numbers"),
        ("identity000.obj", "v 0 nan 0\n", "not finite"),
        ("vertex_indices.json", "{}", "has no 'expressions'"),
        ("vertex_indices.json", '{"expressions": [], "idx_to_landmark_verts": []}', "other expr"),
        ("generic_neutral_mesh.obj", "v 0 0 0\n", "has 1 vertices, not"),
    ],
)
def test_what_is_wrong_is_named(source, tmp_path, file, content, message):
    folder, layout, _ = source
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(BadKit, match=message):
        pack(tmp_path, tmp_path / "kit.npz", modes=32, layout=layout)
    assert not (tmp_path / "kit.npz").exists()


@pytest.mark.parametrize(
    "face", ["f 1/1 2/2 99999/3", "f 1/1 2/2 3/999999", "f 1 2 3", "f a/b c/d e/f"]
)
def test_faces_that_point_nowhere_are_refused(source, tmp_path, face):
    folder, layout, _ = source
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    mesh = tmp_path / "generic_neutral_mesh.obj"
    text = mesh.read_text()
    mesh.unlink()
    mesh.write_text(text + face + "\n")
    with pytest.raises(BadKit, match="a face has a|is not vertex/uv"):
        pack(tmp_path, tmp_path / "kit.npz", modes=32, layout=layout)
