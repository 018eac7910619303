"""Keyed randomness: a function of seed, step, micro-batch and purpose, and of nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from models.training.draws import Draws, visited

FROZEN_INTEGERS = [552, 688, 765, 963, 924]
FROZEN_SEED = 2459753166678113959
FROZEN_ORDER = [7, 9, 7, 9, 2, 3, 1, 4]


def test_equal_keys_give_equal_numbers_and_any_other_key_others():
    keys = list(itertools.product((0, 1, 2**62), (0, 1), (0, 1), ("data", "z_g")))
    values = {key: Draws(*key[:3]).numpy(key[3]).random() for key in keys}
    assert len(set(values.values())) == len(keys)
    assert all(Draws(*key[:3]).numpy(key[3]).random() == value for key, value in values.items())
    tensors = {key: Draws(*key[:3]).torch(key[3]).initial_seed() for key in keys}
    assert len(set(tensors.values())) == len(keys)


def test_keys_do_not_run_together():
    """(1, 23) and (12, 3) are different steps and micro-batches."""
    assert Draws(0, 1, 23).numpy("x").random() != Draws(0, 12, 3).numpy("x").random()
    assert Draws(0, 1, 2).numpy("3/x").random() != Draws(0, 1, 23).numpy("x").random()


def test_the_mapping_is_frozen():
    """Runs that go on with another version of this code draw what they would have drawn."""
    draws = Draws(7, 11, 2)
    np.testing.assert_array_equal(
        draws.numpy("data").integers(0, 1000, 5), np.array(FROZEN_INTEGERS)
    )
    assert draws.torch("z_g").initial_seed() == FROZEN_SEED
    assert visited(7, 8, 8, 10).tolist() == FROZEN_ORDER


def test_numbers_are_random_enough():
    values = np.array([Draws(5, step, 0).numpy("t_g").random() for step in range(2000)])
    assert abs(values.mean() - 0.5) < 0.03 and abs(values.std() - 12**-0.5) < 0.02
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.08
    noise = torch.stack([torch.randn(4, generator=Draws(5, s, 0).torch("z")) for s in range(500)])
    assert noise.mean().abs() < 0.1 and (noise.std() - 1).abs() < 0.1


def test_each_epoch_visits_every_video_once_in_another_order():
    order = visited(3, 0, 60, 20).reshape(3, 20)
    assert (np.sort(order, axis=1) == np.arange(20)).all()
    assert len({tuple(epoch) for epoch in order}) == 3


def test_visits_do_not_depend_on_how_they_are_asked_for():
    whole = visited(3, 0, 50, 7)
    parts = [visited(3, first, 5, 7) for first in range(0, 50, 5)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert visited(3, 10**9, 2, 7).max() < 7
