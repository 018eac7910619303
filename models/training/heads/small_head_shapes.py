"""How the small head varies and moves: 24 identity modes and the 53 expressions, as displacements.

Each is a sum of soft bumps, numbers in the head's own coordinates, written for the left half and
mirrored. They are functions of position, so that skin, mouth, eyeballs and lashes move together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.faces.state import EXPRESSIONS
from models.training.heads.deform import smoothstep
from models.training.heads.small_head_plan import lip_line

F64 = npt.NDArray[np.float64]
Triple = tuple[float, float, float]
Mode = Callable[[F64], F64]

MODES = 24


class Bump(NamedTuple):
    """exp(-|(p - at) / size|^2) * by."""

    at: Triple
    size: Triple
    by: Triple

    def __call__(self, p: F64) -> F64:
        away = (p - np.array(self.at)) / np.array(self.size)
        share: F64 = np.exp(-(away**2).sum(-1, keepdims=True))
        return share * np.array(self.by)

    def mirrored(self) -> Bump:
        (x, y, z), (dx, dy, dz) = self.at, self.by
        return Bump((-x, y, z), self.size, (-dx, dy, dz))


def _both(*bumps: Bump) -> Mode:
    """The bumps and their mirror images."""
    halves = [*bumps, *(bump.mirrored() for bump in bumps if bump.at[0] != 0.0)]
    return lambda p: sum((bump(p) for bump in halves), np.zeros_like(p))


def _scaled(x: float, y: float, z: float) -> Mode:
    """The head grows by these shares; the shoulders stay."""

    def mode(p: F64) -> F64:
        head = smoothstep(-13.0, -6.0, p[..., 1])[..., None]
        return head * (p - np.array([0.0, -1.0, 1.0])) * np.array([x, y, z])

    return mode


def _jaw(width: float, length: float) -> Mode:
    def mode(p: F64) -> F64:
        face = smoothstep(2.0, -5.0, p[..., 1]) * smoothstep(-12.5, -8.0, p[..., 1])
        face = (face * smoothstep(0.0, 5.0, p[..., 2]))[..., None]
        return face * np.stack([width * p[..., 0], length + 0 * p[..., 1], 0 * p[..., 2]], -1)

    return mode


# One standard deviation each; strong ones first.
_IDENTITY: tuple[Mode, ...] = (
    _jaw(0.06, -0.25),
    _scaled(0.03, 0.01, 0.0),
    _scaled(0.0, 0.025, -0.01),
    _both(Bump((0, 0.3, 12.8), (1.6, 2.0, 3.0), (0, 0, 0.45))),  # nose: forward
    _both(Bump((1.4, -0.7, 10.9), (1.2, 1.0, 2.0), (0.28, 0, 0.05))),  # nose: wide
    _both(Bump((0, -0.5, 12.3), (1.7, 1.4, 3.0), (0, -0.4, 0.05))),  # nose: long
    _both(Bump((4.2, 6.0, 9.8), (2.6, 1.1, 3.0), (0, 0.1, 0.32))),  # brow ridge
    _both(Bump((3.6, 6.1, 10.0), (3.0, 1.0, 3.0), (0, 0.32, 0))),  # brows: high
    _both(Bump((5.4, 0.5, 8.5), (2.2, 2.2, 3.0), (0.25, 0, 0.25))),  # cheekbones
    _both(Bump((4.2, -2.8, 8.8), (1.9, 2.2, 3.0), (0.35, 0, 0.25))),  # cheeks: full
    _both(Bump((0, -7.0, 10.8), (2.2, 1.4, 3.0), (0, -0.1, 0.4))),  # chin: forward
    _both(Bump((3.1, 3.6, 9.0), (2.3, 2.0, 3.5), (0.2, 0, 0))),  # eyes: apart
    _both(
        Bump((3.1, 4.0, 9.5), (1.2, 0.4, 1.5), (0, 0.11, 0)),  # eyes: open
        Bump((3.1, 3.05, 9.4), (1.2, 0.35, 1.5), (0, -0.06, 0)),
    ),
    _both(Bump((2.3, -3.5, 10.3), (1.3, 1.3, 2.0), (0.25, 0, -0.1))),  # mouth: wide
    _both(
        Bump((0, -2.75, 11.8), (1.9, 0.45, 1.5), (0, 0.1, 0.1)),  # lips: full
        Bump((0, -4.1, 11.7), (1.7, 0.5, 1.5), (0, -0.14, 0.14)),
    ),
    _both(Bump((0, -3.4, 11.2), (3.2, 1.6, 3.0), (0, 0.3, 0))),  # mouth: high
    _both(Bump((0, 9.5, 10.0), (5.0, 2.6, 4.0), (0, 0, 0.35))),  # forehead
    _both(Bump((0, 12.5, 0.0), (7.0, 3.5, 8.0), (0, 0.4, 0))),  # crown
    _both(Bump((0, 5.0, -8.0), (6.0, 5.0, 4.0), (0, 0, -0.4))),  # back of the head
    _both(Bump((8.6, 1.6, -0.9), (1.6, 3.0, 2.0), (0.35, 0, 0))),  # ears: out
    _both(Bump((5.6, -10.0, 0.0), (4.0, 3.0, 6.0), (0.45, 0, 0))),  # neck
    _both(Bump((5.6, -5.2, 5.6), (1.8, 1.8, 2.6), (0.35, 0.05, 0.1))),  # corners of the jaw
    _both(Bump((4.4, 3.5, 8.8), (0.9, 0.7, 1.5), (0, 0.12, 0))),  # eyes: slanted
    _both(Bump((1.2, 2.6, 10.5), (0.9, 1.4, 1.6), (0.14, 0, 0.12))),  # bridge of the nose
)
assert len(_IDENTITY) == MODES

# Both-sided shapes; those of one side are given for the left and mirrored.
_MIDDLE: dict[str, tuple[Bump, ...]] = {
    "jawForward": (Bump((0, -6.5, 10.0), (4.5, 2.8, 5.0), (0, -0.1, 1.0)),),
    "jawLeft": (Bump((0, -6.3, 10.0), (4.5, 2.6, 5.0), (0.85, 0, 0)),),
    "jawRight": (Bump((0, -6.3, 10.0), (4.5, 2.6, 5.0), (-0.85, 0, 0)),),
    "mouthLeft": (Bump((0, -3.5, 11.0), (3.4, 1.9, 3.0), (1.1, 0, 0)),),
    "mouthRight": (Bump((0, -3.5, 11.0), (3.4, 1.9, 3.0), (-1.1, 0, 0)),),
    "mouthFunnel": (
        Bump((0, -3.4, 11.2), (2.3, 1.4, 2.5), (0, 0, 0.8)),
        Bump((2.3, -3.5, 10.3), (1.0, 1.2, 1.6), (-0.6, 0, 0.2)),
    ),
    "mouthPucker": (
        Bump((0, -3.4, 11.2), (2.2, 1.3, 2.5), (0, 0, 0.7)),
        Bump((2.2, -3.5, 10.3), (1.2, 1.2, 1.6), (-0.85, 0, 0.5)),
    ),
    "mouthRollLower": (Bump((0, -4.0, 11.6), (1.8, 0.55, 1.2), (0, 0.15, -0.5)),),
    "mouthRollUpper": (Bump((0, -2.8, 11.8), (1.8, 0.5, 1.2), (0, -0.12, -0.5)),),
    "mouthShrugLower": (Bump((0, -5.8, 11.0), (2.4, 1.3, 2.5), (0, 0.6, 0.15)),),
    "mouthShrugUpper": (Bump((0, -2.6, 11.8), (2.0, 0.6, 1.5), (0, 0.35, 0.08)),),
}
_SIDED: dict[str, tuple[Bump, ...]] = {
    "browDown": (Bump((3.4, 6.1, 9.9), (2.4, 1.1, 2.5), (-0.25, -0.42, 0.15)),),
    "browInnerUp": (Bump((1.7, 5.9, 10.6), (1.7, 1.5, 2.5), (0.05, 0.62, 0)),),
    "browOuterUp": (Bump((4.4, 6.0, 9.5), (1.8, 1.4, 2.5), (0.1, 0.75, -0.2)),),
    "cheekPuff": (Bump((3.4, -3.6, 9.6), (2.0, 1.9, 2.5), (0.6, 0, 0.9)),),
    "cheekSquint": (Bump((4.4, 0.9, 9.0), (2.0, 1.2, 2.5), (-0.06, 0.5, 0.2)),),
    "eyeSquint": (Bump((3.2, 2.6, 9.4), (1.5, 0.6, 1.5), (-0.1, 0.26, 0.05)),),
    "mouthDimple": (Bump((2.5, -3.5, 10.1), (1.0, 1.0, 1.5), (0.2, 0.15, -0.55)),),
    "mouthFrown": (Bump((2.5, -3.6, 10.1), (1.1, 1.1, 1.6), (0.15, -0.55, -0.2)),),
    "mouthLowerDown": (Bump((1.0, -4.1, 11.4), (1.3, 0.75, 1.5), (0.05, -0.5, -0.08)),),
    "mouthPress": (
        Bump((1.2, -2.85, 11.4), (1.4, 0.45, 1.5), (0, -0.14, -0.1)),
        Bump((1.2, -4.0, 11.3), (1.4, 0.5, 1.5), (0, 0.18, -0.1)),
    ),
    "mouthSmile": (
        Bump((2.5, -3.5, 10.2), (1.3, 1.15, 2.0), (0.7, 0.95, -0.6)),
        Bump((4.2, -0.9, 9.0), (1.6, 1.5, 2.0), (0.1, 0.35, 0.25)),
    ),
    "mouthStretch": (Bump((2.4, -3.5, 10.2), (1.3, 1.2, 2.0), (0.72, -0.2, -0.5)),),
    "mouthUpperUp": (Bump((1.3, -2.6, 11.3), (1.3, 0.7, 1.5), (0.1, 0.6, 0.05)),),
    "noseSneer": (Bump((1.7, -0.6, 10.7), (1.3, 1.4, 1.8), (0.05, 0.55, 0.08)),),
}
# Made from lids and jaw in `small_head`.
LIDDED = ("eyeBlink", "eyeWide", "eyeLookUp", "eyeLookDown", "eyeLookIn", "eyeLookOut")
HINGED = ("jawOpen", "mouthClose")


def identity(p: F64) -> F64:
    """[..., 3] points -> [24, ..., 3]; one standard deviation each."""
    return np.stack([mode(p) for mode in _IDENTITY])


def expression(p: F64) -> F64:
    """[M, 3] points -> [53, M, 3]; those of LIDDED and HINGED are left at zero."""
    out = np.zeros((len(EXPRESSIONS), *p.shape))
    for k, name in enumerate(EXPRESSIONS):
        shape, side = name.removesuffix("_L").removesuffix("_R"), name[-2:]
        if shape in (*LIDDED, *HINGED):
            continue
        if shape in _MIDDLE:
            out[k] = _both(*_MIDDLE[shape])(p)
        else:
            mine = _SIDED[shape]
            bumps = mine if side == "_L" else tuple(bump.mirrored() for bump in mine)
            out[k] = sum((bump(p) for bump in bumps), np.zeros_like(p))
    return out


def hinged(p: F64, share: F64) -> F64:
    """[M, 3]: what an open jaw adds to points that belong to it by these shares.

    It turns about an axis through the ears, as far as a displacement that is linear in its weight
    can: the chord of 17 degrees.
    """
    angle = np.radians(17.0)
    y, z = p[:, 1] - 0.5, p[:, 2] + 0.5
    turned_y = y * np.cos(angle) - z * np.sin(angle)
    turned_z = y * np.sin(angle) + z * np.cos(angle)
    return np.stack([0 * y, turned_y - y, turned_z - z], -1) * share[:, None]


def jaw_share(p: F64) -> F64:
    """[M] how far skin belongs to the jaw; at the lips, where it jumps, by height alone."""
    x = np.abs(p[:, 0])
    line = lip_line(np.minimum(x, 2.6))
    beyond = 0.03 + 2.4 * smoothstep(2.0, 5.0, x)  # the cheeks stretch
    under = smoothstep(0.0, 1.0, (line + beyond - p[:, 1]) / (2.0 * beyond))
    throat = smoothstep(-12.5, -8.3, p[:, 1]) * smoothstep(0.5, 6.0, p[:, 2])
    return under * throat
