"""`make_person`: everything about a person that stays from frame to frame, made once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import BadConfig
from models.faces.traits import Traits
from models.training.heads.anatomy import Anatomy
from models.training.heads.backdrop import backdrop_of
from models.training.heads.beard import Beard, beard_of
from models.training.heads.camera import CENTRE, FRAME_CM
from models.training.heads.colour import hair_rgb, rim_rgb, shirt_rgb
from models.training.heads.deform import smoothstep
from models.training.heads.eyes import iris_texture
from models.training.heads.glasses import glasses_of
from models.training.heads.hair_grow import POINTS
from models.training.heads.hair_styles import hair_of
from models.training.heads.lights import Light, light_of
from models.training.heads.noise import Use, noise
from models.training.heads.occlusion import bake
from models.training.heads.posing import eye_centres, eye_directions
from models.training.heads.skin_atlas import atlas_of
from models.training.heads.skin_paint import halved, paint

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
Texture = tuple[U8, U8]  # face, and back of the head with the neck

TEXTURES = (256, 512)
_HEADROOM = 0.3  # cm above high hair
_LEAST_SKIN, _LEAST_LIP = 0.10, 0.55  # occlusion is never darker


@dataclass(frozen=True, eq=False)
class Strands:
    """Hair on a person's head; every array but `tone` and `share` goes by vertices.

    Args:
        points: [M * POINTS, 3] at rest. weight: share of the head's turn.
        normal: [., 3] of the head under it; ao: how much of the surroundings it sees.
        tone: [M] brightness; share: [M] of a full strand's width.
        rgb: [3] albedo.
    """

    points: F32
    weight: F32
    normal: F32
    ao: F32
    tone: F32
    share: F32
    rgb: F32


@dataclass(frozen=True, eq=False)
class Person:
    """Args:
    traits: What all of it was made from.
    rest: [n, 3] vertices of head and shirt without expression, cm.
    ao: [n] occlusion; ao_skin: [n_skin, 3] the same of skin, where light bounces redly.
    textures: Of skin, in falling size.
    cloth: [n, 3] height, place across and depth under the collar, cm; of the shirt.
    eye_centre: [2, 3] left, right; eye_dir: [n_eye, 3] unit; iris: [rings, spokes, 3].
    lashes: [P] share of its length that each is given.
    glasses: [L * glasses.POINTS, 3] lines of the frame.
    shirt_rgb, rim_rgb: [3]; parts_rgb: [6, 3] by material.
    fit: Zoom at which high hair stays in the picture.
    """

    traits: Traits
    rest: F32
    ao: F32
    ao_skin: F32
    textures: tuple[Texture, ...]
    cloth: F32
    eye_centre: F32
    eye_dir: F32
    iris: F32
    hair: Strands
    beard: Beard | None
    lashes: F32
    glasses: F32
    shirt_rgb: F32
    rim_rgb: F32
    parts_rgb: F32
    light: Light
    backdrop: F32
    fit: float


def make_person(anatomy: Anatomy, traits: Traits, *, texture: int = 512) -> Person:
    """A person that is a function of its traits and of nothing else.

    Args:
        texture: Texels along the face's edge, 512, or 256 for pictures below 300 pixels.
    Raises:
        BadConfig: No such texture.
    """
    if texture not in TEXTURES:
        raise BadConfig(f"a person's texture is {texture}; it can be {TEXTURES}")
    shape = anatomy.displacement(traits)
    rest, cloth = _dressed(anatomy, traits, shape)
    hair = _hair(anatomy, traits, shape)
    ao, hair_ao = bake(anatomy, rest, hair.points)
    ao, hair = _softened(anatomy, ao), _shaded(hair, hair_ao)
    textures = [paint(atlas_of(anatomy, texture), traits)]
    if texture == 512:
        textures.append((halved(textures[0][0]), halved(textures[0][1])))
    centre = eye_centres(anatomy, rest)
    backdrop = backdrop_of(traits)
    highest = float(hair.points[:, 1].max()) if len(hair.points) else 0.0
    room = FRAME_CM / 2 - _HEADROOM
    return Person(
        traits=traits,
        rest=rest,
        ao=ao,
        ao_skin=ao[: anatomy.n_skin, None] ** np.array([0.80, 0.95, 1.0], np.float32),
        textures=tuple(textures),
        cloth=cloth,
        eye_centre=centre,
        eye_dir=eye_directions(anatomy, rest, centre),
        iris=iris_texture(traits),
        hair=hair,
        beard=beard_of(anatomy, traits),
        lashes=_lashes(anatomy, traits),
        glasses=np.ascontiguousarray(glasses_of(anatomy, traits, rest).reshape(-1, 3)),
        shirt_rgb=shirt_rgb(traits),
        rim_rgb=rim_rgb(traits),
        parts_rgb=_mouth_rgb(traits),
        light=light_of(traits, backdrop.mean((0, 1))),
        backdrop=backdrop,
        fit=min(1.0, room / max(highest - float(CENTRE[1]), 1.0)),
    )


def _dressed(anatomy: Anatomy, traits: Traits, shape: F32) -> tuple[F32, F32]:
    """The head at rest [n, 3] with its shirt, and the shirt's pattern [n, 3]."""
    rest = anatomy.mean + shape
    skin, cloth = slice(0, anatomy.n_skin), slice(anatomy.shirt0, anatomy.lash0)
    p = anatomy.mean[cloth]
    below = _under_collar(p, traits)
    fold = noise(p * np.array([1, 0.45, 1], np.float32), 0.42, 2, Use.CLOTH)
    # It crosses the skin at the collar's line; a ramp makes that line straight.
    out = np.clip(0.55 * below, -1.2, 0.34) + (0.25 + 0.32 * fold) * smoothstep(1.5, 6, below)
    rest[cloth] += anatomy.mean_normal[cloth] * out[:, None]
    # Skin well under the cloth steps back.
    back = 0.7 * smoothstep(0.5, 1.3, _under_collar(anatomy.mean[skin], traits))
    rest[skin] -= anatomy.mean_normal[skin] * back[:, None]
    pattern = np.zeros((anatomy.n, 3), np.float32)
    pattern[cloth] = np.stack([p[:, 1], p[:, 0], below], 1)
    return np.ascontiguousarray(rest, np.float32), pattern


