"""The server: admission, all sessions, the engine behind them, and an orderly end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from models.errors import ModelError
from realtime import signaling
from realtime.config import ServerConfig
from realtime.controls import Controls, Limits, parse_change, schema
from realtime.engine import Engine
from realtime.errors import OverCapacity, RealtimeError, SignalingError
from realtime.sdp import Limits as OfferLimits
from realtime.sdp import choose_codec, clean, quote, read_offer
from realtime.session import Session
from realtime.signaling import Answer, OfferRequest
from realtime.stats import process_numbers

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005  # event loop, render and encoder threads share one interpreter lock
ANSWER_S = 8.0  # from a request to its answer, a session's start included
GOODBYE_S = 0.05  # for the channels to send what was said last


class Server:
    """Sessions by their ids. Made by `running`; everything here runs on one event loop.

    Every wait has an end: a peer's, an encoder's and a session's clean-up bring their own timeouts.
    """

    def __init__(self, config: ServerConfig, engine: Engine, group: asyncio.TaskGroup) -> None:
        self.config, self.engine = config, engine
        self.sessions: dict[str, Session] = {}
        self.answered = self.refused = 0  # offers
        self.failed = 0  # sessions ended by an error
        self._group = group
        self._begun = time.monotonic()
        self._stopping = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        stream = config.stream
        self._defaults = Controls(
            model=config.render.model,
            resolution=stream.resolution,
            fps=stream.fps,
            bitrate=stream.bitrate,
        )
        self._offer_limits = OfferLimits(
            config.offer_bytes, config.offer_sections, config.offer_candidates
        )

    @property
    def limits(self) -> Limits:
        """What viewers may set."""
        stream = self.config.stream
        return Limits(
            models=tuple(self.engine.models()),
            bitrate_floor=stream.bitrate_floor,
            bitrate_max=stream.bitrate,
        )

    # ---- what HTTP asks for

    async def answer(self, request: OfferRequest) -> Answer:
        """Answer an offer: begin a session, or join one.

        Raises:
            SignalingError: 4xx for a bad offer, 404 for an unknown session, 503 when full.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._answer(request)
        except SignalingError:
            self.refused += 1
            raise
        except TimeoutError as error:
            self.refused += 1
            raise SignalingError(
                f"No answer within {ANSWER_S:g} s: the machine is too busy; try again.", 503, "slow"
            ) from error
        self.answered += 1
        return answer

    async def _answer(self, request: OfferRequest) -> Answer:
        offer = read_offer(request.sdp, self._offer_limits)
        codec = choose_codec(offer, self.config.stream.codecs, request.codec)
        change = parse_change(dict(request.controls), self.limits)
        if self._stopping:
            raise SignalingError("The server is stopping; connect again later.", 503, "stopping")
        if request.session is None:
            session = await self._begin(change.apply(self._defaults), request.barcode)
        else:
            session = self._session(request.session)
        viewer = session.admit(clean(offer, codec), codec.name)
        if request.session is not None and change:
            session.change(change)
        return Answer(await viewer.answer, session.id, viewer.id)

    async def leave(self, session: str, viewer: str) -> None:
        """End one viewer.

        Raises:
            SignalingError: 404, there is no such session or viewer.
        """
        if not self._session(session).dismiss(viewer):
            raise SignalingError("This viewer has already left.", 404, "no_viewer")

    async def thumbnail(self, model: str, seed: int) -> bytes:
        """A small JPEG of an offered model.

        Raises:
            SignalingError: 404, the model is not offered; 409, it is not loaded, and a small
                picture is no reason to load one.
            ModelError: It cannot be drawn.
        """
        if model not in self.engine.models():
            offered = ", ".join(self.engine.models()[:20])
            raise SignalingError(
                f"The model {quote(model)} is not offered; choose from {offered}.", 404, "no_model"
            )
        return await self.engine.thumbnail(model, seed)

    def schema(self) -> list[dict[str, Any]]:
        """The controls as a page shows them, with this server's defaults."""
        return [
            {**row, "default": getattr(self._defaults, row["name"])} for row in schema(self.limits)
        ]

    def stats(self) -> dict[str, Any]:
        """Everything that can be counted, plain data."""
        return {
            "uptime_s": round(time.monotonic() - self._begun, 1),
            "process": process_numbers(),
            "offers": {"answered": self.answered, "refused": self.refused},
            "failed_sessions": self.failed,
            "engine": self.engine.stats(),
            "viewers": sum(len(session.viewers) for session in self.sessions.values()),
            "sessions": [session.stats() for session in self.sessions.values()],
        }

    # ---- sessions

    def _session(self, session_id: str) -> Session:
        session = self.sessions.get(session_id)
        if session is None or session.over:
            raise SignalingError(
                "There is no such session, or it has ended; begin a new one.", 404, "no_session"
            )
        return session

    async def _begin(self, controls: Controls, barcode: bool) -> Session:
        if len(self.sessions) >= self.config.max_sessions:
            raise OverCapacity(
                f"All {self.config.max_sessions} sessions are in use; close one or try again later."
            )
        session = Session(
            secrets.token_urlsafe(12),
            self.config,
            self.engine,
            controls,
            self.limits,
            self.schema(),
            barcode=barcode,
            drawing=self._drawing,
        )
        self.sessions[session.id] = session
        task = self._group.create_task(self._run(session), name=f"session {session.id[:6]}")
        self._tasks[session.id] = task
        # A callback, since a task that is cancelled before its first step runs no `finally`.
        task.add_done_callback(lambda _: self._ended(session))
        # Shielded: the asker may give up while the session begins, which is not its failure.
        await asyncio.shield(session.ready)
        return session

    def _drawing(self) -> int:
        """How many sessions draw at present: those that somebody watches."""
        return sum(session.is_watched for session in self.sessions.values())

    async def _run(self, session: Session) -> None:
        """The outer edge of a session: whatever went wrong in it ends here."""
        try:
            await session.run()
        except Exception:
            self.failed += 1
            log.exception("session %s failed", session.id[:6])

    def _ended(self, session: Session) -> None:
        del self.sessions[session.id], self._tasks[session.id]
        session.give_up()

    async def stop(self) -> None:
        """Say goodbye and cancel every session; whoever owns the group waits for them."""
        self._stopping = True
        for session in self.sessions.values():
            session.farewell()
        try:
            if self.sessions:
                await asyncio.sleep(GOODBYE_S)
        finally:
            for task in self._tasks.values():
                task.cancel()


