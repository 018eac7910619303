"""`stylewire evaluate MODEL`: what a model is worth in numbers, against data or rendered truth."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:  # torch, only where it is needed
    from models.training.contracts import ClipSource

_EPILOG = (
    "FVD and FID compare with published numbers only if --features names the network that those"
    " were made with, as TorchScript (a program: give only files that you trust). Without it a"
    " fixed random network serves, whose numbers compare with each other and with nothing else."
)


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    made = argparse.ArgumentParser(prog="stylewire evaluate", description=__doc__, epilog=_EPILOG)
    made.add_argument("model", metavar="MODEL", help="a shipped model, or a checkpoint")
    made.add_argument(
        "--data", metavar="PATH", help="what it learnt from: a folder, a zip, a video, heads:cast"
    )
    made.add_argument("--facekit", type=Path, metavar="FILE", help="packed model, for heads")
    made.add_argument(
        "--metrics",
        default="motion,sharpness",
        help="of fvd16, fvd128, fvd128s8, fid, motion, sharpness, likeness and faces"
        " (motion,sharpness); the last two are against rendered truth",
    )
    made.add_argument("--features", type=Path, metavar="FILE.pt", help="network for FVD or FID")
    made.add_argument("--clips", type=int, help="generated clips or frames (what was published)")
    made.add_argument("--people", type=int, default=64, help="looked at by the last two (64)")
    made.add_argument("--moments", type=int, default=32, help="of each, against the renderer (32)")
    made.add_argument("--seconds", type=float, default=60.0, help="of each observed stream (60)")
    made.add_argument("--observer", type=Path, metavar="FILE", help="weights, if not the shipped")
    made.add_argument("--json", type=Path, metavar="OUT", help="write all of it")
    return made


def main(argv: Sequence[str]) -> int:
    """Measures and prints; gives the exit status.

    Raises:
        BadConfig, ModelError, OSError: See `models.commands.status`.
    """
    given = parser().parse_args(argv)
    from models.metrics.evaluate import Asked, evaluate
    from models.registry import load_model

    asked = Asked(
        metrics=tuple(name.strip() for name in given.metrics.split(",") if name.strip()),
        features=given.features,
        clips=given.clips,
        facekit=given.facekit,
        observer=given.observer,
        people=given.people,
        moments=given.moments,
        seconds=given.seconds,
    )
    system = load_model(given.model)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with ExitStack() as stack:
        source = _source(given, system.resolution, console)
        if source is not None:
            stack.callback(source.close)
        shown = stack.enter_context(
            Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        )
        task = shown.add_task("", total=None)

        def report(what: str, done: int, total: int) -> None:
            shown.update(task, description=what, completed=done, total=total)

        found = evaluate(system, source, asked, report)
    print(f"{system.name}, {system.resolution} px" + ("" if system.trained else ", not trained"))
    print("\n".join(found.lines))
    if given.json is not None:
        given.json.write_text(json.dumps(found.table, indent=1, allow_nan=False) + "\n")
    return 0


def _source(given: argparse.Namespace, side: int, console: Console) -> ClipSource | None:
    if given.data is None:
        return None
    from models.training.config import DataConfig
    from models.training.data.open import open_source

    facekit = str(given.facekit) if given.facekit else None
    heads = {"plain": True, "unseen": True} if given.data.startswith("heads:") else {}
    data = DataConfig(given.data, side, workers=0, facekit=facekit, heads=heads)
    return open_source(data, say=lambda line: console.print(line, markup=False))
