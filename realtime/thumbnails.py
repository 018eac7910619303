"""Small still pictures for the page's menu, made between frames where there is room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from realtime.errors import OverCapacity, SignalingError
from realtime.gaps import IDLE_S, Gaps
from realtime.loading import ModelInfo
from realtime.painter import Lru

KEPT = 256
WAITING = 64
COSTS_KEPT = 16

Draw = Callable[[str, int, float, int], Awaitable[tuple[bytes, int]]]  # -> JPEG, nanoseconds


class Thumbnails:
    """Made one at a time, remembered, and bounded in number, also those that wait.

    Args:
        gaps: When frames come.
        info: What is known of a model, or None while it is not loaded.
        draw: Draws (model, seed, psi, size) in the render thread; raises once that is closed.
    """

    def __init__(self, gaps: Gaps, info: Callable[[str], ModelInfo | None], draw: Draw) -> None:
        self._gaps, self._info, self._draw = gaps, info, draw
        self._made: Lru[tuple[str, int, float, int], bytes] = Lru(KEPT)
        self._cost_ns: Lru[str, float] = Lru(COSTS_KEPT)  # what one of a model has cost lately
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._waiting = 0

    def __len__(self) -> int:
        return len(self._made)

    def look_again(self) -> None:
        """A frame has ended, or everything has."""
        self._changed.set()

    async def get(self, model: str, seed: int, psi: float, size: int) -> bytes:
        """A JPEG of size x size pixels.

        Raises:
            SignalingError: 409 `not_loaded`.
            OverCapacity: WAITING are being waited for.
        """
        key = (model, seed, psi, size)
        made = self._made.get(key)
        if made is not None:
            return made
        self._loaded(model)
        if self._waiting >= WAITING:
            raise OverCapacity(f"{WAITING} thumbnails are waiting already; ask later.")
        self._waiting += 1
        try:
            async with self._turn:
                return self._made.get(key) or self._made.put(key, await self._make(*key))
        finally:
            self._waiting -= 1

    def _loaded(self, model: str) -> ModelInfo:
        info = self._info(model)
        if info is None:
            raise SignalingError(
                f"The model {model!r} is not loaded, so it has no thumbnails; choose it first.",
                409,
                "not_loaded",
            )
        return info

    async def _make(self, model: str, seed: int, psi: float, size: int) -> bytes:
        asked_ns = time.monotonic_ns()
        while True:
            info = self._loaded(model)
            # A model's first one costs about what a frame did while it was warmed up.
            cost_ns = self._cost_ns.get(model) or info.frame_ms * 1e6
            if self._gaps.room(cost_ns, asked_ns, time.monotonic_ns()):
                break
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), IDLE_S)
            except TimeoutError:
                continue
        made, took_ns = await self._draw(model, seed, psi, size)
        self._cost_ns.put(model, (cost_ns + took_ns) / 2)
        return made
