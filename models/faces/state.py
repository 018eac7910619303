"""Everything about a face that moves, as 67 numbers: pose, gaze, expression and what lags behind.

Angles are in degrees, lengths in centimetres. Signs are the person's: yaw > 0 turns the head to
the person's left, pitch > 0 lifts it, roll > 0 tilts it to the person's right; the head's rotation
is R = Ry(yaw) Rx(-pitch) Rz(roll) in coordinates with x to the person's left, y up and z to the
camera. **The order of `FaceState.code` is part of the format** of models that read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import BadConfig

# ARKit's names, in the order of ICT-FaceKit. _L and _R are the person's.
EXPRESSIONS = (
    "browDown_L",
    "browDown_R",
    "browInnerUp_L",
    "browInnerUp_R",
    "browOuterUp_L",
    "browOuterUp_R",
    "cheekPuff_L",
    "cheekPuff_R",
    "cheekSquint_L",
    "cheekSquint_R",
    "eyeBlink_L",
    "eyeBlink_R",
    "eyeLookDown_L",
    "eyeLookDown_R",
    "eyeLookIn_L",
    "eyeLookIn_R",
    "eyeLookOut_L",
    "eyeLookOut_R",
    "eyeLookUp_L",
    "eyeLookUp_R",
    "eyeSquint_L",
    "eyeSquint_R",
    "eyeWide_L",
    "eyeWide_R",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimple_L",
    "mouthDimple_R",
    "mouthFrown_L",
    "mouthFrown_R",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDown_L",
    "mouthLowerDown_R",
    "mouthPress_L",
    "mouthPress_R",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmile_L",
    "mouthSmile_R",
    "mouthStretch_L",
    "mouthStretch_R",
    "mouthUpperUp_L",
    "mouthUpperUp_R",
    "noseSneer_L",
    "noseSneer_R",
)
EXPRESSION = {name: k for k, name in enumerate(EXPRESSIONS)}

# Field, how many numbers, and what a 1 in the code means in the field's unit.
_PARTS = (
    ("pose", 3, 60.0),
    ("gaze", 2, 30.0),
    ("shift", 3, 3.0),
    ("torso", 3, 30.0),
    ("lag", 3, 15.0),
    ("expression", len(EXPRESSIONS), 1.0),
)
CODE_SIZE = sum(count for _, count, _ in _PARTS)
SCALE = np.concatenate([np.full(count, scale, np.float32) for _, count, scale in _PARTS])


def part(name: str) -> slice:
    """Where a field of `FaceState` lies in a code."""
    begin = 0
    for known, count, _ in _PARTS:
        if known == name:
            return slice(begin, begin + count)
        begin += count
    raise BadConfig(f"a face has no {name!r}; it has {', '.join(known for known, _, _ in _PARTS)}")


def _none() -> npt.NDArray[np.float32]:
    return np.zeros(len(EXPRESSIONS), np.float32)


@dataclass(frozen=True, eq=False)
class FaceState:
    """A face at one moment.

    Args:
        pose: Yaw, pitch and roll of the head.
        gaze: Yaw and pitch of both eyes against the head, signs as the pose's.
        shift: Of the whole person along x, y and z.
        torso: Yaw, pitch and roll of the shoulders.
        lag: The pose a tenth of a second ago less the pose now: what loose hair trails by.
        expression: [53] weights of EXPRESSIONS, 0 (rest) to 1.
    """

    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gaze: tuple[float, float] = (0.0, 0.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    torso: tuple[float, float, float] = (0.0, 0.0, 0.0)
    lag: tuple[float, float, float] = (0.0, 0.0, 0.0)
    expression: npt.NDArray[np.float32] = field(default_factory=_none)

    def code(self) -> npt.NDArray[np.float32]:
        """All of it as [67] numbers of order 1."""
        fields = [np.asarray(getattr(self, name), np.float32) for name, _, _ in _PARTS]
        return np.concatenate(fields) / SCALE

    @classmethod
    def from_code(cls, code: npt.ArrayLike) -> FaceState:
        """The inverse of `code`.

        Raises:
            BadConfig: Not 67 finite numbers.
        """
        numbers = np.asarray(code, np.float32)
        if numbers.shape != (CODE_SIZE,) or not np.isfinite(numbers).all():
            raise BadConfig(f"a face is {CODE_SIZE} finite numbers, not {numbers.shape}")
        numbers = numbers * SCALE
        fields: dict[str, Any] = {
            name: tuple(numbers[part(name)].tolist()) for name, _, _ in _PARTS
        }
        fields["expression"] = numbers[part("expression")]
        return cls(**fields)
