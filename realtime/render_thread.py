"""Inside the render thread: looks to identities, motion at its time, pixels into a slot.

Synchronous, and without asyncio. Everything it remembers is bounded: loaded models, identities,
and per session its motion sources and the looks of the moment.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Set
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import cv2
import numpy as np

from models.contracts import Identity, MotionSource, System
from models.errors import ModelError
from realtime import barcode
from realtime.backends import Backend, FrameBroken, Renderer
from realtime.errors import RealtimeError, SessionClosed
from realtime.frame import Frame
from realtime.messages import Look, RenderRequest
from realtime.test_card import TestCard

TESTCARD = "testcard"
LOADED_MODELS = 4  # beyond it the least recently drawn one that is not pinned is dropped
IDENTITIES = 64
JPEG_QUALITY = 85
WARM_UP_FRAMES = 3  # the first allocates and plans, the second still fills caches

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a loaded model."""

    name: str
    trained: bool
    resolution: int  # its own; 0 if it draws at any
    parameters: int
    backend: str
    warmup_ms: float


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to draw. `system` and `renderer` are None for the test card."""

    info: ModelInfo
    system: System | None = None
    renderer: Renderer | None = None


IdentityKey = tuple[str, int, float]  # model, seed, psi


@dataclass
class Viewpoint:
    """What the render thread remembers of one session. Never shared with another."""

    sources: Lru[tuple[str, int, int], MotionSource] = field(default_factory=lambda: Lru(4))
    moment: Lru[IdentityKey, Identity] = field(default_factory=lambda: Lru(8))
    model: str = ""  # drawn last


def load_test_card(resolution: int) -> LoadedModel:
    """The built-in picture, with its texture for this size ready."""
    begin = time.monotonic_ns()
    TestCard(resolution)
    warmup_ms = (time.monotonic_ns() - begin) / 1e6
    return LoadedModel(ModelInfo(TESTCARD, True, 0, 0, "numpy", warmup_ms))


def load_system(
    name: str,
    load: Callable[[str], System],
    backend: Backend,
    resolution: int,
    check: Callable[[], None] = lambda: None,
) -> LoadedModel:
    """Build and warm up a model: what it draws is finite and the next frame is as fast as any.

    Args:
        check: Called between the stages; what it raises ends the work and is raised.
    Raises:
        ModelError: It cannot be built, has no motion of its own, or draws no picture.
    """
    try:
        system = load(name)
        check()
        begin = time.monotonic_ns()
        renderer = backend.prepare(system.synthesizer)
        check()
        out = np.empty((resolution * 3 // 2, resolution), np.uint8)
        identity, source = system.identity(seed=0, psi=0.7), system.motion(seed=0)
        for k in range(WARM_UP_FRAMES):
            renderer.render(identity, source.sample(k / 25), out)
            check()
        warmup_ms = (time.monotonic_ns() - begin) / 1e6
    except (ModelError, SessionClosed):
        raise
    except Exception as error:  # the outer edge of the loader's job: whatever a model's code raises
        log.exception("loading %r", name)
        raise ModelError(
            f"model {name!r} could not be loaded ({type(error).__name__}: {error}); choose another."
        ) from error
    parameters = sum(p.numel() for p in system.synthesizer.parameters())
    info = ModelInfo(name, system.trained, system.resolution, parameters, backend.name, warmup_ms)
    return LoadedModel(info, system, renderer)


class Painter:
    """Draws requests. All methods but `infos` run in the render thread."""

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

    def paint(self, request: RenderRequest, frame: Frame, view: Viewpoint) -> None:
        """Draw `request` into `frame` and stamp it.

        Raises:
            ModelError: The model is not loaded.
            FrameBroken: It drew no picture, or its code failed.
        """
        frame.stamps["due"] = request.tick.deadline_ns
        frame.stamps["sampled"] = time.monotonic_ns()
        look = request.look
        model = self._model(look.model)
        view.model = frame.model = look.model
        frame.trained = model.info.trained
        if model.system is None or model.renderer is None:
            self._card(look.resolution).draw(request.motion_t, frame.i420, _seed_shown(look))
        else:
            self._draw(model.system, model.renderer, request, frame, view)
        if request.barcode:
            barcode.stamp(frame.planes[0], request.tick.index)
        frame.stamps["rendered"] = time.monotonic_ns()

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

    def _draw(
        self,
        system: System,
        renderer: Renderer,
        request: RenderRequest,
        frame: Frame,
        view: Viewpoint,
    ) -> None:
        look = request.look
        try:
            source = view.sources.get_or(
                (look.model, look.motion_seed, look.seed),
                lambda: system.motion(seed=look.motion_seed, who=look.seed),
            )
            identity = self._identity(system, look, view)
            renderer.render(identity, source.sample(request.motion_t), frame.i420)
        except FrameBroken:
            raise
        except Exception as error:  # the outer edge of a frame: a model's code may raise anything
            raise FrameBroken(f"drawing failed ({type(error).__name__}: {error}).") from error

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


def _seed_shown(look: Look) -> int:
    """The seed that weighs more: the test card cannot blend."""
    return look.blend_seed if look.blend_seed is not None and look.blend >= 0.5 else look.seed
