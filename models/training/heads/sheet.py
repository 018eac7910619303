"""A contact sheet: people in rows, poses and expressions in columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from models.errors import BadConfig
from models.faces.prior import Prior, person
from models.faces.state import EXPRESSION, FaceState
from models.faces.traits import Traits
from models.training.heads import kit
from models.training.heads.anatomy import Anatomy
from models.training.heads.person import make_person
from models.training.heads.renderer import HeadRenderer

ROWS = 8
_TEXTURE_FROM = 300  # pixels, from where on the larger textures show
_CANDIDATES = 400  # people that the rows are chosen from
_LARGEST = 400_000  # bytes of a JPEG
_SMILE = {"mouthSmile": 0.45, "cheekSquint": 0.15, "eyeSquint": 0.06}
_LAUGH = {
    "mouthSmile": 0.75,
    "cheekSquint": 0.4,
    "eyeSquint": 0.2,
    "jawOpen": 0.12,
    "mouthUpperUp": 0.3,
    "mouthLowerDown": 0.2,
}
_SURPRISE = {
    "jawOpen": 0.42,
    "browInnerUp": 0.6,
    "browOuterUp": 0.5,
    "eyeWide": 0.25,
    "mouthUpperUp": 0.3,
    "mouthSmile": 0.45,
}
_DOUBT = {
    "mouthSmile_L": 0.7,
    "mouthSmile_R": 0.35,
    "mouthPucker": 0.1,
    "browOuterUp_L": 0.6,
    "browDown_R": 0.3,
}
# Yaw, pitch and roll of the head, yaw and pitch of the gaze, expression.
_COLUMNS: tuple[tuple[tuple[float, float, float], tuple[float, float], dict[str, float]], ...] = (
    ((0, 0, 0), (0, 0), {"mouthSmile": 0.4, "cheekSquint": 0.1}),
    ((-24, 3, -4), (18, -2), _SMILE),
    ((26, -4, 0), (-20, 2), _LAUGH),
    ((8, 8, 6), (-6, -6), _SURPRISE),
    ((-48, 0, 0), (24, 0), {"mouthSmile": 0.35}),
    ((-10, -12, 0), (8, 8), {"mouthSmile": 0.3, "browInnerUp": 0.2}),
    ((58, 4, 4), (0, 0), _SMILE),
    ((12, 0, -9), (-10, 2), _DOUBT),
)


def states() -> list[FaceState]:
    """The columns' poses and expressions; a name without side moves both."""
    made = []
    for pose, gaze, named in _COLUMNS:
        expression = np.zeros(len(EXPRESSION), np.float32)
        for name, weight in named.items():
            for one in [name] if name in EXPRESSION else [f"{name}_L", f"{name}_R"]:
                expression[EXPRESSION[one]] = weight
        torso = (0.22 * pose[0], 0.0, 0.0)
        made.append(FaceState(pose=pose, gaze=gaze, torso=torso, expression=expression))
    return made


def people(seed: int) -> list[Traits]:
    """Eight people of the open prior, chosen so that hair, skin and glasses differ most."""
    chosen: list[Traits] = [person(seed * _CANDIDATES, Prior.OPEN)]
    candidates = [person(seed * _CANDIDATES + k, Prior.OPEN) for k in range(1, _CANDIDATES)]
    features = np.array([_features(traits) for traits in candidates])
    while len(chosen) < ROWS:
        taken = np.array([_features(traits) for traits in chosen])
        apart = np.abs(features[:, None] - taken[None]).sum(-1).min(1)
        chosen.append(candidates[int(apart.argmax())])
    return chosen


def _features(traits: Traits) -> list[float]:
    style, glasses = traits.chosen("hair"), traits.chosen("glasses")
    hair = [3.0 * (style == name) for name in _STYLES]
    light = 1.5 * traits["hair_light"], 1.5 * traits["hair_grey"]
    worn = 1.0 * (glasses is not None), 1.5 * min(traits["stubble"], 1.0)
    backdrop = [traits[f"backdrop_{kind}"] for kind in ("glow", "bokeh", "room")]
    return [*hair, 0.8 * traits["tone"], *light, *worn, *backdrop, traits["soft"]]


_STYLES = ("short", "side_part", "quiff", "curly", "afro", "bob", "long", "wavy", "bun", "ponytail")


def sheet(
    out: Path,
    *,
    facekit: Path | None = None,
    size: int = 256,
    samples: int = 2,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Draws eight people in eight poses each and writes one picture.

    Args:
        out: A .png, or a .jpg of at most 400 kB.
        facekit: The packed head model; None is the small head.
        size: Pixels of each picture; samples: along a pixel's edge.
        seed: Which people.
        report: Called with the pictures drawn and all there are.
    Raises:
        BadConfig: The name ends in something else. BadKit: The file is no facekit.
        OSError: The picture cannot be written.
    """
    if out.suffix not in (".png", ".jpg"):
        raise BadConfig(f"a sheet is a .png or a .jpg, not {out.name}")
    anatomy = Anatomy(kit.load(facekit))
    renderer = HeadRenderer(anatomy, size, samples)
    columns, rows = states(), []
    for row, traits in enumerate(people(seed)):
        one = make_person(anatomy, traits, texture=512 if size >= _TEXTURE_FROM else 256)
        pictures = []
        for state in columns:
            pictures.append(renderer.render(one, state).rgb)
            report(row * len(columns) + len(pictures), ROWS * len(columns))
        rows.append(np.concatenate(pictures, 1))
    out.write_bytes(_encoded(np.concatenate(rows, 0), out.suffix))


def _encoded(rgb: npt.NDArray[np.uint8], suffix: str) -> bytes:
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    if suffix == ".png":
        return cv2.imencode(suffix, bgr)[1].tobytes()
    data = b""
    for quality in range(92, 40, -4):
        data = cv2.imencode(suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= _LARGEST:
            break
    return data
