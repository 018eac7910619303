"""Inside the render thread: looks to identities, motion at its time, pixels into slots.

Without asyncio. Everything it remembers is bounded: loaded models, identities,
and per session its motion sources and the looks of the moment.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import cv2
import numpy as np

from models.contracts import Identity, MotionSource, System
from models.errors import ModelError
from realtime.backends import Done, Drawing, Renderer
from realtime.errors import RealtimeError
from realtime.flight import Flight, FrameJob, fail_all
from realtime.loading import LoadedModel, ModelInfo
from realtime.messages import Look
from realtime.test_card import TestCard

LOADED_MODELS = 4  # beyond it the least recently drawn one that is not pinned is dropped
IDENTITIES = 64
JPEG_QUALITY = 85

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """A dictionary of the `size` most recently used entries."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> V:
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)
        return value

    def get_or(self, key: K, make: Callable[[], V]) -> V:
        value = self.get(key)
        return self.put(key, make()) if value is None else value

    def clear(self) -> None:
        self._entries.clear()


IdentityKey = tuple[str, int, float]  # model, seed, psi


@dataclass
class Viewpoint:
    """What the render thread remembers of one session. Never shared with another."""

    sources: Lru[tuple[str, int, int], MotionSource] = field(default_factory=lambda: Lru(4))
    moment: Lru[IdentityKey, Identity] = field(default_factory=lambda: Lru(8))
    model: str = ""  # drawn last


