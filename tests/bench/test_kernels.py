"""kernels.py: nothing wrong is timed, and the registry covers every op."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import harness, kernels
from kernels_triton import implementation
from kernels_triton.choice import reference_wanted

ROOT = Path(__file__).resolve().parents[2]


def case(wrong: float = 0.0, absolute: float | None = None) -> kernels.Case:
    """x + 1, which everything but the reference misses by `wrong`."""

    def call(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if reference_wanted() else x + 1 + wrong

    return kernels.Case(
        "add", "tiny", lambda g: {"x": torch.randn(64, generator=g)}, call, absolute=absolute
    )


def test_every_op_folder_has_an_entry() -> None:
    folders = {p.parent.name for p in (ROOT / "kernels_triton").glob("*/op.py")}
    # conv2d_resample is a route to convolutions and upfirdn2d, which have their own entries
    assert {c.op for c in kernels.cases("cpu")} == folders - {"conv2d_resample"}


@pytest.mark.parametrize("index", range(len(kernels.cases("cpu"))))
def test_registered_implementations_agree_with_their_reference(index: int) -> None:
    chosen = kernels.cases("cpu")[index]
    inputs = chosen.inputs(torch.Generator().manual_seed(1))
    for name in chosen.implementations:
        error, allowed = kernels.errors(chosen, name, inputs)
        assert error <= allowed


def test_a_wrong_implementation_is_not_timed() -> None:
    with pytest.raises(kernels.Wrong, match=r"add \(tiny\), auto: error .* not timed"):
        kernels.measure_case(case(wrong=1e-3), "cpu", 0.01)
    with pytest.raises(kernels.Wrong):
        kernels.measure_case(case(wrong=float("nan")), "cpu", 0.01)
    with pytest.raises(kernels.Wrong):
        kernels.measure_case(case(wrong=1.5, absolute=1.0), "cpu", 0.01)


def test_rows_hold_the_reference_first_and_ratios_to_it() -> None:
    rows = kernels.measure_case(case(), "cpu", 0.02)
    assert [r["implementation"] for r in rows] == ["reference", "auto"]
    assert rows[0]["speedup"] == 1.0
    assert all(r["count"] >= harness.MIN_SAMPLES and r["gb_per_s"] > 0 for r in rows)
    assert "1.0x" in kernels.table(rows)


def test_bytes_are_inputs_once_and_output_once() -> None:
    x = torch.zeros(10)
    assert kernels.moved_bytes({"x": x, "y": x.double()}, x.to(torch.uint8)) == 40 + 80 + 10


def test_the_wish_for_the_reference_ends_with_the_call() -> None:
    kernels.prepared(case(), "reference", {"x": torch.zeros(1)})()
    assert not reference_wanted()
    with implementation("reference"):
        assert reference_wanted()


def test_a_failed_check_writes_nothing_and_exits_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "cases", lambda device: [case(wrong=1.0)])
    out = tmp_path / "out.json"
    assert kernels.main(["--device", "cpu", "--seconds", "0.01", "--json", str(out)]) == 1
    assert "WRONG: add (tiny)" in capsys.readouterr().err
    assert not out.exists()


def test_an_unknown_op_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main(["--device", "cpu", "--ops", "fft"]) == 2
    assert "no op fft; there are filtered_lrelu" in capsys.readouterr().out
