"""What bench/fps.py shows: its table for the terminal, and its goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench import blocks, harness
from bench.systems import CPU_CASE

TIMES = {
    "vs_official": "x official",
    "vs_official_graph": "x graph",
    "vs_compile": "x compile",
}


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """For the terminal."""
    head = ["model", "backend", "size", "frames/s", "p50 ms", "p95 ms", "p99 ms", "launches"]
    head += ["GB", "GFLOP", "% roofline", "PSNR dB", *TIMES.values()]
    lines = [
        [
            r["model"] + ("" if r["trained"] else " (random weights)"),
            f"{r['backend']} {r['precision']}".strip(),
            str(r["resolution"]),
            f"{r['fps']:.1f}",
            *(f"{r[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms")),
            str(r["launches"]),
            _cell(r.get("gb_per_frame"), "{:.3f}"),
            _cell(r.get("gflop_per_frame"), "{:.2f}"),
            _cell(r.get("roofline_percent"), "{:.1f}"),
            _cell(r["psnr_db"] or r["i420_psnr_db"], "{:.1f}"),
            *(_times(r.get(key)) for key in TIMES),
        ]
        for r in results
    ]
    return harness.text_table(head, lines)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _times(ratio: Mapping[str, float] | None) -> str:
    """`12.3 (11.9-12.8)`: the median and the quartiles of the blocks."""
    if not ratio:
        return "-"
    return f"{ratio['median']:.1f} ({ratio['q1']:.1f}-{ratio['q3']:.1f})"


def published_lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """One per subject and baseline of the published code."""
    return [
        f"{r['model']}, {r['backend']} {r['precision']}: {_times(ratio)} times the {word}"
        for r in results
        for word, ratio in (r.get("vs_published") or {}).items()
    ]


def goals(results: Sequence[Mapping[str, Any]]) -> list[blocks.Goal]:
    """What the recommended CPU configuration should reach on two cores."""
    found = []
    least = {"bf16": 45.0, "fp32": 35.0}
    for row in results:
        if row["model"] != CPU_CASE or row["backend"] != "cpu" or row["precision"] not in least:
            continue
        case = f"{CPU_CASE} {row['precision']}"
        best = row["fps_best_block"]
        found.append(blocks.Goal(case, "frames/s, best block", best, least[row["precision"]], True))
        if row["vs_official"] is not None:
            many = row["vs_official"]["median"]
            found.append(blocks.Goal(case, "times the official order's speed", many, 8.0, True))
    return found
