"""`python -m models COMMAND`: what concerns models rather than streams.

`convert` and `sample` are here; the others have a module each in `models/commands`, imported when
they are called for.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from models.commands.status import guarded
from models.convert_file import Converted, ProcessLimits, cached, convert_file
from models.errors import BadCheckpoint, ModelError

if TYPE_CHECKING:  # torch, only where it is needed
    from models.sample import Paint

REFUSED = 65  # EX_DATAERR: the file is not one we take
FAILED = 1  # a wrong model name, a value out of range, a conversion that broke
COMMANDS = {  # modules of models/commands with `main(arguments) -> status`
    "train": "train a model on your clips, or on rendered heads",
    "evaluate": "measure a model against data or rendered truth",
    "prepare": "make training clips from a folder of videos",
    "heads": "render heads: videos with labels, contact sheets",
}


@dataclass(frozen=True)
class Painter:
    """How somebody outside of this layer draws a sample.

    Args:
        flags: Adds those that it is chosen by.
        chosen: What they choose; None for the plain forward. May raise errors of its own.
    """

    flags: Callable[[argparse.ArgumentParser], None]
    chosen: Callable[[argparse.Namespace], Paint | None]


def parser(painter: Painter | None = None) -> argparse.ArgumentParser:
    """The command line of both commands."""
    top = argparse.ArgumentParser(prog="stylewire", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    convert = commands.add_parser(
        "convert",
        help="convert a StyleGAN2, StyleGAN3 or StyleGAN-V .pkl, running nothing of it",
        description="Converts a published .pkl to NAME.safetensors and NAME.json. "
        "Nothing in the file is imported or run.",
    )
    convert.add_argument("file", type=Path, help="the .pkl")
    convert.add_argument(
        "--out", help="folder (written with a / at its end), or name, of the result; default: here"
    )
    convert.add_argument("--which", default="G_ema", help="network of the file (default G_ema)")
    convert.add_argument(
        "--max-bytes", type=int, default=ProcessLimits.file_bytes, help="largest file to read"
    )
    sample = commands.add_parser(
        "sample", help="draw one frame", description="Draws one frame of a model into a PNG."
    )
    sample.add_argument("--seed", type=int, default=0, help="who is seen (default 0)")
    sample.add_argument("--t", type=float, default=0.0, help="time of the frame, seconds")
    sample.add_argument("--out", type=Path, required=True, help="the PNG to write")
    sample.add_argument("--model", help="name of a model, or path of a file (the default one)")
    sample.add_argument("--psi", type=float, default=0.7, help="truncation; 1 is none (0.7)")
    sample.add_argument("--motion-seed", type=int, default=0, help="how they move (default 0)")
    sample.add_argument("--resolution", type=int, help="side of the picture, default the model's")
    if painter is not None:
        painter.flags(sample)
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return top


def main(argv: Sequence[str] | None = None, painter: Painter | None = None) -> int:
    """Runs one command and gives its exit status: 0, 65 for a refused file, 1 for the rest; those
    in `models/commands` have more, see `models.commands.status`.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments and arguments[0] in COMMANDS:
        module = importlib.import_module(f"models.commands.{arguments[0]}")
        say = lambda line: console.print(line, markup=False)  # noqa: E731
        return guarded(lambda: module.main(arguments[1:]), say)
    given = parser(painter).parse_args(arguments)
    try:
        if given.command == "convert":
            _convert(given, console)
        else:
            _sample(given, console, painter)
    except BadCheckpoint as error:
        console.print(f"refused: {error}", markup=False)
        return REFUSED
    except ModelError as error:
        console.print(f"failed: {error}", markup=False)
        return FAILED
    except OSError as error:  # the machine's: a full disk, a folder without permission
        where = f"{error.filename}: " if error.filename else ""
        console.print(f"failed: {where}{error.strerror or error}", markup=False)
        return FAILED
    return 0


@contextmanager
def _bar(console: Console, name: str) -> Iterator[Callable[[str, float], None]]:
    """A progress bar that is there while the block runs; the result takes stage and fraction."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(name, total=1.0)
        yield lambda stage, done: progress.update(
            task, description=f"{name}: {stage}", completed=done
        )


def _convert(given: argparse.Namespace, console: Console) -> None:
    source: Path = given.file
    named: str = given.out or "."
    out = Path(named)
    if out.is_dir() or named.endswith(("/", os.sep)):
        out = out / source.stem
    limits = ProcessLimits(file_bytes=given.max_bytes)
    with _bar(console, source.name) as report:
        found = convert_file(source, out, which=given.which, limits=limits, report=report)
    print("\n".join(describe(found)))


def describe(found: Converted) -> list[str]:
    """What a conversion found, line by line."""
    side = found.config["img_resolution"]
    classes = found.config.get("c_dim", 0)
    lines = [
        f"family      {found.family}",
        f"resolution  {side} x {side}",
        f"parameters  {found.meta['parameters']:,}",
        f"labels      {classes or 'none'}",
        f"licence     {found.meta['licence']}",
        f"written     {found.path} and {found.path.with_suffix('.safetensors').name}",
    ]
    if "RLIMIT_AS" not in found.limited:
        lines.append("note        this platform let the conversion run without a memory limit")
    return lines


def _is_foreign_file(model: str) -> bool:
    """A file to convert first; a shipped model wins over a file of its name, as when loading."""
    if not Path(model).is_file():
        return False
    from models.registry import names  # torch, only where it is needed

    return model not in ("default", *names())


def _sample(given: argparse.Namespace, console: Console, painter: Painter | None) -> None:
    if given.resolution is not None and not 8 <= given.resolution <= 4096:
        raise ModelError(f"resolution is {given.resolution}; 8 to 4096 pixels can be drawn")
    paint = painter and painter.chosen(given)
    model: str | None = given.model
    with _bar(console, model or "sample") as report:
        if model is not None and _is_foreign_file(model):
            model = str(cached(model, say=console.print, report=report))
        report("drawing", 0.5)
        from models.sample import draw, plain  # torch, only where it is needed

        shown = draw(
            model,
            given.out,
            given.seed,
            given.t,
            given.psi,
            given.resolution,
            given.motion_seed,
            paint or plain,
        )
    print(f"written  {given.out} ({shown})")


if __name__ == "__main__":
    sys.exit(main())
