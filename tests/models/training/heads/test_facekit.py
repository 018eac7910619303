"""The packed file: what was stored comes back; else nothing comes out but a refusal."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from models.errors import BadKit
from models.faces.state import EXPRESSIONS
from models.training.heads import facekit
from models.training.heads.kit import PARTS, HeadKit, load
from models.training.heads.pack import spanning_tree

STEP_IDENTITY, STEP_EXPRESSION = np.float32(1e-4), np.float32(3e-4)


def stored(kit: HeadKit) -> dict[str, np.ndarray]:
    """A kit in the file's own arrays, written here independently of the packer."""
    n = len(kit.neutral)
    order, parent = spanning_tree(kit.triangles.astype(np.int64), n)
    steps = np.round(kit.identity / STEP_IDENTITY).astype(np.int64)
    change = np.stack(
        [
            s if parent[k] == k else s - steps[:, parent[k]]
            for k, s in enumerate(steps.transpose(1, 0, 2))
        ],
        2,
    )  # [32, 3, N]
    change = change[:, :, order]
    uv, uv_index = np.unique(kit.tri_uv.reshape(-1, 2), axis=0, return_inverse=True)
    ptr, index, value = [0], [], []
    for moved in kit.expression:
        k = np.flatnonzero(np.abs(moved).max(1) > 0)
        index.append(k)
        value.append(np.round(moved[k] / STEP_EXPRESSION))
        ptr.append(ptr[-1] + len(k))
    return {
        "neutral": kit.neutral,
        "triangles": kit.triangles.astype(np.uint16),
        "triangles_uv": uv_index.reshape(-1, 3).astype(np.uint16),
        "uv": uv,
        "triangle_part": kit.tri_part,
        "vertex_part": kit.vertex_part,
        "part_names": np.array(PARTS),
        "landmarks": kit.landmarks,
        "tree_order": order.astype(np.int32),
        "tree_parent": parent.astype(np.int32),
        "identity_low": (change & 0xFF).astype(np.uint8),
        "identity_high": (change >> 8).astype(np.int8),
        "identity_step": STEP_IDENTITY,
        "expression_names": np.array(EXPRESSIONS),
        "expression_ptr": np.array(ptr, np.int32),
        "expression_index": np.concatenate(index).astype(np.uint16),
        "expression_value": np.concatenate(value).astype(np.int16),
        "expression_step": STEP_EXPRESSION,
    }


@pytest.fixture(scope="module")
def arrays(small: HeadKit) -> dict[str, np.ndarray]:
    return stored(small)


def written(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def test_what_was_stored_comes_back(small, arrays, tmp_path):
    kit = load(written(tmp_path / "kit.npz", arrays))
    for name in ("neutral", "triangles", "tri_uv", "tri_part", "vertex_part", "landmarks"):
        assert np.array_equal(getattr(kit, name), getattr(small, name)), name
    # Half a step, and float32's rounding of numbers of some centimetres.
    assert np.abs(kit.identity - small.identity).max() < 0.51 * STEP_IDENTITY
    assert np.abs(kit.expression - small.expression).max() < 0.51 * STEP_EXPRESSION
    assert kit.identity.flags.c_contiguous and kit.expression.dtype == np.float32


def test_parts_that_are_never_drawn_are_left_out(small, arrays, tmp_path):
    extra = dict(arrays)
    extra["part_names"] = np.array(["iris_l", *PARTS])
    extra["vertex_part"], extra["triangle_part"] = (
        arrays["vertex_part"] + 1,
        arrays["triangle_part"] + 1,
    )
    extra["vertex_part"][small.vertex_part == PARTS.index("lashes_l")] = 0
    kit = load(written(tmp_path / "kit.npz", extra))
    gone = (small.vertex_part == PARTS.index("lashes_l")).sum()
    assert gone > 0 and len(kit.neutral) == len(small.neutral) - gone
    assert np.array_equal(kit.neutral[kit.landmarks], small.neutral[small.landmarks])
    assert len(kit.triangles) == len(small.triangles)
    assert np.array_equal(kit.neutral[kit.triangles], small.neutral[small.triangles])


def change(name, how):
    return lambda a: {**a, name: how(a[name].copy())}


def put(where, value):
    def how(array):
        array[where] = value
        return array

    return how


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda a: {k: v for k, v in a.items() if k != "uv"}, "no facekit.*uv"),
        (change("neutral", lambda x: x[:, :2]), "'neutral' is float32.*need .any, 3."),
        (change("neutral", put((5, 1), np.nan)), "neutral holds nan"),
        (change("triangles", put((7, 0), 60000)), "'triangles' spans"),
        (change("triangles_uv", put((7, 0), 65535)), "'triangles_uv' spans"),
        (change("triangles", lambda x: x.astype(np.float32)), "indices are integers"),
        (change("landmarks", lambda x: x[:67]), "'landmarks' is int32 .67."),
        (change("vertex_part", put(0, 200)), "'vertex_part' spans"),
        (change("part_names", put(0, "nose")), "lacks face"),
        (change("tree_order", put(3, 0)), "does not name every vertex once"),
        (change("tree_parent", lambda x: np.roll(x, 1)), "a parent comes after its child"),
        (change("identity_low", lambda x: x[:20]), "20 shape modes; need 32"),
        (change("identity_step", lambda x: np.float32(np.nan)), "'identity_step' is nan"),
        (change("expression_names", lambda x: x[::-1].copy()), "'expression_names'"),
        (change("expression_ptr", put(10, 0)), "'expression_ptr' must rise"),
        (change("expression_index", put(0, 65000)), "'expression_index' spans"),
        (change("expression_value", lambda x: x[:-1]), "'expression_value'"),
        (change("part_names", lambda x: x.astype(object)), "object"),
    ],
)
def test_a_damaged_file_is_refused_by_the_array(arrays, tmp_path, broken, message):
    with pytest.raises(BadKit, match=message):
        load(written(tmp_path / "kit.npz", broken(arrays)))


