"""Motion time as an exact function of presentation time: speed, scrub and pause.

    motion(t) = base(t) + glide(t)

`base` follows the speed, which changes linearly over each ramp, so `base` is piecewise quadratic;
`glide` is the cubic Hermite arc that carries a scrub to its target and then is zero. Both are
evaluated in closed form from the last command, in rationals, and rounded once to float64. Value
and slope are continuous through every command.
"""

from __future__ import annotations

from fractions import Fraction

SPEED_RAMP_S = 0.4
SCRUB_RAMP_S = 0.3
# Anchors are kept on this grid. Its step, 1e-18 s, is far below a float64's at any time that
# matters, and without it the fractions would grow with every command of a long session.
GRID = 1 << 60


def _on_grid(value: Fraction) -> Fraction:
    return Fraction(round(value * GRID), GRID)


class MotionTimeline:
    """Motion time of one session.

    Times are seconds, speeds motion seconds per second; all finite floats. Commands come in the
    order of their `t`; `at` may be asked for any time from the last command on, and answers a time
    shortly before it with the speed of that moment.

    Args:
        start_s: Motion time at presentation time 0.
        speed: 1 is the recorded pace, 0 stands, negative runs backwards.
    """

    def __init__(self, start_s: float = 0.0, speed: float = 1.0) -> None:
        self._wanted = Fraction(speed)
        self._paused = False
        # base: from `_since`, at value `_value`, speed goes from `_from` to `_to` within `_ramp`.
        self._since = Fraction(0)
        self._value = Fraction(start_s)
        self._from = self._to = Fraction(speed)
        self._ramp = Fraction(0)
        # glide: from `_glide_since`, offset and slope decay to zero within `_glide_ramp`.
        self._glide_since = Fraction(0)
        self._glide_offset = self._glide_slope = Fraction(0)
        self._glide_ramp = Fraction(0)

    @property
    def speed(self) -> float:
        """The speed asked for; a pause does not change it."""
        return float(self._wanted)

    @property
    def paused(self) -> bool:
        return self._paused

    def at(self, t: float) -> float:
        """Motion time at presentation time `t`, correctly rounded."""
        exact = Fraction(t)
        return float(self._base(exact)[0] + self._glide(exact)[0])

    def speed_at(self, t: float) -> float:
        """Slope of `at` at `t`, ramps and glide included."""
        exact = Fraction(t)
        return float(self._base(exact)[1] + self._glide(exact)[1])

    def set_speed(self, speed: float, t: float, ramp_s: float = SPEED_RAMP_S) -> None:
        """From `t` on, change to `speed` within `ramp_s`; while paused, on resuming."""
        self._wanted = Fraction(speed)
        if not self._paused:
            self._turn(self._wanted, t, ramp_s)

    def pause(self, t: float, ramp_s: float = SPEED_RAMP_S) -> None:
        """Slow down to a stand within `ramp_s`."""
        if not self._paused:
            self._paused = True
            self._turn(Fraction(0), t, ramp_s)

    def resume(self, t: float, ramp_s: float = SPEED_RAMP_S) -> None:
        """Back to the speed asked for."""
        if self._paused:
            self._paused = False
            self._turn(self._wanted, t, ramp_s)

    def scrub(self, to_s: float, t: float, ramp_s: float = SCRUB_RAMP_S) -> None:
        """Glide to motion time `to_s`, which then goes on at the present speed.

        After `ramp_s` motion time is where it would be had it stood at `to_s` at time `t`.
        A further scrub on the way starts from where the glide is, at its slope.
        """
        exact = Fraction(t)
        base, speed = self._base(exact)
        glide, glide_speed = self._glide(exact)
        self._value += Fraction(to_s) - base
        self._glide_since = exact
        self._glide_offset = _on_grid(base + glide - Fraction(to_s)) if ramp_s > 0 else Fraction(0)
        self._glide_slope = _on_grid(glide_speed) if ramp_s > 0 else Fraction(0)
        self._glide_ramp = Fraction(max(ramp_s, 0.0))
        self._value = _on_grid(self._value)

    def _turn(self, speed: Fraction, t: float, ramp_s: float) -> None:
        exact = Fraction(t)
        value, slope = self._base(exact)
        self._since, self._value = exact, _on_grid(value)
        self._from, self._to, self._ramp = _on_grid(slope), speed, Fraction(max(ramp_s, 0.0))

    def _base(self, t: Fraction) -> tuple[Fraction, Fraction]:
        """Value and slope of the part that follows the speed."""
        dt = t - self._since
        if dt < 0:
            return self._value + self._from * dt, self._from
        if dt < self._ramp:
            bend = (self._to - self._from) / self._ramp
            return self._value + (self._from + bend * dt / 2) * dt, self._from + bend * dt
        mean = (self._from + self._to) / 2
        return self._value + mean * self._ramp + self._to * (dt - self._ramp), self._to

    def _glide(self, t: Fraction) -> tuple[Fraction, Fraction]:
        """Value and slope of the cubic Hermite arc from (offset, slope) to (0, 0)."""
        dt = t - self._glide_since
        if dt >= self._glide_ramp:
            return Fraction(0), Fraction(0)
        x = max(dt, Fraction(0)) / self._glide_ramp
        run = self._glide_slope * self._glide_ramp
        value = self._glide_offset * ((2 * x - 3) * x * x + 1) + run * ((x - 2) * x + 1) * x
        slope = self._glide_offset * 6 * (x - 1) * x + run * ((3 * x - 4) * x + 1)
        return value, slope / self._glide_ramp
