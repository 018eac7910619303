"""A continuous walk in W: motion for generators of still images.

Random points of W stand at the knots of a uniform cubic B-spline; the walk is the spline as a
function of time. It is twice continuously differentiable, so neither position nor speed nor
acceleration ever jumps; its spectrum falls off with the fourth power of a sinc whose first zero is
at `speed` hertz, so it holds nothing fast. Each knot is a pure function of (seed, knot index): any
time, in any order, costs at most four mapped knots, and a walk keeps a bounded number of them.

    s = t * speed,  dw(t) = radius * sum_k beta(s - k) (w_k - w_avg) / sqrt(sum_k beta(s - k)^2)

The division undoes the averaging: a cubic B-spline of independent knots has 0.46 .. 0.5 of their
variance. It is smooth itself (beta^2 is C2), so with radius 1 `dw` has, at **every** time, the
covariance that `w - w_avg` has over seeds, provided that `w_avg` is the mean of w (it is in trained
models; a mean that is off by m adds 1.4 m to every dw).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.contracts import MotionCode
from models.errors import BadConfig
from models.noise import Domain, normals

_REACH = 4  # knots that a cubic B-spline sees at any time
_KEPT = 4 * _REACH  # knots remembered: enough for play, reverse play and a short loop

Mapping = Callable[[Tensor], Tensor]  # z [1, z_dim] float32 on the CPU -> w [1, w_dim]


class Walk:
    """Motion source with codes `dw` [1, w_dim], to be added to every row of `w`.

    Args:
        mapping: From `z` [1, z_dim] (float32, on the CPU) to `w` [1, w_dim] on any device. Always
            called with one row, so that a knot's value never depends on its company.
        w_avg: [w_dim], the centre of W.
        z_dim: Entries of z.
        seed: 0 .. 2^64 - 1.
        speed: Knots per second; 0 stands still, negative walks backwards.
        radius: Spread of `dw` in units of the spread of w; 0 stands still.
        loop: Number of knots after which the walk repeats exactly (4 or more), or None.
    Raises:
        BadConfig: A setting is out of range.
    """

    def __init__(
        self,
        mapping: Mapping,
        w_avg: Tensor,
        z_dim: int,
        *,
        seed: int,
        speed: float = 0.5,
        radius: float = 0.5,
        loop: int | None = None,
    ) -> None:
        if not 0 <= seed < 1 << 64:
            raise BadConfig(f"seed is {seed}; it must be between 0 and 2^64 - 1")
        if not _is_number(speed):
            raise BadConfig(f"speed is {speed!r}; it must be a finite number of knots per second")
        if not (_is_number(radius) and radius >= 0):
            raise BadConfig(f"radius is {radius!r}; it must be a finite number, 0 or more")
        if loop is not None and not (isinstance(loop, int) and loop >= _REACH):
            raise BadConfig(
                f"loop is {loop!r}; it must be a whole number of knots, {_REACH} or more"
            )
        self.seed, self.speed, self.radius, self.loop = seed, float(speed), float(radius), loop
        self._mapping = mapping
        self._centre = w_avg.detach().to("cpu", torch.float64).numpy()
        self._z_dim = z_dim
        self._knots: OrderedDict[int, npt.NDArray[np.float64]] = OrderedDict()

    def sample(self, t: float) -> MotionCode:
        """Motion code at time `t`.

        Args:
            t: Seconds, in any order, negative too.
        Returns:
            `dw`: [1, w_dim] float32 on the CPU; it is small, and whoever draws moves it.
        Raises:
            BadConfig: `t` is not finite, or beyond 2^63 knots.
        """
        position = float(t) * self.speed
        if not math.isfinite(position):
            raise BadConfig(f"t is {t} s; it must be finite")
        first = math.floor(position)
        weights = _basis(position - first)
        weights *= self.radius / math.sqrt(float(weights @ weights))
        around = np.stack([self._knot(first - 1 + i) for i in range(_REACH)])  # [4, w_dim]
        dw = (weights[:, None] * around).sum(axis=0).astype(np.float32)
        return MotionCode({"dw": torch.from_numpy(dw)[None]}, t)

    def _knot(self, index: int) -> npt.NDArray[np.float64]:
        """`w_k - w_avg` [w_dim], from memory where it was used lately."""
        if self.loop is not None:
            index %= self.loop
        knot = self._knots.get(index)
        if knot is None:
            z = torch.from_numpy(normals(self.seed, index, 1, self._z_dim, domain=Domain.WALK))
            with torch.inference_mode():
                w = self._mapping(z)[0].to("cpu", torch.float64).numpy()
            knot = self._knots[index] = w - self._centre
            if len(self._knots) > _KEPT:
                self._knots.popitem(last=False)
        else:
            self._knots.move_to_end(index)
        return knot


def _is_number(value: object) -> bool:
    # Settings come from files too.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _basis(f: float) -> npt.NDArray[np.float64]:
    """Uniform cubic B-spline: weights [4] of the knots -1, 0, 1, 2 at position `f` in [0, 1]."""
    g = 1.0 - f
    return (
        np.array(
            [
                g**3,
                3 * f**3 - 6 * f**2 + 4,
                3 * g**3 - 6 * g**2 + 4,
                f**3,
            ]
        )
        / 6.0
    )
