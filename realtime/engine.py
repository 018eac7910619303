"""The engine: plain requests in, frame slots out. Owns the render thread, models and slots.

All drawing happens in one thread. Models are built and warmed up in a second one, so the stream
goes on meanwhile. Nothing waits for a slot, and nothing grows: slots are a fixed number per
session, models, identities and thumbnails are bounded caches, and waiting thumbnails are counted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import torch

from models.contracts import System
from realtime.backends import Backend, FrameBroken, choose
from realtime.config import RenderConfig
from realtime.errors import OverCapacity, RealtimeError, SessionClosed
from realtime.frame import Frame, FramePool
from realtime.messages import RenderRequest
from realtime.render_thread import (
    TESTCARD,
    LoadedModel,
    ModelInfo,
    Painter,
    Recent,
    Viewpoint,
    load_system,
    load_test_card,
)
from realtime.stats import Window

THUMBNAILS = 256  # kept
WAITING_THUMBNAILS = 64
THUMBNAIL_PATIENCE_S = 0.4  # after so long a thumbnail may cost a frame, at most one so often
IDLE_S = 0.25  # no frame for so long: nobody is waiting for the next one
CLOSE_TIMEOUT_S = 10.0
log = logging.getLogger(__name__)


class NoFreeSlot(RealtimeError):
    """Every slot of the session is still held by a sink: the frame is dropped, not waited for."""


@dataclass
class _Session:
    pools: dict[int, FramePool]  # by resolution: the one in use, then those to come
    view: Viewpoint = field(default_factory=Viewpoint)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Engine:
    """Use as `async with Engine(config) as engine:`.

    Resource handling: leaving ends waiting thumbnails, lets the frame in flight finish and frees
    the models in the thread that used them, within CLOSE_TIMEOUT_S. Error handling: a frame that
    fails raises to whoever asked for it; the engine goes on.

    Args:
        config: What is drawn, and with what.
        load: Builds a system from a name or path; the registry's by default.
        names: The models on offer; the registry's by default. The test card is always added.
    Raises:
        BackendUnavailable: On entering, if `config.backend` cannot run here.
    """

    def __init__(
        self,
        config: RenderConfig,
        *,
        load: Callable[[str], System] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.config = config
        self.threads = config.threads or max(1, _cores() - 1)
        self._load_model = load or _registry_load
        self._names = list(names) if names is not None else _registry_names()
        if config.model not in self._names:
            self._names.insert(0, config.model)
        if TESTCARD not in self._names:
            self._names.append(TESTCARD)
        self._painter = Painter()
        self._sessions: dict[str, _Session] = {}
        self._closed = True
        self._render_ms = Window()
        self._frames = self._broken = self._no_slot = 0
        self._in_flight = 0
        self._last_end_ns = self._last_due_ns = self._interval_ns = 0
        self._thumbnails: Recent[tuple[str, int, int, float], bytes] = Recent(THUMBNAILS)
        self._thumbnail_ns = 0  # what one has cost lately
        self._last_costly_ns = 0  # when a thumbnail was last made at the expense of frames
        self._waiting = 0

    async def __aenter__(self) -> Self:
        self._backend: Backend = choose(self.config.backend, self.config.device)
        self._render_pool = ThreadPoolExecutor(
            1, "stylewire-render", torch.set_num_threads, (self.threads,)
        )
        self._load_pool = ThreadPoolExecutor(1, "stylewire-load", torch.set_num_threads, (1,))
        self._loading = asyncio.Lock()
        self._thumbnailing = asyncio.Lock()
        self._frame_ended = asyncio.Event()
        self._closed = False
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._closed = True
        self._frame_ended.set()
        for session in list(self._sessions):
            await self.close(session)
        self._load_pool.shutdown(wait=False, cancel_futures=True)
        freed = self._render_pool.submit(self._painter.clear)
        self._render_pool.shutdown(wait=False)
        try:
            await asyncio.wait_for(asyncio.wrap_future(freed), CLOSE_TIMEOUT_S)
        except TimeoutError:
            log.warning("the render thread did not finish its frame in %g s.", CLOSE_TIMEOUT_S)

    @property
    def backend(self) -> Backend:
        """What draws, and why it was chosen."""
        return self._backend

    def models(self) -> list[str]:
        """Names that `load` takes from anyone; the one configured comes from the operator."""
        return list(self._names)

    def info(self, model: str) -> ModelInfo | None:
        """What is known of `model`, or None while it is not loaded."""
        return self._painter.infos().get(model)

    async def load(self, model: str, resolution: int) -> ModelInfo:
        """Build and warm up `model` for pictures of `resolution`, beside the running stream.

        Returns at once if it is loaded. Cancelling leaves the loader to finish by itself.

        Raises:
            ModelError: It does not exist, is damaged or draws nothing; one sentence.
        """
        self._check_open()
        async with self._loading:
            known = self.info(model)
            if known is not None and model != TESTCARD:
                return known
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._load_pool, self._load, model, resolution)

    def _load(self, model: str, resolution: int) -> ModelInfo:
        loaded: LoadedModel
        if model == TESTCARD:
            loaded = load_test_card(resolution)
        else:
            loaded = load_system(model, self._system, self._backend, resolution)
        if self._closed:
            raise SessionClosed("the engine was closed while a model was loading.")
        self._render_pool.submit(self._adopt, loaded).result()
        return loaded.info

    def _system(self, model: str) -> System:
        """The configured file under its shown name, anything else as the registry knows it."""
        from_file = self.config.path and model == self.config.model
        return self._load_model(self.config.path if from_file else model)

    def _adopt(self, loaded: LoadedModel) -> None:
        """In the render thread: from the next frame on the model can be drawn."""
        self._painter.add(loaded, {s.view.model for s in list(self._sessions.values())})
        # Parts of torch keep one number of threads for the whole process, and the loader has just
        # said its own: say ours again.
        torch.set_num_threads(self.threads)

    async def open(self, session: str, resolution: int) -> None:
        """Give `session` its frame slots of this size; again for a further size, before a switch.

        The old size's slots are given up with the first frame of the new size.
        """
        self._check_open()
        state = self._sessions.setdefault(session, _Session({}))
        pool = state.pools.pop(resolution, None)
        # The newest is last: drawing at its size is what ends the others.
        state.pools[resolution] = pool or FramePool(resolution, resolution, self.config.slots)

    async def close(self, session: str) -> None:
        """Give up the session's slots and all that is remembered of it. Does nothing twice."""
        state = self._sessions.pop(session, None)
        if state is not None:
            for pool in state.pools.values():
                pool.close()

    async def render(self, request: RenderRequest) -> Frame:
        """Draw one frame in the render thread. The caller owns one count of it.

        Cancelling gives the slot back as soon as the thread has done with it.

        Raises:
            NoFreeSlot: The sinks hold every slot; drop the frame.
            FrameBroken: The model failed on this frame; show the last one again.
            ModelError: The model is not loaded.
            SessionClosed: The session is not open.
        """
        self._check_open()
        session = self._sessions.get(request.session)
        if session is None:
            raise SessionClosed(f"session {request.session!r} is not open in the engine.")
        frame = self._slot(session, request)
        self._in_flight += 1
        job = self._render_pool.submit(self._painter.paint, request, frame, session.view)
        try:
            await asyncio.wrap_future(job)
        except BaseException as error:
            # The thread may still be drawing into the slot: it goes back when that has ended.
            job.cancel()
            job.add_done_callback(lambda _: frame.release())
            self._broken += isinstance(error, FrameBroken)
            raise
        finally:
            self._in_flight -= 1
            self._note_pace(request)
        self._frames += 1
        self._render_ms.add((frame.stamps["rendered"] - frame.stamps["sampled"]) / 1e6)
        return frame

    def _slot(self, session: _Session, request: RenderRequest) -> Frame:
        size = request.look.resolution
        pool = session.pools.get(size)
        if pool is None:
            raise RealtimeError(
                f"session {request.session!r} has no slots of {size}x{size}; open that size first."
            )
        sizes = list(session.pools)
        if size == sizes[-1]:
            for other in sizes[:-1]:
                session.pools.pop(other).close()
        frame = pool.acquire(request.tick)
        if frame is None:
            self._no_slot += 1
            raise NoFreeSlot(f"all {pool.slots} frame slots are held; a sink does not keep up.")
        return frame

    def _note_pace(self, request: RenderRequest) -> None:
        """Remember when frames come, so that thumbnails can be made between them."""
        due = request.tick.deadline_ns
        self._interval_ns, self._last_due_ns = max(0, due - self._last_due_ns), due
        self._last_end_ns = time.monotonic_ns()
        self._frame_ended.set()

    async def thumbnail(self, model: str, seed: int, size: int = 64, psi: float = 0.7) -> bytes:
        """A small picture of `seed` as JPEG, made between frames where there is room.

        Raises:
            ModelError: The model cannot be loaded.
            FrameBroken: It drew nothing.
            OverCapacity: Too many are being waited for.
        """
        key = (model, seed, size, psi)
        made = self._thumbnails.get(key)
        if made is not None:
            return made
        if self._waiting >= WAITING_THUMBNAILS:
            raise OverCapacity(f"{WAITING_THUMBNAILS} thumbnails are waiting already; ask later.")
        self._waiting += 1
        try:
            async with self._thumbnailing:
                made = self._thumbnails.get(key)
                if made is None:
                    made = await self._make_thumbnail(model, seed, size, psi)
                    self._thumbnails.put(key, made)
                return made
        finally:
            self._waiting -= 1

    async def _make_thumbnail(self, model: str, seed: int, size: int, psi: float) -> bytes:
        await self.load(model, size)
        asked_ns = time.monotonic_ns()
        while not self._room(time.monotonic_ns(), asked_ns):
            self._check_open()
            self._frame_ended.clear()
            try:
                await asyncio.wait_for(self._frame_ended.wait(), IDLE_S)
            except TimeoutError:
                continue
        self._check_open()
        begin = time.monotonic_ns()
        job = self._render_pool.submit(self._painter.thumbnail, model, seed, psi, size)
        made = await asyncio.wrap_future(job)
        cost = time.monotonic_ns() - begin
        self._thumbnail_ns = (self._thumbnail_ns + cost) // 2 if self._thumbnail_ns else cost
        return made

    def _room(self, now_ns: int, asked_ns: int) -> bool:
        """Whether a thumbnail fits before the next frame is due, or has waited long enough."""
        if not self._sessions or now_ns - self._last_end_ns > IDLE_S * 1e9:
            return True
        next_due_ns = self._last_due_ns + self._interval_ns
        if not self._in_flight and now_ns + self._thumbnail_ns < next_due_ns:
            return True
        oldest_ns = max(asked_ns, self._last_costly_ns)
        if now_ns - oldest_ns > THUMBNAIL_PATIENCE_S * 1e9:
            self._last_costly_ns = now_ns
            return True
        return False

    def stats(self) -> dict[str, Any]:
        """Counters and times since the start, plain data."""
        pools = [pool for s in self._sessions.values() for pool in s.pools.values()]
        return {
            "backend": self._backend.name,
            "backend_why": self._backend.why,
            "threads": self.threads,
            "frames": self._frames,
            "broken": self._broken,
            "no_slot": self._no_slot,
            "in_flight": self._in_flight,
            "render_ms": self._render_ms.summary(),
            "sessions": len(self._sessions),
            "slots": sum(pool.slots for pool in pools),
            "slots_free": sum(pool.free for pool in pools),
            "identities": self._painter.identities,
            "thumbnails": len(self._thumbnails),
            "models": [dataclasses.asdict(info) for info in self._painter.infos().values()],
        }

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed("the engine is closed.")


def _registry_load(name: str) -> System:
    from models import registry  # on demand: importing this module stays cheap

    return registry.load_model(resolve(name))


def resolve(name: str) -> str:
    """The shipped model meant by "default": the first one. Any other name is itself."""
    names = _registry_names()
    return names[0] if name == "default" and name not in names and names else name


def _registry_names() -> list[str]:
    from models import registry

    return registry.names()