def test_no_array_is_larger_than_it_says(arrays, tmp_path):
    path = written(tmp_path / "kit.npz", arrays)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 3)}
    )
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "bad.npz", "w") as new:
        for name in old.namelist():
            new.writestr(name, header.getvalue() if name == "neutral.npy" else old.read(name))
    with pytest.raises(BadKit, match="'neutral' is float32 .1099511627776, 3., but has 0 bytes"):
        load(tmp_path / "bad.npz")


def test_a_bomb_is_not_unpacked(arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(facekit, "_LARGEST_ARRAY", 1 << 16)
    with pytest.raises(BadKit, match="takes .* bytes; none may"):
        load(written(tmp_path / "kit.npz", arrays))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip at all" * 100])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "kit.npz"
    path.write_bytes(content)
    with pytest.raises(BadKit, match="is no facekit"):
        load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadKit, match="is no facekit"):
        load(tmp_path / "none.npz")


def test_flipped_bytes_give_a_kit_or_a_refusal(arrays, tmp_path):
    packed = tmp_path / "kit.npz"
    with packed.open("wb") as file:
        np.savez_compressed(
            file,
            **{k: v for k, v in arrays.items() if k != "identity_high"},
            identity_high=arrays["identity_high"],
        )
    good, rng, refused = packed.read_bytes(), np.random.default_rng(5), 0
    for _ in range(60):
        bad = bytearray(good)
        for at in rng.integers(0, len(bad), 3):
            bad[at] ^= int(rng.integers(1, 256))
        packed.write_bytes(bytes(bad[: int(rng.integers(len(bad) // 2, len(bad) + 1))]))
        try:
            load(packed)
        except BadKit:
            refused += 1
    assert refused >= 50


def test_hostile_headers_give_a_kit_or_a_refusal(arrays, tmp_path):
    """Checksums are right here, so that the header itself is what is read."""
    path, rng, refused = written(tmp_path / "kit.npz", arrays), np.random.default_rng(6), 0
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    for _ in range(60):
        neutral = bytearray(members["neutral.npy"])
        for at in rng.integers(0, 128, int(rng.integers(1, 4))):
            neutral[at] = int(rng.choice(list(b"()[]{}'\",:#\\ \n\x00\xffTF019<>|OVU")))
        with zipfile.ZipFile(tmp_path / "bad.npz", "w") as new:
            for name, data in members.items():
                new.writestr(name, bytes(neutral) if name == "neutral.npy" else data)
        try:
            load(tmp_path / "bad.npz")
        except BadKit:
            refused += 1
    assert refused > 20
