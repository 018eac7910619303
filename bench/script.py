"""What bench/fps.py and bench/kernels.py share: options, the device, and how a run ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import blocks, harness, heap

Row = Mapping[str, Any]


def add_options(p: argparse.ArgumentParser) -> None:
    """Those that both take; `--seconds` is each one's own."""
    p.add_argument("--blocks", type=int, default=blocks.BLOCKS, help="that the seconds are cut in")
    p.add_argument(
        "--budget", type=float, metavar="S", help="of the whole; what does not fit is left out"
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda:0")
    p.add_argument("--threads", type=int, default=0, help="of torch on the CPU; 0: its own choice")
    p.add_argument("--keep-memory", action="store_true", help=harness.KEEP_MEMORY)
    p.add_argument("--goals", action="store_true", help="only what has goals; exit 1 if one fails")
    p.add_argument("--json", metavar="FILE", help="write the result here as well")


class Run:
    """One run: the machine as it is before it, then its results.

    Args:
        args: Of a parser with `add_options`.
        argv: As the command is told in the JSON; None is this process's own.
        budgets: Seconds by kind of device, where `--budget` does not say.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        script: str,
        argv: Sequence[str] | None,
        budgets: Mapping[str, float],
    ) -> None:
        harness.before_torch()
        allocator = heap.keep() if args.keep_memory else heap.DEFAULT
        self._about = {**harness.machine(), "allocator": allocator}
        import torch

        if args.threads:
            torch.set_num_threads(args.threads)
            self._about["torch_threads"] = args.threads
        self._args = args
        self._argv = sys.argv if argv is None else [script, *argv]
        self.device: str = args.device
        if self.device == "auto":
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.kind = "cuda" if self.device.startswith("cuda") else "cpu"
        self.budget_s: float = args.budget or budgets[self.kind]

    def describe(self) -> None:
        print(harness.describe(self._about, harness.commit()))
        print(f"allocator {self._about['allocator']}\n", flush=True)

    def end(
        self,
        benchmark: str,
        results: Sequence[Row],
        *,
        note: str,
        limits: Any,
        shown: Sequence[str],
        label: Callable[[Row], str],
        absent: Sequence[str],
        wrong: Sequence[str],
        reached: Sequence[blocks.Goal],
    ) -> int:
        """Print all, and write the JSON unless something was wrong.

        Args:
            note: What a reader of the JSON needs beside the figures.
            limits: The `ceilings.Ceilings`.
            shown: The table and what else stands below the ceilings.
            label: What a row's warnings are told of.
            absent: What did not run, and why.
            wrong: What drew or computed something else: then nothing is written.
            reached: Goals.
        Returns:
            The exit status: 1 where something was wrong, or goals were asked for and one was
            missed or there were none.
        """
        warnings = harness.busy(self._about)
        unsteady = [f"{label(r)}: {'; '.join(r['warnings'])}" for r in results if r["warnings"]]
        print(limits.describe() + "\n")
        for line in [*shown, *(f"not here: {text}" for text in absent)]:
            print(line)
        for warning in [*warnings, *unsteady]:
            print(f"warning: {warning}")
        for sentence in wrong:
            print(f"WRONG: {sentence}", file=sys.stderr)
        if self._args.goals:
            print(blocks.goals_text(reached))
        if self._args.json and not wrong:
            content = harness.envelope(
                benchmark,
                results,
                about=self._about,
                notes=[note],
                warnings=warnings,
                argv=self._argv,
                ceilings=limits.as_dict(),
                absent=list(absent),
                goals=[goal.as_dict() for goal in reached],
            )
            harness.write_json(self._args.json, content)
        missed = self._args.goals and not (reached and all(goal.passed for goal in reached))
        return 1 if wrong or missed else 0
