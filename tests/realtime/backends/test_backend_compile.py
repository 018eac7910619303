"""torch.compile against the plain forward.

Inductor compiles one family here, the one with the most kinds of operators: it takes half a minute.
The others go through everything before it (export, dynamo, AOT autograd's decompositions).
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.contracts import Identity
from realtime.backends import FrameBroken, exported
from realtime.backends.compile import Compile
from realtime.errors import BackendUnavailable
from tests.realtime.backends import tiny_families
from tests.realtime.backends.tiny_families import CPU, NAMES, SIDE
from tests.realtime.tiny_system import TinySystem

ROOT = Path(__file__).resolve().parents[3]
CLOSE = 1e-4  # of pictures in [-1, 1]: float32 in another order of sums


def test_inductor_draws_what_the_plain_forward_does_in_any_thread():
    # In a process of its own: inductor leaves compiler processes behind, and must not meet the
    # interpreter that Triton's tests set.
    command = [sys.executable, tiny_families.__file__, "stylegan3-t", "inductor"]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["backend"] == "compile", found["why"]
    assert found["difference"] < CLOSE


@pytest.fixture
def fixed():
    """Call it, and what is compiled stays: compiling again, as in a stream, is an error."""
    yield lambda: torch.compiler.set_stance("fail_on_recompile")
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, at its first import
def test_every_family_becomes_one_graph_that_draws_the_same(name, fixed):
    system = tiny_families.system(name)
    renderer = Compile(CPU, "as asked", "aot_eager").prepare(system.synthesizer)
    assert (renderer.backend, renderer.why) == ("compile", "as asked")
    fixed()
    assert tiny_families.difference(system, renderer) < CLOSE
    who, how = system.identity(seed=1), system.motion(seed=1).sample(0.0)
    with pytest.raises(ValueError, match="compiled for"):
        renderer.picture(Identity({"w": who.tensors["w"][:, :2]}), how, SIDE)
    with pytest.raises(FrameBroken):
        renderer.picture(Identity({"w": who.tensors["w"] * float("nan")}), how, SIDE)
    out = np.full((2 * SIDE * 3 // 2, 2 * SIDE), 7, np.uint8)
    renderer.render(who, how, out)  # at another size than its own
    assert np.ptp(out) > 20


def test_what_tells_no_shapes_is_drawn_eagerly_and_aloud(caplog):
    system = TinySystem()
    with caplog.at_level(logging.WARNING):
        renderer = Compile(CPU, "").prepare(system.synthesizer)
    assert renderer.backend == "eager" and "TinySynthesizer does not tell" in renderer.why
    assert renderer.why in caplog.text


def test_what_does_not_compile_is_drawn_eagerly_and_aloud(caplog):
    def broken(graph, inputs):
        raise RuntimeError("no such instruction")

    system = tiny_families.system("stylegan2")
    with caplog.at_level(logging.WARNING):
        renderer = Compile(CPU, "", broken).prepare(system.synthesizer)  # type: ignore[arg-type]
    assert renderer.backend == "eager" and "does not compile" in renderer.why
    assert "no such instruction" in caplog.text
    assert tiny_families.difference(system, renderer) == 0


def test_a_compiler_that_draws_something_else_is_not_believed(caplog):
    def wrong(graph, inputs):
        return lambda *tensors: [2 * result for result in graph(*tensors)]

    system = tiny_families.system("stylegan2")
    renderer = Compile(CPU, "", wrong).prepare(system.synthesizer)  # type: ignore[arg-type]
    assert renderer.backend == "eager" and "does not compile" in renderer.why
    assert "differs from the plain forward" in caplog.text
    codes = exported.example(system.synthesizer, CPU)
    with pytest.raises(ArithmeticError):
        exported.check(
            lambda *_: torch.full((1, 3, SIDE, SIDE), torch.nan), system.synthesizer, codes
        )


def test_without_a_compiler_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BackendUnavailable, match=r"apt-get install g\+\+"):
        Compile(CPU, "")
    monkeypatch.setenv("CXX", str(tmp_path / "g++"))
    with pytest.raises(BackendUnavailable):
        Compile(CPU, "")
    (tmp_path / "g++").touch(mode=0o755)
    assert Compile(CPU, "").name == "compile"
