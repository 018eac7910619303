"""Golden files for tests of StyleGAN-V: those of `--goldens`, the compact ones unless told.

A test with `generator_golden`, `discriminator_golden` or `motion_golden` among its fixtures runs
once per file of that kind; `golden` reads one by name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .goldens import Golden, read

KINDS = {
    "generator_golden": "gen_*.npz",
    "discriminator_golden": "disc_*.npz",
    "motion_golden": "motion_*.npz",
}


def _folder(config: pytest.Config) -> Path:
    return Path(config.getoption("goldens")) / "stylegan_v"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, pattern in KINDS.items():
        if name in metafunc.fixturenames:
            # motion_big has windows of noise at late times in place of clips: a test of its own.
            found = sorted(_folder(metafunc.config).glob(pattern))
            paths = [path for path in found if path.stem != "motion_big"]
            assert paths, f"no golden file matches {_folder(metafunc.config) / pattern}"
            metafunc.parametrize(name, [read(p) for p in paths], ids=[p.stem for p in paths])


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Callable[[str], Golden]:
    return lambda name: read(_folder(request.config) / f"{name}.npz")
