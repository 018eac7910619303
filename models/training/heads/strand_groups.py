"""All that is drawn as strands in a frame: hair, beard, lashes, the frame of glasses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.faces.state import FaceState
from models.training.heads import beard as beards
from models.training.heads import glasses, lashes
from models.training.heads.anatomy import Anatomy
from models.training.heads.deform import follow
from models.training.heads.hair_grow import POINTS
from models.training.heads.hair_styles import LOOSE
from models.training.heads.person import Person
from models.training.heads.posing import Posed, Turn, turn_of
from models.training.heads.shade.pixel import GLASSES, HAIR, SKIN

F32 = npt.NDArray[np.float32]
_WIDTH = 0.085  # cm of a strand when all are drawn; fewer are wider
_STYLE_WIDTH = {"afro": 1.25, "curly": 1.25, "buzz": 0.8}
_ONE = np.ones(8192, np.float32)


@dataclass(frozen=True, eq=False)
class Group:
    """Strands of one kind in a frame.

    Args:
        name: Of its buffers. points: [m, 3] in the world, `per` of them a strand.
        tone: [m / per]; ao, width: [m], width in samples; normal: [m, 3] before `turn` [3, 3].
        rgb: [3]; gloss: strength of highlights; alpha: 1 covers, less blends.
        tag: Class in the mask. shades: whether it is in the shadow map.
    """

    name: str
    points: F32
    per: int
    tone: F32
    ao: F32
    width: F32
    normal: F32
    turn: F32
    rgb: F32
    gloss: np.float32
    alpha: np.float32
    tag: int
    shades: bool


@dataclass(frozen=True, eq=False)
class _Kept:
    """What does not change while the same person is drawn at the same scale."""

    person: Person
    scale: float
    hair: int  # vertices of hair that are drawn
    hair_width: F32
    beard: int  # strands
    beard_ao: F32
    beard_width: F32
    lash_width: F32
    lash_ao: F32
    lash_rgb: F32
    forward: F32


class StrandGroups:
    """Owns the strands' buffers; one thread at a time.

    Args:
        share: Of the hair's strands that are drawn, 0 .. 1.
        with_lashes: Whether lashes are wider than next to nothing at this size.
    """

    def __init__(self, anatomy: Anatomy, share: float, with_lashes: bool) -> None:
        self.anatomy, self.share, self.with_lashes = anatomy, share, with_lashes
        self._kept: _Kept | None = None
        self._buffers: dict[str, F32] = {}

    def of(
        self, person: Person, posed: Posed, state: FaceState, normal: F32, scale: float
    ) -> list[Group]:
        """The groups of a frame.

        Args:
            normal: [n, 3] of the head's vertices in the world.
            scale: Samples per cm.
        """
        kept = self._kept
        if kept is None or kept.person is not person or kept.scale != scale:
            kept = self._kept = self._prepare(person, scale)
        groups = []
        if kept.hair:
            groups.append(self._hair(person, kept, posed.turn, state))
        if person.beard is not None:
            groups.append(self._beard(person.beard, person, kept, posed, normal))
        if self.with_lashes and len(person.lashes):
            groups.append(self._lashes(person, kept, posed))
        if len(person.glasses):
            groups.append(self._glasses(person, kept, posed.turn))
        return groups

    def _buffer(self, name: str, count: int) -> F32:
        if name not in self._buffers or len(self._buffers[name]) != count:
            self._buffers[name] = np.zeros((count, 3), np.float32)
        return self._buffers[name]

    def _hair(self, person: Person, kept: _Kept, turn: Turn, state: FaceState) -> Group:
        hair, k = person.hair, kept.hair
        world = self._buffer("hair", k)
        turn.carry(hair.points[:k], hair.weight[:k], world)
        if person.traits.chosen("hair") in LOOSE:
            old = self._buffer("lagging", k)
            turn_of(state, lagging=True).carry(hair.points[:k], hair.weight[:k], old)
            follow(hair.points[:k], k, old, world)
        return Group(
            "hair",
            world,
            POINTS,
            hair.tone,
            hair.ao,
            kept.hair_width,
            hair.normal,
            turn.head,
            hair.rgb,
            np.float32(1.0),
            np.float32(0.92),
            HAIR,
            True,
        )

    def _beard(
        self, beard: beards.Beard, person: Person, kept: _Kept, posed: Posed, normal: F32
    ) -> Group:
        root = beard.root[: kept.beard]
        strands = posed.world[root][:, None] + beard.offset[: kept.beard] @ posed.turn.head.T
        return Group(
            "beard",
            np.ascontiguousarray(strands.reshape(-1, 3), np.float32),
            beards.POINTS,
            beard.tone,
            kept.beard_ao,
            kept.beard_width,
            np.repeat(normal[root], beards.POINTS, 0),
            np.eye(3, dtype=np.float32),
            person.hair.rgb,
            np.float32(0.5),
            np.float32(0.75),
            SKIN,
            False,
        )

    def _lashes(self, person: Person, kept: _Kept, posed: Posed) -> Group:
        points = lashes.strands(posed.world, self.anatomy.lash_paths, person.lashes)
        return Group(
            "lashes",
            points,
            lashes.POINTS,
            _ONE,
            kept.lash_ao,
            kept.lash_width,
            kept.forward,
            posed.turn.head,
            kept.lash_rgb,
            np.float32(0.1),
            np.float32(0.6 + 0.2 * person.traits["lashes"]),
            SKIN,
            False,
        )

    def _glasses(self, person: Person, kept: _Kept, turn: Turn) -> Group:
        count = len(person.glasses)
        world = self._buffer("glasses", count)
        turn.carry(person.glasses, _ONE[:count], world)
        width = np.full(count, glasses.thickness(person.traits) * kept.scale, np.float32)
        return Group(
            "glasses",
            world,
            glasses.POINTS,
            _ONE,
            _ONE,
            width,
            kept.forward,
            turn.head,
            person.rim_rgb,
            np.float32(1.5),
            np.float32(1.0),
            GLASSES,
            True,
        )

    def _prepare(self, person: Person, scale: float) -> _Kept:
        hair, traits, long = person.hair, person.traits, person.traits["lashes"]
        strands = int(len(hair.tone) * self.share)
        wide = _WIDTH / self.share**0.6 * _STYLE_WIDTH.get(traits.chosen("hair") or "", 1.0)
        taper = np.interp(np.arange(POINTS) / (POINTS - 1), [0, 0.6, 1], [1, 1, 0.45])
        beard = person.beard
        share = min(1.0, 1.4 * self.share)
        bristles = int(len(beard.root) * share) if beard else 0
        ao, width = np.zeros(0), np.zeros(0)
        if beard:
            ao = np.tile([0.35, 0.55, 0.7, 0.8], bristles)
            ao = ao * np.repeat(person.ao[beard.root[:bristles]], beards.POINTS)
            width = np.tile([0.06, 0.06, 0.048, 0.024], bristles) * beard.width / share**0.5
        lash = np.where(self.anatomy.lash_upper, 0.042 + 0.010 * long, 0.011)[:, None]
        count = max(len(person.glasses), lashes.POINTS * len(lash))
        return _Kept(
            person,
            scale,
            strands * POINTS,
            (hair.share[:strands, None] * (taper * wide * scale)).ravel().astype(np.float32),
            bristles,
            ao.astype(np.float32),
            (width * scale).astype(np.float32),
            (lash * [1, 0.7, 0.25] * scale).ravel().astype(np.float32),
            np.full(lashes.POINTS * len(lash), 0.35, np.float32),
            np.minimum(hair.rgb * 0.35, 0.03).astype(np.float32),
            np.tile(np.array([0, 0, 1], np.float32), (count, 1)),
        )
