"""`stylewire train CONFIG --run-dir D [--resume]`: trains a model, and goes on after any end."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from models.commands.status import INTERRUPTED

if TYPE_CHECKING:  # torch, only where it is needed
    from models.training.config import TrainConfig
    from models.training.distributed import Ranks

_EPILOG = (
    "Interrupt it with Ctrl-C: it finishes its step and saves. Whatever ended a run, the same"
    " command with --resume goes on from the last state. Several GPUs:"
    " torchrun --nproc-per-node N -m models train ..."
)


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    made = argparse.ArgumentParser(prog="stylewire train", description=__doc__, epilog=_EPILOG)
    made.add_argument(
        "config", metavar="CONFIG", help="a TOML file, or a shipped name: tiny, clips_128, ..."
    )
    made.add_argument(
        "--run-dir", type=Path, required=True, help="folder for states, models, samples and curves"
    )
    made.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting: --set data.source=clips --set run.total_kimg=100",
    )
    return made


def main(argv: Sequence[str]) -> int:
    """Trains; gives the exit status.

    Raises:
        BadConfig, ModelError, OSError: See `models.commands.status`.
    """
    given = parser().parse_args(argv)
    import torch

    from models.training import config as configs
    from models.training.distributed import joined

    config = configs.load(given.config, given.set)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    with joined(config.run.device) as ranks:
        return _train(config, ranks, given.run_dir, given.resume)


def _train(config: TrainConfig, ranks: Ranks, path: Path, resume: bool) -> int:
    from models.registry import build_trainer
    from models.training.data.open import open_source
    from models.training.loop import Loop
    from models.training.report import Quiet, Terminal
    from models.training.run_dir import RunDir
    from models.training.snapshots import models_of
    from models.training.step import parameters_of

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    say = (lambda line: console.print(line, markup=False)) if ranks.first else lambda line: None
    folder = RunDir(path, say)
    with ExitStack() as stack:
        if ranks.first:
            stack.enter_context(folder.opened(config, resume=resume))
        source = open_source(config.data, seed=config.seed, slots=config.batch.size, say=say)
        stack.callback(source.close)
        trainer = build_trainer(config, source.info, ranks.device)
        say(
            f"training {config.system} on {source.info.name}: {source.info.resolution} px,"
            f" {parameters_of(trainer.networks):,} parameters, {config.total_steps} steps of"
            f" {config.batch.size} clips of {config.batch.frames} frames, {ranks.world} process(es)"
            f" on {ranks.device.type}; run directory {path}"
        )
        report: Terminal | Quiet = Quiet()
        if ranks.first:
            report = stack.enter_context(Terminal(config, folder, console).shown())
        done = Loop(config, trainer, source, folder, report, ranks).run()
    for kind, count in folder.lost.items():
        say(f"warning: {kind} could not be written {count} times")
    if done.interrupted:
        say(f"interrupted at step {done.progress.step} and saved; go on with --resume")
        return INTERRUPTED
    for newest in models_of(path)[:1]:
        say(f"done: {newest}; look at it: stylewire serve --model {newest}")
    return 0
