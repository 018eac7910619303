"""What bench/gpu.py should reach, and how its results are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench import blocks, harness

MUST_MS = {  # must, stretch
    "stylegan3-t-256": (1.25, 1.0),
    "stylegan3-t-512": (1.8, 1.4),
    "stylegan3-t-1024": (2.5, 1.9),
    "stylegan3-r-256": (1.25, 0.9),
    "stylegan3-r-512": (2.05, 1.5),
    "stylegan3-r-1024": (3.4, 2.4),
}
CASES = tuple(MUST_MS)
EAGER = dict(zip(CASES, (4.0, 2.8, 2.1, 4.0, 3.4, 3.5), strict=True))  # times its speed
GRAPH = {case: 1.8 if "-t-" in case else 3.2 for case in CASES}
LEAST_DB = 55.0


def goals(results: Sequence[Mapping[str, Any]]) -> list[blocks.Goal]:
    """Of the stages that were run."""
    Goal, found = blocks.Goal, []
    for row in results:
        stage, case = row["stage"], row.get("model", "")
        if stage == "tests":
            found.append(Goal("tests", "failures", float(not row["passed"]), 0.0, False))
        elif stage == "frames":
            found.append(Goal(case, "ms p50", row["p50_ms"], MUST_MS[case][0], False))
            found.append(Goal(case, "PSNR, dB", row["psnr_db"], LEAST_DB, True))
            for what, key, least in (
                (f"times {row['baseline']}", "vs_eager", EAGER[case]),
                ("times that in a CUDA graph", "vs_graph", GRAPH[case]),
            ):
                # Nothing to compare with is a goal that was not reached.
                ratio = row[key]["median"] if row[key] is not None else 0.0
                found.append(Goal(case, what, ratio, least, True))
        elif stage == "replays":
            for key in ("differing_bytes", "allocated_growth", "reserved_growth", "broken"):
                found.append(Goal(case, f"{row['replays']} replays, {key}", row[key], 0.0, False))
            waits = float(bool(row["hidden_sync"]))
            found.append(Goal(case, "hidden waits", waits, 0.0, False))
        elif stage == "batch":
            what = f"batch {row['batch']} draws what batch 1 does"
            found.append(Goal(case, what, float(row["same_as_alone"]), 1.0, True))
        elif stage == "kernels" and "wrong" in row:
            found.append(Goal("kernels", row["wrong"], 1.0, 0.0, False))
    return found


def stretch_reached(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Cases that are within the wish beyond the goal."""
    return [
        row["model"]
        for row in results
        if row["stage"] == "frames" and row["p50_ms"] <= MUST_MS[row["model"]][1]
    ]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Frames, then batches, for the terminal."""
    head = ["model", "ms p50", "p95", "p99", "must / stretch", "engine", "% roofline", "PSNR"]
    head += ["x eager", "x graph", "launches"]

    def cell(value: float | None, form: str = "{:.2f}") -> str:
        return "-" if value is None else form.format(value)

    lines = [
        [
            row["model"],
            *(cell(row[key], "{:.3f}") for key in ("p50_ms", "p95_ms", "p99_ms")),
            "{} / {}".format(*MUST_MS[row["model"]]),
            cell(row["engine_ms"], "{:.3f}"),
            cell(row["roofline_percent"], "{:.0f}"),
            cell(row["psnr_db"], "{:.1f}"),
            *(cell((row[key] or {}).get("median")) for key in ("vs_eager", "vs_graph")),
            str(row["launches"]),
        ]
        for row in results
        if row["stage"] == "frames"
    ]
    parts = [harness.text_table(head, lines)] if lines else []
    batches = [
        [row["model"], str(row["batch"]), cell(row["p50_ms"]), cell(row["ms_per_picture"])]
        + [str(row["sessions_at_30"])]
        for row in results
        if row["stage"] == "batch"
    ]
    if batches:
        head = ["model", "batch", "ms p50", "ms a picture", "sessions at 30 frames/s"]
        parts.append(harness.text_table(head, batches))
    ops = [
        [row["op"], row["case"], row["implementation"], f"{row['p50_ms']:.4f}"]
        + [cell(row.get("roofline_percent"), "{:.0f}"), f"{row['speedup']:.1f}x"]
        for row in results
        if row["stage"] == "kernels" and "op" in row
    ]
    if ops:
        head = ["op", "case", "implementation", "ms p50", "% roofline", "vs official order"]
        parts.append(harness.text_table(head, ops))
    return "\n\n".join(parts)