class Painter:
    """Draws requests. All methods but `infos` and `loaded` run in the render thread."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        self._identities: Lru[IdentityKey, Identity] = Lru(IDENTITIES)
        self._cards: Lru[int, TestCard] = Lru(5)  # one per resolution on offer

    @property
    def identities(self) -> int:
        """How many identities are remembered for all sessions."""
        return len(self._identities)

    def infos(self) -> dict[str, ModelInfo]:
        return {name: model.info for name, model in list(self._models.items())}

    def loaded(self, name: str) -> LoadedModel | None:
        return self._models.get(name)

    def add(self, model: LoadedModel, pinned: Set[str]) -> list[LoadedModel]:
        """Take a loaded model in and drop the least recently drawn ones beyond the limit.

        Args:
            pinned: Names that stay, even if they are more than LOADED_MODELS.
        Returns:
            What was dropped: freeing it takes a moment, and is up to the caller.
        """
        self._models[model.info.name] = model
        spare = [n for n in self._models if n not in pinned and n != model.info.name]
        beyond = max(0, len(self._models) - LOADED_MODELS)
        return [self._models.pop(name) for name in spare[:beyond]]

    def clear(self) -> None:
        """Free everything, in the thread that used it."""
        self._models.clear()
        self._identities.clear()
        self._cards.clear()

    def most(self, job: FrameJob) -> int:
        """How many frames like this one may be drawn together."""
        model = self._models.get(job.request.look.model)
        if model is None or model.renderer is None:
            return 1
        return model.renderer.batches(job.request.look.resolution)[-1]

    def paint(self, jobs: Sequence[FrameJob]) -> Iterator[Flight]:
        """Begin to draw jobs of one kind. Those that fail here are resolved; the others come back
        in flights of a size that the renderer draws at once, the largest first.
        """
        try:
            model = self._model(jobs[0].request.look.model)
        except ModelError as error:
            for job in jobs:
                job.fail(error)
            return
        system, renderer = model.system, model.renderer
        begun: list[tuple[FrameJob, Drawing]] = []
        for job in jobs:
            try:
                self._stamp(job, model)
                if system is None:
                    self._draw_card(job)
                else:
                    begun.append((job, self._drawing(job, system)))
            except Exception as error:  # the outer edge of a frame: a model may raise anything
                fail_all([job], error)
            else:
                if system is None:
                    yield Flight([job], Done([None]))
        if renderer is not None:
            yield from _submitted(renderer, begun)

    def _stamp(self, job: FrameJob, model: LoadedModel) -> None:
        frame = job.frame
        frame.stamps["due"] = job.request.tick.deadline_ns
        frame.stamps["sampled"] = time.monotonic_ns()
        job.view.model = frame.model = model.info.name
        frame.trained = model.info.trained

    def _draw_card(self, job: FrameJob) -> None:
        look = job.request.look
        card = self._card(look.resolution)
        card.draw(job.request.motion_t, job.frame.i420, _seed_shown(look))

    def _drawing(self, job: FrameJob, system: System) -> Drawing:
        """Who is seen, and how they move now."""
        look, view = job.request.look, job.view
        source = view.sources.get_or(
            (look.model, look.motion_seed, look.seed),
            lambda: system.motion(seed=look.motion_seed, who=look.seed),
        )
        identity = self._identity(system, look, view)
        return Drawing(identity, source.sample(job.request.motion_t), job.frame.i420)

    def thumbnail(self, name: str, seed: int, psi: float, size: int) -> tuple[bytes, int]:
        """One picture at motion time 0 as JPEG, and the nanoseconds that it took.

        Raises:
            ModelError, FrameBroken: As `paint`.
        """
        begin = time.monotonic_ns()
        model = self._model(name)
        if model.system is None or model.renderer is None:
            i420 = np.empty((size * 3 // 2, size), np.uint8)
            self._card(size).draw(0.0, i420, seed)
            bgr = cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420)
        else:
            identity = model.system.identity(seed=seed, psi=psi)
            motion = model.system.motion(seed=0, who=seed)
            rgb = model.renderer.picture(identity, motion.sample(0.0), size)
            bgr = rgb[..., ::-1]
        done, coded = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
        if not done:
            raise RealtimeError(f"no JPEG could be made of {size}x{size} pixels.")
        return coded.tobytes(), time.monotonic_ns() - begin

    def _model(self, name: str) -> LoadedModel:
        model = self._models.get(name)
        if model is None:
            raise ModelError(f"model {name!r} is not loaded; load it before drawing it.")
        self._models.move_to_end(name)
        return model

    def _card(self, size: int) -> TestCard:
        return self._cards.get_or(size, lambda: TestCard(size))

    def _identity(self, system: System, look: Look, view: Viewpoint) -> Identity:
        """Who is seen: one seed, or the way from a start, which may itself be a mixture, to one."""
        identity = self._of_seed(system, look, look.seed, view)
        if look.mix:
            identity, total = self._of_seed(system, look, look.mix[0][0], view), look.mix[0][1]
            for seed, weight in look.mix[1:]:
                total += weight
                other = self._of_seed(system, look, seed, view)
                identity = system.blend(identity, other, weight / total)
        if look.blend_seed is None:
            return identity
        target = self._of_seed(system, look, look.blend_seed, view)
        return system.blend(identity, target, look.blend)

    def _of_seed(self, system: System, look: Look, seed: int, view: Viewpoint) -> Identity:
        """Remembered for all once it was asked for twice: the values of a ramp never are."""
        key = (look.model, seed, look.psi)
        identity = self._identities.get(key)
        if identity is not None:
            return identity
        identity = view.moment.get(key)
        if identity is not None:
            return self._identities.put(key, identity)
        return view.moment.put(key, system.identity(seed=seed, psi=look.psi))


def _submitted(renderer: Renderer, begun: Sequence[tuple[FrameJob, Drawing]]) -> Iterator[Flight]:
    """Hand drawings of one size over in batches that the renderer takes, the largest first."""
    while begun:
        allowed = renderer.batches(begun[0][1].out.shape[1])
        count = max(n for n in allowed if n <= len(begun))
        together, begun = begun[:count], begun[count:]
        jobs = [job for job, _ in together]
        try:
            pending = renderer.submit([drawing for _, drawing in together])
        except Exception as error:  # the outer edge of these frames, as above
            fail_all(jobs, error)
        else:
            yield Flight(jobs, pending, renderer.asynchronous)


def _seed_shown(look: Look) -> int:
    """The seed that weighs more: the test card cannot blend."""
    return look.blend_seed if look.blend_seed is not None and look.blend >= 0.5 else look.seed
