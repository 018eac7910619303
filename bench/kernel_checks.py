"""Whether an op is right, before bench/kernels.py says how fast it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.kernel_cases import Case, Wrong, chosen

# An implementation may err so many times as much as the reference does in the same precision,
# both against the reference in float64: sums in another order, not other sums.
MARGIN = 4.0
FLOOR = 1e-7  # relative; one unit in the last place of float32, where the reference is exact


def prepared(case: Case, name: str, inputs: dict[str, Any]) -> Callable[[], Any]:
    """A call of one implementation, without gradients.

    Raises:
        Wrong: It cannot run here.
    """
    way = case.ways.get(name)
    return way(**inputs) if way else chosen(name, case.call, inputs)


def copied(case: Case, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs, with a scratch copy of the one that a call may overwrite."""
    name = case.overwrites
    return inputs if name is None else {**inputs, name: inputs[name].clone()}


def errors(case: Case, name: str, inputs: dict[str, Any]) -> tuple[float, float]:
    """Largest error of an implementation, and the largest it may have; against float64.

    Relative to the largest value, or in levels of a byte where the case says what is allowed.

    Raises:
        Wrong: It is larger, or shapes differ, or it cannot run here.
    """
    exact = prepared(case, "reference", {k: v.double() for k, v in inputs.items()})().double()
    plain = prepared(case, "reference", copied(case, inputs))().double()
    found = prepared(case, name, copied(case, inputs))().double()
    if found.shape != exact.shape:
        raise Wrong(f"{case.op} ({case.label}), {name}: shape {list(found.shape)}")
    unit = 1.0 if case.absolute is not None else float(exact.abs().max())
    error = float((found - exact).abs().max()) / unit
    own = float((plain - exact).abs().max()) / unit
    allowed = case.absolute if case.absolute is not None else max(MARGIN * own, FLOOR)
    if not error <= allowed:
        raise Wrong(
            f"{case.op} ({case.label}), {name}: error {error:.2e}, {allowed:.2e} is allowed; "
            "it is not timed"
        )
    return error, allowed


def fused_error(trial: Any, name: str) -> tuple[float, float]:
    """As `errors`, of a fused op that writes into poisoned memory.

    Where the definition itself stands for something else, as a sum of separable filters does for a
    radial one, it is held against that first.

    Raises:
        Wrong: An error is too large, or shapes differ.
    """
    trial.out.fill_(0xA5 if trial.levels else float("nan"))
    found = trial.call().double().clone()
    exact, plain = trial.exact().double(), trial.plain().double()
    if found.shape != exact.shape:
        raise Wrong(f"{name}: shape {list(found.shape)}, not {list(exact.shape)}")
    if trial.meant is not None:
        far = float((exact - trial.meant()).abs().max() / exact.abs().max())
        if not far <= trial.tolerance:
            raise Wrong(
                f"{name}: its definition is {far:.2e} from what it stands for, "
                f"{trial.tolerance:.2e} is allowed; it is not timed"
            )
    unit = 1.0 if trial.levels else float(exact.abs().max())
    error = float((found - exact).abs().max()) / unit
    own = float((plain - exact).abs().max()) / unit
    allowed = 1.0 if trial.levels else max(MARGIN * own, FLOOR)
    if not error <= allowed:
        raise Wrong(f"{name}: error {error:.2e}, {allowed:.2e} is allowed; it is not timed")
    return error, allowed
