"""From what one viewer recorded to the figures of bench/latency.py. Plain functions, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.harness import percentile, summarize

WARMUP_MS = 2000.0  # after the first picture: rates settle, code warms up
FEW = 100  # samples, below which p95 says little
OURS, STOCK = "ours", "stock"

# Columns of a "frames" row of our server.
INDEX, DUE, SAMPLED, RENDERED, ENCODED, SENT = 1, 2, 3, 4, 5, 6

STAGES = {  # in order; each with its words
    "render": "render",
    "encode": "encode",
    "publish": "publish",
    "to_receive": "to receive",  # the baseline's encoding and sending: aiortc has no stamps there
    "wire": "wire",
    "show": "decode, present",
    "wire_decode": "wire, decode",  # without a browser they cannot be told apart
}


@dataclass(frozen=True)
class Shown:
    """One presented frame, in server milliseconds. `received` and `called` only from a browser."""

    number: int  # -1: unreadable
    presented: float
    received: float | None = None
    called: float | None = None


@dataclass(frozen=True)
class Stamps:
    """What the server noted of one frame, monotonic milliseconds.

    `start` is where latency begins: the motion was sampled (ours), or the RGB picture is complete
    (the baseline, whose drawing is thereby not billed to it).
    """

    due: float
    start: float
    rendered: float | None = None
    encoded: float | None = None
    sent: float | None = None


def clock_offset_ms(trips: Sequence[Sequence[float]]) -> float:
    """server ms = page ms + offset, from [sent, back, server] of each ping.

    Median of the tenth with the shortest trips: a long trip says only that something waited.

    Raises:
        ValueError: No trips.
    """
    if not trips:
        raise ValueError("no ping was answered, so the two clocks cannot be compared.")
    by_length = sorted((back - sent, server - (sent + back) / 2) for sent, back, server in trips)
    return percentile([offset for _, offset in by_length[: max(3, len(by_length) // 10)]], 50)


def our_stamps(rows: Sequence[Sequence[float]]) -> dict[int, Stamps]:
    """By frame number, from the rows of our server's "frames" messages."""
    return {
        int(row[INDEX]): Stamps(row[DUE], row[SAMPLED], row[RENDERED], row[ENCODED], row[SENT])
        for row in rows
    }


def stock_stamps(rows: Sequence[Sequence[int]]) -> dict[int, Stamps]:
    """By frame number, from the baseline's [number, due, complete], nanoseconds."""
    return {int(n): Stamps(due / 1e6, complete / 1e6) for n, due, complete in rows}


def browser_rows(rows: Sequence[Mapping[str, Any]], offset_ms: float) -> list[Shown]:
    """What the page recorded, on the server's clock."""
    return [
        Shown(
            int(row["number"]),
            row["presented"] + offset_ms,
            None if row["received"] is None else row["received"] + offset_ms,
            row["called"] + offset_ms,
        )
        for row in rows
    ]


def rate_kbit_s(start: Mapping[str, Any], end: Mapping[str, Any]) -> float:
    """What arrived between two inbound-rtp reports of getStats; headers are not in it.

    Raises:
        ValueError: The reports bear the same time.
    """
    span_ms = end["timestamp"] - start["timestamp"]
    if span_ms <= 0:
        raise ValueError(f"the two getStats reports lie {span_ms:g} ms apart; measure for longer.")
    return round((end["bytesReceived"] - start["bytesReceived"]) * 8 / span_ms, 1)


