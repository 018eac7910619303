"""What each kernel needs of a GPU, found without one; and whether that grew.

    python bench/resources.py                        compile all, print the table, check budgets
    python bench/resources.py --check                ... and compare with the recorded figures
    python bench/resources.py --only torgb --record  store the figures of these as the new record
    python bench/resources.py --only styles          an op's folder, or part of a variant's name

Every variant that a kernel names is compiled for each of its architectures by Triton's own compiler
and assembler, in several processes. A fault is: spilled registers, more registers or shared memory
than the budget, no tensor-core instruction where one is meant, a failed compilation; with --check
also issue slots per output more than 5 % above the record, and a record without its kernel or the
reverse. Slots are static: instructions of one turn of the largest loop over the results it makes.

Records are in kernels_triton/resources.json. What Triton still has in its cache takes no time;
TRITON_ALWAYS_COMPILE=1 compiles all the same.
Exit status 1: there is a fault.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import harness
from kernels_triton import aot

RECORDS = aot.PACKAGE / "resources.json"
MARGIN = 0.05  # by which slots per output may change without a word
KEPT = (
    "registers",
    "shared",
    "instructions",
    "loop_instructions",
    "slots_per_output",
    "mma",
    "loads",
)


@dataclass(frozen=True)
class Task:
    """One compilation: names only, so that it can be sent to another process."""

    module: str
    name: str
    capability: int

    @property
    def op(self) -> str:
        """The folder of its module, such as "styles" or "bias_act.fused"; "" outside of ours."""
        return self.module.removeprefix(f"{aot.PACKAGE.name}.").rpartition(".")[0]


@dataclass(frozen=True)
class Outcome:
    """What came of a task: resources, or only a fault."""

    task: Task
    resources: aot.Resources | None
    faults: list[str]


class Records:
    """The stored figures: variant -> architecture -> figures, and the Triton they belong to.

    Args:
        path: A JSON file; without it there are no records yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        stored = json.loads(path.read_text()) if path.exists() else {}
        self.triton: str | None = stored.get("triton")
        self.kernels: dict[str, dict[str, dict[str, Any]]] = stored.get("kernels", {})

    def of(self, name: str, capability: int) -> dict[str, Any] | None:
        """The figures of one variant on one architecture, or None."""
        return self.kernels.get(name, {}).get(str(capability))

    def forget_all(self) -> None:
        """Leave no record, as when all are made anew."""
        self.kernels = {}

    def put(self, resources: aot.Resources) -> None:
        """Replace one record."""
        figures = {key: getattr(resources, key) for key in KEPT}
        self.kernels.setdefault(resources.name, {})[str(resources.capability)] = figures

    def store(self, triton: str) -> None:
        """Write the file, whole or not at all."""
        kernels = {name: dict(sorted(self.kernels[name].items())) for name in sorted(self.kernels)}
        text = json.dumps({"triton": triton, "kernels": kernels}, indent=1) + "\n"
        part = self._path.with_suffix(".part")
        part.write_text(text)
        os.replace(part, self._path)


def compare(resources: aot.Resources, record: Mapping[str, Any] | None) -> tuple[str, str]:
    """A fault and a hint, each "" where there is none."""
    at = f"{resources.name} on sm_{resources.capability}"
    if record is None:
        return f"{at} has no record: run with --record --only {resources.name}", ""
    now, before = resources.slots_per_output, record["slots_per_output"]
    told = f"{now:g} issue slots per output, {before:g} are recorded"
    if bool(now) != bool(before):
        return f"{at}: {told}; if that is meant, run with --record", ""
    if now > before * (1 + MARGIN):
        return f"{at} became slower: {told}; if that is worth it, run with --record", ""
    if now < before * (1 - MARGIN):
        return "", f"{at} became faster: {told}; run with --record, so that it stays so"
    return "", ""


def orphans(records: Records, tasks: Sequence[Task]) -> list[str]:
    """Faults: records of what is no longer compiled."""
    alive = {(task.name, str(task.capability)) for task in tasks}
    return [
        f"{name} on sm_{capability} has a record, but no kernel names it: run with --record"
        for name, of in records.kernels.items()
        for capability in of
        if (name, capability) not in alive
    ]


