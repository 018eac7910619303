"""A person is 107 numbers, and each of them means something."""

import hashlib

import numpy as np
import pytest

from models.errors import BadConfig
from models.faces import traits
from models.faces.traits import (
    CHOICES,
    COUNT,
    INDEX,
    MEAN,
    SD,
    TRAITS,
    Traits,
    shrink,
    standardised,
)


def somebody(**numbers: float) -> Traits:
    vector = MEAN.copy()
    for where in CHOICES.values():
        vector[where] = 0
    vector[INDEX["hair_short"]] = vector[INDEX["collar_v"]] = 1
    return Traits(vector).replace(**numbers)


def test_the_format_is_frozen() -> None:
    """Order, names and constants decide what a trained model sees: a change is a new version."""
    assert traits.TRAITS_VERSION == 1 and COUNT == 107
    said = "\n".join(repr(tuple(trait)) for trait in TRAITS)
    assert hashlib.sha256(said.encode()).hexdigest()[:16] == "61e1d2fa88677c02"


def test_numbers_are_named_once_and_their_ranges_hold_their_means() -> None:
    assert len(INDEX) == COUNT
    for trait in TRAITS:
        assert trait.low < trait.high and trait.low <= trait.mean <= trait.high, trait
        assert trait.sd > 0


def test_a_choice_is_one() -> None:
    assert somebody().chosen("hair") == "short" and somebody().chosen("glasses") is None
    for wrong in (
        {"hair_short": 0.0},
        {"hair_bob": 1.0},
        {"hair_short": 0.5},
        {"glasses_round": 1.0, "glasses_square": 1.0},
    ):
        with pytest.raises(BadConfig, match="must be 1"):
            somebody(**wrong)
    assert somebody(glasses_square=1.0).chosen("glasses") == "square"


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"tone": 5.1}, "tone is 5.1; need 0 .. 5"), ({"pupil": np.nan}, "pupil is nan")],
)
def test_impossible_people_are_refused_by_name(changes, said) -> None:
    with pytest.raises(BadConfig, match=said):
        somebody(**changes)
    with pytest.raises(BadConfig, match="no trait 'nose'"):
        somebody(nose=1.0)
    with pytest.raises(BadConfig, match="107 numbers"):
        Traits(np.zeros(3, np.float32))


def test_a_person_cannot_be_changed_behind_its_back() -> None:
    vector = somebody().vector.copy()
    person = Traits(vector)
    vector[:] = 0
    assert person["pupil"] == pytest.approx(MEAN[INDEX["pupil"]])
    with pytest.raises(ValueError, match="read-only"):
        person.vector[0] = 1


def test_standardised_numbers_keep_people_apart_whatever_divides_them() -> None:
    near, far = (standardised(somebody(shape_00=x, soft=0.3)) for x in (0.5, 1.0))
    assert near.shape == (COUNT + traits.ANCHORS,) and near.dtype == np.float32
    assert far[0] == pytest.approx(1 / SD[0]) and np.abs(far).max() <= 4
    one, two = (x / np.sqrt((x**2).mean()) for x in (near, far))  # as a mapping network does
    assert np.abs(one - two).max() > 0.3


def test_psi_moves_numbers_to_the_mean_and_leaves_what_is_chosen() -> None:
    person = somebody(shape_03=1.5, tone=4.5, hair_length=1.0, shirt_l=0.9, backdrop_a_l=0.8)
    half = shrink(person, 0.5)
    assert half["shape_03"] == pytest.approx(0.75)
    assert half["tone"] == pytest.approx(2.1 + 0.5 * 2.4)
    for kept in ("shirt_l", "backdrop_a_l", "hair_short", "collar_v"):
        assert half[kept] == person[kept]
    assert np.array_equal(shrink(person, 1.0).vector, person.vector)
    assert shrink(person, 0.0)["shape_03"] == 0
    assert shrink(person, 3.0)["tone"] == 5.0, "it stays within its range"
