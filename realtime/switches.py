"""Model and resolution of a session: the engine first, the picture after. One owner for both.

What the session begins with goes the same way as every later wish, so that no two loads of one
session can overtake each other.
"""

from __future__ import annotations

import asyncio
from typing import Any, Never, Protocol

from models.errors import ModelError
from realtime.controls import ControlChange, LiveControls, change_of
from realtime.engine import Engine
from realtime.errors import RealtimeError
from realtime.mailbox import Mailbox

SWITCHED = ("model", "resolution")  # controls that need the engine first


class Host(Protocol):
    """What switching needs of its session. None of these waits."""

    def now(self) -> float:
        """Presentation time, seconds."""

    def broadcast(self, message: dict[str, Any]) -> bool:
        """Tell every page; says whether any could be told."""

    def changed(self) -> None:
        """The controls are not what they were."""


class Switches:
    """Run `run` in a task; `ready` is set once what the session begins with can be drawn.

    Args:
        session: Its id in the engine.
        live: The session's controls; of these, only `SWITCHED` are changed here.
        fallback: The model to show when the first one cannot be loaded.
    """

    def __init__(
        self, session: str, engine: Engine, live: LiveControls, fallback: str, host: Host
    ) -> None:
        self.ready = asyncio.Event()
        self.status = ""  # what newcomers are told: that a model is warming up
        self._session, self._engine, self._live = session, engine, live
        self._fallback, self._host = fallback, host
        self._wanted: Mailbox[ControlChange] = Mailbox()
        self._busy = True  # a switch is on its way, at first the first
        self._untold = ""  # what went wrong while nobody was there to be told

    def ask(self, change: ControlChange) -> None:
        """Wish for a model or a resolution. Wishes that wait are joined; the last of each wins."""
        same = change.apply(self._live.controls) == self._live.controls
        if same and not self._busy and not len(self._wanted):
            return
        waiting = self._wanted.get_nowait()
        self._wanted.put(change_of({**(waiting.values if waiting else {}), **change.values}))

    def news(self) -> list[dict[str, Any]]:
        """What a page that has just come must be told."""
        untold, self._untold = self._untold, ""
        said = [notice("error", untold)] if untold else []
        return [*said, notice("info", self.status)] if self.status else said

    async def run(self) -> Never:
        """Do what is asked for, one after the other.

        Raises:
            ModelError, RealtimeError: Not even the fallback can be drawn.
        """
        controls = self._live.controls
        wanted = change_of({name: getattr(controls, name) for name in SWITCHED})
        await self._switch(wanted, first=True)
        self.ready.set()
        while True:
            await self._switch(await self._wanted.get())

    async def _switch(self, wanted: ControlChange, *, first: bool = False) -> None:
        old = self._live.controls
        new = wanted.apply(old)
        if new == old and not first:
            return
        self._busy = True
        if self._engine.info(new.model) is None:
            goes_on = "." if first else "; the stream goes on."
            self.status = f"Warming up {new.model} at {new.resolution} px{goes_on}"
            self._host.broadcast(notice("info", self.status))
        try:
            await self._engine.load(new.model, new.resolution)
            await self._engine.open(self._session, new.resolution, model=new.model)
        except (ModelError, RealtimeError) as error:
            if not first:
                self._regret(f"{sentence(error)} {old.model} at {old.resolution} px stays.")
            elif new.model == self._fallback:
                raise
            else:
                await self._fall_back(new.resolution, error)
        else:
            self._live.apply(wanted, self._host.now())
            if self.status:
                self._host.broadcast(notice("info", f"{new.model} is warm and shown now."))
        finally:
            self.status, self._busy = "", False
        self._host.changed()

    async def _fall_back(self, resolution: int, error: Exception) -> None:
        await self._engine.load(self._fallback, resolution)
        await self._engine.open(self._session, resolution, model=self._fallback)
        self._live.apply(change_of({"model": self._fallback}), self._host.now())
        self._regret(f"{sentence(error)} {self._fallback} is shown instead.")

    def _regret(self, text: str) -> None:
        if not self._host.broadcast(notice("error", text)):
            self._untold = text


def notice(level: str, text: str) -> dict[str, Any]:
    return {"type": "notice", "level": level, "text": text}


def sentence(error: BaseException) -> str:
    """An error's text as a sentence: a capital first, a stop last."""
    text = str(error).strip() or type(error).__name__
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