def tasks(only: str, capabilities: Sequence[int]) -> tuple[list[Task], list[str]]:
    """What to compile, for all architectures if none is named; and faults of modules.

    Args:
        only: Part of the variant's name or of its op; "" is in all of them.
    """
    found: dict[tuple[str, int], Task] = {}
    wrong = []
    for module in aot.modules():
        try:
            named = aot.variants_of(module)
        except Exception as error:  # one broken file must not hide what the others need
            wrong.append(f"{module}: {type(error).__name__}: {str(error)[:500]}")
            continue
        for variant in named:
            for capability in variant.targets:
                task = Task(module, variant.name, capability)
                other = found.setdefault((variant.name, capability), task)
                if other is not task:
                    wrong.append(f"{module} and {other.module} both name {variant.name!r}")
    chosen = [task for task in found.values() if only in task.name or only in task.op]
    return [t for t in chosen if not capabilities or t.capability in capabilities], wrong


def nothing(only: str, capabilities: Sequence[int]) -> str:
    """The fault of a choice that holds no task: what there is instead."""
    every = tasks("", [])[0]
    if kept := tasks(only, [])[0]:
        there = sorted({task.capability for task in kept})
        return f"nothing to compile for {list(capabilities)}: architectures are {there}"
    ops = sorted({task.op for task in every} - {""})
    near = difflib.get_close_matches(only, {*ops, *(task.name for task in every)})
    meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return (
        f"nothing to compile: no op and no variant has {only!r} in its name{meant} "
        f"The ops are {', '.join(ops)}."
    )


def run(task: Task) -> Outcome:
    """Compiles in this process."""
    try:
        variant = _variants(task.module)[task.name]
        resources = aot.compile_variant(variant, task.capability)
    except Exception as error:  # the compiler raises anything; the table says which kernel it was
        return Outcome(task, None, [_failed(task, f"{type(error).__name__}: {error}")])
    return Outcome(task, resources, aot.faults(resources, variant))


def _failed(task: Task, why: str) -> str:
    return f"{task.name} on sm_{task.capability} does not compile: {why[:1500]}"


@functools.lru_cache
def _variants(module: str) -> dict[str, aot.Variant]:
    return {variant.name: variant for variant in aot.variants_of(module)}


def outcomes(todo: Sequence[Task], jobs: int) -> Iterator[Outcome]:
    """Compiles in `jobs` processes, in any order. A compiler's crash is a fault of its task."""
    left = list(todo)
    with _pool(max(1, min(jobs, len(left)))) as pool:
        futures: dict[Future[Outcome], Task] = {pool.submit(run, task): task for task in left}
        for future in as_completed(futures):
            try:
                outcome = future.result()
            except BrokenProcessPool:
                break  # which task it was is not told: each of the rest gets a process of its own
            left.remove(futures[future])
            yield outcome
    for task in left:
        with _pool(1) as pool:
            try:
                yield pool.submit(run, task).result()
            except BrokenProcessPool:
                yield Outcome(task, None, [_failed(task, "the compiler crashed; see above")])


