"""Everything about a person that stays, as 107 numbers.

The renderer draws a person from these and from nothing else, so that they describe a picture
completely: whoever learns to draw heads from numbers is told all that is to be seen. **Order, names
and the constants below are part of the format** of checkpoints that are conditioned on them
(`TRAITS_VERSION`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.errors import BadConfig

TRAITS_VERSION = 1
SHAPES = 32  # coefficients of the head's shape, in standard deviations
HAIR_STYLES = (
    "buzz",
    "short",
    "side_part",
    "quiff",
    "curly",
    "afro",
    "bob",
    "long",
    "wavy",
    "bun",
    "ponytail",
    "bald",
)
GLASSES = ("round", "square", "narrow")
COLLARS = ("round", "v", "shirt")
ANCHORS = 5  # constants that `standardised` appends
_CLIP = 4.0  # standard deviations; a rare choice would be far out otherwise
_ANCHOR = 2.0
_ROUNDING = 1e-5  # of numbers that were computed


class Trait(NamedTuple):
    """One number: its range, and how it is spread over people at large.

    Args:
        mean, sd: For `standardised`; they need not be exact, but must not change.
        choice: The group of which exactly one (of glasses: at most one) number is 1, else "".
    """

    name: str
    low: float
    high: float
    mean: float
    sd: float
    choice: str = ""


def _shape() -> Iterable[Trait]:
    for k in range(SHAPES):
        # The first modes are the strong ones: held nearer, so that nobody is a monster.
        limit = 1.7 if k < 12 else 2.2
        yield Trait(f"shape_{k:02d}", -limit, limit, 0.0, 0.75)
    yield Trait("soft", -0.8, 1.4, 0.3, 0.67)  # along the direction in which faces get softer


def _choice(group: str, options: Iterable[str], sd: float) -> Iterable[Trait]:
    options = tuple(options)
    for option in options:
        yield Trait(f"{group}_{option}", 0.0, 1.0, 1.0 / len(options), sd, group)


def _skin() -> Iterable[Trait]:
    yield Trait("tone", 0.0, 5.0, 2.1, 1.5)  # from very light to very dark
    yield Trait("redness", 0.0, 1.0, 0.5, 0.29)
    yield Trait("freckles", 0.0, 1.0, 0.1, 0.24)
    yield Trait("mottle", 0.0, 1.0, 0.4, 0.2)  # unevenness of tone
    yield Trait("blush", 0.0, 1.0, 0.4, 0.25)
    yield Trait("shine", 0.0, 1.0, 0.5, 0.25)
    yield Trait("age", 0.0, 1.0, 0.4, 0.24)
    yield Trait("lip_colour", 0.35, 0.95, 0.65, 0.17)
    yield Trait("lipstick", 0.0, 0.85, 0.15, 0.26)
    yield Trait("lipstick_hue", 0.0, 1.0, 0.5, 0.29)
    yield Trait("brow_width", 0.7, 1.2, 0.95, 0.14)
    yield Trait("brow_density", 0.6, 1.0, 0.8, 0.12)
    yield Trait("brow_dark", 0.5, 1.0, 0.75, 0.14)
    yield Trait("iris_melanin", 0.0, 1.0, 0.55, 0.32)
    yield Trait("iris_hue", -1.0, 1.0, 0.0, 0.5)
    yield Trait("pupil", 0.33, 0.46, 0.395, 0.038)  # radius over the iris's
    yield Trait("liner", 0.0, 0.9, 0.25, 0.3)
    yield Trait("lashes", 0.0, 1.0, 0.5, 0.3)
    yield Trait("tooth_shade", 0.0, 1.0, 0.4, 0.25)


def _hair() -> Iterable[Trait]:
    yield from _choice("hair", HAIR_STYLES, 0.28)
    yield Trait("hair_length", 0.0, 1.0, 0.5, 0.29)  # within what the style allows
    yield Trait("part", -1.0, 1.0, 0.0, 0.6)  # where it is parted; > 0 on the person's left
    yield Trait("recede", -0.35, 0.45, 0.0, 0.18)  # of the hairline
    yield Trait("volume", 0.8, 1.2, 1.0, 0.12)
    yield Trait("hair_light", 0.0, 1.0, 0.35, 0.28)
    yield Trait("hair_red", 0.0, 1.0, 0.3, 0.25)
    yield Trait("hair_grey", 0.0, 1.0, 0.15, 0.27)
    yield Trait("scalp_shadow", 0.0, 1.0, 0.5, 0.29)  # of shaved hair
    yield Trait("stubble", 0.0, 1.4, 0.25, 0.4)
    yield Trait("beard", 0.0, 1.0, 0.1, 0.22)  # length, cm


def _worn() -> Iterable[Trait]:
    yield from _choice("glasses", GLASSES, 0.25)
    yield Trait("rim_dark", 0.0, 1.0, 0.6, 0.3)
    yield Trait("rim_warm", 0.0, 1.0, 0.4, 0.3)
    yield Trait("shirt_l", 0.15, 0.92, 0.55, 0.2)  # Oklab
    yield Trait("shirt_a", -0.15, 0.15, 0.0, 0.06)
    yield Trait("shirt_b", -0.18, 0.15, 0.0, 0.07)
    yield from _choice("collar", COLLARS, 0.45)
    yield Trait("stripes", 0.0, 1.0, 0.15, 0.3)


def _surroundings() -> Iterable[Trait]:
    for kind, mean in (("glow", 0.4), ("bokeh", 0.3), ("room", 0.3)):
        yield Trait(f"backdrop_{kind}", 0.0, 1.0, mean, 0.4)  # amounts, not a choice
    for end in "ab":  # the two colours of its gradient, Oklab
        yield Trait(f"backdrop_{end}_l", 0.1, 0.9, 0.42, 0.15)
        yield Trait(f"backdrop_{end}_a", -0.12, 0.12, 0.0, 0.035)
        yield Trait(f"backdrop_{end}_b", -0.15, 0.12, 0.0, 0.045)
    yield Trait("backdrop_cos", -1.0, 1.0, 0.0, 0.71)  # of the gradient's direction
    yield Trait("backdrop_sin", -1.0, 1.0, 0.0, 0.71)
    yield Trait("backdrop_x", -1.0, 1.0, 0.0, 0.5)  # shift of what is in it
    yield Trait("backdrop_y", -1.0, 1.0, 0.0, 0.5)
    yield Trait("key_azimuth", -58.0, 58.0, 0.0, 40.0)  # degrees; > 0 from the picture's right
    yield Trait("key_elevation", 22.0, 48.0, 35.0, 7.5)
    yield Trait("key_power", 0.85, 1.15, 1.0, 0.09)
    yield Trait("warmth", -0.6, 1.0, 0.2, 0.46)
    yield Trait("fill", 0.22, 0.36, 0.29, 0.04)
    yield Trait("rim_power", 0.0, 1.0, 0.5, 0.34)
    yield Trait("rim_azimuth", 125.0, 150.0, 137.5, 7.2)  # on the side opposite the key
    yield Trait("exposure", 1.0, 1.3, 1.15, 0.09)


TRAITS: tuple[Trait, ...] = (*_shape(), *_skin(), *_hair(), *_worn(), *_surroundings())
COUNT = len(TRAITS)
INDEX = {trait.name: k for k, trait in enumerate(TRAITS)}
LOW = np.array([trait.low for trait in TRAITS], np.float32)
HIGH = np.array([trait.high for trait in TRAITS], np.float32)
MEAN = np.array([trait.mean for trait in TRAITS], np.float32)
SD = np.array([trait.sd for trait in TRAITS], np.float32)


def _choices() -> dict[str, slice]:
    found: dict[str, list[int]] = {}
    for k, trait in enumerate(TRAITS):
        if trait.choice:
            found.setdefault(trait.choice, []).append(k)
    return {name: slice(places[0], places[-1] + 1) for name, places in found.items()}


CHOICES = _choices()  # where each group of choices lies
_OPTIONAL = {"glasses"}  # no number of the group need be 1


@dataclass(frozen=True, eq=False)
class Traits:
    """One person.

    Args:
        vector: [107] in the order and units of `TRAITS`. It is copied and cannot be changed.
    Raises:
        BadConfig: A number is out of range or not finite, or a choice is not one.
    """

    vector: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        vector = np.array(self.vector, np.float32)
        if vector.shape != (COUNT,):
            raise BadConfig(f"a person is {COUNT} numbers, not an array of shape {vector.shape}")
        fine = np.isfinite(vector) & (vector >= LOW - _ROUNDING) & (vector <= HIGH + _ROUNDING)
        if not fine.all():
            bad = TRAITS[int(np.argmin(fine))]
            raise BadConfig(
                f"{bad.name} is {vector[INDEX[bad.name]]:g}; need {bad.low:g} .. {bad.high:g}"
            )
        np.clip(vector, LOW, HIGH, out=vector)
        for name, where in CHOICES.items():
            ones, others = (vector[where] == 1).sum(), (vector[where] != 0).sum()
            if others != ones or ones > 1 or (ones == 0 and name not in _OPTIONAL):
                raise BadConfig(f"{name} is {vector[where]}; one number must be 1, the others 0")
        vector.flags.writeable = False
        object.__setattr__(self, "vector", vector)

    def __getitem__(self, name: str) -> float:
        """One number, by its name.

        Raises:
            BadConfig: There is none of that name.
        """
        if name not in INDEX:
            raise BadConfig(f"there is no trait {name!r}; see models.faces.traits.TRAITS")
        return float(self.vector[INDEX[name]])

    def chosen(self, group: str) -> str | None:
        """Which option of a group of CHOICES; None: none of them."""
        where = CHOICES[group]
        options = self.vector[where]
        if not options.any():
            return None
        return TRAITS[where.start + int(options.argmax())].name.removeprefix(f"{group}_")

    def replace(self, **numbers: float) -> Traits:
        """The same person with some numbers changed.

        Raises:
            BadConfig: There is none of that name, or it is out of range.
        """
        vector = self.vector.copy()
        for name, value in numbers.items():
            self[name]  # raises
            vector[INDEX[name]] = value
        return Traits(vector)


def standardised(traits: Traits) -> npt.NDArray[np.float32]:
    """What a mapping network is given: [107 + 5] numbers of about mean 0 and variance 1.

    A mapping network divides its input by its root mean square, which would make a person and
    somebody half as far from the mean the same; the constants at the end keep them apart.
    """
    spread = np.clip((traits.vector - MEAN) / SD, -_CLIP, _CLIP)
    return np.concatenate([spread, np.full(ANCHORS, _ANCHOR, np.float32)]).astype(np.float32)


def shrink(traits: Traits, psi: float) -> Traits:
    """Nearer to the mean of all people, as truncation is in W.

    Choices, the backdrop and what is worn stay; every other number x becomes mean + psi (x - mean),
    within its range. 1 gives the person itself, more exaggerates.
    """
    vector = traits.vector.copy()
    moved = MEAN[_SHRUNK] + np.float32(psi) * (vector[_SHRUNK] - MEAN[_SHRUNK])
    vector[_SHRUNK] = np.clip(moved, LOW[_SHRUNK], HIGH[_SHRUNK])
    return Traits(vector)


_STAYS = ("shirt_", "stripes", "backdrop_", "rim_dark", "rim_warm")
_SHRUNK = np.array(
    [k for k, trait in enumerate(TRAITS) if not (trait.choice or trait.name.startswith(_STAYS))]
)
