"""Textures of the skin: what is painted where."""

from __future__ import annotations

import numpy as np
import pytest

from models.faces.prior import Prior, person
from models.training.heads.skin_atlas import atlas_of, beard_mask
from models.training.heads.skin_paint import halved, paint

LIPS, SCALP = 100, 200


@pytest.fixture(scope="module")
def atlas(anatomy):
    return atlas_of(anatomy, 256)


def traits(**numbers: float):
    one = person(21, Prior.OPEN)
    plain = {"stubble": 0.0, "beard": 0.0, "lipstick": 0.0, "tone": 1.0, "freckles": 0.0}
    return one.replace(**(plain | numbers))


def linear(texture) -> np.ndarray:
    return (texture[..., :3].astype(float) / 255) ** 2


def test_an_atlas_is_made_once(anatomy, atlas):
    assert atlas_of(anatomy, 256) is atlas


def test_lips_are_redder_than_the_skin_round_them(atlas):
    face = paint(atlas, traits(lipstick=0.0))[0]
    rgb, kind = linear(face), face[..., 5]
    assert 100 < (kind == LIPS).sum() < 6000
    ring = atlas.tiles[0].zones["lips"].reshape(256, 256)
    beside = (ring > 6) & (ring < 14)
    ratio = rgb[..., 0] / (rgb[..., 1] + 1e-3)
    assert ratio[kind == LIPS].mean() > 1.2 * ratio[beside].mean()


def test_darker_tones_are_darker_everywhere(atlas):
    means = [linear(paint(atlas, traits(tone=t))[0])[128].mean() for t in (0.0, 1.5, 3.0, 4.5)]
    assert means == sorted(means, reverse=True) and means[-1] < 0.5 * means[0]


def test_stubble_leaves_the_lips_free(anatomy, atlas):
    bare, dark = (linear(paint(atlas, traits(stubble=s))[0]) for s in (0.0, 1.2))
    zone = atlas.tiles[0].zones["beard"].reshape(256, 256)
    lips = atlas.tiles[0].zones["lips"].reshape(256, 256) < -4
    assert dark[zone > 0.8].mean() < 0.75 * bare[zone > 0.8].mean()
    assert np.abs(dark - bare)[lips].mean() < 0.02
    mouth = anatomy.mean[anatomy.landmarks[[51, 57, 62, 66]]]
    assert beard_mask(mouth).max() < 0.6


def test_scalp_takes_the_colour_of_hair_unless_bald(atlas):
    style = traits().chosen("hair")
    change = {f"hair_{style}": 0.0}
    hairy, bald = (
        paint(atlas, traits(**(change | {f"hair_{s}": 1.0})))[1] for s in ("buzz", "bald")
    )
    assert (hairy[..., 5] == SCALP).sum() > 100
    assert (bald[..., 5] == SCALP).sum() == 0


def test_age_draws_lines(atlas):
    lines = atlas.tiles[0].zones["lines"].reshape(256, 256) > 0.4
    young, old = (linear(paint(atlas, traits(age=a))[0]) for a in (0.0, 1.0))
    assert lines.sum() > 100
    assert old[lines].mean() < 0.9 * young[lines].mean()


def test_a_halved_texture_is_its_mean(atlas):
    face = paint(atlas, traits())[0]
    small = halved(face)
    assert small.shape == (128, 128, 8)
    assert abs(small[..., :3].mean() - face[..., :3].mean()) < 0.6
    assert set(np.unique(small[..., 5])) <= {0, LIPS, SCALP}
