"""From bench/results/*.json to the tables of README.md, between its markers.

    python bench/report.py            rewrite README.md
    python bench/report.py --check    exit 1, naming what differs, if README.md is out of date

A marker pair in README.md is `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`; what stands between
them is made from all results whose `benchmark` is NAME, one table per file, each with its command,
commit and machine. A benchmark with results but without markers is an error, and so are markers
without results: a table that quietly stays empty or old is the thing this script prevents.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.harness import ROOT, read_json

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]  # heading, and the cell of a row

MARKERS = re.compile(r"<!-- bench:(?P<name>[a-z]+) -->\n(.*?)<!-- /bench:(?P=name) -->", re.DOTALL)


def number(value: float | int | None, digits: int = 1) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def ms(row: Row, *keys: str) -> str:
    """`p50 / p95 / p99` and the like."""
    return " / ".join(number(row.get(key), 1 if row.get(key, 0) >= 10 else 2) for key in keys)


def doubt(row: Row) -> str:
    """An asterisk where the tool itself warned."""
    return " \\*" if row.get("warnings") else ""


FPS: list[Column] = [
    ("model", lambda r: r["model"] + ("" if r["trained"] else " †")),
    ("backend", lambda r: r["backend"]),
    ("sent size", lambda r: f"{r['resolution']}²"),
    ("frames/s", lambda r: number(r["fps"]) + doubt(r)),
    ("frame time p50 / p95 / p99, ms", lambda r: ms(r, "p50_ms", "p95_ms", "p99_ms")),
    ("GFLOP/frame", lambda r: number(r["gflop_per_frame"], 2)),
    ("GFLOP/s", lambda r: number(r["gflop_per_s"], 0)),
]

KERNELS: list[Column] = [
    ("op", lambda r: r["op"]),
    ("case", lambda r: r["case"]),
    ("implementation", lambda r: r["implementation"]),
    ("largest error", lambda r: f"{r['error']:.1e}"),
    ("p50, ms", lambda r: number(r["p50_ms"], 3) + doubt(r)),
    ("GB/s", lambda r: number(r["gb_per_s"], 1)),
    ("times the reference's speed", lambda r: number(r["speedup"], 1)),
]

COLUMNS: dict[str, list[Column]] = {"fps": FPS, "kernels": KERNELS}

FOOTNOTES: dict[str, str] = {
    "fps": "† seeded random weights: the speed is real, the picture is not a trained model's.",
}


def markdown_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(title for title, _ in columns) + " |"]
    lines.append("|" + "|".join(" --- " if i == 0 else " ---: " for i in range(len(columns))) + "|")
    for row in rows:
        lines.append("| " + " | ".join(cell(row).replace("|", "\\|") for _, cell in columns) + " |")
    return "\n".join(lines)


def caption(content: Row) -> str:
    """Where the figures come from, in one line."""
    about, at = content["machine"], content["commit"]
    gpu = f", {about['gpu']}" if about["gpu"] else ""
    changed = " with local changes" if at["dirty"] else ""
    return (
        f"`{content['command']}` on {about['cpu']}, {about['cores']} cores{gpu}; "
        f"Python {about['python']}, torch {about['torch']}; "
        f"commit {at['id'] or 'unknown'}{changed}, {content['date']}."
    )


def section(content: Row) -> str:
    """One results file as Markdown."""
    parts = [markdown_table(COLUMNS[content["benchmark"]], content["results"]), caption(content)]
    parts += content.get("notes", [])
    footnote = FOOTNOTES.get(content["benchmark"])
    if footnote and not all(row.get("trained", True) for row in content["results"]):
        parts.append(footnote)
    if any(row.get("warnings") for row in content["results"]) or content.get("warnings"):
        parts.append("\\* the samples were unsteady; see `warnings` in the results file.")
    return "\n\n".join(parts)


def load_results(folder: Path) -> dict[str, list[Row]]:
    """Envelopes by benchmark, files in the order of their names.

    Raises:
        ValueError: A file is not an envelope, or of a benchmark without a table here.
    """
    found: dict[str, list[Row]] = {}
    for path in sorted(folder.glob("*.json")):
        content = read_json(path)
        if content["benchmark"] not in COLUMNS:
            raise ValueError(
                f"{path.name} is of benchmark {content['benchmark']!r}; known are "
                f"{', '.join(COLUMNS)}: add its columns to bench/report.py."
            )
        found.setdefault(content["benchmark"], []).append(content)
    return found


def rendered(readme: str, results: Mapping[str, Sequence[Row]]) -> str:
    """`readme` with every marked part made anew.

    Raises:
        ValueError: Markers without results, or results without markers.
    """
    marked = {match["name"] for match in MARKERS.finditer(readme)}
    if homeless := sorted(set(results) - marked):
        raise ValueError(
            f"README.md has no markers for {', '.join(homeless)}: add <!-- bench:{homeless[0]} --> "
            f"and <!-- /bench:{homeless[0]} -->."
        )
    if empty := sorted(marked - set(results)):
        raise ValueError(
            f"README.md shows {', '.join(empty)}, for which there are no results: run "
            f"python bench/{empty[0]}.py --json bench/results/{empty[0]}.json"
        )

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        body = "\n\n".join(section(content) for content in results[name])
        return f"<!-- bench:{name} -->\n{body}\n<!-- /bench:{name} -->"

    return MARKERS.sub(table, readme)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench/report.py", description="Write the tables of README.md from bench/results."
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if out of date"
    )
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    args = parser.parse_args(argv)
    old = args.readme.read_text()
    try:
        new = rendered(old, load_results(args.results))
    except (ValueError, KeyError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    if new == old:
        print(f"{args.readme.name} is up to date")
        return 0
    if args.check:
        print(
            f"report: {args.readme.name} does not show bench/results; run python bench/report.py",
            file=sys.stderr,
        )
        return 1
    args.readme.write_text(new)
    print(f"{args.readme.name} rewritten")
    return 0


if __name__ == "__main__":
    sys.exit(main())
