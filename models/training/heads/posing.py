"""From a person at rest and a `FaceState` to vertices in the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.faces.state import EXPRESSION, FaceState
from models.training.heads.anatomy import Anatomy
from models.training.heads.camera import CENTRE
from models.training.heads.deform import BUST, PIVOT, axis_angle, bend, deform, rotation

F32 = npt.NDArray[np.float32]

OPEN_CM = 0.06  # lips further apart show the inner mouth
_SINK_CM = 0.2  # of an eyeball under a shut lid; otherwise a slit of iris shows
_TOE_OUT_DEG = 3.0  # the eyes' axes lean out a little in the scans
_AWAKE = 0.15  # eyeWide that lifts the lids of those who are not soft: the scans' hang
_LIP_PAIRS = ((61, 67), (62, 66), (63, 65))


@dataclass(frozen=True, eq=False)
class Turn:
    """The rigid part of a pose: what `deform.bend` needs to carry more points along."""

    axis: F32
    angle: float
    torso: F32  # [3, 3]
    head: F32  # [3, 3]; of what sits on the head wholly
    shift: F32

    def carry(self, points: F32, weight: F32, out: F32) -> None:
        """`bend` for points [M, 3] at rest with these shares of the head's turn."""
        bend(
            points,
            weight,
            len(points),
            self.axis,
            self.angle,
            PIVOT,
            self.torso,
            self.shift,
            out,
        )


def turn_of(state: FaceState, *, lagging: bool = False) -> Turn:
    """The pose of a state; lagging, with the head where it was a moment ago."""
    pose = tuple(p + g for p, g in zip(state.pose, state.lag, strict=True))
    torso = rotation(*state.torso)
    head = rotation(*(pose if lagging else state.pose))
    axis, angle = axis_angle(torso.T @ head)
    shift = np.asarray(state.shift) - CENTRE + BUST - torso @ BUST
    return Turn(
        axis, angle, torso.astype(np.float32), head.astype(np.float32), shift.astype(np.float32)
    )


def shown_expression(state: FaceState, soft: float) -> F32:
    """[53] weights as drawn and labelled: the state's, and how the lids follow the gaze.

    Args:
        soft: The person's trait.
    """
    weight = state.expression.astype(np.float32)
    awake = _AWAKE * min(max((0.95 - soft) / 1.3, 0.0), 1.0)
    yaw, pitch = state.gaze
    for side, outwards in (("L", yaw), ("R", -yaw)):
        blink = min(float(weight[EXPRESSION[f"eyeBlink_{side}"]]), 1.0)
        weight[EXPRESSION[f"eyeWide_{side}"]] += awake * (1.0 - blink)
        weight[EXPRESSION[f"eyeLookDown_{side}"]] += max(-pitch, 0.0) / 32.0
        weight[EXPRESSION[f"eyeLookUp_{side}"]] += max(pitch, 0.0) / 28.0
        look = "eyeLookOut" if outwards > 0 else "eyeLookIn"
        weight[EXPRESSION[f"{look}_{side}"]] += abs(outwards) / 40.0
    return weight


def eye_centres(anatomy: Anatomy, rest: F32) -> F32:
    """[2, 3], left and right: centres of the spheres that fit a person's eyeballs best."""
    centres = np.zeros((2, 3), np.float32)
    for side in (0, 1):
        q = rest[anatomy.eye0 : anatomy.shirt0][anatomy.eye_side == side].astype(np.float64)
        system = np.concatenate([2.0 * q, np.ones((len(q), 1))], 1)
        centres[side] = np.linalg.lstsq(system, (q**2).sum(1), rcond=None)[0][:3]
    return centres


def eye_directions(anatomy: Anatomy, rest: F32, centres: F32) -> F32:
    """[n_eye, 3] unit vectors from the centres, in a frame in which (0, 0, 1) is the pupil."""
    out = np.zeros((anatomy.n_eye, 3), np.float32)
    for side, toe_out in ((0, -_TOE_OUT_DEG), (1, _TOE_OUT_DEG)):
        mine = anatomy.eye_side == side
        away = rest[anatomy.eye0 : anatomy.shirt0][mine] - centres[side]
        away = away @ rotation(toe_out, 0.0, 0.0).astype(np.float32)
        out[mine] = away / np.linalg.norm(away, axis=1, keepdims=True)
    return out


@dataclass(frozen=True, eq=False)
class Posed:
    """One frame's geometry. Arrays belong to the `Posing` and hold until its next `move`.

    Args:
        expression: [53] as drawn and labelled.
        face: [n, 3]; with expression and gaze, but unturned. world: [n, 3].
        n: Vertices in use: all, or those outside a shut mouth.
        triangles: Those in use.
        gap: Between the inner lips, cm.
    """

    expression: F32
    face: F32
    world: F32
    n: int
    triangles: npt.NDArray[np.int32]
    gap: float
    turn: Turn

    @property
    def open_mouth(self) -> bool:
        return self.gap > OPEN_CM


class Posing:
    """Owns the vertex buffers of one anatomy; one thread at a time."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self._face = np.zeros((anatomy.n, 3), np.float32)
        self._world = np.zeros((anatomy.n, 3), np.float32)

    def move(self, rest: F32, eye_centre: F32, soft: float, state: FaceState) -> Posed:
        """Expression, gaze and pose.

        Args:
            rest: [n, 3]; the person without expression, shirt included.
            eye_centre: [2, 3]; `eye_centres` of it.
            soft: The person's trait.
        """
        an, face = self.anatomy, self._face
        weight = shown_expression(state, soft)
        deform(rest, an.ex_idx, an.ex_val, an.ex_ptr, weight, an.n, face)
        inner = face[an.landmarks[np.array(_LIP_PAIRS)]]  # [3, 2, 3]
        gap = float(np.linalg.norm(inner[:, 0] - inner[:, 1], axis=1).max())
        self._turn_eyes(eye_centre, weight, state)
        turn = turn_of(state)
        n = an.n if gap > OPEN_CM else an.mouth0
        turn.carry(face[:n], an.weight[:n], self._world[:n])
        tri = an.tri if gap > OPEN_CM else an.tri[: an.tri_closed]
        return Posed(weight, face, self._world, n, tri, gap, turn)

    def _turn_eyes(self, centre: F32, weight: F32, state: FaceState) -> None:
        """Eyeballs turn rigidly; the kit's eyeLook shapes move the lids."""
        an = self.anatomy
        turn = rotation(*state.gaze, 0.0).T.astype(np.float32)
        middle = an.eye0 + an.n_left
        for side, ball in enumerate((slice(an.eye0, middle), slice(middle, an.shirt0))):
            blink = min(float(weight[EXPRESSION["eyeBlink_" + "LR"[side]]]), 1.0)
            self._face[ball] = (self._face[ball] - centre[side]) @ turn + centre[side]
            self._face[ball, 2] -= _SINK_CM * blink
