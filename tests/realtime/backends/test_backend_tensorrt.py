"""What feeds TensorRT: the exported reference, the cache key, the engine cache.

torch_tensorrt exists for CUDA only. Where it is missing, a stand-in with its three calls hands the
program through unchanged, so that all around it is real: torch's own export, save and load.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.contracts import Identity, MotionCode, Synthesizer
from realtime.backends import exported, tensorrt
from realtime.backends.eager import Eager
from realtime.backends.tensorrt import Engines, TensorRt, cache_folder, cache_key, export
from realtime.errors import BackendUnavailable
from tests.realtime.backends import tiny_families
from tests.realtime.backends.tiny_families import CPU, NAMES

CLOSE = 1e-5  # of pictures in [-1, 1]: the same operators in the same order
ABOUT = {"gpu": "any"}


def codes(system, seed=1, t=0.5):
    return system.identity(seed=seed), system.motion(seed=seed).sample(t)


@pytest.mark.parametrize("name", NAMES)
def test_the_exported_reference_draws_what_the_network_does(name):
    system = tiny_families.system(name)
    program = export(system.synthesizer, *codes(system))
    draw = program.module()
    for other in (codes(system), codes(system, 2, -7.5), codes(system, 3, 100.0)):
        with torch.no_grad():
            found, wanted = draw(*exported.flat(other)), system.synthesizer(*other)
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() < CLOSE * wanted.abs().max()
    kinds = {node.target for node in program.graph.nodes if node.op == "call_function"}
    assert not [kind for kind in kinds if "stylewire" in str(kind) or "numba" in str(kind)]


def test_an_export_asks_for_no_gradient_and_leaves_the_choice_of_ops_alone():
    system = tiny_families.system("stylegan2")
    before = system.synthesizer(*codes(system))
    program = export(system.synthesizer, *codes(system))
    assert torch.equal(system.synthesizer(*codes(system)), before)
    assert not program.module()(*exported.flat(codes(system))).requires_grad


def test_codes_are_laid_out_by_name():
    system = tiny_families.system("stylegan-v")
    identity, motion = codes(system)
    w, v = exported.flat((identity, motion))
    assert w is identity.tensors["w"] and v is motion.tensors["v"]
    forward = exported.of_codes(lambda *tensors: (tensors[1],), (identity, motion))
    assert forward(identity, motion) is v
    with pytest.raises(ValueError, match="compiled for"):
        forward(Identity({"w": w[:, 1:]}), motion)


def key(system, about=ABOUT):
    given = codes(system)
    return cache_key(export(system.synthesizer, *given), exported.flat(given), about)


def test_the_key_is_that_of_graph_weights_and_surroundings():
    system = tiny_families.system("stylegan3-t")
    given = codes(system)
    program, inputs = export(system.synthesizer, *given), exported.flat(given)
    found = cache_key(program, inputs, ABOUT)
    assert len(found) == 64 and int(found, 16) >= 0
    assert cache_key(program, inputs, {"gpu": "other"}) != found
    assert cache_key(program, tuple(x.double() for x in inputs), ABOUT) != found
    weight = next(p for n, p in system.synthesizer.named_parameters() if n.endswith("weight"))
    with torch.no_grad():
        weight.view(-1)[-1] += 1e-6 * weight.abs().max()
    assert cache_key(program, inputs, ABOUT) != found
    again = tiny_families.system("stylegan3-t")
    assert key(again) == found  # another object, the same network
    again.synthesizer.synthesis.output_scale *= 2  # neither weight nor shape, but in the graph
    assert key(again) != found


def test_a_buffer_that_no_checkpoint_holds_is_in_the_key():
    system = tiny_families.system("stylegan3-t")
    given = codes(system)
    program, inputs = export(system.synthesizer, *given), exported.flat(given)
    found = cache_key(program, inputs, ABOUT)
    system.synthesizer.synthesis.input.columns[0] += 0.5
    assert cache_key(program, inputs, ABOUT) != found


class Passing:
    """The stand-in; counts what is asked of it."""

    def __init__(self) -> None:
        self.built = self.loaded = 0
        self.dynamo = types.SimpleNamespace(compile=self.compile)

    def compile(self, program: Any, *, arg_inputs: list, device: Any, **settings: Any) -> Any:
        assert settings == tensorrt.SETTINGS and all(x.device == device for x in arg_inputs)
        self.built += 1
        return program.module()

    def save(self, engine: Any, path: str, *, output_format: str, arg_inputs: list) -> None:
        assert output_format == "exported_program"
        torch.export.save(torch.export.export(engine, tuple(arg_inputs), strict=False), path)

    def load(self, path: str) -> Any:
        self.loaded += 1
        return torch.export.load(path)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Passing:
    passing = Passing()
    monkeypatch.setitem(sys.modules, "torch_tensorrt", passing)  # type: ignore[arg-type]
    return passing


class Mixing(Synthesizer):
    """Pictures [N, 3, 4, 4] of few operators: what a cache does with them is the same."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(8, 48, generator=random))

    def forward(self, identity: Identity, motion: MotionCode) -> torch.Tensor:
        w = identity.tensors["w"][:, 0] + motion.tensors["dw"]
        return torch.tanh(w @ self.weight).reshape(-1, 3, 4, 4)

    def example(self) -> tuple[Identity, MotionCode]:
        w = torch.zeros(1, 2, 8)
        return Identity({"w": w}), MotionCode({"dw": torch.zeros(1, 8)}, 0.0)


