"""`stylewire sample` with a backend: one frame as a stream would have it, as a PNG."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.contracts import Identity, MotionCode, System
from models.sample import Paint
from realtime.backends import choose


def painter(backend: str, device: str, precision: str, say: Callable[[str], None]) -> Paint:
    """Draws by a backend.

    Args:
        backend, device, precision: As `realtime.backends.choose` takes them.
        say: Told what draws, after any fall-back.
    Raises:
        BackendUnavailable: It is unknown, or cannot run on this machine.
    """
    chosen = choose(backend, device, precision)

    def paint(
        system: System, identity: Identity, motion: MotionCode, resolution: int | None
    ) -> np.ndarray:
        renderer = chosen.prepare(system.synthesizer)
        say(f"drawn by {renderer.backend}: {renderer.why}.")
        return renderer.picture(identity, motion, resolution or system.resolution)

    return paint
