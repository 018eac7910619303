"""From bench/results/*.json to the tables of README.md, between its markers.

    python bench/report.py            rewrite README.md
    python bench/report.py --check    exit 1, naming what differs, if README.md is out of date

A marker pair in README.md is `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`; what stands between
them is made from all results whose `benchmark` is NAME, one table per file, each with its command,
commit and machine. Where there are no results, that is what stands there; a benchmark with results
but without markers is an error.
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

from bench.harness import ROOT, error_text, percentile, read_json

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


def times(ratio: Row | None) -> str:
    """`12.3 (11.9–12.8)`: the median of the blocks and their quartiles."""
    if not ratio:
        return "–"
    return f"{number(ratio['median'])} ({number(ratio['q1'])}–{number(ratio['q3'])})"


def drawn_by(row: Row) -> str:
    """A backend and its precision."""
    return f"{row['backend']} {row.get('precision') or ''}".strip()


def faithful(row: Row) -> str:
    """dB against the definition: of the float picture, or of the bytes where that is all."""
    if row.get("psnr_db") is not None:
        return "exact" if row["psnr_db"] > 120 else number(row["psnr_db"], 0)
    bytes_db = row.get("i420_psnr_db")
    return "–" if bytes_db is None else f"{number(bytes_db, 0)} (I420)"


FPS: list[Column] = [
    ("model", lambda r: r["model"] + ("" if r["trained"] else " †")),
    ("backend", drawn_by),
    ("sent size", lambda r: f"{r['resolution']}²"),
    ("frames/s", lambda r: number(r["fps"]) + doubt(r)),
    ("frame time p50 / p95 / p99, ms", lambda r: ms(r, "p50_ms", "p95_ms", "p99_ms")),
    ("GFLOP/frame", lambda r: number(r.get("gflop_per_frame"), 2)),
    ("GFLOP/s", lambda r: number(r.get("gflop_per_s"), 0)),
    ("GB/frame", lambda r: number(r.get("gb_per_frame"), 3)),
    ("launches", lambda r: number(r.get("launches"), 0)),
    ("% of roofline", lambda r: number(r.get("roofline_percent"), 0)),
    ("PSNR, dB", faithful),
    ("times the official order's speed", lambda r: times(r.get("vs_official"))),
    ("in a CUDA graph", lambda r: times(r.get("vs_official_graph"))),
    ("times torch.compile's", lambda r: times(r.get("vs_compile"))),
]

KERNELS: list[Column] = [
    ("op", lambda r: r["op"]),
    ("case", lambda r: r["case"]),
    ("implementation", lambda r: r["implementation"]),
    ("largest error", lambda r: largest_error(r)),
    ("p50, ms", lambda r: number(r["p50_ms"], 3) + doubt(r)),
    ("GB/s", lambda r: number(r["gb_per_s"], 1)),
    ("% of roofline", lambda r: number(r.get("roofline_percent"), 0)),
    ("times the reference's speed", lambda r: number(r["speedup"], 1)),
]


def largest_error(row: Row) -> str:
    """A dash for the official order: it is what others are compared with in speed alone."""
    return "–" if row["error"] is None else error_text(row["error"], row.get("error_unit"))


def percentiles(row: Row, stage: str) -> str:
    """`p50 / p95 / p99` of a stage, ms."""
    return " / ".join(number(row[stage][q], 2) for q in ("p50", "p95", "p99"))


PIPELINE: list[Column] = [
    ("picture", lambda r: f"{r['codec']} {r['size']}²"),
    ("frame ready to sent p50 / p95 / p99, ms", lambda r: percentiles(r, "whole") + doubt(r)),
    ("to the encoder", lambda r: number(r["handed"]["p50"], 2)),
    ("around the codec", lambda r: number(r["encoder"]["p50"], 2)),
    ("to the socket", lambda r: number(r["sent"]["p50"], 2)),
    ("codec itself (not counted)", lambda r: number(r["codec_call"]["p50"], 2)),
    ("packets", lambda r: number(r["packets_per_frame"], 0)),
    ("most kB allocated a frame", lambda r: held(r)),
    ("frames", lambda r: number(r["frames"], 0)),
]


def held(row: Row) -> str:
    """Python's and numpy's, of one picture's."""
    memory = row.get("memory")
    if memory is None:
        return "–"
    return f"{memory['peak_bytes_p99'] / 1e3:.0f} of {memory['picture_bytes'] / 1e3:.0f}"


GPU: list[Column] = [
    ("model", lambda r: r["model"]),
    ("size", lambda r: f"{r['resolution']}²"),
    ("ms p50 / p95 / p99", lambda r: ms(r, "p50_ms", "p95_ms", "p99_ms") + doubt(r)),
    ("must / stretch", lambda r: f"{r['must_ms']} / {r['stretch_ms']}"),
    ("engine, ms", lambda r: number(r.get("engine_ms"), 2)),
    ("launches", lambda r: number(r.get("launches"), 0)),
    ("% of roofline", lambda r: number(r.get("roofline_percent"), 0)),
    ("PSNR, dB", lambda r: number(r.get("psnr_db"), 0)),
    ("baseline", lambda r: r.get("baseline", "–")),
    ("times its speed", lambda r: times(r.get("vs_eager"))),
    ("in a CUDA graph", lambda r: times(r.get("vs_graph"))),
]