def _pool(jobs: int) -> ProcessPoolExecutor:
    # Not forked: torch's threads do not survive that.
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def table(found: Sequence[aot.Resources], records: Records) -> str:
    """Markdown; slots per output with the recorded figure behind them where it differs."""
    lines = [
        "| kernel | sm | registers | spilled, bytes | shared, bytes | slots/output | tensor-core "
        "| loads | instructions | seconds |",
        "| --- |" + " ---: |" * 9,
    ]
    for r in sorted(found, key=lambda r: (r.name, r.capability)):
        record = records.of(r.name, r.capability)
        slots = f"{r.slots_per_output:g}" if r.slots_per_output else "–"
        if record and record["slots_per_output"] != r.slots_per_output:
            slots += f" (was {record['slots_per_output']:g})"
        lines.append(
            f"| {r.name} | {r.capability} | {r.registers} | {r.spill_stores + r.spill_loads} "
            f"| {r.shared} | {slots} | {r.mma} | {r.loads} | {r.instructions} | {r.compile_s:.1f} |"
        )
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, details = (__doc__ or "").split("\n\n", 1)
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="variants with this in their name, or in their op's"
    )
    parser.add_argument("--cc", default="", help="only these architectures, such as 80,90")
    parser.add_argument("--jobs", type=int, default=harness.usable_cores(), help="processes")
    parser.add_argument("--record", action="store_true", help="store the figures of sound kernels")
    parser.add_argument("--check", action="store_true", help="compare with the stored figures")
    chosen = parser.parse_args(arguments)
    if chosen.jobs < 1:
        parser.error(f"--jobs is {chosen.jobs}; it must be 1 or more")
    if chosen.record and chosen.check:
        parser.error("--record stores what --check would compare with: give one of them")
    try:
        chosen.cc = [int(text) for text in chosen.cc.split(",") if chosen.cc]
    except ValueError:
        parser.error(f"--cc is {chosen.cc!r}; it must be numbers such as 80,90")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parse(arguments)
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        print("TRITON_INTERPRET is set, and interpreted kernels are not compiled: unset it")
        return 1
    triton = version("triton")
    records = Records(RECORDS)
    todo, wrong = tasks(chosen.only, chosen.cc)
    everything = not chosen.only and not chosen.cc and not wrong
    made = compiled(todo, records, chosen.jobs)
    found = [outcome.resources for outcome in made if outcome.resources]
    failed = [fault for outcome in made for fault in outcome.faults]
    wrong += failed
    if not todo:
        wrong.append(nothing(chosen.only, chosen.cc))
    if chosen.check:
        wrong += compared(found, records, triton, orphans(records, todo) if everything else [])
    if chosen.record:
        sound = [o.resources for o in made if o.resources and not o.faults]
        wrong += recorded(sound, triton, everything and not failed)
    for fault in wrong:
        print(f"FAULT {fault}")
    return 1 if wrong else 0


def compiled(todo: list[Task], records: Records, jobs: int) -> list[Outcome]:
    """Compiles, and prints the table."""
    started = time.monotonic()
    # What is largest begins first: the processes end together.
    todo.sort(key=lambda t: -(records.of(t.name, t.capability) or {}).get("instructions", 1 << 20))
    made = []
    for outcome in outcomes(todo, jobs):
        made.append(outcome)
        if sys.stderr.isatty():
            print(f"{len(made)} of {len(todo)}", end="\r", file=sys.stderr, flush=True)
    found = [outcome.resources for outcome in made if outcome.resources]
    print(table(found, records))
    print(
        f"{len(found)} compilations, {sum(r.compile_s for r in found):.0f} processor seconds in "
        f"{time.monotonic() - started:.0f} s, Triton {version('triton')}"
    )
    return made


def compared(
    found: Sequence[aot.Resources], records: Records, triton: str, without: list[str]
) -> list[str]:
    """Faults against the records; prints hints. Of another Triton there is nothing to compare."""
    if records.triton not in (triton, None):
        print(
            f"NOT COMPARED: the records were made with Triton {records.triton}, this is {triton}. "
            "Only budgets and spills were checked."
        )
        return []
    wrong = list(without)
    for resources in found:
        fault, hint = compare(resources, records.of(resources.name, resources.capability))
        wrong += [fault] if fault else []
        if hint:
            print(f"HINT {hint}")
    return wrong


def recorded(found: Sequence[aot.Resources], triton: str, everything: bool) -> list[str]:
    """Stores the figures, or gives the fault that forbids it."""
    records = Records(RECORDS)  # read again: somebody else may have recorded meanwhile
    if everything:
        records.forget_all()
    elif records.triton not in (triton, None):
        return [
            f"not recorded: the other records are of Triton {records.triton}, this is {triton}; "
            "record all at once"
        ]
    for resources in found:
        records.put(resources)
    records.store(triton)
    print(f"{len(found)} recorded in {RECORDS.relative_to(harness.ROOT)}")
    return []


if __name__ == "__main__":
    raise SystemExit(main())