def figures(shown: Sequence[Shown], stamps: Mapping[int, Stamps], seconds: float) -> dict[str, Any]:
    """Latencies and counts of one case: of the frames due from the warm-up's end to `seconds`.

    Args:
        seconds: From the first picture to the end of what is measured. `shown` and `stamps` reach
            a little further, so that the last frames had their time to arrive.

    Returns:
        presented, called, from_due: percentiles in ms; stages: the same for each known stage;
        samples, missed, undrawn, unreadable, fps.
        `missed` counts every number of the schedule in that time that was never seen, whoever lost
        it; `undrawn` of them were skipped by the server as late. `fps` divides the numbers seen by
        the whole time, so that a picture that stops early lowers it.
        `from_due` starts when the frame was due and not when the server got round to it.
    Raises:
        ValueError: No frame with a known number is left.
    """
    if not shown:
        raise ValueError("no frame was presented.")
    begin = shown[0].presented + WARMUP_MS
    end = shown[0].presented + seconds * 1e3
    kept = [row for row in shown if row.presented >= begin]
    first_seen = {row.number: row for row in reversed(kept)}  # a repeat is not a new frame
    due = sorted(number for number, at in stamps.items() if begin <= at.due <= end)
    numbers = range(due[0], due[-1] + 1) if due else range(0)
    seen = [(first_seen[n], stamps[n]) for n in numbers if n in first_seen and n in stamps]
    if not seen:
        raise ValueError(
            f"none of the {len(kept)} frames after the warm-up bears a number that was stamped."
        )
    return {
        "samples": len(seen),
        "presented": _percentiles([row.presented - at.start for row, at in seen]),
        "called": _percentiles(
            [row.called - at.start for row, at in seen if row.called is not None]
        ),
        "from_due": _percentiles([row.presented - at.due for row, at in seen]),
        "stages": {name: _percentiles(values) for name, values in _stages(seen).items() if values},
        "missed": len(numbers) - len(seen),
        "undrawn": sum(number not in stamps for number in numbers),
        "unreadable": sum(row.number < 0 for row in kept if row.presented <= end),
        "fps": round(len(seen) * 1e3 / (end - begin), 2),
    }


def _stages(seen: Sequence[tuple[Shown, Stamps]]) -> dict[str, list[float]]:
    """Milliseconds per stage; the baseline has no stamps between `start` and the browser."""
    found: dict[str, list[float]] = {name: [] for name in STAGES}
    for row, at in seen:
        if at.rendered is not None and at.encoded is not None and at.sent is not None:
            found["render"].append(at.rendered - at.start)
            found["encode"].append(at.encoded - at.rendered)
            found["publish"].append(at.sent - at.encoded)
        if row.received is None:
            found["wire_decode"].append(row.presented - (at.start if at.sent is None else at.sent))
            continue
        if at.sent is not None:
            found["wire"].append(row.received - at.sent)
        else:
            found["to_receive"].append(row.received - at.start)
        found["show"].append(row.presented - row.received)
    return found


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    found = summarize(values)
    return {name: round(getattr(found, name), 2) for name in ("p50", "p95", "p99", "max")}


@dataclass(frozen=True)
class Goal:
    """What a codec is to reach on two cores at 30 fps with the test picture."""

    p50_ms: float
    p95_ms: float
    ratio: float  # below the baseline's p50, at least
    keyframes: int  # at most, for one who joins at the start


GOALS = {"H264": Goal(8.0, 20.0, 4.0, 1), "VP8": Goal(10.0, 25.0, 2.5, 2)}
GOAL_CASES = ("256@30", "512@30")
CALLED_RATIO = 1.2  # with a wait for the display of up to 16.7 ms in both, whatever its phase
JOIN_MS = 400.0
MISSED_SHARE = 0.03
UNREADABLE_SHARE = 0.01
FPS_SHARE = 0.97  # of the wanted rate, with the test picture
MODEL_FPS = 24.0  # of a model on two cores, at 30 wanted
BEYOND_RENDER_MS = 12.0  # presented p50 may exceed render p50 by so much
RATE_EXCESS = 1.12  # times the target at most


@dataclass(frozen=True)
class Verdict:
    """One goal, and whether it is reached."""

    case: str
    what: str
    value: float
    goal: str
    passed: bool


def middle(rows: Sequence[Mapping[str, Any]], *keys: str) -> float:
    """Median over rounds of a nested figure."""
    values = []
    for row in rows:
        value: Any = row
        for key in keys:
            value = value[key]
        values.append(float(value))
    return percentile(values, 50)


