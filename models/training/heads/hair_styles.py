"""Twelve styles of hair. A style is a flow that strands grow along, and what is done to them then.

Roots and every draw are the style's own and the same for everybody. Length, parting, volume and
hairline change what grows from them without a jump, so that pictures of people in between lie in
between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.faces.traits import HAIR_STYLES, INDEX, LOW, Traits
from models.training.heads.deform import smoothstep
from models.training.heads.hair_grow import (
    POINTS,
    above_hairline,
    grow,
    on_scalp,
    scatter,
    unit,
)
from models.training.heads.hair_locks import curl, cut, gather, press_down
from models.training.heads.hair_tied import tail_or_bun
from models.training.heads.noise import Use, draws

if TYPE_CHECKING:
    from models.training.heads.anatomy import Anatomy

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

LOOSE = ("bob", "long", "wavy", "ponytail")  # styles that trail behind a turning head
_COUNT = {"buzz": 5200, "afro": 5200, "curly": 4800, "long": 4800, "wavy": 4800, "bob": 5600}
_OTHERS = 4400  # strands of the other styles
_LOWEST = float(LOW[INDEX["recede"]])  # roots reach down to the lowest hairline there is
_FADE = 0.9  # cm within which strands get finer and shorter towards the hairline


@dataclass(frozen=True)
class Hair:
    """Strands on the mean head.

    Args:
        points: [M, POINTS, 3] float32, cm; in an order that may be cut short anywhere.
        tone: [M] brightness; width: [M] share of a full strand's.
    """

    points: F32
    tone: F32
    width: F32


@dataclass
class Roots:
    """Where the strands of a style begin, and how the person wears it."""

    p: F64
    normal: F64
    rng: np.random.Generator
    layer: F64  # [n] 0 next to the skin .. 1 on top
    length: float  # 0 .. 1
    part: float  # -1 .. 1
    volume: float

    def __post_init__(self) -> None:
        self.x, self.y, self.z = self.p.T
        self.n = len(self.p)
        self.top = smoothstep(6.5, 10.5, self.y)[:, None]
        self.front = smoothstep(1.0, 7.5, self.z)
        self.down = self.vector(0, -1, -0.35)

    def vector(self, x: npt.ArrayLike, y: npt.ArrayLike, z: npt.ArrayLike) -> F64:
        """[n, 3] of numbers or of columns [n]."""
        return np.stack([np.broadcast_to(np.asarray(c, np.float64), self.n) for c in (x, y, z)], 1)

    def jitter(self, sd: float) -> F64:
        """Normal draws [n, 3]."""
        return self.rng.normal(0, sd, (self.n, 3))

    def side_of(self, where: float) -> F64:
        """[n] 1 to the left of a parting at x = where, -1 to its right."""
        return np.tanh((self.x - where + self.rng.normal(0, 0.12, self.n)) / 0.1)


@dataclass
class Flow:
    """What `hair_grow.grow` is given, [n] or a number each, and what follows it."""

    comb: F64
    first: F64
    length: F64
    layer: F64
    fall: float | F64 = 0.0
    stick: float | F64 = 0.5
    stiff: float = 0.55
    locks: int = 260
    clump: float = 0.55
    curl: tuple[float, float] | None = None  # radius in cm, turns
    target: F64 | None = None
    pull: float | F64 = 0.0
    fine: float | F64 = 1.0  # share of a strand's width


def _buzz(r: Roots) -> Flow:
    comb = r.top * [0, 0, 1.0] + (1 - r.top) * r.down
    length = r.rng.uniform(0.35, 0.6, r.n) * (0.6 + 0.8 * r.length)
    return Flow(
        comb, r.normal * 0.8 + comb * 0.6, length, 0.25 * r.layer, stick=0.3, stiff=0.5, clump=0
    )


def _short(r: Roots) -> Flow:
    forward = np.array([0, 0.15, 1.0]) + [0.35 * r.part, 0, 0] + r.jitter(0.33)
    comb = r.top * forward + (1 - r.top) * (r.down + r.jitter(0.15))
    first = r.normal * (0.35 + 0.5 * r.top) + comb * 0.8 + r.jitter(0.2)
    top = r.top[:, 0]
    length = (1.2 + 2.3 * top * (0.7 + 0.5 * r.front)) * r.rng.uniform(0.75, 1.15, r.n)
    length *= 0.75 + 0.5 * r.length
    layer = r.layer * (0.35 + 0.95 * top) * r.volume
    return Flow(comb, first, length, layer, fall=0.35, stick=0.35, locks=340, clump=0.6)


def _side_part(r: Roots) -> Flow:
    side, top = r.side_of(2.6 * r.part), r.top[:, 0]
    # The wider side is combed back as well as over.
    wide = np.clip(-side * np.tanh(4 * r.part), 0, 1)
    comb = r.top * r.vector(side, 0.25, 0.30 - 0.75 * wide * r.front)
    comb += (1 - r.top) * r.down + r.jitter(0.12)
    first = r.normal * (0.25 + 0.55 * r.top) + comb * 0.8
    length = (1.6 + 5.0 * top) * r.rng.uniform(0.8, 1.1, r.n) * (0.8 + 0.4 * r.length)
    layer = r.layer * (0.3 + 1.25 * top) * r.volume
    return Flow(comb, first, length, layer, fall=0.5, stick=0.6, locks=240, clump=0.6)


def _quiff(r: Roots) -> Flow:
    back = np.array([0.35 * r.part, 0.35, -1.0]) + r.jitter(0.12)
    comb = r.top * back + (1 - r.top) * (r.down + r.jitter(0.08))
    rise, top = r.front[:, None] * r.top, r.top[:, 0]
    first = r.normal * (0.2 + 0.35 * r.top + rise) + comb * (0.75 - 0.5 * rise)
    first += np.array([0, 0, 0.35]) * rise
    length = (1.3 + 4.0 * top) * r.rng.uniform(0.8, 1.1, r.n) * (0.8 + 0.45 * r.length)
    layer = r.layer * (0.25 + 1.6 * top) * r.volume
    return Flow(
        comb, first, length, layer, fall=0.15, stick=0.45, stiff=0.72, locks=220, clump=0.62
    )


def _curly(r: Roots) -> Flow:
    comb = r.normal * 0.5 + r.jitter(0.45) + [0, -0.25, 0.1]
    length = r.rng.uniform(2.2, 4.2, r.n) * (0.5 + 0.5 * r.top[:, 0]) * (0.75 + 0.6 * r.length)
    layer = r.layer * 1.3 * r.volume
    first = r.normal + r.jitter(0.35)
    return Flow(
        comb, first, length, layer, fall=0.45, stick=0.1, stiff=0.5, clump=0.72, curl=(0.33, 2.6)
    )


def _afro(r: Roots) -> Flow:
    comb, first = r.normal + r.jitter(0.45), r.normal + r.jitter(0.35)
    length = r.rng.uniform(2.6, 4.0, r.n) * (0.7 + 0.6 * r.length)
    layer = r.layer * 2.6 * r.volume
    return Flow(
        comb,
        first,
        length,
        layer,
        fall=0.05,
        stick=0.1,
        stiff=0.5,
        locks=420,
        clump=0.5,
        curl=(0.26, 3.0),
    )


def _bob(r: Roots) -> Flow:
    out = np.sign(r.x) * 1.7 * smoothstep(3.2, 5.0, np.abs(r.x)) + r.rng.normal(0, 0.10, r.n)
    swept = 0.5 * r.part * r.front  # the fringe
    comb = r.vector(out + swept, -0.3, 0.9 * r.front + 0.25) * r.top
    comb += (1 - r.top) * (r.down + r.vector(out, 0, 0.35)) + r.jitter(0.05)
    # No seam where front meets back.
    mix = smoothstep(-3.5, 4.5, r.z + r.rng.normal(0, 0.8, r.n))[:, None]
    behind = unit(r.vector(r.x, -2.0, np.minimum(r.z - 2.5, -1.0)))
    comb = comb * mix + (1 - mix) * behind
    layer = (0.3 + r.layer * 1.35) * r.volume
    return Flow(
        comb,
        r.normal * 0.35 + comb,
        np.full(r.n, 17.0),
        layer,
        fall=1.1,
        stick=0.6,
        stiff=0.62,
        locks=240,
        clump=0.45,
        pull=1e-3,  # next to nothing, but it makes the ends keep to the neck
    )


def _long(r: Roots) -> Flow:
    comb = _falling(r)
    layer = (0.35 + r.layer * 1.3 + 0.25 * r.top[:, 0]) * r.volume
    length = r.rng.uniform(21, 27, r.n)
    first = r.normal * (0.35 + 0.35 * r.top) + comb
    return Flow(
        comb,
        first,
        length,
        layer,
        fall=1.2,
        stick=0.7,
        stiff=0.66,
        locks=170,
        clump=0.5,
        curl=(0.13, 0.8),
    )


def _wavy(r: Roots) -> Flow:
    comb = _falling(r)
    layer = (0.35 + r.layer * 2.0 + 0.2 * r.top[:, 0]) * r.volume
    length = r.rng.uniform(21, 27, r.n)
    first = r.normal * (0.6 + 0.2 * r.top) + comb
    return Flow(
        comb,
        first,
        length,
        layer,
        fall=1.2,
        stick=0.7,
        stiff=0.66,
        locks=130,
        clump=0.72,
        curl=(0.42, 2.0),
    )


def _falling(r: Roots) -> F64:
    """Parted on top, down the sides, back behind."""
    side = r.side_of(1.8 * r.part)
    comb = r.vector(side, 0.12 - 0.25 * r.front, -0.28) * r.top
    comb += (1 - r.top) * [0, -1, -0.22] + r.jitter(0.05)
    back = smoothstep(0, -5, r.z)[:, None]
    return comb * (1 - back) + back * r.vector(0.2 * np.sign(r.x), -0.6, -0.8)


def _tied(r: Roots, knot: F64) -> Flow:
    """Everything runs to a knot, but for a few strands that come loose at the temples."""
    loose = (r.z > 3.0) & (np.abs(r.x) > 4.0) & (r.rng.random(r.n) < 0.04) & (r.y < 10.5)
    comb = unit(knot - r.p) + r.jitter(0.03)
    comb = np.where(loose[:, None], r.vector(np.sign(r.x) * 0.5, -1, 0.35), comb)
    first = np.where(loose[:, None], r.normal * 0.6 + comb, r.normal * 0.25 + comb)
    length = np.linalg.norm(knot - r.p, axis=1) * 1.18
    length = np.where(loose, r.rng.uniform(5, 10, r.n), length)
    return Flow(
        comb,
        first,
        length,
        (0.12 + r.layer * 0.55) * r.volume,
        fall=np.where(loose, 1.2, 0.05),
        stick=0.8 - 0.6 * loose,
        stiff=0.5,
        locks=300,
        clump=0.35,
        target=np.tile(knot, (r.n, 1)),
        pull=np.where(loose, 1e-3, 0.85),
        fine=np.where(loose, 0.4, 1.0),
    )


def _bun(r: Roots) -> Flow:
    return _tied(r, np.array([0, 13.6, -6.0]))


def _ponytail(r: Roots) -> Flow:
    return _tied(r, np.array([0, 5.5, -10.2]))


_STYLES: dict[str, Callable[[Roots], Flow]] = {
    "buzz": _buzz,
    "short": _short,
    "side_part": _side_part,
    "quiff": _quiff,
    "curly": _curly,
    "afro": _afro,
    "bob": _bob,
    "long": _long,
    "wavy": _wavy,
    "bun": _bun,
    "ponytail": _ponytail,
}


def hair_of(anatomy: Anatomy, traits: Traits) -> Hair:
    """A person's hair on the mean head."""
    style = traits.chosen("hair") or "bald"
    if style == "bald":
        none = np.zeros(0, np.float32)
        return Hair(np.zeros((0, POINTS, 3), np.float32), none, none)
    roots = _roots(anatomy, style, traits)
    flow = _STYLES[style](roots)
    above = above_hairline(roots.p, traits["recede"]) + roots.rng.uniform(-0.35, 0.25, roots.n)
    fade = smoothstep(-0.1, _FADE, above)
    flow.length = flow.length * (0.6 + 0.4 * fade)
    strands = _grown(anatomy, roots, flow)
    if style in ("bob", "long", "wavy"):
        strands = press_down(anatomy, strands, flow.layer, 0.22)
        strands = _trimmed(style, strands, roots)
    tone = 1 + roots.rng.normal(0, 0.10, roots.n)
    if flow.clump:
        strands, lock = gather(strands, roots.rng, flow.locks, flow.clump)
        tone += roots.rng.normal(0, 0.13, roots.n)[lock]
    if flow.curl:
        strands = curl(strands, roots.rng, *flow.curl, flow.locks)
    width = 0.35 + 0.65 * fade
    # Strands below the hairline stay in the list, drawn back into their roots: if they left it,
    # every later strand would change places with its neighbour in what draws each second one.
    present = smoothstep(0.0, 0.12, fade)
    strands = roots.p[:, None] + (strands - roots.p[:, None]) * present[:, None, None]
    width = width * present * flow.fine
    extra = tail_or_bun(style, roots.rng, roots.length, roots.volume)
    if extra is not None:
        strands = np.concatenate([strands, extra])
        tone = np.concatenate([tone, 1 + roots.rng.normal(0, 0.13, len(extra))])
        width = np.concatenate([width, np.ones(len(extra))])
    order = roots.rng.permutation(len(strands))
    return Hair(*(np.ascontiguousarray(a[order], np.float32) for a in (strands, tone, width)))


