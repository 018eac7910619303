"""People from numbers: each number is seen, and none makes a jump."""

from __future__ import annotations

import numpy as np
import pytest

from models.faces.prior import Prior, person
from models.faces.state import FaceState
from models.faces.traits import HAIR_STYLES, HIGH, INDEX, LOW
from models.training.heads.hair_styles import hair_of
from models.training.heads.person import make_person
from models.training.heads.renderer import HeadRenderer

BASE = {
    f"backdrop_{kind}": amount for kind, amount in (("glow", 0.3), ("bokeh", 0.4), ("room", 0.3))
}
SEEN = (
    "soft",
    "tone",
    "freckles",
    "lip_colour",
    "brow_density",
    "iris_melanin",
    "pupil",
    "recede",
    "hair_light",
    "stubble",
    "shirt_l",
    "backdrop_bokeh",
    "backdrop_x",
    "key_azimuth",
    "exposure",
)
SMOOTH = ("part", "recede", "volume", "hair_length", "stubble", "key_azimuth", "hair_grey")


def styled(style: str, **numbers: float):
    traits = person(21, Prior.OPEN)
    changes = {f"hair_{traits.chosen('hair')}": 0.0, f"hair_{style}": 1.0}
    return traits.replace(**changes, **BASE, **numbers)


@pytest.fixture(scope="module")
def draw(anatomy):
    renderer = HeadRenderer(anatomy, 96, 2)

    def drawn(traits):
        one = make_person(anatomy, traits, texture=256)
        return renderer.render(one, FaceState(pose=(12.0, 0.0, 0.0))).rgb.astype(float)

    return drawn


@pytest.fixture(scope="module")
def plain(draw):
    return draw(styled("short"))


@pytest.mark.parametrize("name", SEEN)
def test_a_number_is_seen(draw, plain, name):
    low, high, now = LOW[INDEX[name]], HIGH[INDEX[name]], styled("short")[name]
    other = float(low if now - low > high - now else high)
    changed = np.abs(draw(styled("short").replace(**{name: other})) - plain)
    assert changed.max() > 8


@pytest.mark.parametrize("name", SMOOTH)
def test_a_small_change_changes_little(draw, name):
    """A hundredth of the range moves the picture by a small part of what a third of it does."""
    style = "side_part" if name == "part" else "long" if name == "hair_length" else "short"
    low, high = float(LOW[INDEX[name]]), float(HIGH[INDEX[name]])
    start, width = 0.5 * (low + high), high - low
    if name == "part":  # at 0 every strand of the crown is undecided, and moves most
        start, width = 0.6, -width
    at = [draw(styled(style, **{name: start + x * width})) for x in (0.0, 0.01, 0.33)]
    near, far = (np.abs(other - at[0]).mean() for other in at[1:])
    assert near < 0.45 * far


@pytest.mark.parametrize("style", HAIR_STYLES)
def test_every_style_grows(anatomy, style):
    hair = hair_of(anatomy, styled(style))
    if style == "bald":
        assert len(hair.points) == 0
        return
    assert 2500 < len(hair.points) < 7000
    assert np.isfinite(hair.points).all()
    assert (hair.width >= 0).all() and 0.9 < hair.width.max() <= 1.01
    assert np.abs(hair.points).max() < 40
    roots = hair.points[:, 0]
    assert anatomy.field.at(roots)[:, 0].max() < (7 if style == "bun" else 3.5)  # a bun is wound


def test_a_receding_hairline_thins_strands_and_moves_none(anatomy):
    low, high = (hair_of(anatomy, styled("buzz", recede=r)) for r in (-0.3, 0.4))
    assert high.width.sum() < 0.98 * low.width.sum()
    assert len(low.points) == len(high.points)
    both = (low.width > 0) & (high.width > 0)
    np.testing.assert_allclose(low.points[both, 0], high.points[both, 0], atol=0.04)


def test_equal_traits_make_equal_people(anatomy):
    a, b = (make_person(anatomy, person(3, Prior.OPEN), texture=256) for _ in range(2))
    for name in ("rest", "ao", "ao_skin", "iris", "backdrop", "glasses"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(a.hair.points, b.hair.points)
    for one, other in zip(a.textures[0], b.textures[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_high_hair_stays_in_the_picture(anatomy):
    tall = make_person(anatomy, styled("afro", volume=1.2, hair_length=1.0), texture=256)
    assert tall.fit < 1
    mask = HeadRenderer(anatomy, 96, 1).render(tall, FaceState()).mask
    assert (mask[0] == 5).sum() == 0 and (mask == 5).sum() > 300