def verdicts(results: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Each goal that these results can speak to: p50, frames/s and join as the median of the
    rounds, all others as the worst of them. Figures without a browser are not judged: another
    receiver is in them."""
    found = []
    for (codec, case, model), rounds in _grouped(results).items():
        ours, stock = rounds.get(OURS, []), rounds.get(STOCK, [])
        if not ours or not all(row["browser"] for row in ours):
            continue
        name = f"{codec} {case} {model}"
        if model == "testcard":
            if case in GOAL_CASES:
                found += _against_goal(name, GOALS[codec], ours, stock)
            found.append(_at_least(name, "frames/s", middle(ours, "fps"), FPS_SHARE * _fps(case)))
        else:
            p50 = middle(ours, "presented", "p50")
            beyond = p50 - middle(ours, "stages", "render", "p50")
            found.append(_at_most(name, "presented - render p50, ms", beyond, BEYOND_RENDER_MS))
            if case in GOAL_CASES:
                found.append(_at_least(name, "frames/s", middle(ours, "fps"), MODEL_FPS))
        found += _delivery(name, codec, model, ours)
        found.append(_at_most(name, "join, ms", middle(ours, "join_ms"), JOIN_MS))
    return found


def _against_goal(
    name: str, goal: Goal, ours: Sequence[Mapping[str, Any]], stock: Sequence[Mapping[str, Any]]
) -> list[Verdict]:
    """Latency with the test picture, also beside the baseline's where that was measured."""
    p50 = middle(ours, "presented", "p50")
    worst = max(row["presented"]["p95"] for row in ours)
    found = [
        _at_most(name, "presented p50, ms", p50, goal.p50_ms),
        _at_most(name, "presented p95, ms", worst, goal.p95_ms),
    ]
    if stock:
        for what, wanted in (("presented", goal.ratio), ("called", CALLED_RATIO)):
            ratio = middle(stock, what, "p50") / middle(ours, what, "p50")
            found.append(_at_least(name, f"stock p50 / ours, {what}", ratio, wanted))
    return found


def _delivery(
    name: str, codec: str, model: str, ours: Sequence[Mapping[str, Any]]
) -> list[Verdict]:
    """Whether what was due also arrived, legibly and at the rate allowed.

    A model may draw fewer frames than wanted, and frames/s judges that: only what it did draw must
    arrive. The rate has no lower bound, since an easy picture needs less than it may have.
    """
    spared = "undrawn" if model != "testcard" else None
    missed = max(_share(row, row["missed"] - (row[spared] if spared else 0)) for row in ours)
    unreadable = max(_share(row, row["unreadable"]) for row in ours)
    rate = max(row["kbit_s"] / row["target_kbit_s"] for row in ours)
    keyframes = max(row["keyframes"] for row in ours)
    what = "drawn and not seen, %" if spared else "missed, %"
    return [
        _at_most(name, what, 100 * missed, 100 * MISSED_SHARE),
        _at_most(name, "unreadable, %", 100 * unreadable, 100 * UNREADABLE_SHARE),
        _at_most(name, "keyframes", keyframes, GOALS[codec].keyframes),
        _at_most(name, "rate / target", rate, RATE_EXCESS),
    ]


def _share(row: Mapping[str, Any], count: int) -> float:
    """`count` as a part of all frames that were due."""
    return count / max(1, row["samples"] + row["missed"])


def _fps(case: str) -> float:
    """30.0 of "256@30"."""
    return float(case.partition("@")[2])


def _at_least(case: str, what: str, value: float, limit: float) -> Verdict:
    return Verdict(case, what, value, f">= {limit:g}", value >= limit)


def _at_most(case: str, what: str, value: float, limit: float) -> Verdict:
    return Verdict(case, what, value, f"<= {limit:g}", value <= limit)


def _grouped(
    results: Sequence[Mapping[str, Any]],
) -> dict[tuple[str, str, str], dict[str, list[Mapping[str, Any]]]]:
    groups: dict[tuple[str, str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for row in results:
        key = (row["codec"], row["case"], row["model"])
        groups.setdefault(key, {}).setdefault(row["path"], []).append(row)
    return groups


def doubts(row: Mapping[str, Any]) -> list[str]:
    """Why one row should not be trusted; empty: nothing says so."""
    found = []
    if row["samples"] < FEW:
        found.append(f"only {row['samples']} samples")
    share = _share(row, row["missed"])
    if row["path"] == OURS and share > MISSED_SHARE:
        found.append(f"{share:.0%} of the frames were never seen, and the slowest are among them")
    if _share(row, row["unreadable"]) > UNREADABLE_SHARE:
        found.append(f"{row['unreadable']} numbers could not be read")
    return found


def unsteady(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Cases whose rounds disagree."""
    found = []
    for (codec, case, model), rounds in _grouped(results).items():
        values = [row["presented"]["p50"] for row in rounds.get(OURS, [])]
        if len(values) > 1 and max(values) > 1.4 * min(values):
            found.append(
                f"{codec} {case} {model}: p50 of the rounds lies between {min(values):.1f} and "
                f"{max(values):.1f} ms; something else was running, or add --rounds"
            )
    return found
