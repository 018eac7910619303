"""The test picture is a function of t and seed, moves, stays in range, and is cheap to draw."""

import time

import numpy as np
import pytest

from realtime.test_card import TestCard, colour_in, colour_of


def drawn(size: int, t: float, seed: int = 0) -> np.ndarray:
    i420 = np.full((size * 3 // 2, size), 255, np.uint8)
    TestCard(size).draw(t, i420, seed)
    return i420


def test_same_time_gives_the_same_bytes_in_any_order():
    card, first, again = TestCard(128), *np.empty((2, 192, 128), np.uint8)
    card.draw(1.25, first)
    card.draw(7.5, again)
    card.draw(1.25, again)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, drawn(128, 1.25))


@pytest.mark.parametrize("t", [-3.0, 0.0, 1 / 3, 1e6])
@pytest.mark.parametrize("size", [64, 256])
def test_every_pixel_is_drawn_within_limited_range(size, t):
    i420 = drawn(size, t)
    luma, chroma = i420[:size], i420[size:]
    assert luma.min() >= 16 and luma.max() <= 235
    assert chroma.min() >= 16 and chroma.max() <= 240


def test_picture_moves_with_time_not_with_the_frame_count():
    frames = [drawn(256, n / 30)[:256].astype(int) for n in range(4)]
    steps = [np.abs(b - a).mean() for a, b in zip(frames, frames[1:], strict=False)]
    assert min(steps) > 1.0  # levels: a still picture would be no work for a codec
    assert max(steps) < 40.0  # and pure noise would be impossible work
    np.testing.assert_array_equal(drawn(256, 2 / 60), drawn(256, 1 / 30))


def test_seed_changes_the_block_and_nothing_else():
    one, two = drawn(256, 0.5, seed=1), drawn(256, 0.5, seed=2)
    changed = one[:256] != two[:256]
    assert not changed[:192].any() and not changed[:, 64:].any()
    for seed in (0, 1, 7, 2**32 - 1):
        assert colour_in(drawn(256, 0.5, seed)) == pytest.approx(colour_of(seed), abs=0.01)


def test_colours_of_neighbouring_seeds_lie_apart():
    colours = np.array([colour_of(seed) for seed in range(8)], float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)[np.triu_indices(8, 1)]
    assert apart.min() > 30  # levels; a codec at low rate moves a flat block by a few


def test_wrong_buffer_or_size_is_refused():
    with pytest.raises(ValueError, match="expected an array"):
        TestCard(64).draw(0.0, np.empty((64, 64), np.uint8))
    with pytest.raises(ValueError, match="multiple of 16"):
        TestCard(100)


def test_drawing_is_cheap():
    card, i420 = TestCard(512), np.empty((768, 512), np.uint8)
    spans = []
    for n in range(50):
        start = time.perf_counter()
        card.draw(n / 30, i420)
        spans.append(time.perf_counter() - start)
    assert min(spans) < 0.5e-3  # the best run, since the machine may be busy; 0.04 ms when idle
