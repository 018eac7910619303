"""`stylewire heads pack | render | sheet | check`: rendered heads for training and experiments."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models.commands.status import BAD_DATA
from models.errors import BadConfig

_GEOMETRY = (
    "Without --facekit the small head of this project is drawn. A better one is packed from the"
    " public repository of ICT-FaceKit Light: stylewire heads pack OBJ_DIR --out FILE."
)


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    made = argparse.ArgumentParser(prog="stylewire heads", description=__doc__, epilog=_GEOMETRY)
    tasks = made.add_subparsers(dest="task", required=True, metavar="pack | render | sheet | check")
    pack = tasks.add_parser("pack", help="make a facekit.npz from the OBJ files of ICT-FaceKit")
    pack.add_argument("obj_dir", type=Path, metavar="OBJ_DIR", help="folder of the OBJ files")
    pack.add_argument("--out", type=Path, required=True, help="the .npz to write")
    render = tasks.add_parser("render", help="write videos with labels", epilog=_GEOMETRY)
    render.add_argument("--clips", type=int, default=10, help="how many (10)")
    render.add_argument("--seconds", type=float, default=4.0, help="of each (4)")
    render.add_argument("--out", type=Path, required=True, help="folder; a second call goes on")
    render.add_argument(
        "--kind", default="heads:open", help="heads:open, heads:wild, heads:narrow, heads:cast"
    )
    render.add_argument("--fps", type=float, default=25.0, help="frames per second (25)")
    sheet = tasks.add_parser("sheet", help="draw people in rows of poses", epilog=_GEOMETRY)
    sheet.add_argument("--out", type=Path, required=True, help="the .png or .jpg to write")
    check = tasks.add_parser("check", help="look for broken heads", epilog=_GEOMETRY)
    check.add_argument("--frames", type=int, default=10_000, help="how many (10000)")
    for task, size, samples in ((render, 256, 2), (sheet, 256, 2), (check, 64, 1)):
        task.add_argument("--facekit", type=Path, metavar="FILE", help="packed head model")
        task.add_argument("--size", type=int, default=size, help=f"pixels ({size})")
        task.add_argument(
            "--samples", type=int, default=samples, help=f"along a pixel's edge ({samples})"
        )
        task.add_argument("--seed", type=int, default=0, help="of the people (0)")
    return made


def main(argv: Sequence[str]) -> int:
    """Runs one of the tasks; gives the exit status: 65 where broken heads were found.

    Raises:
        BadConfig, ModelError, OSError: See `models.commands.status`.
    """
    given = parser().parse_args(argv)
    task: Callable[[argparse.Namespace], int] = _TASKS[given.task]
    return task(given)


def _pack(given: argparse.Namespace) -> int:
    from models.training.heads.pack import pack  # on demand, like all of that folder

    with bar("files") as report:
        done = pack(given.obj_dir, given.out, progress=report)
    print(
        f"{done.path}: {done.size / 1e6:.1f} MB, {done.triangles} triangles, {done.modes} shapes;"
        f" off by {done.identity_error:.4f} cm at most in shapes, {done.expression_error:.4f} cm in"
        " expressions"
    )
    return 0


def _render(given: argparse.Namespace) -> int:
    from models.training.heads.clip_painter import Recipe
    from models.training.heads.export import export

    recipe = Recipe(
        mix=((given.kind, 1.0),),
        resolution=given.size,
        samples=given.samples,
        facekit=given.facekit,
        seed=given.seed,
        fps=given.fps,
        plain=True,
    )
    with bar("clips") as report:
        written = export(given.out, recipe, given.clips, given.seconds, report)
    there = given.clips - written
    print(
        f"{given.out}: {written} clips written, {there} were there; labels.json says what is what"
    )
    return 0


def _sheet(given: argparse.Namespace) -> int:
    from models.training.heads.sheet import sheet

    with bar("pictures") as report:
        sheet(
            given.out,
            facekit=given.facekit,
            size=given.size,
            samples=given.samples,
            seed=given.seed,
            report=report,
        )
    print(f"written  {given.out}")
    return 0


def _check(given: argparse.Namespace) -> int:
    if given.frames < 1:
        raise BadConfig(f"--frames is {given.frames}; one at least can be checked")
    from models.training.heads.check import check

    with bar("frames") as report:
        done = check(
            given.frames,
            facekit=given.facekit,
            size=given.size,
            samples=given.samples,
            seed=given.seed,
            report=report,
        )
    print(f"{done.frames} frames of {done.people} people, {sum(done.faults.values())} faults")
    for fault, count in done.faults.most_common():
        print(f"  {count:5} {fault}")
    for example in done.examples:
        print(f"    {example}")
    return BAD_DATA if done.faults else 0


_TASKS = {"pack": _pack, "render": _render, "sheet": _sheet, "check": _check}


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr while the block runs; call with how many are done, and in all."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
