"""A session: one clock, one state of controls, one frame loop, one encode; and those who watch it.

All its tasks live in one TaskGroup inside `run`: the frame loop, model switches, reports, and one
task per viewer. An error in the loop ends the session; an error in a viewer ends that viewer.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import Any, Never

from models.errors import ModelError
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
    change_of,
    parse_message,
)
from realtime.engine import Engine
from realtime.errors import OverCapacity, RealtimeError, SignalingError
from realtime.frame_loop import frame_loop
from realtime.mailbox import Mailbox
from realtime.reports import Reports
from realtime.sinks.webrtc import WebRtcSink
from realtime.viewer import Viewer, to_the_end

log = logging.getLogger(__name__)

FRAMES_EVERY_S = 0.25  # rows of frame stamps
STATS_EVERY = 4  # of those
COMPLAINT_NS = 1_000_000_000  # a flood is answered so often, not message by message
SWITCHED = ("model", "resolution")  # controls that need the engine first


class Session:
    """Create it, run `run` in a task, await `ready`, then `admit` viewers.

    Args:
        session_id: Unguessable; whoever knows it may watch and control.
        controls: The values it starts with, checked.
        limits: What may be set.
        schema: The same as viewers are told it.
        barcode: Draw each frame's number into it, for measurements.
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
    ) -> None:
        self.id = session_id
        self.live = LiveControls(controls)
        self.reports = Reports(engine, self.live)
        self.viewers: dict[str, Viewer] = {}
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over = False
        self._config, self._engine, self._limits, self._barcode = config, engine, limits, barcode
        self._schema = schema
        self._wanted: Mailbox[ControlChange] = Mailbox()
        self._status = ""  # what newcomers are told, e.g. that a model is warming up
        self._someone = asyncio.Event()  # a viewer has connected
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
        self.broadcast(_notice("info", "The server is stopping."))

    async def _attend(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            tasks = [
                group.create_task(self._frames(), name=f"frames {self.id}"),
                group.create_task(self._switches(), name=f"switches {self.id}"),
                group.create_task(self._reports(), name=f"reports {self.id}"),
            ]
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
            if self._admitted and not self._someone.is_set():
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
        task = self._group.create_task(self._host(viewer, offer), name=f"viewer {viewer.id}")
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
            log.exception("session %s: viewer %s failed", self.id, viewer.id)

    def _gone(self, viewer: Viewer) -> None:
        viewer.give_up()
        del self.viewers[viewer.id]
        self._traffic.set()
        if viewer.ended_because:
            log.info("session %s: viewer %s ended: %s", self.id, viewer.id, viewer.ended_because)

    def dismiss(self, viewer_id: str) -> bool:
        """End one viewer; says whether there was one."""
        viewer = self.viewers.get(viewer_id)
        if viewer is not None:
            viewer.leave()
        return viewer is not None

    def connected(self, viewer: Viewer) -> None:
        self.reports.begin(viewer)
        self._someone.set()

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
        if self._status:
            viewer.send(_notice("info", self._status))

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

    def broadcast(self, message: dict[str, Any]) -> None:
        """To every viewer whose channel is open."""
        for viewer in list(self.viewers.values()):
            viewer.send(message)

    # ---- controls

    def now(self) -> float:
        """Presentation time, seconds."""
        clock = self.reports.clock  # from the first connected viewer on
        return 0.0 if clock is None else clock.time_at(time.monotonic_ns())

    def change(self, change: ControlChange) -> None:
        """Apply a checked change: numbers at once (they ramp), a model when it is warm."""
        later = self._differs(change.only(*SWITCHED))
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
            waiting = self._wanted.get_nowait()
            self._wanted.put(change_of({**(waiting.values if waiting else {}), **later.values}))
        self.broadcast({"type": "state", "controls": self.live.controls.as_dict()})

    def _differs(self, change: ControlChange) -> ControlChange:
        """`change`, or nothing if it asks for what is there and no switch is on its way."""
        same = change.apply(self.live.controls) == self.live.controls
        return change_of({}) if same and not self._status and not len(self._wanted) else change

    async def _switches(self) -> Never:
        """Model and resolution: the engine first, the picture after."""
        while True:
            await self._switch(await self._wanted.get())

    async def _switch(self, wanted: ControlChange) -> None:
        old = self.live.controls
        new = wanted.apply(old)
        if new == old:
            return
        if self._engine.info(new.model) is None:
            self._announce(f"Warming up {new.model} at {new.resolution} px; the stream goes on.")
        try:
            await self._engine.load(new.model, new.resolution)
            await self._engine.open(self.id, new.resolution, model=new.model)
        except (ModelError, RealtimeError) as error:
            stays = f"{old.model} at {old.resolution} px stays."
            self.broadcast(_notice("error", f"{_sentence(error)} {stays}"))
        else:
            self.live.apply(wanted, self.now())
            self.reports.times.clear()
            if self._status:
                self.broadcast(_notice("info", f"{new.model} is warm and shown now."))
        finally:
            self._status = ""
        self.broadcast({"type": "state", "controls": self.live.controls.as_dict()})

    def _announce(self, text: str) -> None:
        self._status = text
        self.broadcast(_notice("info", text))

    # ---- frames

    async def _frames(self) -> Never:
        """Warm up, wait for the first viewer, draw. An offer that never connects costs no frame."""
        await self._prepare()
        await self._someone.wait()
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
            )
        except Exception as error:
            text = f"The picture has stopped: {_sentence(error)} Connect again."
            self.broadcast({"type": "error", "code": "session_failed", "message": text})
            await asyncio.sleep(0.05)  # for the channel to send it before the peers are closed
            raise

    async def _prepare(self) -> None:
        """Load what the session starts with; where that fails, what the server started with."""
        wanted = self.live.controls
        try:
            if self._engine.info(wanted.model) is None:
                self._announce(f"Warming up {wanted.model} at {wanted.resolution} px.")
            await self._engine.load(wanted.model, wanted.resolution)
        except (ModelError, RealtimeError) as error:
            fallback = self._config.render.model
            if wanted.model == fallback:
                raise
            await self._engine.load(fallback, wanted.resolution)
            self.live.apply(change_of({"model": fallback}), self.now())
            self._announce(f"{_sentence(error)} {fallback} is shown instead.")
            self.broadcast({"type": "state", "controls": self.live.controls.as_dict()})
        else:
            self._status = ""

    # ---- reports

    async def _reports(self) -> Never:
        """To each page: its frames' stamps four times a second, figures once."""
        beat = 0
        while True:
            await asyncio.sleep(FRAMES_EVERY_S)
            beat += 1
            viewers = list(self.viewers.values())
            for viewer in viewers:
                rows = self.reports.rows(viewer)
                if rows:
                    viewer.send({"type": "frames", "rows": rows}, droppable=True)
            if beat % STATS_EVERY == 0 and self.reports.clock is not None:
                self.reports.beat(viewers)
                for viewer in viewers:
                    figures = self.reports.figures(viewer, self._sink, len(viewers))
                    viewer.send(figures, droppable=True)

    def stats(self) -> dict[str, Any]:
        """The session's part of `/stats`. Whoever reads that may not join by it: the id is cut."""
        about = {"id": self.id[:6], "status": self._status, "over": self.over}
        if not self.ready.done():
            return about
        return {**about, **self.reports.snapshot(list(self.viewers.values()), self._sink)}

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


def _notice(level: str, text: str) -> dict[str, Any]:
    return {"type": "notice", "level": level, "text": text}


def _sentence(error: BaseException) -> str:
    """An error's text as a sentence: a capital first, a stop last."""
    text = str(error).strip() or type(error).__name__
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
