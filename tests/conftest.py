"""Golden files: where they are, and how a test walks them.

A test that takes `golden_case` runs once per case of the operator files its module names in
`GOLDENS` (a glob below the golden folder); `golden_run` is a run of a generator, `golden_file` a
whole file. `--goldens DIR` walks another set, e.g. the full one.
"""

from __future__ import annotations

import functools
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent

# Without a GPU, Triton kernels run in its interpreter. It asks before triton is first imported;
# what compiles ahead of time does so in a process of its own.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A script starts what runs in its background with SIGINT ignored, and children inherit that: the
# commands that tests interrupt would go on for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Golden:
    """One golden file; with `case`, one of its cases or runs."""

    path: Path
    case: dict[str, Any]

    @property
    def meta(self) -> dict[str, Any]:
        return _read(self.path)[0]

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Every array below `prefix`, by what follows it; fresh copies."""
        arrays = _read(self.path)[1]
        return {
            key.removeprefix(prefix): torch.from_numpy(value.copy())
            for key, value in arrays.items()
            if key.startswith(prefix)
        }


@functools.lru_cache(maxsize=8)
def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(path, allow_pickle=False) as data:
        arrays = {key: data[key] for key in data.files}
    return json.loads(str(arrays.pop("meta"))), arrays


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--goldens", default=str(HERE / "goldens"), help="folder of golden files")
    parser.addoption(
        "--facekit",
        type=Path,
        help="packed head model; without it heads are tested on the small one",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    listed = {"golden_case": "cases", "golden_run": "runs", "golden_file": None}
    for name, entry in listed.items():
        if name not in metafunc.fixturenames:
            continue
        root = Path(metafunc.config.getoption("goldens"))
        goldens, ids = [], []
        for path in sorted(root.glob(metafunc.module.GOLDENS)):
            cases = _read(path)[0][entry] if entry else [{"id": ""}]
            goldens += [Golden(path, case) for case in cases]
            ids += [f"{path.stem}-{case['id']}".rstrip("-") for case in cases]
        assert goldens, f"no golden file matches {root / metafunc.module.GOLDENS}"
        metafunc.parametrize(name, goldens, ids=ids)


def assert_close(actual: Tensor, expected: Tensor, atol: float, rtol: float, what: str) -> None:
    """Largest absolute error at most `atol + rtol * max|expected|`: the golden files' own
    measure.
    """
    assert actual.shape == expected.shape, (
        f"{what}: {list(actual.shape)}, not {list(expected.shape)}"
    )
    error = (actual.detach() - expected).abs().max().item()
    limit = atol + rtol * expected.abs().max().item()
    assert error <= limit, f"{what}: error {error:.2e}, at most {limit:.2e}"


@pytest.fixture(name="assert_close")
def _assert_close():
    return assert_close


@pytest.fixture(scope="session")
def facekit(request: pytest.FixtureRequest) -> Path | None:
    """The head model that the user named; None stands for the small head."""
    path: Path | None = request.config.getoption("--facekit")
    return path