def _roots(anatomy: Anatomy, style: str, traits: Traits) -> Roots:
    rng = draws(Use.HAIR + HAIR_STYLES.index(style))
    more = 2.2 if style == "bob" else 0.9  # in front, which is what one sees

    def density(q: npt.NDArray[np.floating]) -> F64:
        return on_scalp(q, _LOWEST) * (1 + more * smoothstep(2, 6, q[:, 2])) + 1e-9

    p, normal, _ = scatter(anatomy, density, _COUNT.get(style, _OTHERS), rng)
    return Roots(
        p,
        normal,
        rng,
        rng.random(len(p)) ** 0.7,
        traits["hair_length"],
        traits["part"],
        traits["volume"],
    )


def _grown(anatomy: Anatomy, r: Roots, flow: Flow) -> F64:
    def column(a: float | F64) -> F64:
        return np.ascontiguousarray(np.broadcast_to(a, (r.n,)), np.float64)

    def rows(a: F64) -> F64:
        return np.ascontiguousarray(np.broadcast_to(a, (r.n, 3)), np.float64)

    out = np.zeros((r.n, POINTS, 3))
    grow(
        rows(r.p),
        rows(r.normal),
        rows(flow.first),
        rows(flow.comb),
        column(flow.fall),
        column(flow.length),
        column(flow.layer),
        column(flow.stick),
        column(flow.stiff),
        np.zeros((r.n, 3)) if flow.target is None else rows(flow.target),
        column(flow.pull),
        anatomy.sdf,
        np.asarray(anatomy.origin, np.float64),
        float(anatomy.step),
        out,
    )
    return out


def _trimmed(style: str, strands: F64, r: Roots) -> F64:
    jitter = r.rng.normal(0, 0.22, r.n)
    if style != "bob":
        return cut(strands, -5.5 - 12.5 * r.length + 1.6 * jitter)
    in_front = strands[:, :, 2].max(1) > 7.0
    fringe = in_front & (np.abs(strands[:, 4:, 0]).min(1) < 6.6) & (r.z > 2.0)
    end = -4.6 - 4.0 * r.length + 2 * jitter
    return cut(strands, np.where(fringe, 6.3 + jitter + 0.10 * np.abs(r.x), end))
