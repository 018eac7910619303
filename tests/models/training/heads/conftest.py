"""Heads that tests share: the small one, and the packed one if the user named it by --facekit."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.training.heads.anatomy import Anatomy
from models.training.heads.kit import HeadKit, load


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What takes a `kit`, also through `anatomy`, runs on every kit there is."""
    if "kit" in metafunc.fixturenames:
        named: Path | None = metafunc.config.getoption("--facekit")
        kits = {"small": None} | ({"facekit": named} if named else {})
        metafunc.parametrize(
            "kit", list(kits.values()), ids=list(kits), indirect=True, scope="session"
        )


@pytest.fixture(scope="session")
def kit(request: pytest.FixtureRequest) -> HeadKit:
    return load(request.param)


@pytest.fixture(scope="session")
def anatomy(kit: HeadKit) -> Anatomy:
    return Anatomy(kit)


@pytest.fixture(scope="session")
def small() -> HeadKit:
    """The small head, whatever the user named."""
    return load(None)
