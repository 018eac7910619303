"""How compiled kernels find their machine code again, and who runs them."""

from __future__ import annotations

import importlib.util
import threading

import numpy as np
import pytest
import torch
from numba import types

from kernels_triton import compiled
from kernels_triton.compiled import F32, flat, known, spread

DOUBLE = "def double(x, begin, end):\n    for k in range(begin, end):\n        x[k] *= 2\n"
SIGNATURE = types.void(F32, types.intp, types.intp)


def _written(folder, name: str, text: str):
    path = folder / f"{name}.py"
    path.write_text(text)
    specification = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_compiles_where_nothing_can_be_cached() -> None:
    scope: dict = {}
    exec(DOUBLE, scope)  # has no file, so numba knows no place for its code
    kernel = compiled.compiled([SIGNATURE])(scope["double"])
    x = np.ones(4, np.float32)
    kernel(x, 1, 3)
    assert x.tolist() == [1, 2, 2, 1]


def test_a_change_in_a_module_it_uses_makes_another_kernel(tmp_path) -> None:
    part = _written(tmp_path, "part", "ONE = 1\n")
    names = set()
    for _ in range(2):
        function = _written(tmp_path, "whole", DOUBLE).double
        kernel = compiled.compiled([SIGNATURE], part)(function)
        names.add(kernel.py_func.__qualname__)
    assert len(names) == 1
    assert len(list((tmp_path / "__pycache__").glob("whole.*.nbi"))) == 1
    part = _written(tmp_path, "part", "ONE = 2\n")
    compiled.compiled([SIGNATURE], part)(_written(tmp_path, "whole", DOUBLE).double)
    assert len(list((tmp_path / "__pycache__").glob("whole.*.nbi"))) == 2


def test_features_that_kernels_take() -> None:
    assert known(torch.zeros(1, 2, 3, 32)) and known(torch.zeros(16, dtype=torch.bfloat16))
    assert not known(torch.zeros(2, 17)) and not known(torch.zeros(16, dtype=torch.float16))
    x = torch.tensor([[1.0, -2.0]], dtype=torch.bfloat16)
    assert flat(x).tolist() == [0x3F80, 0xC000]
    flat(x)[1] = 0x4040
    assert x.tolist() == [[1.0, 3.0]]


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_little_work_stays_with_the_caller(threads, monkeypatch) -> None:
    monkeypatch.setattr(compiled, "FEW", 100)
    calls = []

    def kernel(what, begin, end):
        calls.append((what, begin, end, threading.current_thread()))

    spread(kernel, 4, 99, "little")
    assert calls == [("little", 0, 4, threading.current_thread())]
    calls.clear()
    spread(kernel, 4, 100, "much")
    assert sorted(call[:3] for call in calls) == [("much", 0, 2), ("much", 2, 4)]
