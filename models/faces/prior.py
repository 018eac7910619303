"""Which people there are: a seed's 107 numbers, plausible together.

The open prior is everybody the renderer can draw. The narrow one is for models that have few
weights: fewer hair styles, no glasses, plain shirts and backdrops, an even light. **The mapping
from seeds to people is part of the format** of checkpoints that know some of them by heart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from statistics import NormalDist

import numpy as np

from models.errors import BadConfig
from models.faces.traits import (
    COLLARS,
    GLASSES,
    HAIR_STYLES,
    HIGH,
    INDEX,
    LOW,
    MEAN,
    SHAPES,
    Traits,
)
from models.noise import Domain, normals, philox4x32

CAST = 64  # seeds 0 .. 63 of the narrow prior: the people of the embedded model


class Prior(Enum):
    """How wide a range of people is."""

    OPEN = "open"
    NARROW = "narrow"


_NARROW_SHAPES = 16  # strongest modes; they hold nine tenths of what can be seen of 32
_REDRAWS = 16  # of a coefficient that falls outside its range; one in 10^20 is left, and clipped
_NUMBERS = 192  # uniform ones that a person has to spend

# Numbers that decide about others and are no traits; where they lie in a person's uniform ones.
_HIDDEN = (
    "groomed",
    "tone_kind",
    "tone_place",
    "has_freckles",
    "wears_lipstick",
    "eye_kind",
    "hair_kind",
    "grey_kind",
    "style",
    "part_side",
    "bearded",
    "long_beard",
    "wears_glasses",
    "glasses_kind",
    "collar_kind",
    "has_stripes",
    "backdrop_kind",
    "backdrop_angle",
    "key_side",
    "has_rim",
)
_PLACE = {**INDEX, **{name: len(INDEX) + k for k, name in enumerate(_HIDDEN)}}

# Chances of the styles of HAIR_STYLES: of groomed people, and of the others.
_STYLES = {
    True: dict(
        bob=17, long=17, wavy=18, bun=13, ponytail=10, curly=11, afro=5, short=4, side_part=5
    ),
    False: dict(
        buzz=12, short=23, side_part=21, quiff=16, curly=9, afro=4, bald=10, long=2, wavy=3
    ),
}
_NARROW_STYLES = {
    True: dict(bob=42, long=42, short=8, side_part=8),
    False: dict(buzz=21, short=33, side_part=34, bald=12),
}

# Light and redness of hair by its name, and its chances under light, middle and dark skin.
_HAIR = {
    "black": ((0.03, 0.20), (4, 32, 65)),
    "dark brown": ((0.15, 0.30), (17, 36, 27)),
    "brown": ((0.30, 0.30), (21, 20, 5)),
    "chestnut": ((0.38, 0.60), (13, 6, 2)),
    "auburn": ((0.45, 0.95), (11, 1, 0)),
    "light brown": ((0.55, 0.25), (15, 4, 0)),
    "blond": ((0.80, 0.20), (14, 1, 1)),
    "pale blond": ((0.97, 0.12), (5, 0, 0)),
}
# Range of iris melanin by the eye's colour, and its chances likewise.
_EYES = {
    "dark brown": ((0.85, 1.0), (8, 36, 64)),
    "brown": ((0.65, 0.85), (22, 41, 33)),
    "hazel": ((0.45, 0.65), (18, 15, 3)),
    "green": ((0.25, 0.45), (16, 4, 0)),
    "blue": ((0.0, 0.25), (36, 4, 0)),
}


def person(seed: int, prior: Prior = Prior.OPEN) -> Traits:
    """The person that a seed stands for.

    Args:
        seed: 0 .. 2^64 - 1.
    Raises:
        BadConfig: The seed does not fit 64 bits.
    """
    draws = _Draws(seed)
    numbers = _appearance(draws, prior)
    numbers |= _worn(draws, numbers["tone"])
    numbers |= _backdrop(draws) | _light(draws)
    if prior is Prior.NARROW:
        numbers |= _narrowed(draws, numbers)
    vector = np.zeros(len(INDEX), np.float64)
    vector[:SHAPES] = _shape(draws, prior)
    for name, value in numbers.items():
        vector[INDEX[name]] = value
    return Traits(np.clip(vector, LOW, HIGH).astype(np.float32))


class _Draws:
    """A person's random numbers, each by its name, so that none depends on how many others exist.

    Uniform number k is word k mod 4 of the Philox block with the counter (k // 4, 0, 1, domain).
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 1 << 64:
            raise BadConfig(f"seed is {seed}; it must be between 0 and 2^64 - 1")
        self.seed = seed
        counter = (np.arange(_NUMBERS // 4, dtype=np.uint64), 0, 1, int(Domain.FACE_PERSON))
        words = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32)).reshape(-1)
        self._uniform = ((words.astype(np.float64) + 0.5) * 2.0**-32).tolist()

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(self._uniform[_PLACE[name]])

    def normal(self, name: str, mean: float, sd: float) -> float:
        """Within 2.5 standard deviations."""
        spread = NormalDist().inv_cdf(float(self._uniform[_PLACE[name]]))
        return mean + sd * min(max(spread, -2.5), 2.5)

    def happens(self, name: str, chance: float) -> bool:
        return float(self._uniform[_PLACE[name]]) < chance

    def choice(self, name: str, chances: Mapping[str, float]) -> str:
        left = float(self._uniform[_PLACE[name]]) * sum(chances.values())
        for option, chance in chances.items():
            left -= chance
            if left < 0:
                return option
        return max(chances, key=lambda option: chances[option])


def _shape(draws: _Draws, prior: Prior) -> np.ndarray:
    """[32] coefficients: normal, drawn again while outside their range."""
    narrow = prior is Prior.NARROW
    spread = normals(draws.seed, 0, _REDRAWS, SHAPES, domain=Domain.FACE_PERSON).astype(np.float64)
    spread *= 0.75 if narrow else 0.8
    inside = np.abs(spread) <= HIGH[:SHAPES]
    shape: np.ndarray = spread[inside.argmax(0), np.arange(SHAPES)]
    if narrow:
        shape[_NARROW_SHAPES:] = 0.0
    return shape


def _appearance(draws: _Draws, prior: Prior) -> dict[str, float]:
    """Skin, eyes and hair; what goes with what is kept plausible."""
    groomed = draws.happens("groomed", 0.5)
    kind = draws.choice("tone_kind", {"light": 42, "middle": 33, "dark": 25})
    low, high = {"light": (0.0, 1.3), "middle": (1.0, 2.6), "dark": (2.4, 4.6)}[kind]
    numbers = {
        "soft": draws.normal("soft", 0.95 if groomed else -0.35, 0.15),
        "tone": draws.uniform("tone_place", low, high),
    }
    numbers |= _skin(draws, groomed, numbers["tone"])
    numbers |= _hair(draws, groomed, numbers["tone"], numbers["age"], prior)
    return numbers


def _skin(draws: _Draws, groomed: bool, tone: float) -> dict[str, float]:
    u = draws.uniform
    freckled = tone < 1.8 and draws.happens("has_freckles", 0.2)
    lipstick = groomed and draws.happens("wears_lipstick", 0.55)
    eye = draws.choice("eye_kind", {name: p[_third(tone)] for name, (_, p) in _EYES.items()})
    return {
        "redness": u("redness", 0.2, 0.9),
        "freckles": u("freckles", 0.3, 1.0) if freckled else 0.0,
        "mottle": u("mottle", 0.1, 0.7),
        "blush": u("blush", 0.1, 0.8) if groomed else u("blush", 0.0, 0.4),
        "shine": u("shine", 0.2, 0.8),
        "age": u("age", 0.0, 0.8),
        "lip_colour": u("lip_colour", 0.35, 0.95),
        "lipstick": u("lipstick", 0.25, 0.85) if lipstick else 0.0,
        "lipstick_hue": u("lipstick_hue"),
        "brow_width": u("brow_width", 0.7, 0.95) if groomed else u("brow_width", 0.9, 1.2),
        "brow_density": u("brow_density", 0.6, 1.0),
        "brow_dark": u("brow_dark", 0.5, 1.0),
        "iris_melanin": u("iris_melanin", *_EYES[eye][0]),
        "iris_hue": draws.normal("iris_hue", 0.0, 0.45),
        "pupil": u("pupil", 0.33, 0.46),
        "liner": u("liner", 0.0, 0.9) if groomed else 0.0,
        "lashes": u("lashes", 0.5, 1.0) if groomed else u("lashes", 0.0, 0.5),
        "tooth_shade": u("tooth_shade", 0.0, 0.8),
    }


def _hair(draws: _Draws, groomed: bool, tone: float, age: float, prior: Prior) -> dict[str, float]:
    u = draws.uniform
    tables = _NARROW_STYLES if prior is Prior.NARROW else _STYLES
    style = draws.choice("style", tables[groomed])
    if style == "afro" and tone < 2.0:
        style = "curly"
    numbers = _one_of("hair", HAIR_STYLES, style)
    colour = draws.choice("hair_kind", {name: p[_third(tone)] for name, (_, p) in _HAIR.items()})
    light, red = _HAIR[colour][0]
    aged = min(max((age - 0.3) / 0.45, 0.0), 1.0)
    side = -1.0 if draws.happens("part_side", 0.5) else 1.0
    bearded = not groomed and draws.happens("bearded", 0.55)
    long_beard = bearded and draws.happens("long_beard", 0.45)
    stubble = u("stubble", 0.25, 0.9) if bearded else 0.0
    return numbers | {
        "hair_length": u("hair_length"),
        "part": side * (u("part", 0.6, 1.0) if style == "side_part" else u("part", 0.0, 0.5)),
        "recede": u("recede", -0.35, 0.05) if groomed else u("recede", -0.25, 0.45),
        "volume": u("volume", 0.8, 1.2),
        "hair_light": draws.normal("hair_light", light, 0.04),
        "hair_red": draws.normal("hair_red", red, 0.07),
        "hair_grey": aged * u("hair_grey", 0.2, 1.0) if draws.happens("grey_kind", 0.5) else 0.0,
        "scalp_shadow": u("scalp_shadow"),
        "stubble": 1.4 if long_beard else stubble,  # strands alone would look like a cactus
        "beard": u("beard", 0.3, 1.0) if long_beard else 0.0,
    }


def _worn(draws: _Draws, tone: float) -> dict[str, float]:
    u = draws.uniform
    glasses = GLASSES[int(u("glasses_kind") * len(GLASSES))]
    numbers = _one_of("glasses", GLASSES, glasses if draws.happens("wears_glasses", 0.18) else "")
    collar = draws.choice("collar_kind", dict(zip(COLLARS, (50, 28, 22), strict=True)))
    light = _apart(u("shirt_l"), 0.18, 0.88, 0.81 - 0.068 * tone, 0.13)
    return (
        numbers
        | _one_of("collar", COLLARS, collar)
        | {
            "rim_dark": u("rim_dark", 0.2, 1.0),
            "rim_warm": u("rim_warm"),
            "shirt_l": light,
            "shirt_a": draws.normal("shirt_a", 0.0, 0.05),
            "shirt_b": draws.normal("shirt_b", -0.01, 0.055),
            "stripes": u("stripes", 0.3, 0.8) if draws.happens("has_stripes", 0.18) else 0.0,
        }
    )


def _apart(u: float, low: float, high: float, avoided: float, by: float) -> float:
    """u of 0 .. 1 spread over low .. high without avoided +- by: a shirt is not skin."""
    hole_low, hole_high = max(avoided - by, low), min(avoided + by, high)
    x = low + u * (high - low - (hole_high - hole_low))
    return x if x < hole_low else x + (hole_high - hole_low)


def _backdrop(draws: _Draws) -> dict[str, float]:
    kinds = ("glow", "bokeh", "room")
    kind = draws.choice("backdrop_kind", dict.fromkeys((*kinds, "gradient"), 1))
    numbers = {
        f"backdrop_{k}": draws.uniform(f"backdrop_{k}", 0.6, 1.0) * (k == kind) for k in kinds
    }
    for end in "ab":
        numbers[f"backdrop_{end}_l"] = draws.uniform(f"backdrop_{end}_l", 0.18, 0.68)
        numbers[f"backdrop_{end}_a"] = draws.normal(f"backdrop_{end}_a", 0.0, 0.03)
        numbers[f"backdrop_{end}_b"] = draws.normal(f"backdrop_{end}_b", 0.0, 0.04)
    angle = draws.uniform("backdrop_angle", 0.0, 2.0 * np.pi)
    return numbers | {
        "backdrop_cos": float(np.cos(angle)),
        "backdrop_sin": float(np.sin(angle)),
        "backdrop_x": draws.uniform("backdrop_x", -1.0, 1.0),
        "backdrop_y": draws.uniform("backdrop_y", -1.0, 1.0),
    }


def _light(draws: _Draws) -> dict[str, float]:
    u = draws.uniform
    side = -1.0 if draws.happens("key_side", 0.5) else 1.0
    return {
        "key_azimuth": side * u("key_azimuth", 20.0, 58.0),
        "key_elevation": u("key_elevation", 22.0, 48.0),
        "key_power": u("key_power", 0.85, 1.15),
        "warmth": u("warmth", -0.6, 1.0),
        "fill": u("fill", 0.22, 0.36),
        "rim_power": u("rim_power", 0.35, 1.0) if draws.happens("has_rim", 0.75) else 0.0,
        "rim_azimuth": u("rim_azimuth", 125.0, 150.0),
        "exposure": u("exposure", 1.0, 1.3),
    }


def _narrowed(draws: _Draws, numbers: Mapping[str, float]) -> dict[str, float]:
    """What the narrow prior draws otherwise or holds still."""
    u = draws.uniform
    side = 1.0 if numbers["key_azimuth"] > 0 else -1.0
    still = ("key_elevation", "key_power", "warmth", "fill", "rim_power", "rim_azimuth", "exposure")
    plain = draws.choice("backdrop_kind", {"glow": 1, "gradient": 1})
    return {
        **_one_of("glasses", GLASSES, ""),
        **_one_of("collar", COLLARS, "round"),
        **{name: float(MEAN[INDEX[name]]) for name in still},
        "mottle": 0.4,
        "freckles": 0.0,
        "age": u("age", 0.0, 0.3),
        "tooth_shade": 0.3,
        "hair_length": u("hair_length", 0.25, 0.75),
        "volume": u("volume", 0.9, 1.1),
        "hair_grey": 0.0,
        "stubble": min(numbers["stubble"], 0.9),
        "beard": 0.4 * numbers["beard"],
        "stripes": 0.0,
        "backdrop_glow": u("backdrop_glow", 0.6, 1.0) if plain == "glow" else 0.0,
        "backdrop_bokeh": 0.0,
        "backdrop_room": 0.0,
        "key_azimuth": side * u("key_azimuth", 25.0, 45.0),
    }


def _third(tone: float) -> int:
    """0 light, 1 middle, 2 dark skin: the columns of the tables."""
    return int(tone >= 1.3) + int(tone >= 2.5)


def _one_of(group: str, options: Sequence[str], chosen: str) -> dict[str, float]:
    """ "": none of them."""
    return {f"{group}_{option}": float(option == chosen) for option in options}
