"""A person's skin: what the atlas knows of everybody, mixed by the person's numbers.

A texel is 8 bytes: square roots of linear red, green and blue; roughness; half the strength of
highlights; kind (0 skin, 100 lips, 200 scalp under hair); two tilts of the normal. Float textures
would not fit in a processor's cache, and the misses would show in the time of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.faces.traits import Traits
from models.training.heads.brows import paint_brows
from models.training.heads.colour import hair_rgb, log_skin
from models.training.heads.deform import smoothstep
from models.training.heads.skin_atlas import SkinAtlas, Tile

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
_HAIRLINE = 0.75  # cm over which the scalp takes the hair's colour
# How much of the hair's colour the scalp takes: hair that lies close hides it, and no skin must
# shine between strands; shaved hair is little but scalp.
_SCALP = {"buzz": 0.8, "bun": 0.42, "ponytail": 0.42}


@dataclass
class _Skin:
    """What is painted of one tile so far, [n] or [n, 3]."""

    rgb: F32
    rough: F32
    specular: F32
    lips: F32
    roots: F32


def paint(atlas: SkinAtlas, traits: Traits) -> tuple[U8, U8]:
    """The textures [size, size, 8] of face and back of a person's head."""
    face, back = (_base(tile, traits) for tile in atlas.tiles)
    for tile, skin in zip(atlas.tiles, (face, back), strict=True):
        _scalp(tile, skin, traits)
    zones = atlas.tiles[0].zones
    _lines(zones, face, traits)
    _stubble(zones, face, traits)
    _lips(zones, face, traits)
    _brows(atlas, face, traits)
    liner = min(0.42 + 0.55 * traits["liner"], 0.95)
    face.rgb *= 1 - (zones["lid_edge"] * liner)[:, None] * _rgb(0.8, 0.95, 1.0)
    return _pack(atlas.tiles[0], face), _pack(atlas.tiles[1], back)


def halved(texture: U8) -> U8:
    """The next smaller picture of a texture, for pictures of few pixels."""
    quarters = [texture[y::2, x::2].astype(np.uint16) for y in (0, 1) for x in (0, 1)]
    small = ((quarters[0] + quarters[1] + quarters[2] + quarters[3] + 2) >> 2).astype(np.uint8)
    small[..., 5] = texture[::2, ::2, 5]  # kinds do not mix
    return small


def _rgb(red: float, green: float, blue: float) -> F32:
    return np.array([red, green, blue], np.float32)


def _base(tile: Tile, traits: Traits) -> _Skin:
    """Bare skin. Blood, mottling and shade are absorption: they add up in the logarithm."""
    z, tone, mottle = tile.zones, traits["tone"], traits["mottle"]
    blood = z["red"] * (0.35 + 0.75 * traits["redness"]) + traits["blush"] * z["blush"]
    blood += mottle * (0.16 * z["mid"] + 0.12 * z["big"])
    uneven = (0.3 + 0.7 * mottle) * (0.05 * z["mid"] + 0.05 * z["big"] + 0.045 * z["fine"])
    log = log_skin(tone) - blood[:, None] * (_rgb(0.02, 0.26, 0.21) * (1.0 - 0.12 * tone))
    log += uneven[:, None] * _rgb(0.7, 1, 1.1)
    tired = 0.12 + 0.05 * traits["age"]
    log -= (tired * z["under"] + 0.10 * z["lid"])[:, None] * _rgb(0.6, 1.0, 0.75)
    spots = smoothstep(0.50, 0.80, z["fine"] + 0.5 * z["mid"]) * z["freckle"]
    log -= (traits["freckles"] * 0.7 * spots)[:, None] * _rgb(0.35, 0.75, 1.0)
    eyes = np.minimum(z["under"] + z["lid"], 1)  # highlights there would look like bags
    return _Skin(
        rgb=np.exp(log).astype(np.float32),
        rough=z["rough"] + 0.04 * z["mid"] - 0.10 * np.float32(traits["shine"] - 0.5),
        specular=(0.60 + 0.07 * z["fine"] + 0.10 * z["mid"]) * (1 - 0.55 * eyes),
        lips=np.zeros(len(tile.position), np.float32),
        roots=np.zeros(len(tile.position), np.float32),
    )


