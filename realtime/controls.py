"""Controls over time: every change is a movement, an exact function of presentation time.

psi is ramped, a change of seed is a blend in the latent space, speed and scrub go through the
`MotionTimeline`. Nothing here is per frame: asking for a look twice, or not at all, changes
nothing.
"""

from __future__ import annotations

from dataclasses import replace

from realtime.control_schema import (
    SCHEMA,
    ControlChange,
    ControlError,
    Controls,
    KeyframeRequest,
    Limits,
    Message,
    Ping,
    RateLimit,
    change_of,
    parse_change,
    parse_message,
    schema,
)
from realtime.messages import Look
from realtime.timeline import MotionTimeline

__all__ = [
    "SCHEMA",
    "ControlChange",
    "ControlError",
    "Controls",
    "KeyframeRequest",
    "Limits",
    "LiveControls",
    "Message",
    "Ping",
    "Ramp",
    "RateLimit",
    "SeedBlend",
    "change_of",
    "parse_change",
    "parse_message",
    "schema",
]

PSI_RAMP_S = 0.3
BLEND_S = 0.6
MAX_MIX = 4  # seeds in the start of a blend; a change beyond waits for the blend on its way
MIN_WEIGHT = 1e-6  # a seed that weighs less is invisible (2e-6 of the range) and is left out


class Ramp:
    """A number that goes to its target in a straight line, from wherever it is."""

    def __init__(self, value: float) -> None:
        self._from = self._to = value
        self._since = 0.0
        self._duration = 0.0

    @property
    def target(self) -> float:
        return self._to

    def to(self, value: float, t: float, duration_s: float) -> None:
        """From `t` on, reach `value` within `duration_s`."""
        self._from, self._to = self.at(t), value
        self._since, self._duration = t, duration_s

    def at(self, t: float) -> float:
        x = t - self._since
        if x >= self._duration:
            return self._to
        x = max(x, 0.0) / self._duration
        return self._from * (1 - x) + self._to * x


class SeedBlend:
    """The way from one seed to another, also when the next change overtakes the last.

    A change in mid-blend takes the mixture of that moment as its start, so the picture never
    jumps. The mixture holds at most MAX_MIX seeds; a change that would need more waits, the newest
    only, until the blend on its way has arrived.
    """

    def __init__(self, seed: int) -> None:
        self._start: tuple[tuple[int, float], ...] = ((seed, 1.0),)
        self._target: int | None = None
        self._since = 0.0
        self._waiting: int | None = None

    def to(self, seed: int, t: float) -> None:
        self._arrive(t)
        current = self._mix_at(t)
        if self._target is None and current[0][0] == seed:
            return
        if len(current) > MAX_MIX:
            self._waiting = seed
        elif seed != (self._target if self._waiting is None else self._waiting):
            self._begin(current, seed, t)

    def at(self, t: float) -> tuple[tuple[tuple[int, float], ...], int | None, float]:
        """(start as (seed, weight)s, target or None, amount 0..1) at `t`."""
        self._arrive(t)
        return self._start, self._target, self._amount(t)

    def _begin(self, start: tuple[tuple[int, float], ...], seed: int, t: float) -> None:
        self._start, self._target, self._since, self._waiting = start, seed, t, None

    def _arrive(self, t: float) -> None:
        """End what has ended, and begin what waited for it, at the moment it ended."""
        while self._target is not None and t >= self._since + BLEND_S:
            start = ((self._target, 1.0),)
            if self._waiting is None or self._waiting == self._target:
                self._start, self._target, self._waiting = start, None, None
            else:
                self._begin(start, self._waiting, self._since + BLEND_S)

    def _amount(self, t: float) -> float:
        if self._target is None:
            return 0.0
        x = min(max((t - self._since) / BLEND_S, 0.0), 1.0)
        return x * x * (3 - 2 * x)  # at rest at both ends

    def _mix_at(self, t: float) -> tuple[tuple[int, float], ...]:
        """The present mixture as (seed, weight)s, in the order of blending."""
        amount = self._amount(t)
        if self._target is None or amount == 0.0:
            return self._start
        mix = [(seed, weight * (1 - amount)) for seed, weight in self._start]
        mix.append((self._target, amount))
        kept = [(seed, weight) for seed, weight in mix if weight > MIN_WEIGHT]
        total = sum(weight for _, weight in kept)
        return tuple((seed, weight / total) for seed, weight in kept)


class LiveControls:
    """The controls of one session, and what they mean at a presentation time.

    `apply` is called with the presentation time of the change; looks may be asked for from there
    on. A change of model or resolution takes effect at once: have the engine load the model and
    open the size first.
    """

    def __init__(self, controls: Controls | None = None, *, motion_seed: int = 0) -> None:
        initial = controls or Controls()
        self._controls = replace(initial, scrub=None)
        self._motion_seed = motion_seed
        self._psi = Ramp(self._controls.psi)
        self._seed = SeedBlend(self._controls.seed)
        self.timeline = MotionTimeline(initial.scrub or 0.0, initial.speed)
        if self._controls.pause:
            self.timeline.pause(0.0, ramp_s=0.0)

    @property
    def controls(self) -> Controls:
        """The values last set; what is seen may still be on its way there."""
        return self._controls

    @property
    def fps(self) -> float:
        return self._controls.fps

    def apply(self, change: ControlChange, t: float) -> Controls:
        """Make `change` at presentation time `t`; returns the new values."""
        old, self._controls = self._controls, change.apply(self._controls)
        new = self._controls
        if new.psi != old.psi:
            self._psi.to(new.psi, t, PSI_RAMP_S)
        if new.seed != old.seed:
            self._seed.to(new.seed, t)
        if new.speed != old.speed:
            self.timeline.set_speed(new.speed, t)
        if new.pause != old.pause:
            (self.timeline.pause if new.pause else self.timeline.resume)(t)
        scrub = change.values.get("scrub")
        if scrub is not None:
            self.timeline.scrub(scrub, t)
        return new

    def motion_at(self, t: float) -> float:
        """Motion time at presentation time `t`, seconds."""
        return self.timeline.at(t)

    def look_at(self, t: float) -> Look:
        """What the picture of presentation time `t` shows."""
        start, target, amount = self._seed.at(t)
        return Look(
            model=self._controls.model,
            seed=start[0][0],
            psi=self._psi.at(t),
            blend_seed=target,
            blend=amount,
            motion_seed=self._motion_seed,
            resolution=self._controls.resolution,
            mix=start if len(start) > 1 else (),
        )
