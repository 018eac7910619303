"""Things that come between a camera and a face: a hand, a microphone, a mug, a sheet of something.

They are drawn into a finished picture as soft-edged solids with a little light on them. A landmark
behind one is no longer visible, and the mask says `OCCLUDER` there, so that whoever learns from
such pictures is never asked for what cannot be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import BadConfig

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

OCCLUDER = 8  # in the mask


@dataclass(frozen=True)
class Occluder:
    """One thing. Lengths are shares of the picture's side, y down.

    Args:
        kind: One of `KINDS`.
        x, y: Its centre.
        size: About half its length.
        turn: Degrees, clockwise.
        rgb: Its colour, sRGB 0..1.
    """

    kind: str
    x: float
    y: float
    size: float
    turn: float = 0.0
    rgb: tuple[float, float, float] = (0.5, 0.4, 0.35)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadConfig(f"there is no occluder {self.kind!r}; known are {', '.join(KINDS)}")


def _capsule(x: F32, y: F32, a: tuple[float, float], b: tuple[float, float], radius: float) -> F32:
    """Signed distance to a line from a to b with round ends."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    t = (((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy)).clip(0, 1)
    return (np.hypot(x - a[0] - t * dx, y - a[1] - t * dy) - radius).astype(np.float32)


def _box(x: F32, y: F32, half: tuple[float, float], corner: float) -> F32:
    u, v = np.abs(x) - half[0] + corner, np.abs(y) - half[1] + corner
    outside = np.hypot(np.maximum(u, 0), np.maximum(v, 0))
    return (outside + np.minimum(np.maximum(u, v), 0) - corner).astype(np.float32)


def _hand(x: F32, y: F32) -> F32:
    """A palm and five fingers, a little spread."""
    shape = _box(x, y - 0.25, (0.42, 0.45), 0.25)
    for k, (reach, angle) in enumerate(((0.62, -18), (0.80, -6), (0.84, 4), (0.70, 15))):
        a = np.radians(angle)
        root = (-0.32 + 0.21 * k, 0.0)
        tip = (root[0] + reach * np.sin(a), root[1] - reach * np.cos(a))
        shape = np.minimum(shape, _capsule(x, y, root, tip, 0.105))
    thumb = _capsule(x, y, (0.30, 0.45), (0.72, 0.02), 0.12)
    arm = _capsule(x, y, (0.0, 0.6), (0.0, 8.0), 0.30)
    return np.minimum(np.minimum(shape, thumb), arm)


def _microphone(x: F32, y: F32) -> F32:
    head = (np.hypot(x, y * 0.9) - 0.42).astype(np.float32)
    return np.minimum(head, _capsule(x, y, (0.0, 0.4), (0.0, 6.0), 0.2))


def _mug(x: F32, y: F32) -> F32:
    body = _box(x, y, (0.55, 0.62), 0.1)
    handle = np.abs(np.hypot(x - 0.6, y * 0.9) - 0.3) - 0.09
    return np.minimum(body, handle.astype(np.float32))


def _sheet(x: F32, y: F32) -> F32:
    return _box(x, y, (0.75, 0.5), 0.04)


# Signed distance in units of `size`; y down, the kind's arm or stem goes downwards.
KINDS: dict[str, Callable[[F32, F32], F32]] = {
    "hand": _hand,
    "microphone": _microphone,
    "mug": _mug,
    "sheet": _sheet,
}


def random_occluders(random: np.random.Generator, most: int = 2) -> list[Occluder]:
    """One to `most` things that cover part of a face in the middle of the picture."""
    names = list(KINDS)
    made = []
    for _ in range(int(random.integers(1, most + 1))):
        kind = names[int(random.integers(len(names)))]
        if kind == "hand":
            light = random.uniform(0.25, 0.85)
            rgb = (light, light * random.uniform(0.68, 0.8), light * random.uniform(0.5, 0.68))
        else:
            rgb = tuple(random.uniform(0.05, 0.9, 3))
        angle, far = random.uniform(0, 2 * np.pi), random.uniform(0.1, 0.42)
        made.append(
            Occluder(
                kind,
                x=float(0.5 + far * np.cos(angle)),
                y=float(0.48 + far * np.sin(angle)),
                size=float(random.uniform(0.1, 0.24)),
                turn=float(random.normal(0, 35)),
                rgb=(float(rgb[0]), float(rgb[1]), float(rgb[2])),
            )
        )
    return made


def draw(occluders: Sequence[Occluder], rgb: U8, mask: U8) -> None:
    """Draws them, one over the other, into uint8 [S, S, 3] and the mask [S, S], in place."""
    side = rgb.shape[0]
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    for one in occluders:
        c, s = np.cos(np.radians(one.turn)), np.sin(np.radians(one.turn))
        dx = (centres[None, :] - np.float32(one.x)) / np.float32(one.size)
        dy = (centres[:, None] - np.float32(one.y)) / np.float32(one.size)
        u = (c * dx + s * dy).astype(np.float32)
        v = (c * dy - s * dx).astype(np.float32)
        distance = KINDS[one.kind](u, v)
        cover = (0.5 - distance * np.float32(one.size * side)).clip(0, 1)
        # Rounded towards its rim, and lit from above.
        round_ = (-distance / 0.35).clip(0, 1)
        shade = (0.45 + 0.5 * np.sqrt(round_) - 0.12 * v.clip(-1, 1)).clip(0.1, 1.2)
        colour = 255 * np.asarray(one.rgb, np.float32) * shade[..., None]
        mixed = rgb + (colour - rgb) * cover[..., None]
        rgb[:] = (mixed + 0.5).clip(0, 255).astype(np.uint8)
        mask[cover > 0.5] = OCCLUDER


def hide_landmarks(
    mask: U8, landmarks: npt.NDArray[np.floating], visible: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """`visible` [68] without the landmarks [68, 2] (pixels, x and y) that now lie behind one."""
    side = mask.shape[0]
    at = landmarks.astype(np.int64).clip(0, side - 1)
    return visible & (mask[at[:, 1], at[:, 0]] != OCCLUDER)