def _scalp(tile: Tile, skin: _Skin, traits: Traits) -> None:
    z, style = tile.zones, traits.chosen("hair") or "bald"
    above = z["above"] - np.float32(traits["recede"]) * z["rise"]
    fading = smoothstep(-0.55 * _HAIRLINE, 1.45 * _HAIRLINE, above)
    line = np.asarray(fading * z["scalp"], np.float32)
    colour = hair_rgb(traits) * np.float32(0.85) + np.float32(0.004)
    if style == "bald":
        cover = line * 0.30 * traits["scalp_shadow"] * (0.8 + 0.3 * z["fine"])
        skin.rgb += cover[:, None] * (colour * 0.8 - skin.rgb)
        return
    share = _SCALP.get(style, 0.5)
    if style == "buzz":
        cover = line * np.clip(0.80 + 0.14 * z["fine"] + 0.05 * z["mid"], 0, 1)
    else:
        cover = line * (0.93 + 0.05 * z["fine"])
    skin.rgb += cover[:, None] * (colour * share - skin.rgb)
    skin.specular *= 1 - 0.9 * line
    skin.roots = line


def _lines(z: dict[str, F32], skin: _Skin, traits: Traits) -> None:
    strength = 0.42 * traits["age"] ** 1.3
    skin.rgb *= 1 - (strength * z["lines"])[:, None] * _rgb(0.55, 0.85, 0.9)
    skin.specular *= 1 - 0.6 * traits["age"] * z["lines"]


def _stubble(z: dict[str, F32], skin: _Skin, traits: Traits) -> None:
    if traits["stubble"] <= 0:
        return
    grain = 0.62 + 0.35 * z["fine"] + 0.12 * z["mid"]
    cover = np.clip(z["beard"] * traits["stubble"] * grain, 0, 0.93)
    hair = hair_rgb(traits) * np.float32(0.85) + np.float32(0.004)
    skin.rgb += cover[:, None] * (hair * 0.7 + 0.10 * skin.rgb - skin.rgb)
    skin.specular *= 1 - 0.95 * cover


def _lips(z: dict[str, F32], skin: _Skin, traits: Traits) -> None:
    lips = np.asarray(1 - smoothstep(-3.6, 1.8, z["lips"] + 0.9 * z["mid"]), np.float32)
    strength = 0.55 + 0.45 * traits["lip_colour"]
    natural = np.exp(log_skin(traits["tone"])) * (1 + strength * (_rgb(0.86, 0.52, 0.59) - 1))
    stick, hue = traits["lipstick"], traits["lipstick_hue"]
    colour = _rgb(0.52, 0.085, 0.10) * (1 - hue) + _rgb(0.24, 0.035, 0.07) * hue
    colour = colour * (1 - 0.08 * traits["tone"])
    tint = natural * (1 - 0.8 * stick) + colour * (0.8 * stick)
    grain = (1 + 0.10 * z["fine"] + 0.05 * z["mid"])[:, None]
    skin.rgb += (lips * 0.92)[:, None] * (tint * grain - skin.rgb)
    skin.rough += lips * (0.34 - 0.08 * stick - skin.rough)
    skin.lips = lips


def _brows(atlas: SkinAtlas, skin: _Skin, traits: Traits) -> None:
    hairs, shade = paint_brows(atlas.landmarks, atlas.size, traits)
    cover = hairs.ravel() * 0.92 + shade.ravel() * (0.38 * traits["brow_density"])
    cover = np.clip(cover * (0.72 + 0.28 * traits["brow_dark"]), 0, 0.95)
    hair = hair_rgb(traits) * np.float32(0.85)
    dark = 1.15 - 0.65 * traits["brow_dark"]
    colour = np.minimum(hair * dark, np.exp(log_skin(traits["tone"])) * (0.35 + 0.4 * dark))
    skin.rgb += cover[:, None] * (colour - skin.rgb)
    skin.specular *= 1 - 0.9 * cover


def _pack(tile: Tile, skin: _Skin) -> U8:
    z = tile.zones
    rough = (1 - skin.roots) * np.where(skin.lips > 0.5, 1.4, 1.0)
    out = np.zeros((len(tile.position), 8), np.uint8)
    out[:, :3] = np.sqrt(np.clip(skin.rgb, 0, 1)) * 255 + 0.5
    out[:, 3] = np.clip(skin.rough, 0, 1) * 255 + 0.5
    out[:, 4] = np.clip(skin.specular * 127 + 0.5, 0, 255)
    out[:, 5] = np.where(skin.roots > 0.5, 200, np.where(skin.lips > 0.5, 100, 0))
    out[:, 6] = np.clip(z["bump_x"] * rough * 60 + 128, 0, 255)
    out[:, 7] = np.clip(z["bump_y"] * rough * 60 + 128, 0, 255)
    return out.reshape(tile.size, tile.size, 8)