def engine(folder: Path | None, of: Mixing) -> Any:
    given = exported.example(of, CPU)
    return Engines(folder).engine(export(of, *given), exported.flat(given), CPU)


def draws(found: Any, of: Mixing) -> bool:
    identity, motion = exported.example(of, CPU)
    identity.tensors["w"].neg_()
    with torch.no_grad():
        same = found(*exported.flat((identity, motion))) == of(identity, motion)
    return bool(same.all())


def test_an_engine_is_built_once_and_then_found(package, tmp_path):
    system = Mixing(1)
    for _ in range(2):
        assert draws(engine(tmp_path, system), system)
    assert (package.built, package.loaded) == (1, 1)
    other = Mixing(2)
    assert draws(engine(tmp_path, other), other)
    assert package.built == 2
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".json", ".pt2", ".pt2"]


def halved(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def unlisted(file: Path) -> None:
    file.with_suffix(".json").unlink()


def mislabelled(file: Path) -> None:
    file.with_suffix(".json").write_text("[]")


def another(file: Path) -> None:
    """Whole, but no engine."""
    file.write_bytes(b"no engine")
    digest = tensorrt._digest(file)
    file.with_suffix(".json").write_text(json.dumps({"sha256": digest}))


@pytest.mark.parametrize("damage", [halved, flipped, unlisted, mislabelled, another])
def test_a_damaged_engine_is_built_again_and_aloud(damage, package, tmp_path, caplog):
    system = Mixing(1)
    engine(tmp_path, system)
    (file,) = tmp_path.glob("*.pt2")
    damage(file)
    with caplog.at_level(logging.WARNING):
        assert draws(engine(tmp_path, system), system)
    assert "is damaged" in caplog.text and package.built == 2
    assert draws(engine(tmp_path, system), system)  # what was stored in its place is whole
    assert package.built == 2


def test_an_engine_that_cannot_be_stored_draws_all_the_same(package, tmp_path, caplog, monkeypatch):
    system = Mixing(1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(package, "save", full)
    assert draws(engine(tmp_path, system), system)
    assert "no space left" in caplog.text and list(tmp_path.iterdir()) == []
    assert draws(engine(None, system), system)


def test_the_oldest_engines_make_room(package, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt, "MOST_KEPT", 2)
    for age in range(3):
        for suffix in (".pt2", ".json"):
            (tmp_path / f"old{age}{suffix}").touch()
            os.utime(tmp_path / f"old{age}{suffix}", (100 - age, 100 - age))
    system = Mixing(1)
    engine(tmp_path, system)
    left = {file.stem for file in tmp_path.iterdir()}
    assert "old0" in left and not left & {"old1", "old2"}
    engine(tmp_path, system)
    assert package.loaded == 1


def test_what_an_ended_process_left_behind_makes_room(package, tmp_path):
    for name, age_s in (("old", 2 * tensorrt.PART_S), ("new", 0)):
        part = tmp_path / f"{tensorrt.PART}{name}"
        part.mkdir()
        (part / "engine.pt2").touch()
        then = (tmp_path.stat().st_mtime - age_s,) * 2
        os.utime(part, then)
    engine(tmp_path, Mixing(1))
    left = [file.name for file in tmp_path.iterdir() if file.name.startswith(tensorrt.PART)]
    assert left == [f"{tensorrt.PART}new"]  # of a process that may be at it


def test_engines_lie_in_a_folder_of_the_users_alone(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder()
    assert folder == tmp_path / "stylewire" / "engines"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setattr(tensorrt.os, "getuid", lambda: os.stat(folder).st_uid + 1)
    assert cache_folder() is None
    assert "belongs to somebody else" in caplog.text
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    assert cache_folder() is None


@pytest.mark.parametrize("of", ["stylewire/engines", ".", ".."])
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_could_replace_is_not_taken(of, mode, monkeypatch, tmp_path, caplog):
    cache = tmp_path / "above" / "cache"
    (cache / "stylewire" / "engines").mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert cache_folder() is not None
    open_to_others = (cache / of).resolve()
    open_to_others.chmod(mode)
    assert cache_folder() is None
    assert f"others may write to {open_to_others}; if it is yours: chmod go-w" in caplog.text
    open_to_others.chmod(mode | stat.S_ISVTX)  # as /tmp: names belong to their owners
    assert (cache_folder() is None) == (of == "stylewire/engines")  # but new files may be added


def test_what_is_made_for_other_caches_is_closed_to_others(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "stylewire").mkdir()
    (tmp_path / "stylewire").chmod(0o775)  # as many a umask has it
    assert cache_folder() is not None
    assert stat.S_IMODE((tmp_path / "stylewire").stat().st_mode) == 0o755


def test_a_link_is_judged_by_where_it_leads(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    shared, own = tmp_path / "shared", tmp_path / "own"
    for place in (shared, own):
        (place / "engines").mkdir(parents=True)
        (place / "engines").chmod(0o700)
    shared.chmod(0o777)
    link = tmp_path / "cache" / "stylewire"
    link.symlink_to(own)
    assert cache_folder() == own / "engines"
    link.unlink()
    (tmp_path / "cache" / "stylewire").mkdir(mode=0o700)
    (tmp_path / "cache" / "stylewire" / "engines").symlink_to(shared / "engines")
    assert cache_folder() is None and str(shared) in caplog.text


def test_a_folder_below_somebody_elses_is_not_taken(monkeypatch, tmp_path, caplog):
    """Root's are everybody's; a third one's are not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    of = Path.stat

    def foreign(path, **options):
        found = of(path, **options)
        if path != tmp_path.parent:
            return found
        return os.stat_result((*found[:4], os.getuid() + 1, *found[5:]))

    assert cache_folder() is not None
    monkeypatch.setattr(tensorrt.Path, "stat", foreign)
    assert cache_folder() is None
    assert f"{tmp_path.parent} belongs to somebody else" in caplog.text


@pytest.mark.skipif(find_spec("torch_tensorrt") is not None, reason="torch_tensorrt is installed")
def test_without_the_package_it_says_what_to_install():
    with pytest.raises(BackendUnavailable, match=r"pip install 'stylewire\[tensorrt\]'"):
        TensorRt(torch.device("cuda"), "")


def test_it_draws_on_a_gpu_only():
    with pytest.raises(BackendUnavailable, match="--device cuda"):
        TensorRt(CPU, "")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_an_engine_draws_what_the_plain_forward_does(name, monkeypatch, tmp_path):
    pytest.importorskip("torch_tensorrt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    system = tiny_families.system(name)
    plain = Eager(CPU, "").prepare(tiny_families.system(name).synthesizer)
    for _ in range(2):  # built, then found
        renderer = TensorRt(torch.device("cuda"), "").prepare(system.synthesizer)
        assert renderer.backend == "tensorrt", renderer.why
        for seed in (1, 2):
            wanted, found = np.zeros((2, tiny_families.SIDE * 3 // 2, tiny_families.SIDE), np.uint8)
            plain.render(*codes(system, seed), wanted)
            renderer.render(*codes(system, seed), found)
            assert np.abs(wanted.astype(int) - found.astype(int)).mean() < 1
    assert len(list((tmp_path / "stylewire" / "engines").glob("*.pt2"))) == 1