def _under_collar(p: F32, traits: Traits) -> npt.NDArray[np.float64]:
    """How far points [m, 3] of the mean bust lie under the collar, cm: a plane that rises to the
    back and to the shoulders.
    """
    across = np.abs(p[:, 0]).astype(np.float64)
    line = -13.9 - 0.36 * (p[:, 2] - 3.5) + 0.35 * np.maximum(across - 3.5, 0)
    collar = traits.chosen("collar")
    if collar == "v":
        line = line - 3.6 * np.clip(1 - across / 3.4, 0, 1) * (p[:, 2] > 0)
    elif collar == "shirt":
        line = line + 1.7
    return np.asarray(line - p[:, 1], np.float64)


def _hair(anatomy: Anatomy, traits: Traits, shape: F32) -> Strands:
    hair = hair_of(anatomy, traits)
    flat = hair.points.reshape(-1, 3)
    normal = anatomy.field.at(flat)[:, 1:]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-6
    points = flat
    if len(flat):
        points = anatomy.field.carry(flat, anatomy.field.warp(shape))
    weight = smoothstep(-17.0, -5.0, flat[:, 1] + 0.2 * flat[:, 2]).astype(np.float32)
    rgb = hair_rgb(traits)
    # Light passes through fair hair: less contrast. Turning grey is uneven.
    spread = 1 - _pale(rgb) + 0.8 * traits["hair_grey"] * (1 - traits["hair_grey"])
    tone = (1 + (hair.tone - 1) * spread).astype(np.float32)
    none = np.zeros(len(flat), np.float32)
    return Strands(
        np.ascontiguousarray(points, np.float32), weight, normal, none, tone, hair.width, rgb
    )


def _pale(rgb: F32) -> float:
    return min(float(rgb.mean()) * 1.1, 0.6)


def _shaded(hair: Strands, ao: F32) -> Strands:
    tip = np.tile(np.linspace(0, 1, POINTS), len(hair.tone))
    seen = np.clip(ao, 0.06, 1.15) * (0.72 + 0.28 * tip)
    seen += (0.85 - seen) * _pale(hair.rgb)
    return Strands(
        hair.points,
        hair.weight,
        hair.normal,
        seen.astype(np.float32),
        hair.tone,
        hair.share,
        hair.rgb,
    )


def _softened(anatomy: Anatomy, ao: F32) -> F32:
    """Lips touch each other at rest, and would be black between."""
    least = np.full(anatomy.n, _LEAST_SKIN, np.float32)
    least[anatomy.landmarks[48:68]] = _LEAST_LIP
    return (0.12 + 0.88 * np.clip(ao, least, 1)).astype(np.float32)


def _lashes(anatomy: Anatomy, traits: Traits) -> F32:
    long = traits["lashes"]
    keep = np.where(anatomy.lash_upper, 0.70 + 0.35 * long, 0.28 + 0.12 * long)
    return keep.astype(np.float32)


def _mouth_rgb(traits: Traits) -> F32:
    """Colours [6, 3] by material; the first three have their own."""
    yellow = traits["tooth_shade"]
    teeth = np.array([0.84, 0.81, 0.76]) * (1 - yellow) + np.array([0.76, 0.69, 0.56]) * yellow
    rows = [np.zeros(3)] * 3 + [np.array([0.58, 0.19, 0.18]), teeth, np.array([0.40, 0.085, 0.075])]
    return np.array(rows, np.float32)
