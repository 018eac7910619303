"""Numbers of a person to colours: skin, hair, irises, cloth. All are linear RGB albedos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.faces.traits import Traits

F32 = npt.NDArray[np.float32]

# From light to deep. Between two of them the way leads along the logarithm: absorption adds up.
_SKIN = np.log(
    [
        [0.67, 0.445, 0.345],
        [0.645, 0.405, 0.298],
        [0.59, 0.345, 0.238],
        [0.47, 0.25, 0.158],
        [0.31, 0.15, 0.088],
        [0.175, 0.08, 0.047],
    ]
)
# Black, dark brown, brown, light brown, blond, pale blond over `hair_light`.
_HAIR_AT = (0.0, 0.2, 0.42, 0.64, 0.84, 1.0)
_HAIR = np.log(
    [
        [0.022, 0.019, 0.018],
        [0.045, 0.027, 0.018],
        [0.095, 0.053, 0.030],
        [0.21, 0.13, 0.072],
        [0.43, 0.31, 0.18],
        [0.60, 0.48, 0.33],
    ]
)
# Without melanin: green, grey, blue over `iris_hue`; then hazel, brown, dark brown over melanin.
_IRIS_LIGHT = np.log([[0.16, 0.24, 0.12], [0.28, 0.33, 0.36], [0.15, 0.29, 0.46]])
_IRIS = np.log([[0.24, 0.17, 0.065], [0.16, 0.072, 0.028], [0.07, 0.030, 0.014]])


def _along(
    table: npt.NDArray[np.float64], at: Sequence[float], x: float
) -> npt.NDArray[np.float64]:
    return np.array([np.interp(x, at, table[:, c]) for c in range(3)])


def linear_of_oklab(lightness: float, a: float, b: float) -> F32:
    """Linear RGB [3], never quite black and held inside what a screen shows.

    Source: Bjorn Ottosson, "A perceptual color space for image processing", 2020.
    """
    to_lms = np.array(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    rgb = to_rgb @ (to_lms @ np.array([lightness, a, b])) ** 3
    return np.clip(rgb, 0.004, 1.0).astype(np.float32)


def log_skin(tone: float) -> F32:
    """Logarithm of the albedo of skin [3]; tone 0 (very light) .. 5 (very dark)."""
    return _along(_SKIN, range(len(_SKIN)), tone).astype(np.float32)


def hair_rgb(traits: Traits) -> F32:
    """[3] of a strand of middle brightness."""
    light, red, grey = traits["hair_light"], traits["hair_red"], traits["hair_grey"]
    log = _along(_HAIR, _HAIR_AT, light)
    # Red melanin shows most in hair of middle lightness; black and pale hair hide it.
    log += np.array([0.50, -0.12, -0.50]) * red * (0.25 + 3.0 * light * (1.0 - light))
    white = np.array([0.66, 0.655, 0.65]) * (0.55 + 0.45 * grey)
    return (np.exp(log) * (1.0 - grey) + white * grey).astype(np.float32)


def iris_rgb(traits: Traits) -> F32:
    """[3] of an iris's fibres."""
    melanin = traits["iris_melanin"]
    light = _along(_IRIS_LIGHT, (-1.0, 0.0, 1.0), traits["iris_hue"])
    table = np.vstack([light, _IRIS])
    return np.exp(_along(table, (0.0, 0.40, 0.62, 0.88), melanin)).astype(np.float32)


def shirt_rgb(traits: Traits) -> F32:
    """[3] of the cloth."""
    return linear_of_oklab(traits["shirt_l"], traits["shirt_a"], traits["shirt_b"])


def rim_rgb(traits: Traits) -> F32:
    """[3] of the frame of glasses."""
    warm = traits["rim_warm"]
    light = np.array([0.11, 0.10, 0.12]) * (1 - warm) + np.array([0.24, 0.15, 0.07]) * warm
    dark = traits["rim_dark"]
    return (light * (1 - dark) + 0.016 * dark).astype(np.float32)
