"""From a name to a model that draws its next frame as fast as any."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.contracts import System
from models.errors import ModelError
from realtime.backends import Backend, Renderer
from realtime.errors import SessionClosed
from realtime.test_card import TestCard

TESTCARD = "testcard"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a loaded model."""

    name: str
    trained: bool
    resolution: int  # its own; 0 if it draws at any
    parameters: int
    backend: str  # what draws it, after any fall-back
    warmup_ms: float
    frame_ms: float = 0.0  # the last picture of the warm-up
    backend_why: str = ""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to draw. `system` and `renderer` are None for the test card."""

    info: ModelInfo
    system: System | None = None
    renderer: Renderer | None = None


def load_test_card(resolution: int) -> LoadedModel:
    """The built-in picture, with its texture for this size ready."""
    begin = time.monotonic_ns()
    TestCard(resolution)
    warmup_ms = (time.monotonic_ns() - begin) / 1e6
    why = "the test card is computed, by no network"
    return LoadedModel(ModelInfo(TESTCARD, True, 0, 0, "numpy", warmup_ms, warmup_ms, why))


def load_system(
    name: str,
    load: Callable[[str], System],
    backend: Backend,
    resolution: int,
    check: Callable[[], None] = lambda: None,
) -> LoadedModel:
    """Build and warm up a model: what it draws is finite and the next frame is as fast as any.

    Args:
        check: Called between the stages and while another process is waited for; what it raises
            ends the work and is raised.
    Raises:
        ModelError: It cannot be built, has no motion of its own, or draws no picture.
    """
    try:
        system = load(name)
        check()
        begin = time.monotonic_ns()
        renderer = backend.prepare(system.synthesizer, check)
        check()
        renderer.warm(resolution)
        check()
        frame_ms = _warm_up(system, renderer, resolution, check)
        warmup_ms = (time.monotonic_ns() - begin) / 1e6
    except (ModelError, SessionClosed):
        raise
    except Exception as error:  # the outer edge of the loader's job: whatever a model's code raises
        log.exception("loading %r", name)
        raise ModelError(
            f"model {name!r} could not be loaded ({type(error).__name__}: {error}); choose another."
        ) from error
    info = ModelInfo(
        name,
        system.trained,
        system.resolution,
        sum(p.numel() for p in system.synthesizer.parameters()),
        renderer.backend,
        warmup_ms,
        frame_ms,
        renderer.why,
    )
    return LoadedModel(info, system, renderer)


def _warm_up(
    system: System, renderer: Renderer, resolution: int, check: Callable[[], None]
) -> float:
    """Draw two pictures: the first allocates and plans. Returns the ms of the second."""
    out = np.empty((resolution * 3 // 2, resolution), np.uint8)
    identity, source = system.identity(seed=0, psi=0.7), system.motion(seed=0)
    begin = 0
    for k in range(2):
        begin = time.monotonic_ns()
        renderer.render(identity, source.sample(k / 25), out)
        check()
    return (time.monotonic_ns() - begin) / 1e6
