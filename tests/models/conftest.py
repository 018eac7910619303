"""What several tests of models share."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Capturable(TorchDispatchMode):
    """Refuses what a CUDA graph cannot hold: host reads, shapes from data, fresh random numbers."""

    FORBIDDEN = frozenset(
        {
            torch.Tag.data_dependent_output,
            torch.Tag.dynamic_output_shape,
            torch.Tag.nondeterministic_seeded,
        }
    )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.FORBIDDEN & set(func.tags):
            raise AssertionError(f"{func} cannot be captured")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def capturable() -> type[Capturable]:
    """A context manager: `with capturable(): network(x)`."""
    return Capturable
