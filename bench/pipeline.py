"""From a frame that is ready to its last packet in the hands of the socket, the encoder left out.

    python bench/pipeline.py                     VP8 and H.264 at 256, 512 and 1024; a minute
    python bench/pipeline.py --goals --json out.json

The path is the server's own: a frame slot drawn in the render thread, WebRtcSink, its encoder
thread, payloads cut once, the viewer's wire, SRTP, UDP to a real peer in another process, which
decrypts and counts. Begun when the I420 is complete (the stamp
"rendered"), ended when the sendto of the picture's last packet has returned; both on
time.monotonic_ns(). The time inside the codec's own encode call is measured and taken off; waking
the threads, cutting payloads, encryption and the socket stay in. Frames are due on a fixed schedule
after a warm-up; a frame that the sink drops is counted, not timed.

A second, shorter pass watches memory: no picture is copied into fresh memory per frame.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import blocks, harness
from bench.pipeline_path import PATIENCE_S, Seen, codec_clock, streaming, until

SIZES, CODECS = (256, 512, 1024), ("VP8", "H264")
WARM_UP = 60  # frames: the encoder opens, the history of packets fills
GOAL_SIZE, GOAL_P50_MS, GOAL_P99_MS = 512, 0.5, 1.0
NOTE = (
    "From the complete I420 picture in its slot to the return of sendto for its last packet, the "
    "codec's own call taken off: hand-over to the encoder thread, payloads, the viewer's wire, "
    "SRTP, UDP to a peer in another process on this machine. It looks for packets every 2 ms and "
    "so is not woken by the call that sends."
)


STAGES = ("whole", "handed", "encoder", "sent", "codec_call")


def frame_times(at: Mapping[str, int]) -> dict[str, float]:
    """Milliseconds of one picture's stages, by its stamps; without the codec's own call."""
    marks = {
        "handed": at["taken"] - at["rendered"],  # from the render thread to the encoder's
        "encoder": at["encoded"] - at["taken"] - at["codec"],  # around the codec, and payloads
        "sent": at["left"] - at["encoded"],  # all packets encrypted and out
        "whole": at["left"] - at["rendered"] - at["codec"],
        "codec_call": at["codec"],
    }
    return {name: ns / 1e6 for name, ns in marks.items()}


async def run(codec: str, size: int, frames: int, fps: float) -> dict[str, Any]:
    """One row."""
    seen = Seen()
    with codec_clock(), harness.quiet_collector():
        async with streaming(codec, size, fps, seen) as (tuning, clock, peer):
            wanted = WARM_UP + frames
            before = resident_bytes()
            await until(lambda: len(seen.rows) >= wanted, wanted / fps * 3 + PATIENCE_S)
            grown = resident_bytes() - before
            rows, sent = list(seen.rows), tuning.packets
            got = await peer.ended()
            late = clock.counters.late
    timed = [frame_times(row.stamps) for row in rows][WARM_UP:]
    row: dict[str, Any] = {
        "codec": codec,
        "size": size,
        "fps": fps,
        "frames": len(timed),
        "late": late,
        "packets_per_frame": round(sent / len(rows), 1),
        "packets_sent": sent,
        "packets_received": got["packets"],
        "pictures_received": got["pictures"],
        "bytes_per_frame": round(got["bytes"] / len(rows)),
        "resident_growth_bytes": grown,
    }
    for stage in STAGES:
        row[stage] = _percentiles([times[stage] for times in timed])
    return {**row, "warnings": harness.instabilities([times["whole"] for times in timed])}


def _percentiles(samples: Sequence[float]) -> dict[str, float]:
    s = harness.summarize(samples)
    return {k: round(getattr(s, k), 4) for k in ("p50", "p95", "p99", "max")}


def resident_bytes() -> int:
    """Memory of this process that is in RAM; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Memory:
    """What frames took from the allocator after the warm-up."""

    frames: int
    peak_bytes: list[int]  # most that was held at once beyond what was held before, per frame
    kept_bytes: int  # held at the end and not at the beginning
    resident_bytes: int  # growth of the process, native libraries included


async def memory(codec: str, size: int, frames: int, fps: float = 30.0) -> Memory:
    """Watch Python's and numpy's allocations frame by frame, and the process's growth."""
    seen = Seen()
    peaks: list[int] = []

    def between() -> None:
        now, peak = tracemalloc.get_traced_memory()
        peaks.append(peak - base[0])
        base[0] = now
        tracemalloc.reset_peak()
        seen.rows.clear()  # the bench's own notes are no allocation of the path's

    base = [0]
    async with streaming(codec, size, fps, seen):
        await until(lambda: len(seen.rows) >= WARM_UP, WARM_UP / fps * 3 + PATIENCE_S)
        tracemalloc.start()
        try:
            base[0] = begun = tracemalloc.get_traced_memory()[0]
            resident = resident_bytes()
            seen.after = between
            await until(lambda: len(peaks) >= frames + 1, frames / fps * 5 + PATIENCE_S)
            seen.after = lambda: None
            kept = tracemalloc.get_traced_memory()[0] - begun
            grown = resident_bytes() - resident
        finally:
            tracemalloc.stop()
    return Memory(frames, peaks[1 : frames + 1], kept, grown)


