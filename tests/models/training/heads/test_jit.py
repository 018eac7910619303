"""Compiled kernels: what the name on disk depends on."""

from __future__ import annotations

import numba
import numpy as np

from models.training.heads import deform, field, jit


def test_the_name_on_disk_tells_what_a_kernel_takes_in():
    def first(x):
        return x + 1

    def second(x):
        return x + 1

    def third(x):
        return x + 1

    a, b, c = jit.kernel()(first), jit.kernel(deform)(second), jit.kernel(deform, field)(third)
    digests = [k.py_func.__qualname__.rsplit("_", 1)[1] for k in (a, b, c)]
    assert len(set(digests)) == 3


def test_a_part_vanishes_into_its_kernel():
    @jit.kernel(deform)
    def kernel(x):
        return deform.smooth(0.0, 2.0, x)

    assert kernel(1.0) == 0.5
    assert kernel.signatures


def test_no_place_on_disk_is_no_error(monkeypatch):
    plain = numba.njit

    def without_cache(*args, **options):
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available for file '<string>'")
        return plain(*args, **options)

    monkeypatch.setattr(numba, "njit", without_cache)

    @jit.kernel()
    def kernel(x):
        return x.sum()

    assert kernel(np.ones(3, np.float32)) == 3
