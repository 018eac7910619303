"""All figures of a model against data: which are there, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.errors import BadConfig
from models.metrics.evaluate import METRICS, Asked, evaluate
from models.metrics.truth import Truth

from .clips import Discs, DiscSystem
from .test_faces import Oracle


def test_all_that_compares_with_data() -> None:
    asked = Asked(("fvd16", "fid", "motion", "sharpness"), clips=6)
    told: list[tuple[str, int, int]] = []
    found = evaluate(DiscSystem(), Discs([110] * 6), asked, lambda *done: told.append(done))
    table = found.table
    assert table["model"] == "discs" and table["resolution"] == 32
    assert table["fvd16"]["protocol"] == "fvd2048_16f" and table["fvd16"]["generated"] == 6
    assert table["fid"]["protocol"] == "fid6"
    assert table["motion"]["speed"] == pytest.approx(table["motion of the data"]["speed"], rel=0.5)
    assert 0.5 < table["sharpness"]["ratio"] < 2
    assert ("fvd16", 6, 6) in told and ("fid", 6, 6) in told
    assert any("(relative only)" in line for line in found.lines)
    json.dumps(table, allow_nan=False)


def test_motion_and_sharpness_do_without_data() -> None:
    found = evaluate(DiscSystem(), None, Asked(("motion", "sharpness")))
    assert found.table["sharpness"]["ratio"] is None
    assert found.table["sharpness"]["power"] > 0


def test_likeness_of_the_renderer_to_itself(facekit: Path | None) -> None:
    truth = Truth(64, facekit)
    asked = Asked(("likeness",), facekit=facekit, people=2, moments=1)
    found = evaluate(Oracle(truth), None, asked)
    assert {"its people", "its people, psi 0.7", "unseen people"} < found.table.keys()
    for name in ("its people", "unseen people"):
        assert found.table[name]["psnr"] > 90 and found.table[name]["faces"] is None
    assert not any("faces" in line for line in found.lines)
    json.dumps(found.table, allow_nan=False)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (("fvd16",), "fvd16 compare with data; give --data PATH"),
        (("faces",), "knows no numbers of its faces"),
    ],
)
def test_what_cannot_be_measured_is_said(metrics: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        evaluate(DiscSystem(), None, Asked(metrics))


@pytest.mark.parametrize(
    "wrong", [{"metrics": ("beauty",)}, {"metrics": ()}, {"clips": 1}, {"people": 1}]
)
def test_impossible_wishes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadConfig, match="known are fvd16|two at least|need 2 and 1"):
        Asked(**{"metrics": METRICS, **wrong})  # type: ignore[arg-type]


def test_torch_draws_do_not_change_what_is_found() -> None:
    asked = Asked(("fvd16",), clips=3)
    torch.manual_seed(5)
    one = evaluate(DiscSystem(), Discs([40] * 3), asked).table
    torch.manual_seed(6)
    assert evaluate(DiscSystem(), Discs([40] * 3), asked).table == one
