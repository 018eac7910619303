"""How fast heads are rendered, one core, one thread.

    python bench/heads.py --facekit FILE               five sizes; a minute
    python bench/heads.py --facekit FILE --goals --json out.json

A frame is `HeadRenderer.render`: geometry, hair, shadows, light, picture, mask and labels; where
the face moves to is asked before. Timed by time.process_time(), the processor time of this process,
because such machines are shared; what shares the cores' caches still shows. Each case draws twelve
people of the open prior in turn, twenty frames of one movement each, after a warm-up that compiles
the kernels or loads them. `person` is `make_person`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import blocks, harness
from models.faces.prior import Prior, person
from models.faces.tracks import Track
from models.training.heads import kit
from models.training.heads.anatomy import Anatomy
from models.training.heads.person import Person, make_person
from models.training.heads.renderer import HeadRenderer

CASES = ((128, 1), (128, 2), (256, 1), (256, 2), (512, 2))  # pixels, samples along a pixel's edge
GOALS = {(128, 1): 150.0, (256, 2): 45.0}  # frames per second of the median frame
PEOPLE, FRAMES_EACH, FPS = 12, 20, 25
NOTE = (
    "Processor time of one thread for HeadRenderer.render, labels included. Twelve people of the "
    "open prior, twenty frames each; the open prior has all hair styles, beards and glasses."
)


def frames(anatomy: Anatomy, people: Sequence[Person], size: int, samples: int) -> dict[str, Any]:
    """One row: every frame of a case timed."""
    renderer = HeadRenderer(anatomy, size, samples)
    times = []
    for number, one in enumerate(people):
        track = Track(number)
        renderer.render(one, track.state(0.0))  # its backdrop and strands at this size
        for k in range(FRAMES_EACH):
            state = track.state(k / FPS)
            begin = time.process_time()
            renderer.render(one, state)
            times.append(1e3 * (time.process_time() - begin))
    case = {"case": f"{size}/{samples}", "size": size, "samples": samples}
    return {**case, **_figures(times), "frames_per_s": 1e3 / harness.percentile(times, 50)}


def making(anatomy: Anatomy) -> tuple[list[Person], dict[str, Any]]:
    """The people that are drawn, and a row of what they cost."""
    make_person(anatomy, person(PEOPLE, Prior.OPEN))
    people, times = [], []
    for seed in range(PEOPLE):
        begin = time.process_time()
        people.append(make_person(anatomy, person(seed, Prior.OPEN)))
        times.append(1e3 * (time.process_time() - begin))
    return people, {"case": "person", **_figures(times)}


def _figures(times: Sequence[float]) -> dict[str, Any]:
    shown = {f"p{q}_ms": harness.percentile(times, q) for q in (50, 95, 99)}
    return {**shown, "max_ms": max(times), "n": len(times), "warnings": []}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All rows as text."""
    head = ("case", "frames/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "n")
    lines = []
    for row in rows:
        speed = f"{row['frames_per_s']:.1f}" if "frames_per_s" in row else "-"
        times = [f"{row[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms")]
        lines.append((row["case"], speed, *times, str(row["n"])))
    return harness.text_table(head, lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 where goals were asked for and one was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--facekit", type=Path, metavar="FILE", help="default: the small head")
    parser.add_argument("--goals", action="store_true", help="only what has goals; 1 if one fails")
    parser.add_argument("--json", metavar="FILE", help="write the result here as well")
    given = parser.parse_args(argv)
    about = harness.machine()
    print(harness.describe(about, harness.commit()))
    anatomy = Anatomy(kit.load(given.facekit))
    people, made = making(anatomy)
    cases = [case for case in CASES if case in GOALS] if given.goals else CASES
    rows = [frames(anatomy, people, *case) for case in cases]
    print(f"head: {anatomy.kit.name}\n{table([*rows, made])}")
    warnings = harness.busy(about)
    for warning in warnings:
        print(f"warning: {warning}")
    reached = [
        blocks.Goal(row["case"], "frames/s", row["frames_per_s"], goal, above=True)
        for row in rows
        if (goal := GOALS.get((row["size"], row["samples"])))
    ]
    if given.goals:
        print(blocks.goals_text(reached))
    if given.json:
        content = harness.envelope(
            "heads",
            [*rows, made],
            about=about,
            notes=[NOTE, f"head: {anatomy.kit.name}"],
            warnings=warnings,
            argv=sys.argv if argv is None else ["bench/heads.py", *argv],
            goals=[goal.as_dict() for goal in reached],
        )
        harness.write_json(given.json, content)
    return int(given.goals and not all(goal.passed for goal in reached))


if __name__ == "__main__":
    raise SystemExit(main())
