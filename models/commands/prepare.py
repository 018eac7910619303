"""`stylewire prepare DIR --out OUT`: training clips from a folder of videos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from models.commands.status import BAD_DATA

if TYPE_CHECKING:
    from models.training.prepare import Report


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    made = argparse.ArgumentParser(
        prog="stylewire prepare",
        description="Crops and resizes every video below DIR to a folder of frames. What cannot be"
        " used is named with its reason and left alone; nothing in DIR is changed. Called again, it"
        " goes on with what is not there yet.",
    )
    made.add_argument("dir", type=Path, metavar="DIR", help="folder with videos, at any depth")
    made.add_argument("--out", type=Path, required=True, help="folder for the clips")
    made.add_argument(
        "--resolution", type=int, default=256, help="side of the frames, a power of two (256)"
    )
    made.add_argument(
        "--fps", type=float, help="frames per second of the clips (what most of the videos have)"
    )
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "--box", type=_box, metavar="X,Y,SIDE", help="the square to keep, pixels from the top left"
    )
    where.add_argument(
        "--centre", action="store_true", help="keep the largest square in the middle (as without)"
    )
    made.add_argument("--least-frames", type=int, default=32, help="shorter clips are skipped (32)")
    made.add_argument("--jobs", type=int, default=1, help="videos at the same time (1)")
    return made


def _box(text: str) -> tuple[int, int, int]:
    left, top, side = (int(part) for part in text.split(","))
    return left, top, side


def main(argv: Sequence[str]) -> int:
    """Prepares; gives the exit status.

    Raises:
        BadConfig, Unavailable, OSError: See `models.commands.status`.
    """
    given = parser().parse_args(argv)
    from models.training.prepare import Entry, prepare
    from models.training.prepare_checks import Cut

    cut = Cut(given.resolution, given.fps, given.box, given.least_frames)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task("", total=None)

        def advance(entry: Entry) -> None:
            bar.advance(task)
            said = entry.reason or f"{entry.frames} frames"
            detail = f" ({entry.detail})" if entry.detail else ""
            line = f"{entry.status:8} {entry.source}: {said}{detail}"
            console.print(line, markup=False)

        report = prepare(given.dir, given.out, cut, jobs=given.jobs, advance=advance)
    print("\n".join(summary(report, given.out, given.resolution)))
    return 0 if report.count("written") else BAD_DATA


def summary(report: Report, out: Path, resolution: int) -> list[str]:
    """What was done, in a few lines."""
    frames = sum(entry.frames for entry in report.entries)
    lines = [f"{report.found} files found in all"]
    for status in ("written", "skipped", "failed"):
        why = [f"{n} {reason}" for reason, n in sorted(report.reasons(status).items()) if reason]
        lines.append(f"{report.count(status):6} {status}" + (f": {', '.join(why)}" if why else ""))
    if frames:
        lines.append(f"{frames} frames at {report.fps:g} frames per second in {out}")
        side = "" if resolution == 128 else f" --set data.resolution={resolution}"
        lines.append(
            "train on them: stylewire train clips_128 --run-dir runs/mine"
            f" --set data.source={out}{side}"
        )
    else:
        lines.append("nothing to train on; the reasons are above")
    return lines
