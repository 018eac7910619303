"""kernels.py: nothing wrong is timed, and the registry covers every op."""

from __future__ import annotations

import ast
import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import (
    fused_cases,
    fused_input_cases,
    harness,
    kernel_cases,
    kernel_checks,
    kernel_rows,
    kernels,
)
from bench.ceilings import Ceilings
from bench.fused_cases import FusedCase, Maker, Trial
from bench.work import Part
from kernels_triton import implementation
from kernels_triton.choice import reference_wanted

ROOT = Path(__file__).resolve().parents[2]


def case(wrong: float = 0.0, absolute: float | None = None) -> kernel_cases.Case:
    """x + 1, which everything but the reference misses by `wrong`."""

    def call(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if reference_wanted() else x + 1 + wrong

    return kernel_cases.Case(
        "add", "tiny", lambda g: {"x": torch.randn(64, generator=g)}, call, absolute=absolute
    )


PLANAR = {  # the ops on planar tensors, whose definition is what they are compared with
    "bias_act",
    "conv2d_resample",
    "filtered_lrelu",
    "modulated_conv",
    "rgb_to_i420",
    "upfirdn2d",
}


def fused_ops() -> set[str]:
    """Public functions of kernels_triton that ask which way a fused op takes."""
    found = set()
    for path in (ROOT / "kernels_triton").rglob("*.py"):
        if path.stem not in ("op", "fused", "packed"):
            continue
        for node in ast.parse(path.read_text()).body:
            calls = {
                n.func.id
                for n in ast.walk(node)
                if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
            }
            if isinstance(node, ast.FunctionDef) and calls & {"fused_way", "own_kernel"}:
                found.add(node.name)
    return {name for name in found if not name.startswith("_")} - {"own_kernel"}


def test_every_op_has_an_entry() -> None:
    fused = fused_ops() - {"torgb"}  # torgb_i420 without its last step
    assert {"fused_filtered_lrelu", "packed_conv2d", "style_scales"} <= fused
    for device in ("cpu", "cuda"):
        assert {c.op for c in kernels.registry(device)} == PLANAR | fused


@pytest.fixture
def definitions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the references that were asked, in order."""
    asked: list[str] = []

    def watch(op: str, name: str) -> None:
        module = importlib.import_module(f"kernels_triton.{op}.reference")
        real = getattr(module, name)

        def watched(*args: object, **settings: object) -> object:
            asked.append(name)
            return real(*args, **settings)

        monkeypatch.setattr(module, name, watched)

    for op in {c.op for c in kernels.cases("cpu")} - {"modulated_conv"}:
        watch(op, op)
    watch("modulated_conv", "modulated_conv2d")
    watch("modulated_conv", "modulated_conv2d_resample")
    return asked


def test_no_op_is_measured_against_itself(definitions: list[str]) -> None:
    seen = set()
    for chosen in kernels.cases("cpu"):
        inputs = chosen.inputs(torch.Generator().manual_seed(1))
        kernel_checks.prepared(chosen, "reference", kernel_checks.copied(chosen, inputs))()
        assert definitions, chosen.label
        seen |= set(definitions)
        for name in chosen.names[1:]:
            definitions.clear()
            kernel_checks.prepared(chosen, name, kernel_checks.copied(chosen, inputs))()
            assert definitions == [], (chosen.op, chosen.label, name)
    assert seen == {
        "bias_act",
        "conv2d_resample",
        "filtered_lrelu",
        "modulated_conv2d",
        "modulated_conv2d_resample",
        "rgb_to_i420",
        "upfirdn2d",
    }


def test_filtered_lrelu_is_measured_in_one_pass_beside_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kernels_triton.filtered_lrelu import simd_cpu

    runs = []
    real = simd_cpu.run
    monkeypatch.setattr(simd_cpu, "run", lambda *a, **k: runs.append(1) or real(*a, **k))
    for chosen in [c for c in kernels.cases("cpu") if c.op == "filtered_lrelu"]:
        assert chosen.names == ("reference", "torch", "one pass")
        inputs = chosen.inputs(torch.Generator().manual_seed(1))
        for name, expected in (("reference", 0), ("torch", 0), ("one pass", 1)):
            call = kernel_checks.prepared(chosen, name, inputs)
            runs.clear()
            call()
            assert len(runs) == expected, name
    monkeypatch.setattr(simd_cpu, "supports", lambda *a: False)
    with pytest.raises(kernels.Wrong, match="one-pass kernel"):
        kernel_checks.prepared(chosen, "one pass", inputs)


def test_an_op_in_place_gets_a_fresh_scratch_copy_each_time() -> None:
    given = torch.randn(64, generator=torch.Generator().manual_seed(0))
    seen = []

    def call(x: torch.Tensor) -> torch.Tensor:
        seen.append(torch.equal(x.float(), given))
        return x + 1 if reference_wanted() else x.add_(1)

    inplace = kernel_cases.Case("add", "in place", lambda g: {"x": given}, call, overwrites="x")
    first, second = kernel_rows.measure_case(inplace, "cpu", 0.01)
    assert second["count"] >= harness.MIN_SAMPLES and all(seen)
    assert torch.equal(given, torch.randn(64, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("index", range(len(kernels.cases("cpu"))))
def test_registered_implementations_agree_with_their_reference(index: int) -> None:
    chosen = kernels.cases("cpu")[index]
    inputs = chosen.inputs(torch.Generator().manual_seed(1))
    for name in chosen.names[1:]:
        error, allowed = kernel_checks.errors(chosen, name, inputs)
        assert error <= allowed


def test_a_wrong_implementation_is_not_timed() -> None:
    with pytest.raises(kernels.Wrong, match=r"add \(tiny\), auto: error .* not timed"):
        kernel_rows.measure_case(case(wrong=1e-3), "cpu", 0.01)
    with pytest.raises(kernels.Wrong):
        kernel_rows.measure_case(case(wrong=float("nan")), "cpu", 0.01)
    with pytest.raises(kernels.Wrong):
        kernel_rows.measure_case(case(wrong=1.5, absolute=1.0), "cpu", 0.01)


def test_rows_hold_the_reference_first_and_ratios_to_it() -> None:
    rows = kernel_rows.measure_case(case(), "cpu", 0.02)
    assert [r["implementation"] for r in rows] == ["reference", "auto"]
    assert rows[0]["speedup"] == 1.0 and rows[0]["error_unit"] == "relative"
    assert all(r["count"] >= harness.MIN_SAMPLES and r["gb_per_s"] > 0 for r in rows)
    assert "1.0x" in kernels.table(rows)


def test_an_error_is_told_with_its_unit() -> None:
    row, _ = kernel_rows.measure_case(case(absolute=1.0), "cpu", 0.01)
    assert row["error_unit"] == "levels"
    rows = [{**row, "error": 1.0}, {**row, "error": 1.5e-7, "error_unit": "relative"}]
    first, second = kernels.table(rows).splitlines()[-2:]
    assert "  1 level  " in first and "  1.5e-07 relative  " in second


def test_bytes_are_inputs_once_and_output_once() -> None:
    x = torch.zeros(10)
    assert kernel_rows.moved_bytes({"x": x, "y": x.double()}, x.to(torch.uint8)) == 40 + 80 + 10


def test_the_wish_for_the_reference_ends_with_the_call() -> None:
    kernel_checks.prepared(case(), "reference", {"x": torch.zeros(1)})()
    assert not reference_wanted()
    with implementation("reference"):
        assert reference_wanted()


def fused_case(wrong: float = 0.0, unwritten: bool = False) -> FusedCase:
    """x + 1 in one pass, which misses by `wrong` or leaves a number unwritten."""

    def make(m: Maker) -> Trial:
        x = m.stored(16, 16)
        out = m.empty(16, 16)

        def call() -> torch.Tensor:
            first = int(unwritten)
            torch.add(x[first:], 1 + wrong, out=out[first:])
            return out

        part = Part("add", vector=x.numel(), elements=2 * x.numel())
        return Trial(call, out, lambda: x.double() + 1, lambda: x + 1, lambda: x.float() + 1, part)

    return FusedCase("fused_add", "16x16", make, goal=0.001)


LIMITS = Ceilings(
    {torch.float32: 1e9, torch.bfloat16: 1e9},
    {torch.float32: 1e9, torch.bfloat16: 1e9},
    ((1 << 20, 1e9),),
)


def test_fused_ops_are_measured_in_each_storage_type_beside_the_official_order() -> None:
    rows = kernel_rows.measure_fused(fused_case(), "cpu", 0.02)
    kernel_rows.judge(rows, LIMITS)
    assert [r["implementation"] for r in rows] == [
        "official order",
        "fused float32",
        "fused bfloat16",
    ]
    base, full, half = rows
    assert base["speedup"] == 1.0 and base["error"] is None
    assert full["error"] <= full["allowed_error"] < half["allowed_error"]
    # 512 numbers of four or two bytes at 1 GB/s, and 256 additions at 1 GFLOP/s beside that.
    assert full["roofline_percent"] == pytest.approx(100 * 0.002048 / full["p50_ms"], rel=0.1)
    assert half["roofline_percent"] == pytest.approx(100 * 0.001024 / half["p50_ms"], rel=0.1)
    assert "official order" in kernels.table(rows)


@pytest.mark.parametrize("fault", [{"wrong": 1e-3}, {"wrong": float("nan")}, {"unwritten": True}])
def test_a_fused_op_that_is_wrong_or_leaves_a_number_unwritten_is_not_timed(fault: dict) -> None:
    with pytest.raises(kernels.Wrong, match=r"fused_add \(16x16\), float32: error .* not timed"):
        kernel_rows.measure_fused(fused_case(**fault), "cpu", 0.01)


def test_a_definition_that_leaves_out_too_much_is_not_timed() -> None:
    """A radial filter as one separable one: the kernel agrees with that, and both are wrong."""
    radial = fused_cases.filtered_lrelu_case(2, 16, 20, radial=True)
    trial = radial.make(Maker("cpu", torch.float32, torch.Generator().manual_seed(1)))
    assert trial.meant is not None
    exact, meant = trial.exact(), trial.meant()
    assert (exact - meant).abs().max() <= 1e-9 * meant.abs().max()
    kernel_checks.fused_error(trial, "radial")
    off = dataclasses.replace(trial, meant=lambda: meant * (1 + 1e-5))
    with pytest.raises(kernels.Wrong, match="radial: its definition is 1.00e-05 from what it stan"):
        kernel_checks.fused_error(off, "radial")


def test_fewer_terms_than_the_tolerance_asks_for_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kernels_triton.filtered_lrelu import Resampling

    whole = Resampling.of

    def shortened(*given: Any, **settings: Any) -> Resampling:
        how = whole(*given, **settings)
        return dataclasses.replace(how, down_terms=how.down_terms[:-1])

    monkeypatch.setattr(Resampling, "of", shortened)
    case = fused_cases.filtered_lrelu_case(2, 16, 20, radial=True)
    for dtype in (torch.float32, torch.bfloat16):
        trial = case.make(Maker("cpu", dtype, torch.Generator().manual_seed(1)))
        with pytest.raises(kernels.Wrong, match="its definition is"):
            kernel_checks.fused_error(trial, "radial")


SMALL = [  # every maker of the registry, at sizes that a test has time for
    fused_cases.filtered_lrelu_case(2, 16, 36),
    fused_cases.filtered_lrelu_case(4, 16, 20),
    fused_cases.filtered_lrelu_case(2, 16, 20, radial=True),
    fused_cases.fir_bias_act_case(16, 24),
    fused_cases.bias_act_torgb_case(16, 24),
    fused_cases.torgb_i420_case(16, 24),
    fused_cases.image_to_i420_case(24),
    fused_input_cases.fourier_case(16, 22),
    fused_input_cases.styles_case(16, 3, 24),
    fused_input_cases.packed_conv_case(16, 12, 3),
]
STORED = [
    (case, kind) for case in SMALL for kind in ("float32", "bfloat16")[: 2 if case.halves else 1]
]


def test_every_registered_maker_is_tested() -> None:
    for device in ("cpu", "cuda"):
        assert {c.op for c in fused_cases.fused_cases(device)} == {c.op for c in SMALL}


@pytest.mark.parametrize(("chosen", "kind"), STORED, ids=lambda v: getattr(v, "op", v))
def test_fused_ops_agree_with_their_definition(chosen: FusedCase, kind: str) -> None:
    trial = chosen.make(Maker("cpu", getattr(torch, kind), torch.Generator().manual_seed(1)))
    error, allowed = kernel_checks.fused_error(trial, chosen.label)
    assert error <= allowed


@pytest.mark.parametrize("chosen", SMALL, ids=lambda v: v.op)
def test_the_official_order_computes_what_the_fused_op_does(chosen: FusedCase) -> None:
    """But for the scales that a fused op applies on the way: their shapes, and their likeness."""
    trial = chosen.make(Maker("cpu", torch.float32, torch.Generator().manual_seed(1)))
    official, exact = trial.official(), trial.exact()
    if isinstance(official, list):  # style_scales: its order makes weights, not factors
        return
    if official.dtype != torch.uint8:
        official = official.permute(0, 2, 3, 1).double()
        likeness = torch.corrcoef(torch.stack([official.flatten(), exact.flatten()]))[0, 1]
        assert likeness > 0.9
    assert official.shape == exact.shape


def test_goals_ask_for_speed_and_for_exactness() -> None:
    rows = kernel_rows.measure_fused(fused_case(), "cpu", 0.01)
    asked = kernels.goals(rows, [fused_case()])
    assert [g.what for g in asked] == [
        "times the official order's speed",
        "relative error",
        "times the official order's speed",
    ]
    assert all(g.passed for g in asked)
    slow = [{**row, "speedup": 0.0} for row in rows]
    assert not kernels.goals(slow, [fused_case()])[0].passed
    wanted = [c for c in kernels.registry("cpu") if getattr(c, "goal", None)]
    assert [(c.label, c.goal) for c in wanted] == [
        ("up 2, down 2, 64x148x148", 25.0),
        ("up 4, down 2, 64x148x148", 80.0),
    ]


def test_a_failed_check_writes_nothing_and_exits_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "registry", lambda device: [case(wrong=1.0)])
    out = tmp_path / "out.json"
    assert kernels.main(["--device", "cpu", "--seconds", "0.01", "--json", str(out)]) == 1
    assert "WRONG: add (tiny)" in capsys.readouterr().err
    assert not out.exists()


def test_an_unknown_op_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main(["--device", "cpu", "--ops", "fft"]) == 2
    assert "no op fft; there are fused_filtered_lrelu" in capsys.readouterr().out
