"""Every backend asks between its stages whether it is still wanted, and does not fall back then."""

from __future__ import annotations

import pytest
import torch

from models.errors import ModelError
from realtime.backends import tensorrt
from realtime.backends.compile import Compile
from realtime.backends.cpu import Cpu
from realtime.backends.cuda_graph import CudaGraph
from realtime.backends.eager import Eager
from realtime.backends.tensorrt import TensorRt
from realtime.backends.triton import Triton
from realtime.errors import SessionClosed
from realtime.loading import load_system
from tests.realtime.tiny_stylegan import SIDE, TinyStyleGan

CPU = torch.device("cpu")
BACKENDS = {
    "eager": lambda: Eager(CPU, ""),
    "cpu": lambda: Cpu(CPU, ""),
    "compile": lambda: Compile(CPU, "", "aot_eager"),
    "triton": lambda: Triton(CPU, "", torch.float32),
    "cuda-graph": lambda: CudaGraph(CPU, "", torch.float32),
    "tensorrt": lambda: TensorRt(torch.device("cuda"), ""),
}


def closed() -> None:
    raise SessionClosed("the engine is closed.")


@pytest.mark.parametrize("name", BACKENDS)
def test_what_the_check_raises_ends_the_preparation(name, monkeypatch, caplog) -> None:
    monkeypatch.setattr(tensorrt, "find_spec", lambda package: True)
    backend = BACKENDS[name]()
    backend.device = CPU  # also of the one that needs a GPU to draw
    with pytest.raises(SessionClosed):
        backend.prepare(TinyStyleGan().synthesizer, closed)
    assert "eager" not in caplog.text


@pytest.mark.parametrize("error", [SessionClosed, ModelError])
def test_loading_hands_its_check_to_the_backend(error) -> None:
    """Raised where a backend waits, it arrives as it is."""
    asked = []

    class Waiting(Eager):
        def prepare(self, synthesizer, check=lambda: None):
            asked.append(True)
            check()
            raise AssertionError("the check was another")

    def check() -> None:
        if asked:
            raise error("not wanted")

    with pytest.raises(error, match="not wanted"):
        load_system("tiny", lambda name: TinyStyleGan(), Waiting(CPU, ""), SIDE, check)
