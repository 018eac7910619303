"""Each fused op: correct first, then its time, bytes per second and ratio to its definition.

    python bench/kernels.py                         every op on this machine
    python bench/kernels.py --ops filtered_lrelu --seconds 2 --json out.json

Timed is one call on tensors that are already where they are used, from before the call to its
result (on a GPU with a synchronisation on both sides), by time.monotonic_ns(), after a warm-up that
compiles. An implementation and the reference take turns, so a ratio compares neighbours in time.
GB/s is what must be moved at least (every input read once, every output written once) over the
median, so it says how far the memory's own speed is. Nothing that fails the check is timed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import harness

ROUNDS = 3  # in each of which every implementation has its turn
# An implementation may err so many times as much as the reference does in the same precision,
# both against the reference in float64: sums in another order, not other sums.
MARGIN = 4.0
NOTE = (
    "Errors are against the reference in float64, relative to the largest value; of rgb_to_i420 in "
    "levels of a byte. GB/s counts every input read once and the output written once."
)
FLOOR = 1e-7  # relative; one unit in the last place of float32, where the reference is exact


@dataclass(frozen=True)
class Case:
    """One op at one size.

    Args:
        inputs: Makes the tensors, float32 on the CPU, from a generator.
        call: Runs the op on them.
        implementations: Beside the reference: names for `kernels_triton.implementation`, or
            "numba" for the engine's own colour conversion.
    """

    op: str
    label: str
    inputs: Callable[[Any], dict[str, Any]]
    call: Callable[..., Any]
    implementations: tuple[str, ...] = ("auto",)
    absolute: float | None = None  # allowed error in the output's own unit, instead of MARGIN


class Wrong(Exception):
    """An implementation does not compute what the reference does."""


def _randn(generator: Any, *shape: int) -> Any:
    import torch

    return torch.randn(*shape, generator=generator)


def _filtered_lrelu(up: int, channels: int, size: int) -> Case:
    from kernels_triton.filtered_lrelu import filtered_lrelu

    pad = {2: 9, 4: -6}[up]  # a layer of StyleGAN3-T that keeps its rate, and one that doubles it

    def inputs(g: Any) -> dict[str, Any]:
        taps = {"fu": _randn(g, 6 * up) / 3, "fd": _randn(g, 12) / 3}
        return {"x": _randn(g, 1, channels, size, size), **taps, "b": _randn(g, channels)}

    def call(x: Any, fu: Any, fd: Any, b: Any) -> Any:
        return filtered_lrelu(x, fu, fd, b, up=up, down=2, padding=pad, clamp=256.0)

    label = f"up {up}, down 2, {channels}x{size}x{size}"
    return Case("filtered_lrelu", label, inputs, call, ("torch", "auto"))


def _upfirdn2d(channels: int, size: int) -> Case:
    from kernels_triton.upfirdn2d import setup_filter, upsample2d

    def inputs(g: Any) -> dict[str, Any]:
        return {"x": _randn(g, 1, channels, size, size), "f": setup_filter([1.0, 3, 3, 1])}

    return Case("upfirdn2d", f"up 2, 4x4 taps, {channels}x{size}x{size}", inputs, upsample2d)


def _bias_act(channels: int, size: int) -> Case:
    from kernels_triton.bias_act import bias_act

    def inputs(g: Any) -> dict[str, Any]:
        return {"x": _randn(g, 1, channels, size, size), "b": _randn(g, channels)}

    def call(x: Any, b: Any) -> Any:
        return bias_act(x, b, act="lrelu", clamp=256.0)

    return Case("bias_act", f"lrelu, {channels}x{size}x{size}", inputs, call)


def _modulated_conv(channels: int, size: int) -> Case:
    from kernels_triton.modulated_conv import modulated_conv2d

    def inputs(g: Any) -> dict[str, Any]:
        w = _randn(g, channels, channels, 3, 3)
        return {"x": _randn(g, 1, channels, size, size), "w": w, "s": _randn(g, 1, channels)}

    def call(x: Any, w: Any, s: Any) -> Any:
        return modulated_conv2d(x, w, s, padding=2)

    return Case("modulated_conv", f"3x3, {channels}x{size}x{size}", inputs, call)


def _rgb_to_i420(size: int, numba: bool) -> Case:
    """The op, which has its definition only; and on a CPU the pass that the engine uses."""
    from kernels_triton.rgb_to_i420 import rgb_to_i420

    def inputs(g: Any) -> dict[str, Any]:
        return {"rgb": _randn(g, 1, 3, size, size) * 0.5}  # some of it beyond [-1, 1]

    ways = ("numba",) if numba else ()
    # Rounding to a byte makes half-way cases differ by one level.
    return Case("rgb_to_i420", f"{size}x{size}", inputs, rgb_to_i420, ways, absolute=1.0)


def cases(device: str) -> list[Case]:
    """The registry: sizes that an interactive model has on a CPU, and a published one on a GPU."""
    on_gpu = device.startswith("cuda")
    channels, size = (512, 276) if on_gpu else (32, 148)
    return [
        _filtered_lrelu(2, channels, size),
        _filtered_lrelu(4, channels, size // 2),
        _upfirdn2d(channels, size),
        _bias_act(channels, size),
        _modulated_conv(channels, size),
        *(_rgb_to_i420(side, numba=not on_gpu) for side in (256, 512, 1024)),
    ]


def prepared(case: Case, name: str, inputs: dict[str, Any]) -> Callable[[], Any]:
    """A call of one implementation, without gradients."""
    import torch

    from kernels_triton import implementation

    if name == "numba":
        return _numba_i420(inputs["rgb"])

    def call() -> Any:
        with torch.inference_mode(), implementation(name):
            return case.call(**inputs)

    return call


def _numba_i420(rgb: Any) -> Callable[[], Any]:
    import numpy as np
    import torch

    from realtime.i420 import chw_to_i420

    picture = rgb[0].numpy()
    out = np.empty((picture.shape[1] * 3 // 2, picture.shape[2]), np.uint8)

    def call() -> Any:
        chw_to_i420(picture, out)
        return torch.from_numpy(out)[None]

    return call


def errors(case: Case, name: str, inputs: dict[str, Any]) -> tuple[float, float]:
    """Largest error of an implementation, and the largest it may have; against float64.

    Relative to the largest value, or in the output's unit where the case says what is allowed.

    Raises:
        Wrong: It is larger, or shapes differ.
    """
    exact = prepared(case, "reference", {k: v.double() for k, v in inputs.items()})().double()
    plain = prepared(case, "reference", inputs)().double()
    found = prepared(case, name, inputs)().double()
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


def moved_bytes(inputs: dict[str, Any], out: Any) -> int:
    """Every input read once and the output written once."""
    return sum(t.numel() * t.element_size() for t in (*inputs.values(), out))


def measure_case(case: Case, device: str, seconds: float) -> list[dict[str, Any]]:
    """A row per implementation, the reference first. Raises Wrong before anything is timed."""
    import torch

    made = case.inputs(torch.Generator().manual_seed(0))
    inputs = {k: v.to(device) for k, v in made.items()}
    names = ("reference", *case.implementations)
    checked = {name: errors(case, name, inputs) for name in names}
    calls = {name: prepared(case, name, inputs) for name in names}
    sync = torch.cuda.synchronize if device.startswith("cuda") else None
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(ROUNDS):
        for name, call in calls.items():
            samples[name] += harness.measure(
                call,
                seconds=seconds / ROUNDS,
                warmup_s=seconds / 4 if turn == 0 else 0.0,
                least=harness.MIN_SAMPLES // ROUNDS + 1,
                sync=sync,
            )
    base = harness.percentile(samples["reference"], 50)
    moved = moved_bytes(inputs, calls["reference"]())
    found = []
    for name in names:
        s = harness.summarize(samples[name])
        found.append(
            {
                "op": case.op,
                "case": case.label,
                "implementation": name,
                "device": device,
                "error": checked[name][0],
                "allowed_error": checked[name][1],
                "count": s.count,
                "p50_ms": round(s.p50, 4),
                "p95_ms": round(s.p95, 4),
                "p99_ms": round(s.p99, 4),
                "gb_per_s": round(moved / s.p50 / 1e6, 2),
                "speedup": round(base / s.p50, 2),
                "warnings": harness.instabilities(samples[name]),
            }
        )
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """For the terminal."""
    head = ["op", "case", "implementation", "error", "p50 ms", "p95 ms", "GB/s", "vs reference"]
    lines = [
        [
            r["op"],
            r["case"],
            r["implementation"],
            f"{r['error']:.1e}",
            f"{r['p50_ms']:.3f}",
            f"{r['p95_ms']:.3f}",
            f"{r['gb_per_s']:.1f}",
            f"{r['speedup']:.1f}x",
        ]
        for r in results
    ]
    return harness.text_table(head, lines)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="bench/kernels.py", description="Correctness, then speed, of each fused op."
    )
    p.add_argument("--ops", metavar="A,B", help="only these")
    p.add_argument("--seconds", type=float, default=1.0, help="per implementation and case")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda:0")
    p.add_argument("--threads", type=int, default=0, help="of torch on the CPU; 0: its own choice")
    p.add_argument("--json", metavar="FILE", help="write the result here as well")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    about = harness.machine()
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
        about["torch_threads"] = args.threads
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = cases(device)
    if args.ops:
        wanted = args.ops.split(",")
        known = list(dict.fromkeys(case.op for case in chosen))
        if unknown := [op for op in wanted if op not in known]:
            print(f"kernels: no op {', '.join(unknown)}; there are {', '.join(known)}.")
            return 2
        chosen = [case for case in chosen if case.op in wanted]
    print(harness.describe(about, harness.commit()), end="\n\n", flush=True)
    results: list[dict[str, Any]] = []
    wrong: list[str] = []
    for case in chosen:
        print(f"{case.op}, {case.label} ...", file=sys.stderr, flush=True)
        try:
            results += measure_case(case, device, args.seconds)
        except Wrong as error:
            wrong.append(str(error))
    warnings = harness.busy(about)
    print(table(results))
    unsteady = [
        f"{r['op']}, {r['case']}, {r['implementation']}: {'; '.join(r['warnings'])}"
        for r in results
        if r["warnings"]
    ]
    for warning in [*warnings, *unsteady]:
        print(f"warning: {warning}")
    for sentence in wrong:
        print(f"WRONG: {sentence}", file=sys.stderr)
    if args.json and not wrong:
        typed = sys.argv if argv is None else [__file__, *argv]
        harness.write_json(
            args.json,
            harness.envelope(
                "kernels", results, about=about, notes=[NOTE], warnings=warnings, argv=typed
            ),
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