def goals(results: Sequence[dict[str, Any]]) -> list[blocks.Goal]:
    """At 512, for each codec."""
    found = []
    for row in results:
        if row["size"] == GOAL_SIZE:
            case = f"{row['codec']} {row['size']}"
            found.append(blocks.Goal(case, "p50, ms", row["whole"]["p50"], GOAL_P50_MS, False))
            found.append(blocks.Goal(case, "p99, ms", row["whole"]["p99"], GOAL_P99_MS, False))
            if "memory" in row:
                least = row["memory"]["picture_bytes"]
                peak = row["memory"]["peak_bytes_p99"] / least
                found.append(blocks.Goal(case, "pictures allocated a frame", peak, 0.25, False))
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """For the terminal."""
    head = ["codec", "size", "frames", "p50 ms", "p95 ms", "p99 ms", "to the encoder", "around it"]
    head += ["to the wire", "codec itself", "packets", "most kB a frame"]
    lines = []
    for r in results:
        whole = [f"{r['whole'][q]:.3f}" for q in ("p50", "p95", "p99")]
        stages = [f"{r[stage]['p50']:.3f}" for stage in STAGES[1:]]
        held = r.get("memory", {}).get("peak_bytes_p99")
        lines.append(
            [r["codec"], str(r["size"]), str(r["frames"]), *whole, *stages]
            + [f"{r['packets_per_frame']:.0f}", "-" if held is None else f"{held / 1000:.0f}"]
        )
    return harness.text_table(head, lines)


def measured(codec: str, size: int, frames: int, fps: float, watched: int) -> dict[str, Any]:
    """One row: times, then memory over `watched` frames (0: not)."""
    row = asyncio.run(run(codec, size, frames, fps))
    if watched:
        found = asyncio.run(memory(codec, size, watched))
        row["memory"] = {
            "frames": found.frames,
            "picture_bytes": size * size * 3 // 2,
            "peak_bytes_p50": round(harness.percentile(found.peak_bytes, 50)),
            "peak_bytes_p99": round(harness.percentile(found.peak_bytes, 99)),
            "kept_bytes": found.kept_bytes,
            "resident_growth_bytes": found.resident_bytes,
        }
    return row


def _among(known: Sequence[Any], kind: type) -> Any:
    def parse(text: str) -> list[Any]:
        try:
            words = [kind(word) for word in text.split(",")]
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"choose from {known}") from error
        if any(word not in known for word in words):
            raise argparse.ArgumentTypeError(f"choose from {known}")
        return words

    return parse


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="bench/pipeline.py", description="Frame ready to packet sent, without the encoder."
    )
    p.add_argument("--codecs", type=_among(CODECS, str), default=list(CODECS), metavar="A,B")
    p.add_argument("--sizes", type=_among((64, *SIZES), int), default=list(SIZES), metavar="N,M")
    p.add_argument("--frames", type=int, default=1000, help=f"at {GOAL_SIZE}; elsewhere a third")
    p.add_argument("--fps", type=float, default=60.0)
    p.add_argument(
        "--watched", type=int, default=60, help="frames whose memory is watched; 0: none"
    )
    p.add_argument("--goals", action="store_true", help=f"only {GOAL_SIZE}; exit 1 if one fails")
    p.add_argument("--json", metavar="FILE", help="write the result here as well")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    harness.before_torch()
    about = harness.machine()
    print(harness.describe(about, harness.commit()), end="\n\n", flush=True)
    results = []
    for size in [GOAL_SIZE] if args.goals else args.sizes:
        for codec in args.codecs:
            print(f"{codec} {size}x{size} ...", file=sys.stderr, flush=True)
            frames = args.frames if size == GOAL_SIZE else max(1, args.frames // 3)
            results.append(measured(codec, size, frames, args.fps, args.watched))
    reached = goals(results)
    warnings = harness.busy(about)
    print(table(results))
    unsteady = [
        f"{r['codec']} {r['size']}: {'; '.join(r['warnings'])}" for r in results if r["warnings"]
    ]
    for warning in [*warnings, *unsteady]:
        print(f"warning: {warning}")
    print(blocks.goals_text(reached))
    if args.json:
        content = harness.envelope(
            "pipeline",
            results,
            about=about,
            notes=[NOTE],
            warnings=warnings,
            argv=sys.argv if argv is None else [__file__, *argv],
            goals=[goal.as_dict() for goal in reached],
        )
        harness.write_json(args.json, content)
    return 1 if args.goals and not all(goal.passed for goal in reached) else 0


if __name__ == "__main__":
    sys.exit(main())
