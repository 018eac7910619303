"""Generated kernels: where they are kept, and when they are written or compiled again."""

import os
import subprocess
import sys
import types

import pytest

from kernels_triton import generated

SOURCE = """
from numba import int64, njit

@njit([int64(int64)], cache=True)
def run(x):
    return x + 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    generated._folder.cache_clear()
    before = set(sys.modules)
    yield tmp_path / "stylewire" / "kernels"
    for name in set(sys.modules) - before:
        if name.startswith("three_"):
            del sys.modules[name]
    generated._folder.cache_clear()


def test_a_folder_that_is_not_ones_own_is_not_used(folder, tmp_path, monkeypatch):
    assert generated.cache_folder() == folder
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr("os.getuid", lambda: 12345)
    other = generated.cache_folder()
    assert tmp_path not in other.parents
    other.rmdir()


def test_a_folder_that_cannot_be_made_is_replaced_by_a_private_one(tmp_path, monkeypatch):
    (tmp_path / "stylewire").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    other = generated.cache_folder()
    assert tmp_path not in other.parents and other.stat().st_mode & 0o077 == 0
    other.rmdir()


@pytest.mark.parametrize("open_one", ["kernels", "kernels/__pycache__", ".", ".."])
def test_a_folder_on_the_way_that_others_can_write_is_not_used(folder, tmp_path, open_one):
    assert generated.cache_folder() == folder
    place = folder.parent / open_one
    before = place.stat().st_mode
    place.chmod(0o777)
    try:
        assert tmp_path not in generated.cache_folder().parents
    finally:
        place.chmod(before)
    assert generated.cache_folder() == folder
    if open_one in (".", ".."):
        place.chmod(0o1777)  # as /tmp: others cannot rename what is not theirs
        assert generated.cache_folder() == folder
        place.chmod(before)


def test_a_link_in_the_place_of_the_folder_is_not_followed(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert tmp_path not in generated.cache_folder().parents
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_temporary_folder_goes_with_the_process_that_made_it(tmp_path):
    (tmp_path / "stylewire").write_text("in the way")
    script = (
        "import os, sys\n"
        "from kernels_triton import generated\n"
        f"print(generated.load('three', {SOURCE!r}).run(4))\n"
        "folder = generated._folder()\n"
        "child = os.fork()\n"
        "if not child: sys.exit()\n"  # runs what was registered for the end, as its parent will
        "os.waitpid(child, 0)\n"
        "print(list(folder.glob('three_*.py')) != [], folder.parent)\n"
    )
    place = tmp_path / "temporary"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["7", "True", str(place)]
    assert not list(place.iterdir())


def test_source_and_machine_code_are_kept(folder):
    module = generated.load("three", SOURCE)
    assert module.run(4) == 7
    assert [p.read_text() for p in folder.glob("three_*.py")] == [SOURCE]
    assert list((folder / "__pycache__").glob("three_*.nbi"))  # numba's index of machine code
    assert generated.load("three", SOURCE) is module
    assert not list(folder.glob("*.tmp"))


def test_a_second_start_compiles_nothing(folder):
    generated.load("three", SOURCE)
    script = (
        "import sys; from kernels_triton import generated\n"
        f"run = generated.load('three', {SOURCE!r}).run\n"
        "print(run(4), sum(run.stats.cache_hits.values()), sum(run.stats.cache_misses.values()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["7", "1", "0"]


def test_a_changed_dependency_makes_another_kernel(folder, tmp_path):
    vectors = types.ModuleType("vectors")
    vectors.__file__ = str(tmp_path / "vectors.py")
    names = []
    for text in ("one", "two", "one"):
        (tmp_path / "vectors.py").write_text(text)
        names.append(generated.load("three", SOURCE, vectors).__name__)
    assert names[0] == names[2] != names[1]


def test_what_somebody_else_left_there_is_overwritten(folder):
    name = generated.load("three", SOURCE).__name__
    del sys.modules[name]
    (folder / f"{name}.py").write_text("raise SystemExit('not ours')")
    assert generated.load("three", SOURCE).run(1) == 4


def test_a_kernel_that_does_not_import_is_not_half_there(folder):
    with pytest.raises(ZeroDivisionError):
        generated.load("three", "1 / 0")
    assert not [name for name in sys.modules if name.startswith("three_")]
