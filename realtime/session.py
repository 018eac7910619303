"""A session: one clock, one state of controls, one frame loop, one encode; and those who watch it.

All its tasks live in one TaskGroup inside `run`: the frame loop, model switches, reports, and one
task per viewer. An error in the loop ends the session; an error in a viewer ends that viewer.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, Never

from realtime.clock import FrameClock
from realtime.config import ServerConfig
from realtime.controls import (
    ControlChange,
    ControlError,
    Controls,
    KeyframeRequest,
    Limits,
    LiveControls,
    Ping,
    parse_message,
)
from realtime.engine import Engine
from realtime.errors import OverCapacity, SignalingError
from realtime.frame_loop import frame_loop
from realtime.reports import Reports
from realtime.sinks.webrtc import WebRtcSink
from realtime.switches import SWITCHED, Switches, notice, sentence
from realtime.viewer import Viewer, to_the_end

log = logging.getLogger(__name__)

FRAMES_EVERY_S = 0.25  # rows of frame stamps
STATS_EVERY = 4  # of those
COMPLAINT_NS = 1_000_000_000  # a flood is answered so often, not message by message
STARVED = (
    "Your connection takes less than the least that is sent, and others watch in better quality: "
    "use a faster network, or begin a session of your own."
)
STATE_S = 0.033  # pages are told the controls at most so often; a dragged slider sends 60 a second


class Session:
    """Create it, run `run` in a task, await `ready`, then `admit` viewers.

    Args:
        session_id: Unguessable; whoever knows it may watch and control.
        controls: The values it starts with, checked.
        limits: What may be set.
        schema: The same as viewers are told it.
        barcode: Draw each frame's number into it, for measurements.
        drawing: How many sessions of the server draw at present, this one included.
    """

    def __init__(
        self,
        session_id: str,
        config: ServerConfig,
        engine: Engine,
        controls: Controls,
        limits: Limits,
        schema: list[dict[str, Any]],
        *,
        barcode: bool = False,
        drawing: Callable[[], int] = lambda: 1,
    ) -> None:
        self.id = session_id
        self.name = session_id[:6]  # for logs: whoever reads them may not join by it
        self.live = LiveControls(controls)
        self.reports = Reports(engine, self.live, drawing)
        self.switches = Switches(session_id, engine, self.live, config.render.model, self)
        self.viewers: dict[str, Viewer] = {}
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over = False
        self._config, self._engine, self._limits, self._barcode = config, engine, limits, barcode
        self._schema = schema
        self._watched = asyncio.Event()  # some viewer is connected
        self._ever_watched = False
        self._revision = 0  # of the controls, as pages are told them
        self._news = asyncio.Event()  # some page does not know the newest
        self._traffic = asyncio.Event()  # a viewer came or went
        self._admitted = 0

    # ---- life

    async def run(self) -> None:
        """Until nobody has watched for a while.

        Resource handling: frame slots, encoders and peer connections are given back when it
        returns, fails or is cancelled. Error handling: what the frame loop or the switches raise
        is raised, in an ExceptionGroup, after the viewers were told.
        """
        try:
            controls = self.live.controls
            await self._engine.open(self.id, controls.resolution, model=controls.model)
            self._sink = WebRtcSink(self._config.stream, on_stats=self.reports.coded)
            self.reports.sink = self._sink
            try:
                await self._attend()
            finally:
                self.over = True
                await to_the_end(self._sink.aclose())
        finally:
            self.over = True
            await to_the_end(self._engine.close(self.id))

    def give_up(self) -> None:
        """Its task has ended: nobody may wait for it any more."""
        self.over = True
        if not self.ready.done():
            self.ready.set_exception(
                SignalingError("The session could not begin; the log says why.", 503, "ended")
            )

    def farewell(self) -> None:
        """Tell the viewers that the server is about to stop."""
        self.broadcast(notice("info", "The server is stopping."))

    async def _attend(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            tasks = [
                group.create_task(self.switches.run(), name=f"switches {self.name}"),
                group.create_task(self._frames(), name=f"frames {self.name}"),
                group.create_task(self._states(), name=f"states {self.name}"),
                group.create_task(self._reports(), name=f"reports {self.name}"),
            ]
            if not self.ready.done():
                self.ready.set_result(None)
            await self._until_over()
            self.over = True
            for task in tasks:
                task.cancel()

    async def _until_over(self) -> None:
        """Returns when no viewer is left and none has come back within the linger time."""
        while True:
            self._traffic.clear()
            if self.viewers:
                await self._traffic.wait()
                continue
            if self._admitted and not self._ever_watched:
                return  # its only offer came to nothing
            try:
                async with asyncio.timeout(self._config.linger_s):
                    await self._traffic.wait()
            except TimeoutError:
                if not self.viewers:
                    return

    # ---- viewers

    def admit(self, offer: str, codec: str) -> Viewer:
        """Begin a viewer for a cleaned offer; its `answer` follows.

        Raises:
            SignalingError: 404, the session is over; 503, it is full.
        """
        if self.over:
            raise SignalingError("This session has ended; begin a new one.", 404, "no_session")
        if len(self.viewers) >= self._config.max_viewers:
            raise OverCapacity(
                f"This session has {len(self.viewers)} viewers already, the most that is allowed; "
                "begin a session of your own or come back later."
            )
        viewer = Viewer(secrets.token_urlsafe(9), codec, self._sink, self._config, self)
        task = self._group.create_task(self._host(viewer, offer), name=f"viewer {viewer.id[:6]}")
        self.viewers[viewer.id] = viewer
        self._admitted += 1
        self._traffic.set()
        # A callback, since a task that is cancelled before its first step runs no `finally`.
        task.add_done_callback(lambda _: self._gone(viewer))
        return viewer

    async def _host(self, viewer: Viewer, offer: str) -> None:
        try:
            await viewer.run(offer)
        except Exception:
            log.exception("session %s: viewer %s failed", self.name, viewer.id[:6])

    def _gone(self, viewer: Viewer) -> None:
        viewer.give_up()
        del self.viewers[viewer.id]
        self._traffic.set()
        if viewer.ended_because:
            ended = (self.name, viewer.id[:6], viewer.ended_because)
            log.info("session %s: viewer %s ended: %s", *ended)

    def dismiss(self, viewer_id: str) -> bool:
        """End one viewer; says whether there was one."""
        viewer = self.viewers.get(viewer_id)
        if viewer is not None:
            viewer.leave()
        return viewer is not None

    def connected(self, viewer: Viewer) -> None:
        self.reports.begin(viewer)
        self._ever_watched = True
        self._watched.set()

    def left(self, viewer: Viewer) -> None:
        """Draw no further picture if that was the last who saw them."""
        if not any(other.is_connected for other in self.viewers.values()):
            self._watched.clear()

    @property
    def is_watched(self) -> bool:
        return self._watched.is_set()

    def opened(self, viewer: Viewer) -> None:
        controls = self.live.controls
        viewer.send(
            {
                "type": "hello",
                "session": self.id,
                "viewer": viewer.id,
                "schema": self._schema,
                "controls": controls.as_dict(),
                "models": self._models(),
                "codec": viewer.codec,
                "fps": controls.fps,
            }
        )
        viewer.told = self._revision
        for message in self.switches.news():
            viewer.send(message)

    def heard(self, viewer: Viewer, message: str | bytes) -> None:
        now_ns = time.monotonic_ns()
        try:
            viewer.limit.check(now_ns)
            parsed = parse_message(message, self._limits)
        except ControlError as error:
            if error.code != "too_many" or now_ns - viewer.complained_ns > COMPLAINT_NS:
                viewer.complained_ns = now_ns
                viewer.send({"type": "error", "code": error.code, "message": str(error)})
            return
        match parsed:
            case Ping(t):
                viewer.send({"type": "pong", "t": t, "server_ms": now_ns / 1e6}, droppable=True)
            case KeyframeRequest() if viewer.track is not None:
                viewer.track.request_keyframe()
            case ControlChange():
                self.change(parsed)

    def broadcast(self, message: dict[str, Any]) -> bool:
        """To every viewer whose channel is open; says whether there is one."""
        there = [viewer for viewer in self.viewers.values() if viewer.is_open]
        for viewer in there:
            viewer.send(message)
        return bool(there)

    # ---- controls

    def now(self) -> float:
        """Presentation time, seconds."""
        clock = self.reports.clock  # from the first connected viewer on
        return 0.0 if clock is None else clock.time_at(time.monotonic_ns())

    def change(self, change: ControlChange) -> None:
        """Apply a checked change: numbers at once (they ramp), a model when it is warm."""
        later = change.only(*SWITCHED)
        at_once = change.without(*SWITCHED)
        if at_once:
            before = self.live.controls
            after = self.live.apply(at_once, self.now())
            if after.fps != before.fps:
                self._sink.set_fps(after.fps)  # the loop retimes its clock by itself
                self.reports.times.clear()
            if after.bitrate != before.bitrate:
                self._sink.set_rate(after.bitrate)
        if later:
            self.switches.ask(later)
        self.changed()

    def changed(self) -> None:
        """Every page is to be told the controls, soon."""
        self._revision += 1
        self._news.set()

    async def _states(self) -> Never:
        """Tell each page the controls: the newest only, and when its channel has room for them.

        So nobody's slider can fill somebody else's channel.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            message = {"type": "state", "controls": self.live.controls.as_dict()}
            behind = [v for v in self.viewers.values() if v.is_open and v.told != self._revision]
            for viewer in behind:
                if viewer.has_room:
                    viewer.told = self._revision
                    viewer.send(message)
                else:
                    self._news.set()  # it gets them later
            await asyncio.sleep(STATE_S)

    # ---- frames

    async def _frames(self) -> Never:
        """Warm up, wait for the first viewer, draw. An offer that never connects costs no frame."""
        await self.switches.ready.wait()
        await self._watched.wait()
        controls = self.live.controls
        self.reports.clock = clock = FrameClock(controls.fps, time.monotonic_ns())
        self._sink.set_fps(controls.fps)
        self._sink.set_rate(controls.bitrate)
        try:
            await frame_loop(
                clock,
                self.live,
                self._engine,
                self._sink,
                session=self.id,
                barcode=self._barcode,
                watched=self._watched,
            )
        except Exception as error:
            text = f"The picture has stopped: {sentence(error)} Connect again."
            self.broadcast({"type": "error", "code": "session_failed", "message": text})
            await asyncio.sleep(0.05)  # for the channel to send it before the peers are closed
            raise

    # ---- reports

    async def _reports(self) -> Never:
        """To each page: its frames' stamps four times a second, figures once."""
        beat = 0
        let_go: list[Viewer] = []
        while True:
            await asyncio.sleep(FRAMES_EVERY_S)
            beat += 1
            for viewer in let_go:  # a beat after it was told, so that it was
                viewer.leave("its connection takes less than the floor")
            let_go = []
            viewers = list(self.viewers.values())
            for viewer in viewers:
                rows = self.reports.rows(viewer)
                if rows:
                    viewer.send({"type": "frames", "rows": rows}, droppable=True)
            if beat % STATS_EVERY == 0 and self.reports.clock is not None:
                self.reports.beat(viewers)
                for viewer in viewers:
                    viewer.send(self.reports.figures(viewer, len(viewers)), droppable=True)
                let_go = self._starved(viewers)

    def _starved(self, viewers: list[Viewer]) -> list[Viewer]:
        """Tell those that take less than the least while others of their codec take more.

        They no longer hold the rate down, so what they are sent would flood them for ever. One for
        whom alone a codec is encoded stays: it gets the least that is sent.
        """
        short = set(self._sink.starved())
        fed = {v.codec for v in viewers if v.is_connected and v.track not in short}
        going = [v for v in viewers if v.track in short and v.codec in fed]
        for viewer in going:
            viewer.send({"type": "error", "code": "starved", "message": STARVED})
        return going

    def stats(self) -> dict[str, Any]:
        """The session's part of `/stats`. Whoever reads that may not join by it: the id is cut."""
        about = {"id": self.name, "status": self.switches.status, "over": self.over}
        if not self.ready.done():
            return about
        return {**about, **self.reports.snapshot(list(self.viewers.values()))}

    def _models(self) -> list[dict[str, Any]]:
        """What a page lists: names, and what is known of those that are loaded."""
        rows = []
        for name in self._limits.models:
            info = self._engine.info(name)
            row: dict[str, Any]
            if info is None:
                row = {"trained": None, "resolution": None, "note": "loads when it is chosen"}
            else:
                note = "" if info.trained else "random weights, not trained"
                row = {"trained": info.trained, "resolution": info.resolution, "note": note}
            rows.append({"name": name, **row})
        return rows
