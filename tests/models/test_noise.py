"""Keyed noise: the published generator, our mapping of it frozen, and random access."""

import math

import numpy as np
import pytest

from models.errors import BadConfig
from models.noise import Domain, normals, philox4x32

# Philox4x32-10 vectors published with the generator: counter, key, output.
KNOWN_ANSWERS = [
    (
        (0x00000000, 0x00000000, 0x00000000, 0x00000000),
        (0x00000000, 0x00000000),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

# (seed, knot, domain) -> first entries. These numbers are the session format: never re-record them.
FROZEN = [
    ((0, 0, Domain.STYLEGAN_V_MOTION), [1.65117788, 0.845645547, -0.102098592, -0.115636088]),
    ((0, 1, Domain.STYLEGAN_V_MOTION), [1.29264939, -0.824447632, -1.59659529, -1.21652234]),
    ((0, 0, Domain.WALK), [-0.231659025, -0.488544375, 0.210971102, -0.401638627, -0.619669735]),
    ((2**64 - 1, -1, Domain.WALK), [0.409597933, -1.4414171, 0.474740893, -1.17903984, 1.32945967]),
    (
        (20211214, 10**12, Domain.STYLEGAN_V_MOTION),
        [0.45171535, 0.537930667, -0.944543779, -0.399890125],
    ),
    ((0, 0, Domain.FACE_TRACK), [0.838984311, -1.29861212, 0.299435228, -1.92021191]),
    ((5, -3, Domain.FACE_PERSON), [2.2388134, 1.89823651, 1.20406389, -0.0216992721]),
]


def scalar_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """One block from the definition in the paper, on Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            (right >> 32) ^ c[1] ^ k[0],
            right % 2**32,
            (left >> 32) ^ c[3] ^ k[1],
            left % 2**32,
        ]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return tuple(c)


def scalar_normal(seed: int, knot: int, entry: int, domain: int) -> float:
    """One entry from the mapping in the docstring of `models.noise`."""
    unsigned = knot % 2**64
    words = scalar_philox(
        (entry // 4, unsigned % 2**32, unsigned >> 32, domain), (seed % 2**32, seed >> 32)
    )
    pair = words[0:2] if entry % 4 < 2 else words[2:4]
    radius = math.sqrt(-2 * math.log((pair[0] + 1) / 2**32))
    angle = 2 * math.pi * (pair[1] + 1) / 2**32
    return radius * (math.sin(angle) if entry % 2 else math.cos(angle))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    assert scalar_philox(counter, key) == expected
    assert tuple(philox4x32(counter, key).tolist()) == expected


def test_arrays_of_counters_equal_the_scalar_definition():
    rng = np.random.default_rng(1)
    counters = rng.integers(0, 2**32, (50, 4))
    key = (0x01234567, 0x89ABCDEF)
    words = philox4x32(tuple(counters.T), key)
    assert words.dtype == np.uint32
    assert [tuple(row) for row in words.tolist()] == [
        scalar_philox(tuple(row), key) for row in counters.tolist()
    ]


@pytest.mark.parametrize(("where", "expected"), FROZEN)
def test_the_mapping_is_frozen(where, expected):
    seed, knot, domain = where
    row = normals(seed, knot, 1, len(expected), domain=domain)[0]
    # Nine digits identify a float32; one unit is left to the platform's logarithm and sine.
    np.testing.assert_allclose(row, np.float32(expected), rtol=1.2e-7, atol=0)


@pytest.mark.parametrize("seed", [0, 7, 2**32, 2**64 - 1])
@pytest.mark.parametrize("knot", [0, -1, 5, 2**31, -(2**32) - 3, 2**62])
def test_rows_equal_the_scalar_definition(seed, knot):
    rows = normals(seed, knot, 2, 7, domain=Domain.WALK)
    expected = [[scalar_normal(seed, knot + r, i, 2) for i in range(7)] for r in range(2)]
    np.testing.assert_allclose(rows, expected, rtol=1.2e-7, atol=1e-12)


def test_a_knot_does_not_depend_on_how_it_was_asked_for():
    many = normals(3, -8, 22, 48, domain=Domain.STYLEGAN_V_MOTION)
    for r in range(22):
        one = normals(3, -8 + r, 1, 48, domain=Domain.STYLEGAN_V_MOTION)
        np.testing.assert_array_equal(many[r], one[0])
    short = normals(3, -8, 22, 13, domain=Domain.STYLEGAN_V_MOTION)
    np.testing.assert_array_equal(many[:, :13], short)


def test_moments_are_those_of_independent_standard_normals():
    x = normals(11, -500, 1000, 400, domain=Domain.WALK).astype(np.float64)
    n = x.size  # 400,000: four standard errors below
    assert abs(x.mean()) < 4 / math.sqrt(n)
    assert abs((x**2).mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / n)
    assert abs((x[:-1] * x[1:]).mean()) < 4 / math.sqrt(n)  # neighbouring knots
    assert abs((x[:, :-1] * x[:, 1:]).mean()) < 4 / math.sqrt(n)  # neighbouring entries


def test_seeds_and_domains_are_unrelated():
    a = normals(1, 0, 50, 512, domain=Domain.WALK).ravel()
    for other in (
        normals(2, 0, 50, 512, domain=Domain.WALK),
        normals(1 + 2**32, 0, 50, 512, domain=Domain.WALK),
        normals(1, 0, 50, 512, domain=Domain.STYLEGAN_V_MOTION),
    ):
        assert abs(np.corrcoef(a, other.ravel())[0, 1]) < 4 / math.sqrt(a.size)


@pytest.mark.parametrize(("seed", "knot"), [(-1, 0), (2**64, 0), (0, 2**63), (0, -(2**63) - 1)])
def test_what_does_not_fit_64_bits_is_refused(seed, knot):
    with pytest.raises(BadConfig, match=str(seed) if knot == 0 else str(knot)):
        normals(seed, knot, 1, 4, domain=Domain.WALK)
