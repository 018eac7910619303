"""The light of a picture: soft surroundings as spherical harmonics, a key light, a rim light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.faces.traits import Traits
from models.training.heads.jit import inlined
from models.training.heads.raster.project import frame_of
from models.training.heads.shade.single import F

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
_DIRECTIONS = 1000  # of the surroundings that are summed up


@dataclass(frozen=True)
class Light:
    """Args:
    sh: [9, 3] irradiance / pi of the surroundings, the cosine folded in.
    key, rim: [3] unit vectors towards the lights; key_rgb, rim_rgb: [3] linear.
    exposure: What radiance is multiplied by before the tone curve.
    seen_from_key: Right, up and forward of the key's shadow map.
    vector: [39] harmonics, then key and rim, direction and colour each.
    """

    sh: F32
    key: F32
    key_rgb: F32
    rim: F32
    rim_rgb: F32
    exposure: np.float32
    seen_from_key: tuple[F32, F32, F32]
    vector: F32


def light_of(traits: Traits, backdrop_rgb: F32) -> Light:
    """A person's light; the surroundings lean to the backdrop's mean colour [3].

    Nothing jumps where the key crosses the middle: what lies on the other side fades there.
    """
    side = float(np.clip(traits["key_azimuth"] / 20.0, -1.0, 1.0))
    warm = traits["warmth"]
    tint = np.array([1 + 0.10 * warm, 1.0, 1 - 0.13 * warm])
    cool = np.array([1 - 0.05 * warm, 1.0, 1 + 0.08 * warm])
    lean = backdrop_rgb / max(float(backdrop_rgb.mean()), 0.05)
    key = _direction(traits["key_azimuth"], np.sin(np.radians(traits["key_elevation"])))
    rim = _direction(-np.sign(side) * traits["rim_azimuth"], 0.5)
    rim_colour = traits["rim_power"] * abs(side) * cool * (0.6 + 0.4 * lean)
    sh = _harmonics(_surroundings(traits["fill"], side, tint, cool, lean))
    numbers = (key, traits["key_power"] * tint, rim, rim_colour)
    toward_key, key_rgb, toward_rim, rim_rgb = (np.asarray(part, np.float32) for part in numbers)
    return Light(
        sh,
        toward_key,
        key_rgb,
        toward_rim,
        rim_rgb,
        np.float32(traits["exposure"]),
        frame_of(toward_key),
        np.concatenate([sh.ravel(), toward_key, key_rgb, toward_rim, rim_rgb]),
    )


def _direction(azimuth: float, height: float) -> F64:
    a, flat = np.radians(azimuth), np.sqrt(1 - height**2)
    return np.array([np.sin(a) * flat, height, np.cos(a) * flat])


def _sphere() -> F64:
    """[n, 3] directions, evenly spread."""
    k = np.arange(_DIRECTIONS) + 0.5
    phi, z = np.pi * (1 + 5**0.5) * k, 1 - 2 * k / _DIRECTIONS
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], 1)


def _surroundings(fill: float, side: float, tint: F64, cool: F64, lean: F32) -> F64:
    """Radiance [n, 3] from each direction: bright above and in front, and opposite the key."""
    d = _sphere()
    up = np.clip(d[:, 1:2] * 0.5 + 0.5, 0, 1)
    radiance = fill * (0.45 + 0.85 * up) * cool * (0.75 + 0.25 * lean)
    radiance = radiance + fill * 1.1 * np.clip(d[:, 2:3], 0, 1) ** 2
    radiance += fill * 0.8 * np.clip(-side * d[:, 0:1], 0, 1) ** 2 * tint
    # What cloth and floor throw back.
    return radiance + 0.10 * np.array([0.9, 0.6, 0.45]) * np.clip(-d[:, 1:2], 0, 1)


def _harmonics(radiance: F64) -> F32:
    """[9, 3] irradiance / pi of radiance [n, 3] from the directions of `_sphere`.

    Source: Ramamoorthi and Hanrahan, "An efficient representation for irradiance environment
    maps", SIGGRAPH 2001.
    """
    x, y, z = _sphere().T
    basis = np.stack(
        [
            0.2821 + 0 * x,
            0.4886 * y,
            0.4886 * z,
            0.4886 * x,
            1.0925 * x * y,
            1.0925 * y * z,
            0.3154 * (3 * z * z - 1),
            1.0925 * x * z,
            0.5463 * (x * x - y * y),
        ]
    )
    cosine = np.array([1, 2 / 3, 2 / 3, 2 / 3, 0.25, 0.25, 0.25, 0.25, 0.25])
    return (basis @ radiance * (4 * np.pi / _DIRECTIONS) * cosine[:, None]).astype(np.float32)


@inlined
def irradiance(sh, x, y, z, c):
    """What a surface that faces (x, y, z) gets from the surroundings in channel c."""
    return (
        F(0.2821) * sh[0, c]
        + F(0.4886) * (y * sh[1, c] + z * sh[2, c] + x * sh[3, c])
        + F(1.0925) * (x * y * sh[4, c] + y * z * sh[5, c] + x * z * sh[7, c])
        + F(0.3154) * (F(3) * z * z - F(1)) * sh[6, c]
        + F(0.5463) * (x * x - y * y) * sh[8, c]
    )
