"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.training import ema


def test_parameters_move_and_buffers_are_copied():
    average, network = (nn.BatchNorm1d(3) for _ in range(2))
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.running_mean.fill_(5.0)
        network.num_batches_tracked.fill_(7)
    ema.update(average, network, 0.75)
    assert torch.equal(average.weight, torch.full((3,), 1.5))
    assert torch.equal(average.running_mean, network.running_mean)
    assert average.num_batches_tracked == 7
    assert average.running_mean.data_ptr() != network.running_mean.data_ptr()


def test_half_of_what_was_is_left_after_a_half_life():
    beta = ema.decay(64, 20_000)
    assert beta ** (20_000 / 64) == pytest.approx(0.5)
