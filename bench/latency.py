"""Sample-to-glass over loop-back: from sampling the motion to the picture in a real Chromium.

    python bench/latency.py                             two interleaved rounds, some four minutes
    python bench/latency.py --quick                     one short round, to see that it works
    python bench/latency.py --model default --cases 256@30      the whole row, render included
    python bench/latency.py --no-browser                to "decoded" in an aiortc client instead

Ours is the real server, started through its command line; beside it, in the same run, a plain
aiortc track with its default encoder (bench/stock_server.py) shows the same test picture. Rounds
are interleaved and the order alternates, so that both compete for the cores alike.

From: `sampled`, the server's stamp when the motion is sampled and rendering begins; for the
baseline the completed RGB picture, so that neither its drawing nor its conversion is billed to it.
To: "presented", requestVideoFrameCallback's presentationTime, when the decoded picture is handed to
the compositor; and "called", when the callback itself runs, which on both paths contains a wait
for the display's refresh. That wait, up to 16.7 ms, is a matter of how the frames' schedule happens
to lie to the display's, so against the baseline "presented" has the goals, and for "called" it is
judged only that ours stays clearly ahead with the wait in it.
Which frame it was is read from the picture itself (a number as 32 blocks of luma). The page's clock
is joined to the server's (CLOCK_MONOTONIC) by data-channel round trips, the shortest tenth.
Frames are due on a fixed schedule: a late one is skipped and counted as missed, never made up for,
and "from due" counts from when it was due. The first 2 s of each case are left out; frames/s and
missed are of the whole time after them, so a picture that stops before the end counts against it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import harness
from bench.latency_figures import (
    OURS,
    STAGES,
    STOCK,
    WARMUP_MS,
    browser_rows,
    clock_offset_ms,
    doubts,
    figures,
    our_stamps,
    stock_stamps,
    unsteady,
    verdicts,
)
from bench.latency_viewers import AiortcViewer, BrowserViewer, Case, Servers, no_chromium

BITRATE = 2_000_000
NOTE = (
    "From sampling the motion (stock: from the completed RGB picture) to the presentationTime of "
    "requestVideoFrameCallback in headless Chromium over loop-back; server, browser and picture "
    "share the cores."
)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, checked; `--quick` only sets what was not given."""
    parser = argparse.ArgumentParser(
        prog="bench/latency.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, help="of every case; 2 where not given")
    parser.add_argument("--seconds", type=float, help="measured per case; 10 where not given")
    parser.add_argument("--cases", help="SIZE@FPS,...; 512@30,256@30 where not given")
    parser.add_argument("--codecs", default="H264,VP8")
    parser.add_argument("--model", default="testcard", help="only testcard has a baseline")
    parser.add_argument("--no-stock", action="store_true", help="leave the baseline out")
    parser.add_argument("--no-browser", action="store_true", help="an aiortc client instead")
    parser.add_argument("--chromium", help="path; else chromium or google-chrome on PATH")
    parser.add_argument("--quick", action="store_true", help="one round of 4 s at 256@30")
    parser.add_argument("--check", action="store_true", help="exit 1 if a goal is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    given = parser.parse_args(argv)
    given.rounds = given.rounds or (1 if given.quick else 2)
    given.seconds = given.seconds or (4.0 if given.quick else 10.0)
    given.cases = [
        _case(text, parser) for text in (given.cases or _default_cases(given)).split(",")
    ]
    given.codecs = given.codecs.upper().split(",")
    if unknown := set(given.codecs) - {"H264", "VP8"}:
        parser.error(f"unknown codec {', '.join(sorted(unknown))}; choose from H264, VP8.")
    return given


def _default_cases(given: argparse.Namespace) -> str:
    return "256@30" if given.quick or given.model != "testcard" else "512@30,256@30"


def _case(text: str, parser: argparse.ArgumentParser) -> tuple[int, int]:
    size, _, fps = text.partition("@")
    if not (size.isdigit() and fps.isdigit()):
        parser.error(f"case {text!r} is not SIZE@FPS, e.g. 256@30.")
    return int(size), int(fps)


def plan(given: argparse.Namespace) -> list[tuple[int, str, Case]]:
    """(round, path, case) in the order measured: paths side by side, first one, then the other."""
    stock = given.model == "testcard" and not given.no_stock
    order = []
    for round_, ((size, fps), codec) in itertools.product(
        range(given.rounds), itertools.product(given.cases, given.codecs)
    ):
        case = Case(codec, size, fps, given.model, BITRATE, WARMUP_MS / 1e3 + given.seconds)
        paths = [OURS, STOCK] if stock else [OURS]
        order += [(round_, path, case) for path in (paths if round_ % 2 == 0 else paths[::-1])]
    return order


def evaluate(path: str, case: Case, recorded: dict[str, Any]) -> dict[str, Any]:
    """One result row from what a viewer recorded."""
    stamps = (our_stamps if path == OURS else stock_stamps)(recorded["stamps"])
    if recorded["clocks"] is None:
        shown = recorded["rows"]  # already on the server's clock
    else:
        shown = browser_rows(recorded["rows"], clock_offset_ms(recorded["clocks"]))
    row = {
        "path": path,
        "codec": case.codec,
        "case": case.name,
        "model": case.model,
        **figures(shown, stamps, case.seconds),
        "join_ms": round(recorded["join_ms"], 1),
        "keyframes": recorded["keyframes"],
        "kbit_s": recorded["kbit_s"],
        "target_kbit_s": case.bitrate // 1000,
        "browser": recorded["clocks"] is not None,
    }
    row["warnings"] = doubts(row)
    return row


def line(row: dict[str, Any]) -> str:
    """A row for a person."""
    seen, called, due = row["presented"], row["called"], row["from_due"]
    to = "presented" if row["browser"] else "decoded"
    parts = [
        f"{row['codec']:5}{row['path']:6}{row['case']:>8} #{row['round']}",
        f"{to} {seen['p50']:5.1f} / {seen['p95']:5.1f} / {seen['p99']:5.1f},"
        f" max {seen['max']:5.1f}",
    ]
    if called:
        parts.append(f"called {called['p50']:5.1f} / {called['p95']:5.1f}")
    parts.append(f"from due {due['p50']:5.1f} / {due['p95']:5.1f}")
    keyframes = "" if row["keyframes"] is None else f", keyframes {row['keyframes']}"
    rate = "" if row["kbit_s"] is None else f", {row['kbit_s']} of {row['target_kbit_s']} kbit/s"
    unreadable = f", unreadable {row['unreadable']}" if row["unreadable"] else ""
    parts.append(
        f"{row['fps']:.1f} fps, {row['samples']} seen, missed {row['missed']}"
        f" (undrawn {row['undrawn']}){unreadable}{keyframes}{rate}, join {row['join_ms']:.0f} ms"
    )
    return " | ".join(parts)


def stage_table(results: Sequence[dict[str, Any]]) -> str:
    """p50 (p95) of each stage that was measured; the baseline has fewer."""
    names = [name for name in STAGES if any(name in row["stages"] for row in results)]
    rows = []
    for row in results:
        cells = [f"{row['codec']} {row['case']} {row['path']} #{row['round']}"]
        for name in names:
            found = row["stages"].get(name)
            cells.append(f"{found['p50']:.2f} ({found['p95']:.2f})" if found else "-")
        rows.append(cells)
    return harness.text_table(["ms, p50 (p95)", *(STAGES[name] for name in names)], rows)


async def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the plan; prints a line per case."""
    order = plan(given)
    viewer_kind = AiortcViewer() if given.no_browser else BrowserViewer(given.chromium)
    results: list[dict[str, Any]] = []
    with_stock = any(path == STOCK for _, path, _ in order)
    async with Servers(given.model, stock=with_stock) as servers, viewer_kind as viewer:
        print(f"viewer    {viewer.name}", flush=True)
        print("ms: p50 / p95 / p99; called and from due: p50 / p95")
        for round_, path, case in order:
            await servers.idle()
            recorded = await viewer.watch(servers.url(path), case, gather=path == STOCK)
            if path == STOCK:
                recorded["stamps"] = await servers.stock_stamps(recorded["session"])
            await servers.leave(path, recorded)
            row = {"round": round_, **evaluate(path, case, recorded)}
            results.append(row)
            print(line(row), flush=True)
            for warning in row["warnings"]:
                print(f"      warning: {warning}")
    return results


def report(results: Sequence[dict[str, Any]], about: dict[str, Any]) -> tuple[list[str], bool]:
    """Print stages, verdicts and warnings; returns (warnings, whether every goal is reached)."""
    print(f"\n{stage_table(results)}\n")
    found = verdicts(results)
    if found:
        rows = [
            [v.case, v.what, f"{v.value:.2f}", v.goal, "PASS" if v.passed else "FAIL"]
            for v in found
        ]
        head = ["goal (p50, frames/s, join: median of rounds; others: worst)", "", "", "", ""]
        print(harness.text_table(head, rows))
    warnings = harness.busy(about) + unsteady(results)
    for warning in warnings:
        print(f"warning: {warning}")
    return warnings, all(v.passed for v in found)


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(argv)
    if not given.no_browser:
        given.chromium = given.chromium or shutil.which("chromium") or shutil.which("google-chrome")
        if given.chromium is None:
            print(no_chromium(), file=sys.stderr)
            return 2
    about = harness.machine()
    print(harness.describe(about, harness.commit()), flush=True)
    results = asyncio.run(measure(given))
    warnings, passed = report(results, about)
    if given.json is not None:
        goals = [vars(v) for v in verdicts(results)]
        harness.write_json(
            given.json,
            harness.envelope(
                "latency",
                results,
                about=about,
                notes=[NOTE],
                warnings=warnings,
                argv=None if argv is None else ["bench/latency.py", *argv],
                goals=goals,
            ),
        )
    return 1 if given.check and not passed else 0


if __name__ == "__main__":
    sys.exit(main())