@asynccontextmanager
async def running(config: ServerConfig, engine: Engine) -> AsyncIterator[Server]:
    """A server over an open engine.

    Resource handling: leaving, also by an error or by cancellation, ends every session and waits
    for it. Error handling: a session's errors stay in that session.
    """
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        server = Server(config, engine, group)
        try:
            yield server
        except Exception as error:  # the group would wrap it, and callers look for its type
            failure = error
        finally:
            await server.stop()
    if failure is not None:
        raise failure


async def serve(config: ServerConfig, *, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then end in order.

    The default model is loaded and warm before anybody is let in; the port is taken before that, so
    that a taken one is told at once.

    Args:
        ready: Called once with the URL when the page can be opened.
    Raises:
        RealtimeError: The port is taken, or the backend cannot run here; one sentence.
        ModelError: The default model cannot be loaded; one sentence.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _warn_if_open(config.host)
    sock = signaling.bind(config.host, config.port)
    try:
        with _stop_signals() as stop:
            async with Engine(config.render) as engine:
                if not await _loaded(engine, config, stop):
                    return
                async with running(config, engine) as server:
                    async with signaling.listening(server, sock) as url:
                        ready(url)
                        await stop.wait()
                    log.info("stopping")
    finally:
        sock.close()


async def _loaded(engine: Engine, config: ServerConfig, stop: asyncio.Event) -> bool:
    """Load the default model; False, and at once, if the server is to stop before it is warm."""
    try:
        async with asyncio.TaskGroup() as group:
            loading = group.create_task(
                engine.load(config.render.model, config.stream.resolution), name="first model"
            )
            stopping = group.create_task(stop.wait(), name="stop")
            await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
            loading.cancel()
            stopping.cancel()
    except* (ModelError, RealtimeError) as failed:
        reason = failed.exceptions[0]
    else:
        return not stop.is_set()
    raise reason  # alone: callers look for its type


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set. A second signal ends the process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def first() -> None:
        stop.set()
        restore()

    def restore() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    try:
        for number in numbers:
            loop.add_signal_handler(number, first)
    except (NotImplementedError, RuntimeError, ValueError):  # no Unix, or not the main thread
        log.debug("stop signals cannot be handled here; cancel the task instead")
    try:
        yield stop
    finally:
        restore()


def _warn_if_open(host: str) -> None:
    """Say aloud that others can reach the server."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        log.warning(
            "Listening on %s: everyone who can reach this machine can watch, control and load "
            "models, because there is no log-in yet. Use --host 127.0.0.1 unless you trust "
            "the network.",
            host,
        )
