"""Who a seed stands for: frozen, plausible, and as wide as the prior says."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from models.errors import BadConfig
from models.faces.prior import CAST, Prior, person
from models.faces.traits import CHOICES, HAIR_STYLES, INDEX, MEAN, SD, SHAPES, Traits, shrink

SOME = ["shape_00", "shape_15", "shape_31", "soft", "tone", "lipstick_hue", "iris_melanin", "part"]
SOME += ["backdrop_room", "key_azimuth", "exposure"]

# Of SOME, and the hair style. These numbers are part of the format: never re-record them.
FROZEN = {
    (0, Prior.OPEN): (
        [1.5818501, -0.80124551, -0.49083656, 0.73531646, 0.78810066]
        + [0.41038612, 0.72598171, -0.28667921, 0.0, 36.991508, 1.0682055],
        "wavy",
    ),
    (63, Prior.NARROW): (
        [-0.11325857, 0.69290912, 0.0, -0.20043375, 4.4824624]
        + [0.19215892, 0.81732088, -0.30894363, 0.0, -30.805779, 1.15],
        "short",
    ),
    (2**64 - 1, Prior.OPEN): (
        [-0.40912509, 0.28817517, -0.73280203, -0.67657143, 0.89588076]
        + [0.83002305, 0.77474493, 0.2242879, 0.0, 42.563526, 1.2387871],
        "short",
    ),
}


@functools.cache
def many(prior: Prior) -> np.ndarray:
    """[800, 107]."""
    return np.stack([person(seed, prior).vector for seed in range(800)])


@pytest.fixture(scope="module", params=list(Prior), ids=lambda p: p.value)
def crowd(request) -> tuple[Prior, np.ndarray]:
    """[800, 107]."""
    return request.param, many(request.param)


def column(crowd, name: str) -> np.ndarray:
    return crowd[1][:, INDEX[name]]


def test_a_seed_is_always_the_same_person():
    for prior in Prior:
        assert np.array_equal(person(17, prior).vector, person(17, prior).vector)
        assert not np.array_equal(person(17, prior).vector, person(18, prior).vector)


def test_everybody_can_be_drawn_and_shrunk(crowd):
    for vector in crowd[1][::37]:
        for psi in (0.0, 0.7, 1.1):
            shrink(Traits(vector), psi)  # raises if a number were out of range


def test_shapes_are_normal_within_their_range(crowd):
    prior, people = crowd
    shapes = people[:, :SHAPES]
    used = SHAPES if prior is Prior.OPEN else 16
    sd = 0.8 if prior is Prior.OPEN else 0.75
    assert (shapes[:, used:] == 0).all()
    assert np.abs(shapes[:, :used].mean(0)).max() < 0.15
    assert shapes[:, :used].std() == pytest.approx(sd, abs=0.08)
    assert np.abs(shapes[:, :12]).max() <= 1.7 and np.abs(shapes).max() <= 2.2
    assert (np.abs(shapes[:, :used]) < 1.69).mean() > 0.95  # drawn again, not piled up at the limit
    assert np.abs(np.corrcoef(shapes[:, :used].T) - np.eye(used)).max() < 0.17


def test_constants_for_networks_describe_the_open_prior():
    people = many(Prior.OPEN)
    continuous = np.array(
        [k for k, name in enumerate(INDEX) if not name.startswith(tuple(CHOICES))]
    )
    z = (people[:, continuous] - MEAN[continuous]) / SD[continuous]
    assert np.abs(z.mean(0)).max() < 0.75
    assert z.std(0).min() > 0.5 and z.std(0).max() < 1.4


def test_what_goes_with_what(crowd):
    tone = column(crowd, "tone")
    dark, light = tone > 2.6, tone < 1.0
    assert (
        column(crowd, "hair_light")[dark].mean() < 0.2 < column(crowd, "hair_light")[light].mean()
    )
    assert column(crowd, "iris_melanin")[dark].mean() > 0.75
    assert column(crowd, "iris_melanin")[light].mean() < 0.6
    groomed = column(crowd, "soft") > 0.3
    assert (column(crowd, "stubble")[groomed] == 0).all()
    assert (column(crowd, "lipstick")[~groomed] == 0).all()
    assert 0.4 < groomed.mean() < 0.6
    bearded = column(crowd, "beard") > 0
    assert (column(crowd, "stubble")[bearded] >= 0.9).all() and bearded.mean() > 0.05
    long_ = column(crowd, "hair_long") + column(crowd, "hair_bob")
    assert long_[groomed].mean() > 5 * long_[~groomed].mean()
    part = np.abs(column(crowd, "part"))
    assert (part[column(crowd, "hair_side_part") == 1] >= 0.6).all()
    # A shirt is not the colour of the skin.
    assert (np.abs(column(crowd, "shirt_l") - (0.81 - 0.068 * tone)) > 0.12).all()


def test_light_and_backdrop_are_friendly(crowd):
    azimuth = column(crowd, "key_azimuth")
    assert (np.abs(azimuth) >= 20).all() and 0.4 < (azimuth > 0).mean() < 0.6
    circle = column(crowd, "backdrop_cos") ** 2 + column(crowd, "backdrop_sin") ** 2
    assert circle == pytest.approx(1, abs=1e-5)
    amounts = np.stack([column(crowd, f"backdrop_{k}") for k in ("glow", "bokeh", "room")])
    assert ((amounts > 0).sum(0) <= 1).all()


def test_the_open_prior_has_everything():
    people = many(Prior.OPEN)
    assert (people[:, CHOICES["hair"]].sum(0) > 5).all()
    assert (people[:, CHOICES["glasses"]].sum(0) > 20).all()
    assert (people[:, CHOICES["collar"]].sum(0) > 100).all()
    for name in ("freckles", "hair_grey", "stripes", "lipstick", "rim_power"):
        share = (people[:, INDEX[name]] > 0).mean()
        assert 0.05 < share < 0.95, name


def test_the_narrow_prior_keeps_to_what_a_small_model_can_learn():
    people = many(Prior.NARROW)
    worn = {s for s, n in zip(HAIR_STYLES, people[:, CHOICES["hair"]].sum(0), strict=True) if n}
    assert worn == {"buzz", "short", "side_part", "bob", "long", "bald"}
    assert 0.03 < people[:, INDEX["hair_bald"]].mean() < 0.1
    assert (people[:, CHOICES["glasses"]] == 0).all() and (
        people[:, INDEX["collar_round"]] == 1
    ).all()
    for name in ("freckles", "hair_grey", "stripes", "backdrop_bokeh", "backdrop_room"):
        assert (people[:, INDEX[name]] == 0).all(), name
    for name, low, high in (
        ("age", 0, 0.3),
        ("beard", 0, 0.4),
        ("stubble", 0, 0.9),
        ("hair_length", 0.25, 0.75),
        ("volume", 0.9, 1.1),
    ):
        assert low <= people[:, INDEX[name]].min() <= people[:, INDEX[name]].max() <= high, name
    azimuth = np.abs(people[:, INDEX["key_azimuth"]])
    assert azimuth.min() >= 25 and azimuth.max() <= 45


def test_the_cast_is_varied():
    cast = [person(s, Prior.NARROW) for s in range(CAST)]
    assert len({c.chosen("hair") for c in cast}) == 6
    tones = np.array([c["tone"] for c in cast])
    assert all(((low <= tones) & (tones < low + 1)).sum() >= 5 for low in (0, 1, 2, 3))
    assert 20 < sum(c["soft"] > 0.3 for c in cast) < 44


@pytest.mark.parametrize("where", FROZEN, ids=str)
def test_the_mapping_is_frozen(where):
    numbers, style = FROZEN[where]
    traits = person(*where)
    assert [traits[name] for name in SOME] == pytest.approx(numbers, rel=1e-6, abs=1e-7)
    assert traits.chosen("hair") == style


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_that_do_not_fit_are_refused(seed):
    with pytest.raises(BadConfig, match=str(seed)):
        person(seed)
