"""What crosses the engine's boundary: plain data in, frame slots out.

Nothing here holds a tensor, a lock or a reference into either side, so the engine can move to its
own process without a change to its callers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tick:
    """One due frame. Times are `time.monotonic_ns()` values, except `t`."""

    index: int  # frame number since the clock's origin; skipped frames are counted in it
    t: float  # presentation time, seconds since the session began
    pts: int  # the same on the 90 kHz clock of video RTP
    deadline_ns: int  # when the frame is due to be sampled


@dataclass(frozen=True)
class Look:
    """Everything that decides a picture except the time. Equal looks share identities."""

    model: str = "default"
    seed: int = 0
    psi: float = 0.7
    blend_seed: int | None = None  # on the way from the start to this one
    blend: float = 0.0  # 0: the start, 1: `blend_seed`
    # The start is `seed`; or, if that change overtook an earlier one, these (seed, weight) mixed in
    # order. Weights are positive and sum to 1.
    mix: tuple[tuple[int, float], ...] = ()
    motion_seed: int = 0
    resolution: int = 256  # side of the picture sent, pixels


@dataclass(frozen=True)
class RenderRequest:
    """Ask for the picture of `look` at `motion_t`, due at `tick`."""

    session: str  # whose frame slots receive it
    tick: Tick
    look: Look
    motion_t: float  # seconds of motion time; differs from tick.t by speed, scrub and pause
    barcode: bool = False  # draw tick.index into the top rows of the luma plane
