"""aot.py and bench/resources.py: every kernel compiles for every architecture within its budgets,
and a kernel that does not is seen.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import resources
from kernels_triton import aot

# Here, so that Triton is imported as the other tests need it: interpreted where there is no GPU.
pytest.importorskip("triton")
from tests.kernels_triton import aot_kernels  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = {variant.name: variant for variant in aot_kernels.variants()}


@pytest.fixture(scope="module")
def made() -> dict[str, resources.Outcome]:
    """Outcomes of the examples, each compiled once by a process that does not interpret."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        todo = [resources.Task(aot_kernels.__name__, name, 80) for name in EXAMPLES]
        return {outcome.task.name: outcome for outcome in resources.outcomes(todo, 2)}


def figures(made: dict[str, resources.Outcome], name: str) -> aot.Resources:
    found = made[name].resources
    assert found is not None, made[name].faults
    return found


def test_every_kernel_is_within_its_budgets_and_as_fast_as_recorded() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(ROOT / "bench/resources.py"), "--check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("spills", "spills registers"),
        ("greedy", "its budget is 40"),
        ("crowded", "its budget is 1024"),
        ("no product", "no tensor-core instruction"),
        ("undefined", "does not compile"),
    ],
)
def test_what_is_wrong_with_a_kernel_is_its_fault(
    made: dict[str, resources.Outcome], name: str, fault: str
) -> None:
    (told,) = made[name].faults
    assert fault in told
    assert f"{name} on sm_80" in told


@pytest.mark.parametrize("name", ["product", "powers", "gluon"])
def test_a_sound_kernel_has_no_fault(made: dict[str, resources.Outcome], name: str) -> None:
    assert made[name].faults == []


def test_the_figures_are_those_of_the_machine_code(made: dict[str, resources.Outcome]) -> None:
    powers = figures(made, "powers")
    # 60 multiply-adds, one store, and what turns the loop.
    assert 60 < powers.loop_instructions < 70
    assert powers.loop_instructions < powers.instructions
    assert powers.slots_per_output == powers.loop_instructions / 2
    assert (powers.loads, powers.mma, powers.local) == (1, 0, 0)
    product = figures(made, "product")
    assert product.mma == 4  # 32x32x32 is 16 times 16x8x16, by four warps
    assert product.shared >= 32 * 32 * 2
    assert figures(made, "spills").spill_loads > 0


def test_a_loads_width_is_that_of_a_launch(made: dict[str, resources.Outcome]) -> None:
    # 64 floats of a thread in loads of four: only of aligned pointers.
    assert figures(made, "greedy").loads == 16
    assert figures(made, "gluon").loads == 2  # of eight


def test_ten_percent_more_instructions_are_a_fault_and_ten_percent_fewer_a_hint(
    made: dict[str, resources.Outcome],
) -> None:
    short, long = figures(made, "powers"), figures(made, "longer powers")
    assert 1.05 < long.slots_per_output / short.slots_per_output < 1.15
    fault, hint = resources.compare(long, {"slots_per_output": short.slots_per_output})
    assert "became slower" in fault and not hint
    fault, hint = resources.compare(short, {"slots_per_output": long.slots_per_output})
    assert "became faster" in hint and not fault
    assert resources.compare(short, {"slots_per_output": short.slots_per_output}) == ("", "")


def test_rare_paths_behind_the_end_are_no_loop() -> None:
    listing = """
        /*0000*/  FADD R1, R1, R1 ;      /* 0x1 */
        /*0010*/  FMUL R1, R1, R1 ;      /* 0x1 */
        /*0020*/  @P0 BRA 0x10 ;         /* 0x1 */
        /*0030*/  @!P1 BRA 0x60 ;        /* 0x1 */
        /*0040*/  FADD R2, R2, R2 ;      /* 0x1 */
        /*0050*/  EXIT ;                 /* 0x1 */
        /*0060*/  MUFU.RCP R2, R2 ;      /* 0x1 */
        /*0070*/  BRA 0x40 ;             /* 0x1 */
        /*0080*/  BRA 0x80;              /* 0x1 */
        /*0090*/  NOP;                   /* 0x1 */
    """
    code = aot.instructions(listing)
    assert [line.opcode for line in code[-3:]] == ["MUFU", "BRA", "BRA"]
    assert len(code) == 9
    assert aot.largest_loop(code) == 2


