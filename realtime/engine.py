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
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch

from models.contracts import System
from models.errors import ModelError
from realtime.backends import Backend, FrameBroken, choose
from realtime.config import RenderConfig
from realtime.errors import RealtimeError, SessionClosed
from realtime.flight import FrameJob
from realtime.frame import Frame, FramePool
from realtime.gaps import Gaps
from realtime.loader import Loader
from realtime.loading import TESTCARD, LoadedModel, ModelInfo, load_system, load_test_card
from realtime.messages import RenderRequest
from realtime.painter import Painter, Viewpoint
from realtime.render_thread import RenderThread
from realtime.stats import Window
from realtime.thumbnails import Thumbnails

CLOSE_TIMEOUT_S = 10.0
log = logging.getLogger(__name__)


class NoFreeSlot(RealtimeError):
    """Every slot of the session is still held by a sink: the frame is dropped, not waited for."""


@dataclass
class _Session:
    pools: dict[int, FramePool]  # by resolution: the one in use, then those to come
    view: Viewpoint = field(default_factory=Viewpoint)
    model: str = ""  # what it is about to show, or shows


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
        backend: What draws; what `config` asks for by default.
    Raises:
        BackendUnavailable: On entering, if `config.backend` cannot run here.
    """

    def __init__(
        self,
        config: RenderConfig,
        *,
        load: Callable[[str], System] | None = None,
        names: Sequence[str] | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.config = config
        self.threads = config.threads or max(1, _cores() - 1)
        self._load_model = load or _registry_load
        self._names = list(names) if names is not None else _registry_names()
        if config.model not in self._names:
            self._names.insert(0, config.model)
        if TESTCARD not in self._names:
            self._names.append(TESTCARD)
        self._given_backend = backend
        self._painter = Painter()
        self._sessions: dict[str, _Session] = {}
        self._closed = True
        self._render_ms = Window()
        self._frames = self._broken = self._no_slot = 0
        self._pinning = threading.Lock()  # what is pinned does not change while models are dropped
        self._asked: Counter[str] = Counter()  # by those who load them just now
        self._gaps = Gaps()

    async def __aenter__(self) -> Self:
        config = self.config
        self._backend: Backend = self._given_backend or choose(
            config.backend, config.device, config.precision
        )
        self._render = RenderThread(
            self._painter.paint, self._painter.most, lambda: torch.set_num_threads(self.threads)
        )
        self._loader: Loader[ModelInfo] = Loader(lambda: torch.set_num_threads(1))
        self._cards: Loader[ModelInfo] = Loader(lambda: None)
        self._thumbnails = Thumbnails(self._gaps, self.info, self._draw_thumbnail)
        self._closed = False
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._closed = True
        self._thumbnails.look_again()
        for session in list(self._sessions):
            await self.close(session)
        self._loader.close()
        self._cards.close()
        freed = self._render.close(self._painter.clear)
        try:
            await asyncio.wait_for(asyncio.wrap_future(freed), CLOSE_TIMEOUT_S)
            self._render.join()  # at once: that was the last thing it did
        except TimeoutError:
            log.warning("the render thread did not finish its frame in %g s.", CLOSE_TIMEOUT_S)
            self._render.join(0)

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

        Returns at once if it is loaded. Who asks for the same model shares one load; cancelling
        leaves the loader to finish by itself. The model stays until `open` can say who shows it,
        if that is called next.

        Raises:
            ModelError: It does not exist, is damaged or draws nothing; one sentence.
            SessionClosed: The engine was closed meanwhile.
        """
        self._check_open()
        with self._pinned_meanwhile(model):
            if model == TESTCARD:  # milliseconds per size, and not behind models that take seconds
                card = self._cards.submit(str(resolution), lambda: self._load_card(resolution))
                return await _shared(card)
            known = self.info(model)
            if known is None:
                job = self._loader.submit(model, lambda: self._load(model, resolution))
                known = await _shared(job)
            if self._is_ready(model, resolution):
                return known
            # Loaded for another size, by this load or an earlier one.
            more = f"{model} at {resolution}"
            return await _shared(self._loader.submit(more, lambda: self._warm(model, resolution)))

    @contextmanager
    def _pinned_meanwhile(self, model: str) -> Iterator[None]:
        """Until the caller's next step is over, so that `open` can follow."""
        with self._pinning:
            self._asked[model] += 1
        try:
            yield
        finally:
            asyncio.get_running_loop().call_soon(self._unpin, model)

    def _unpin(self, model: str) -> None:
        with self._pinning:
            self._asked[model] -= 1
            self._asked += Counter()  # drops the zeros

    def _load(self, model: str, resolution: int) -> ModelInfo:
        """In the loader thread."""
        loaded = load_system(model, self._system, self._backend, resolution, self._check_open)
        self._check_open()
        self._render.call(self._adopt, loaded).result()
        return loaded.info

    def _is_ready(self, model: str, resolution: int) -> bool:
        loaded = self._painter.loaded(model)
        return loaded is None or loaded.renderer is None or loaded.renderer.ready(resolution)

    def _warm(self, model: str, resolution: int) -> ModelInfo:
        """In the loader thread: a loaded model for one more size."""
        loaded = self._painter.loaded(model)
        if loaded is None or loaded.renderer is None:
            raise ModelError(f"model {model!r} was dropped while it was prepared; choose it again.")
        loaded.renderer.warm(resolution)
        self._check_open()
        now = dataclasses.replace(
            loaded.info, backend=loaded.renderer.backend, backend_why=loaded.renderer.why
        )
        if now != loaded.info:  # it could not go on as before
            self._render.call(self._adopt, dataclasses.replace(loaded, info=now)).result()
        return now

    def _load_card(self, resolution: int) -> ModelInfo:
        """In the thread of the test cards; again for each size."""
        loaded = load_test_card(resolution)
        self._check_open()
        known = self.info(TESTCARD)
        if known is None:
            self._render.call(self._adopt, loaded).result()
        return known or loaded.info

    def _system(self, model: str) -> System:
        """The configured file under its shown name, anything else as the registry knows it."""
        from_file = self.config.path and model == self.config.model
        return self._load_model(self.config.path if from_file else model)

    def _adopt(self, loaded: LoadedModel) -> None:
        """In the render thread: from the next frame on the model can be drawn."""
        with self._pinning:
            sessions = list(self._sessions.values())
            shown = {name for s in sessions for name in (s.model, s.view.model)}
            dropped = self._painter.add(loaded, {self.config.model, *self._asked, *shown})
        del dropped  # outside of the lock: that frees their memory
        # Parts of torch keep one number of threads for the whole process, and the loader has just
        # said its own: say ours again.
        torch.set_num_threads(self.threads)

    async def open(self, session: str, resolution: int, *, model: str = "") -> None:
        """Give `session` its frame slots of this size; again for a further size, before a switch.

        The old size's slots are given up with the first frame of the new size.

        Args:
            model: What it will show: once loaded it stays loaded, and so does what is shown now.
        """
        self._check_open()
        with self._pinning:
            state = self._sessions.setdefault(session, _Session({}))
            state.model = model or state.model
        pool = state.pools.pop(resolution, None)
        # The newest is last: drawing at its size is what ends the others.
        state.pools[resolution] = pool or FramePool(resolution, resolution, self.config.slots)

    async def close(self, session: str) -> None:
        """Give up the session's slots and all that is remembered of it. Does nothing twice."""
        state = self._sessions.pop(session, None)
        self._gaps.forget(session)
        if state is not None:
            for pool in state.pools.values():
                pool.close()

    async def render(
        self, request: RenderRequest, deliver: Callable[[Frame], bool] | None = None
    ) -> Frame:
        """Draw one frame in the render thread. The caller owns one count of it.

        Cancelling gives the slot back as soon as the thread has done with it.

        Args:
            deliver: Gets the frame the moment it is finished, in the thread that finished it: what
                need not wait for the event loop does not. Says whether it was taken; what it raises
                is raised here.
        Raises:
            NoFreeSlot: The sinks hold every slot; drop the frame.
            FrameBroken: The model failed on this frame; show the last one again.
            ModelError: The model is not loaded.
            SessionClosed: The session is not open.
        """
        self._check_open()
        session = self._sessions.get(request.session)
        if session is None:
            raise SessionClosed(f"session {request.session[:6]!r} is not open in the engine.")
        frame = self._slot(session, request)
        job = FrameJob(request, frame, session.view, deliver)
        self._gaps.begun()
        try:
            self._render.draw(job)
            await asyncio.wrap_future(job.future)
        except BaseException as error:
            # It may still be drawn into the slot, which goes back when that has ended.
            if job.future.cancel():
                self._render.forget(job)
            job.future.add_done_callback(lambda _: frame.release())
            self._broken += isinstance(error, FrameBroken)
            raise
        finally:
            self._gaps.ended(request.session, request.tick)
            if request.session not in self._sessions:  # closed meanwhile
                self._gaps.forget(request.session)
            self._thumbnails.look_again()
        self._frames += 1
        self._render_ms.add((frame.stamps["rendered"] - frame.stamps["sampled"]) / 1e6)
        return frame

    def _slot(self, session: _Session, request: RenderRequest) -> Frame:
        size = request.look.resolution
        pool = session.pools.get(size)
        if pool is None:
            raise RealtimeError(
                f"session {request.session[:6]!r} has no slots of {size}x{size}; "
                "open that size first."
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

    async def thumbnail(self, model: str, seed: int, size: int = 64, psi: float = 0.7) -> bytes:
        """A small picture of `seed` as JPEG, made between frames where there is room.

        Looking at a menu loads nothing: only models that are loaded have thumbnails.

        Raises:
            SignalingError: 409 `not_loaded`.
            FrameBroken: The model drew nothing.
            OverCapacity: Too many are being waited for.
            SessionClosed: The engine is closed.
        """
        self._check_open()
        return await self._thumbnails.get(model, seed, psi, size)

    async def _draw_thumbnail(
        self, model: str, seed: int, psi: float, size: int
    ) -> tuple[bytes, int]:
        self._check_open()
        job = self._render.call(self._painter.thumbnail, model, seed, psi, size)
        return await asyncio.wrap_future(job)

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
            "in_flight": self._gaps.in_flight,
            "render_ms": self._render_ms.summary(),
            "batches": self._render.batches,
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


async def _shared(job: Future[ModelInfo]) -> ModelInfo:
    """Shielded, since others may wait for it too."""
    return await asyncio.shield(asyncio.wrap_future(job))


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
