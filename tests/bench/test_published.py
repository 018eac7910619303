"""--against: an honest refusal without a checkout; with one, its pictures are ours.

STYLEWIRE_PUBLISHED_STYLEGAN3 names a checkout of the published code. Without it those tests skip:
nothing of that code is here, and nothing is downloaded.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest
import torch

from bench import published, systems
from bench.fidelity import Truth
from bench.subjects import Absent

CHECKOUT = os.environ.get("STYLEWIRE_PUBLISHED_STYLEGAN3", "")
CPU = torch.device("cpu")


def test_another_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Absent, match=f"{tmp_path.name} is no checkout"):
        published.networks(tmp_path, "stylegan3")


def test_a_family_that_was_not_published_there_is_named() -> None:
    with pytest.raises(Absent, match="stylegan_v; it has stylegan2, stylegan3"):
        published.networks("anywhere", "stylegan_v")


def test_a_checkpoint_of_unknown_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="name a built-in system"):
        published.published(tmp_path, "some/file.json", None, None, CPU)  # type: ignore[arg-type]


def test_stand_ins_go_when_the_import_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "stylewire_missing_module"
    stand_in = type(sys)(name)
    monkeypatch.setitem(published.STAND_INS, name, lambda: stand_in)
    before = list(sys.path)
    with published._importable(tmp_path):
        assert sys.modules[name] is stand_in and sys.path[0] == str(tmp_path)
    assert name not in sys.modules and sys.path == before


def test_versions_compare_in_the_stand_in() -> None:
    parse = published._pkg_resources().parse_version
    assert parse("2.11.0") > parse("2.9") and parse("1.11.0a") < parse("1.11.0")


@pytest.mark.skipif(not CHECKOUT, reason="STYLEWIRE_PUBLISHED_STYLEGAN3 names no checkout")
@pytest.mark.parametrize("name", ["stylegan3-r-128", "stylegan2-128", "stylegan3-t-256-cpu"])
def test_the_published_code_draws_our_pictures_with_our_weights(name: str) -> None:
    system = systems.load(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of code that is not ours
        theirs = published.published(CHECKOUT, name, system, Truth(system, CPU), CPU)
    assert theirs.psnr > 90 and "plain path" in theirs.way
    eager = theirs.eager()
    assert eager.name.startswith("published code")
    first, second = eager.frame(), eager.frame()
    assert first.shape == second.shape and not torch.equal(first, second)