def test_interpreted_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="without TRITON_INTERPRET"):
        aot.compile_variant(EXAMPLES["powers"], 80)
    assert resources.main([]) == 1


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`bench/resources.py` on the examples named, with records of its own."""
    monkeypatch.setattr(resources, "RECORDS", tmp_path / "resources.json")
    monkeypatch.setattr(resources.harness, "ROOT", tmp_path)
    monkeypatch.setattr(aot, "modules", lambda: ["examples"])
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    def call(made: dict[str, resources.Outcome], names: list[str], *flags: str) -> int:
        monkeypatch.setattr(aot, "variants_of", lambda module: [EXAMPLES[n] for n in names])
        monkeypatch.setattr(
            resources, "outcomes", lambda todo, jobs: (made[task.name] for task in todo)
        )
        return resources.main(flags)

    return call


def test_records_are_complete_or_a_fault(
    command: Any, made: dict[str, resources.Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(made, ["powers"]) == 0
    assert command(made, ["powers"], "--check") == 1
    assert "powers on sm_80 has no record" in capsys.readouterr().out
    assert command(made, ["powers", "product"], "--record") == 0
    assert command(made, ["powers", "product"], "--check") == 0
    assert "| powers | 80 | 10 | 0 | 0 |" in capsys.readouterr().out
    assert command(made, ["powers"], "--check") == 1
    assert "product on sm_80 has a record, but no kernel" in capsys.readouterr().out
    assert command(made, ["powers"], "--check", "--only", "powers") == 0
    assert command(made, ["powers"], "--record") == 0  # all: the other record goes
    assert command(made, ["powers"], "--check") == 0


def test_a_slower_kernel_fails_the_check(
    command: Any, made: dict[str, resources.Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    slower = figures(made, "longer powers")
    now = {"powers": replace(made["powers"], resources=replace(slower, name="powers"))}
    assert command(made, ["powers"], "--record") == 0
    assert command(now, ["powers"], "--check") == 1
    assert "FAULT powers on sm_80 became slower" in capsys.readouterr().out


def test_records_of_another_triton_are_not_compared_and_that_is_said(
    command: Any,
    made: dict[str, resources.Outcome],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(made, ["powers"], "--record") == 0
    monkeypatch.setattr(resources, "version", lambda package: "99.0")
    assert command(made, ["powers"], "--check") == 0
    assert "NOT COMPARED: the records were made with Triton" in capsys.readouterr().out
    assert command(made, ["powers", "spills"], "--check") == 1
    assert "spills registers" in capsys.readouterr().out
    assert command(made, ["powers"], "--record", "--only", "powers") == 1  # would mix the two


def test_a_faulty_kernel_is_not_recorded(
    command: Any, made: dict[str, resources.Outcome], tmp_path: Path
) -> None:
    assert command(made, ["powers", "spills"], "--record") == 1
    records = resources.Records(tmp_path / "resources.json")
    assert records.of("powers", 80) and not records.of("spills", 80)
    assert command(made, [], "--check") == 1  # nothing to compile is no success


def test_modules_without_variants_and_names_given_twice_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="names no variant"):
        aot.variants_of("json")
    one = EXAMPLES["powers"]
    monkeypatch.setattr(aot_kernels, "variants", lambda: [one, one])
    with pytest.raises(ValueError, match="'powers' twice"):
        aot.variants_of(aot_kernels.__name__)
    monkeypatch.setattr(aot_kernels, "variants", lambda: [one])
    monkeypatch.setattr(aot, "modules", lambda: [aot_kernels.__name__] * 2)
    with pytest.raises(ValueError, match="both name"):
        aot.all_variants()


def _die(task: resources.Task) -> resources.Outcome:
    if task.name == "crash":
        os._exit(3)
    return resources.Outcome(task, None, [])


def test_a_crash_of_the_compiler_is_laid_to_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "run", _die)
    todo = [resources.Task("m", name, 80) for name in ("a", "crash", "b")]
    found = {outcome.task.name: outcome.faults for outcome in resources.outcomes(todo, 1)}
    assert found["a"] == found["b"] == []
    (fault,) = found["crash"]
    assert "crash on sm_80 does not compile: the compiler crashed" in fault
