"""bench/resources.py: which kernels are chosen, and what is said where none is."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("triton")
from bench import resources  # noqa: E402


def chosen(only: str) -> set[str]:
    todo, wrong = resources.tasks(only, [])
    assert wrong == []
    return {task.name for task in todo}


def test_an_op_chooses_its_variants_whatever_they_are_called() -> None:
    styles = chosen("styles")
    assert any(name.startswith("style_demod") for name in styles)
    assert any(name.startswith("style_motion") for name in styles)
    assert styles == chosen("style_")


def test_part_of_a_name_chooses_and_nothing_chooses_all() -> None:
    everything = chosen("")
    for part in ("fp32", "style_motion"):
        assert chosen(part) == {name for name in everything if part in name}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--only", "styls"], "did you mean 'styles'"),
        (["--only", "tograb_i420"], "'torgb_i420"),
        (["--only", "nonsense"], "The ops are bias_act, "),
        (["--only", "styles", "--cc", "75"], "for [75]: architectures are [80, "),
    ],
)
def test_a_choice_of_nothing_is_a_fault_that_says_what_there_is(
    flags: list[str], says: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert resources.main(flags) == 1
    (fault,) = [line for line in capsys.readouterr().out.splitlines() if "FAULT" in line]
    assert says in fault
