"""Light, colours, backdrops and the tone curve."""

from __future__ import annotations

import numpy as np
import pytest

from models.faces.prior import Prior, person
from models.training.heads.backdrop import backdrop_of, resized
from models.training.heads.colour import hair_rgb, iris_rgb, linear_of_oklab, log_skin
from models.training.heads.jit import kernel
from models.training.heads.lights import irradiance, light_of
from models.training.heads.shade import tone

GREY = np.full(3, 0.2, np.float32)


@kernel()
def facing(sh, x, y, z, out):
    for c in range(3):
        out[c] = irradiance(sh, x, y, z, c)


def test_harmonics_hold_what_the_surroundings_give():
    """Against a sum over directions, weighted by the cosine to an upward and a forward surface."""
    from models.training.heads import lights

    traits = person(4, Prior.OPEN)
    light = light_of(traits, GREY)
    side = float(np.clip(traits["key_azimuth"] / 20, -1, 1))
    warm = traits["warmth"]
    tint = np.array([1 + 0.10 * warm, 1.0, 1 - 0.13 * warm])
    cool = np.array([1 - 0.05 * warm, 1.0, 1 + 0.08 * warm])
    radiance = lights._surroundings(traits["fill"], side, tint, cool, np.ones(3))
    directions = lights._sphere()
    for normal in ((0, 1, 0), (0, 0, 1), (0.6, 0, 0.8)):
        cosine = np.maximum(directions @ np.array(normal), 0)[:, None]
        summed = (radiance * cosine).mean(0) * 4
        out = np.zeros(3, np.float32)
        facing(light.sh, *(np.float32(c) for c in normal), out)
        np.testing.assert_allclose(out, summed, rtol=0.05)


def test_light_does_not_jump_where_the_key_crosses_the_middle():
    traits = person(4, Prior.OPEN).replace(rim_power=1.0)
    a, b = (light_of(traits.replace(key_azimuth=x), GREY) for x in (-0.01, 0.01))
    assert np.abs(a.sh - b.sh).max() < 1e-3
    assert a.rim_rgb.max() < 1e-2 and b.rim_rgb.max() < 1e-2


def test_the_key_comes_from_where_the_numbers_say():
    traits = person(4, Prior.OPEN).replace(key_azimuth=40.0, key_elevation=30.0)
    light = light_of(traits, GREY)
    assert light.key[0] > 0 and light.key[1] == pytest.approx(0.5, abs=1e-6)
    assert light.rim[0] < 0 and light.rim[2] < 0
    assert light.vector.shape == (39,)
    np.testing.assert_array_equal(light.vector[27:30], light.key)


def test_oklab_white_grey_and_red():
    np.testing.assert_allclose(linear_of_oklab(1, 0, 0), 1, atol=2e-3)
    np.testing.assert_allclose(linear_of_oklab(0.5, 0, 0), 0.125, atol=2e-3)
    red = linear_of_oklab(0.628, 0.2249, 0.1258)
    np.testing.assert_allclose(red, [1, 0.004, 0.004], atol=6e-3)


def test_numbers_of_colour_go_one_way():
    one = person(4, Prior.OPEN).replace(hair_grey=0.0, hair_red=0.0)
    hair = [hair_rgb(one.replace(hair_light=x)).mean() for x in np.linspace(0, 1, 9)]
    iris = [iris_rgb(one.replace(iris_melanin=x)).mean() for x in np.linspace(0, 1, 9)]
    skin = [log_skin(x).mean() for x in np.linspace(0, 5, 9)]
    assert hair == sorted(hair)
    assert iris == sorted(iris, reverse=True)
    assert skin == sorted(skin, reverse=True)


def test_backdrops_are_made_of_amounts():
    plain = {"backdrop_glow": 0.0, "backdrop_bokeh": 0.0, "backdrop_room": 0.0}
    base = person(4, Prior.OPEN).replace(**plain)
    flat = backdrop_of(base)
    assert np.isfinite(flat).all() and (flat >= 0).all()
    for kind in ("glow", "bokeh", "room"):
        half, full = (backdrop_of(base.replace(**{f"backdrop_{kind}": x})) for x in (0.5, 1.0))
        assert np.abs(full - flat).max() > 0.01
        np.testing.assert_allclose(half, 0.5 * (flat + full), atol=1e-6)


def test_a_backdrop_of_another_size_is_the_same_picture():
    picture = backdrop_of(person(4, Prior.OPEN))
    np.testing.assert_allclose(resized(picture, len(picture)), picture, atol=1e-3)
    assert abs(resized(picture, 200).mean() - picture.mean()) < 2e-3


def test_the_tone_curve_rises_from_black_to_white():
    curve = tone.curve().astype(int)
    assert curve[0] == 0 and curve[-1] == 255
    assert (np.diff(curve) >= 0).all()
    assert 170 < curve[int(0.45 * tone.STEPS)] < 190  # sRGB of .45 is 179
