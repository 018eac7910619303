"""What is behind a person: a gradient, and by amounts a glow, lights out of focus, a room."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.faces.traits import Traits
from models.training.heads.colour import linear_of_oklab
from models.training.heads.noise import Use, draws

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
SIZE = 128  # it is out of focus: larger pictures read it with interpolation
_SHIFT = 0.12  # of the picture, by which the offsets move what is in it
_LIGHTS, _THINGS = 20, 6


def backdrop_of(traits: Traits) -> F32:
    """Linear RGB [SIZE, SIZE, 3]."""
    y, x = (np.mgrid[0:SIZE, 0:SIZE] + 0.5) / SIZE
    a, b = (
        linear_of_oklab(*(traits[f"backdrop_{end}_{part}"] for part in "lab")).astype(np.float64)
        for end in "ab"
    )
    x = x - _SHIFT * traits["backdrop_x"]
    y = y - _SHIFT * traits["backdrop_y"]
    along = (x - 0.5) * traits["backdrop_cos"] + (y - 0.5) * traits["backdrop_sin"]
    mix = np.clip(0.5 + 0.7 * along, 0, 1)[..., None]
    picture = a * (1 - mix) + b * mix
    picture = _glow(picture, a, x, y, traits["backdrop_glow"])
    picture = _room(picture, a, b, x, y, traits["backdrop_room"])
    picture = _bokeh(picture, x, y, traits["backdrop_bokeh"])
    corner = 0.25 * np.hypot(*(np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5))[..., None]
    return (picture * (1 - corner)).astype(np.float32)


def resized(picture: F32, size: int) -> F32:
    """The backdrop [size, size, 3] by linear interpolation."""
    at = np.clip((np.arange(size) + 0.5) * (len(picture) / size) - 0.5, 0, len(picture) - 1.001)
    k = at.astype(int)
    f = (at - k).astype(np.float32)
    rows = picture[k] * (1 - f)[:, None, None] + picture[k + 1] * f[:, None, None]
    f = f[None, :, None]
    return np.ascontiguousarray(rows[:, k] * (1 - f) + rows[:, k + 1] * f, np.float32)


def _glow(picture: F64, a: F64, x: F64, y: F64, amount: float) -> F64:
    """Studio paper that is lit behind the head."""
    away = np.clip(np.hypot(x - 0.5, y - 0.45) * 1.3, 0, 1)[..., None]
    lit = a * (1.2 - 0.75 * away) ** 1.3
    return picture + amount * (lit - picture)


def _bokeh(picture: F64, x: F64, y: F64, amount: float) -> F64:
    """Discs of lights far behind."""
    rng = draws(Use.BACKDROP, 0)
    lights = np.zeros_like(picture)
    for _ in range(_LIGHTS):
        cx, cy, r = rng.random() * 1.2 - 0.1, rng.random() * 0.95 - 0.05, rng.uniform(0.02, 0.075)
        away = np.hypot(x - cx, y - cy)
        disc = np.clip((r - away) / 0.012 + 0.5, 0, 1) * (0.7 + 0.3 * np.clip(away / r, 0, 1))
        colour = np.array([1, rng.uniform(0.55, 0.9), rng.uniform(0.25, 0.8)])
        lights += disc[..., None] * colour * rng.uniform(0.06, 0.30)
    return picture * (1 - 0.45 * amount) + amount * lights


def _room(picture: F64, a: F64, b: F64, x: F64, y: F64, amount: float) -> F64:
    """Wall, window and shelf, all out of focus, in tints of the gradient's two colours."""
    rng = draws(Use.BACKDROP, 1)
    room = picture * 0.85
    for _ in range(_THINGS):
        x0, y0 = rng.uniform(-0.1, 0.9), rng.uniform(-0.1, 0.7)
        w, h = rng.uniform(0.08, 0.4), rng.uniform(0.1, 0.6)
        inside = np.minimum(np.minimum(x - x0, x0 + w - x), np.minimum(y - y0, y0 + h - y))
        cover = 0.75 * np.clip(inside / 0.035 + 0.5, 0, 1)[..., None]
        share, warm = rng.random(), rng.uniform(-0.15, 0.15)
        colour = (a * (1 - share) + b * share) * rng.uniform(0.5, 1.9)
        colour = np.clip(colour * [1 + warm, 1.0, 1 - warm], 0, 0.9)
        room = room * (1 - cover) + colour * cover
    return picture + amount * (room - picture)