def pair(row: Row, path: str, figure: str) -> str:
    """`p50 / p95` of a path, the median and the worst of its rounds; a dash without it."""
    rounds = [r for r in row["rounds"] if r["path"] == path and r[figure]]
    if not rounds:
        return "–"
    p50 = percentile([r[figure]["p50"] for r in rounds], 50)
    doubtful = doubt({"warnings": [w for r in rounds for w in r["warnings"]]})
    return f"{p50:.1f} / {max(r[figure]['p95'] for r in rounds):.1f}{doubtful}"


def ratio(row: Row, figure: str) -> str:
    """How many times lower ours is than the baseline, at p50."""
    p50 = {
        path: [r[figure]["p50"] for r in row["rounds"] if r["path"] == path and r[figure]]
        for path in ("ours", "stock")
    }
    if not all(p50.values()):
        return "–"
    return f"{percentile(p50['stock'], 50) / percentile(p50['ours'], 50):.1f}"


def stages(row: Row) -> str:
    """Median of each of our stages."""
    ours = [r["stages"] for r in row["rounds"] if r["path"] == "ours"]
    cells = []
    for name in ("render", "encode", "publish", "wire", "show"):
        found = [r[name]["p50"] for r in ours if r.get(name)]
        cells.append(f"{percentile(found, 50):.1f}" if found else "–")
    return " + ".join(cells)


def total(row: Row, key: str) -> str:
    """Sum of a count over our rounds; a dash where it was not counted."""
    counts = [r[key] for r in row["rounds"] if r["path"] == "ours" and r[key] is not None]
    return str(sum(counts)) if counts else "–"


def pace(row: Row) -> str:
    """Frames per second that were presented, the median of our rounds."""
    seen = [r["fps"] for r in row["rounds"] if r["path"] == "ours" and r["fps"]]
    return f"{percentile(seen, 50):.1f}" if seen else "–"


def latency_rows(results: Sequence[Row]) -> list[Row]:
    """One row per codec, case and model, its rounds of both paths inside."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in results:
        groups.setdefault((row["model"], row["case"], row["codec"]), []).append(row)
    return [
        {"model": model, "case": case, "codec": codec, "rounds": rounds}
        for (model, case, codec), rounds in groups.items()
    ]


LATENCY: list[Column] = [
    ("picture", lambda r: f"{r['model']} {r['case']} {r['codec']}"),
    ("presented, ours", lambda r: pair(r, "ours", "presented")),
    ("plain aiortc", lambda r: pair(r, "stock", "presented")),
    ("ratio", lambda r: ratio(r, "presented")),
    ("called, ours", lambda r: pair(r, "ours", "called")),
    ("plain aiortc", lambda r: pair(r, "stock", "called")),
    ("ratio", lambda r: ratio(r, "called")),
    ("render + encode + publish + wire + show", stages),
    ("frames/s", pace),
    ("seen", lambda r: total(r, "samples")),
    ("missed", lambda r: total(r, "missed")),
]

COLUMNS: dict[str, list[Column]] = {
    "fps": FPS,
    "kernels": KERNELS,
    "latency": LATENCY,
    "pipeline": PIPELINE,
    "gpu": GPU,
}

FOOTNOTES: dict[str, str] = {
    "fps": "† seeded random weights: the speed is real, the picture is not a trained model's.",
}

EXPLAINED = {
    "gpu": "A frame goes from codes in host memory to I420 in pinned host memory.",
    "latency": "Milliseconds, p50 / p95; over several rounds the median p50 and the worst p95. "
    "Stages are medians of ours. Missed: frames of the fixed schedule that were never seen.",
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


def figure(value: float) -> str:
    """Of a goal that was missed: short, whatever its size."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def section(content: Row) -> str:
    """One results file as Markdown."""
    kind = content["benchmark"]
    rows, columns = rows_of(content), COLUMNS[kind]
    if kind != "latency":  # there a pair without figures says that nothing was seen
        columns = [c for c in columns if any(c[1](row) != "–" for row in rows)]
    parts = [
        markdown_table(columns, rows),
        caption(content),
        *content.get("notes", []),
    ]
    if kind in EXPLAINED:
        parts.append(EXPLAINED[kind])
    if goals := content.get("goals"):
        missed = [
            f"{g['case']}: {g['what']} {figure(g['value'])}" for g in goals if not g["passed"]
        ]
        said = f" Not reached: {'; '.join(missed)}." if missed else ""
        parts.append(f"{len(goals) - len(missed)} of {len(goals)} goals reached.{said}")
    footnote = FOOTNOTES.get(kind)
    if footnote and not all(row.get("trained", True) for row in content["results"]):
        parts.append(footnote)
    if any(row.get("warnings") for row in content["results"]) or content.get("warnings"):
        parts.append("\\* the samples were unsteady; see `warnings` in the results file.")
    return "\n\n".join(parts)


def rows_of(content: Row) -> list[Row]:
    """What a benchmark's table has a row for."""
    kind, results = content["benchmark"], content["results"]
    if kind == "latency":
        return latency_rows(results)
    if kind == "gpu":
        return [row for row in results if row["stage"] == "frames"]
    return list(results)


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
        ValueError: Results without markers.
    """
    marked = {match["name"] for match in MARKERS.finditer(readme)}
    if homeless := sorted(set(results) - marked):
        raise ValueError(
            f"README.md has no markers for {', '.join(homeless)}: add <!-- bench:{homeless[0]} --> "
            f"and <!-- /bench:{homeless[0]} -->."
        )

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        body = "\n\n".join(section(content) for content in results.get(name, ()))
        body = (
            body or f"Not measured yet: `python bench/{name}.py --json bench/results/{name}.json`."
        )
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
