"""What a page and `/stats` are told about a session: rows of frames and figures."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection
from typing import Any

from realtime.clock import FrameClock, FrameCounters
from realtime.controls import LiveControls
from realtime.encoder import Coded
from realtime.engine import Engine
from realtime.sinks.webrtc import WebRtcSink
from realtime.stats import Load, Recent, StageTimes, bottleneck, on_time_ratio
from realtime.viewer import Viewer

ROW_STAMPS = ("due", "sampled", "rendered", "encoded", "sent")


class Reports:
    """A session's numbers. `beat` once a second; the rest may be asked at any time.

    Where two codecs are in use, one speaks for both: the first that has a viewer. Each frame is
    measured once, however many encode or watch it.

    Args:
        drawing: How many sessions draw at present, this one included.
    """

    def __init__(self, engine: Engine, live: LiveControls, drawing: Callable[[], int]) -> None:
        self.times = StageTimes()
        self.clock: FrameClock | None = None
        self.sink: WebRtcSink | None = None
        self._engine, self._live, self._drawing = engine, live, drawing
        self._recent = Recent()
        self._primary: str | None = None  # the codec that speaks for the session
        self._overwritten: dict[str, int] = {}  # by codec, as last seen
        self._replaced = 0
        self._measured = self._sent = -1  # the newest index counted

    def counters(self) -> dict[str, int]:
        """The clock's counters; a frame that the encoder never got is dropped like any other."""
        counts = (self.clock.counters if self.clock else FrameCounters()).as_dict()
        counts["dropped"] += self._never_coded()
        return counts

    def _never_coded(self) -> int:
        """Frames replaced by newer ones before the encoder took them, since the beginning."""
        lanes = self.sink.stats() if self.sink else []
        watched = [lane.codec for lane in lanes if lane.viewers]
        if self._primary is None and watched:
            self._primary = watched[0]
        for lane in lanes:
            if lane.codec == self._primary:
                self._replaced += max(0, lane.overwritten - self._overwritten.get(lane.codec, 0))
            self._overwritten[lane.codec] = lane.overwritten
        if watched and self._primary not in watched:
            self._primary = watched[0]
        return self._replaced

    def coded(self, codec: str, coded: Coded) -> None:
        """A picture was coded; the sink's `on_stats`."""
        if self._primary in (None, codec) and coded.index > self._measured:
            self._measured = coded.index
            self.times.add(coded.stamps)

    def begin(self, viewer: Viewer) -> None:
        """From now on `viewer` is counted."""
        viewer.recent.push(time.monotonic_ns(), {"sent": 0, "bytes": 0, "overflows": 0})

    def beat(self, viewers: Collection[Viewer]) -> None:
        """Note where the counters stand, so that rates are of the last seconds."""
        now_ns = time.monotonic_ns()
        self._recent.push(now_ns, self.counters())
        for viewer in viewers:
            if viewer.track is not None:
                track = viewer.track
                seen = {"sent": track.sent, "bytes": track.bytes, "overflows": track.overflows}
                viewer.recent.push(now_ns, seen)

    def rows(self, viewer: Viewer) -> list[list[float]]:
        """One row for each picture sent to `viewer` since the last call, times in monotonic ms.

        [RTP timestamp on the wire, index, due, sampled, rendered, encoded, sent, bytes, keyframe]
        """
        track, tuning = viewer.track, viewer.tuning
        if track is None or tuning is None or tuning.rtp_origin is None:
            return []
        rows: list[list[float]] = []
        for row in track.take_rows():
            wire = tuning.wire_timestamp(row.timestamp)
            if wire is None or not all(name in row.stamps for name in ROW_STAMPS):
                continue
            ns = [row.stamps[name] for name in ROW_STAMPS]
            if row.index > self._sent:
                self._sent = row.index
                self.times["send"].add((ns[4] - ns[3]) / 1e6)
                self.times["total"].add((ns[4] - ns[0]) / 1e6)
            rows.append(
                [wire, row.index, *(round(n / 1e6, 3) for n in ns), row.bytes, int(row.keyframe)]
            )
        return rows

    def figures(self, viewer: Viewer, viewers: int) -> dict[str, Any]:
        """The "stats" message for one viewer."""
        controls, sink = self._live.controls, self.sink
        seconds, sent = viewer.recent.since()
        info = self._engine.info(controls.model)
        clock, tuning = self.clock, viewer.tuning
        motion_t = (
            None if clock is None else self._live.motion_at(clock.time_at(time.monotonic_ns()))
        )
        return {
            "type": "stats",
            "fps": _per(sent.get("sent", 0), seconds),
            "render_ms": self._two("render"),
            "encode_ms": self._two("encode"),
            "counters": self.counters(),
            "bitrate": int(8 * _per(sent.get("bytes", 0), seconds)),
            "target_bitrate": sink.target_bitrate(viewer.codec) if sink else None,
            "estimate": tuning.estimate if tuning else None,
            "keyframes": tuning.keyframes if tuning else 0,
            "viewers": viewers,
            "on_time": round(on_time_ratio(self._recent.since()[1]), 4),
            "bottleneck": bottleneck(self._load(viewer, sent.get("overflows", 0))),
            "model": controls.model,
            "trained": info.trained if info else None,
            "backend": info.backend if info else self._engine.backend.name,
            "backend_why": info.backend_why if info else self._engine.backend.why,
            "motion_t": motion_t,
        }

    def snapshot(self, viewers: Collection[Viewer]) -> dict[str, Any]:
        """The session's part of `/stats`."""
        return {
            "controls": self._live.controls.as_dict(),
            "counters": self.counters(),
            "on_time": round(on_time_ratio(self._recent.since()[1]), 4),
            "stages_ms": self.times.as_dict(),
            "encoders": [
                dataclasses.asdict(lane) for lane in (self.sink.stats() if self.sink else [])
            ],
            "viewers": [_viewer_snapshot(viewer) for viewer in viewers],
        }

    def _two(self, stage: str) -> dict[str, float | None]:
        summary = self.times[stage].summary()
        return {"p50": summary["p50"], "p95": summary["p95"]}

    def _load(self, viewer: Viewer, overflows: int) -> Load:
        sink, times, controls = self.sink, self.times, self._live.controls
        return Load(
            interval=1000 / controls.fps,
            on_time=on_time_ratio(self._recent.since()[1]),
            wait_p95=times["wait"].percentile(95),
            render_p50=times["render"].percentile(50),
            render_p95=times["render"].percentile(95),
            encode_p50=times["encode"].percentile(50),
            encode_p95=times["encode"].percentile(95),
            sessions=self._drawing(),
            ceiling=controls.bitrate,
            target=(sink.target_bitrate(viewer.codec) if sink else None) or 0,
            loss=viewer.loss,
            overflows=overflows,
            starved=sink is not None and viewer.track in sink.starved(),
        )


def _per(amount: float, seconds: float) -> float:
    return round(amount / seconds, 2) if seconds else 0.0


def _viewer_snapshot(viewer: Viewer) -> dict[str, Any]:
    track, tuning = viewer.track, viewer.tuning
    return {
        "codec": viewer.codec,
        "connected": viewer.is_connected,
        "loss": round(viewer.loss, 4),
        "dropped": track.dropped if track else 0,
        "overflows": track.overflows if track else 0,
        "skipped_messages": viewer.skipped,
        **(tuning.counters() if tuning else {}),
    }
