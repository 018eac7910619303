"""upfirdn2d against its defining sum in numpy, and its fast form against the reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import kernels_triton as ops
from kernels_triton.upfirdn2d import reference, strided

SHAPES = [(4,), (12,), (1,), (3, 5), (4, 4), (1, 1)]
FACTORS = [
    ((1, 1), (1, 1)),
    ((2, 2), (1, 1)),
    ((1, 1), (2, 2)),
    ((4, 4), (1, 1)),
    ((2, 1), (1, 3)),
    ((3, 2), (2, 3)),
]
PADDINGS = [(0, 0, 0, 0), (3, 3, 2, 2), (12, 11, 13, 12), (5, -2, -1, 6)]
CASES = list(itertools.product(SHAPES, FACTORS, PADDINGS))


def definition(x, f, up, down, padding, flip_filter, gain):
    """`y[i, j] = gain * sum of g[a, b] * picture[i*down + a, j*down + b]`, in float64."""
    if f is None:
        f = np.ones((1, 1))
    g = np.outer(f, f) if f.ndim == 1 else f
    g = g if flip_filter else g[::-1, ::-1]
    n, c, h, w = x.shape
    x0, x1, y0, y1 = padding
    raised = np.zeros((n, c, h * up[1], w * up[0]))
    raised[:, :, :: up[1], :: up[0]] = x
    framed = np.pad(raised, [(0, 0), (0, 0), (max(y0, 0), max(y1, 0)), (max(x0, 0), max(x1, 0))])
    bottom, right = framed.shape[2] + min(y1, 0), framed.shape[3] + min(x1, 0)
    framed = framed[:, :, max(-y0, 0) : bottom, max(-x0, 0) : right]
    windows = np.lib.stride_tricks.sliding_window_view(framed, g.shape, axis=(2, 3))
    return gain * np.einsum("nchwab,ab->nchw", windows[:, :, :: down[1], :: down[0]], g)


def _taps(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)  # no symmetry hides a flip


@pytest.mark.parametrize("implementation", [reference, strided])
@pytest.mark.parametrize("flip_filter", [False, True])
def test_equals_the_defining_sum(implementation, flip_filter) -> None:
    generator = torch.Generator().manual_seed(1)
    checked = 0
    for shape, (up, down), padding in CASES:
        x = torch.randn(2, 3, 9, 11, generator=generator, dtype=torch.float64)
        f = _taps(shape, generator)
        if x.shape[3] * up[0] + padding[0] + padding[1] < f.shape[-1]:
            continue
        if x.shape[2] * up[1] + padding[2] + padding[3] < f.shape[0]:
            continue
        y = implementation.upfirdn2d(x, f, up, down, padding, flip_filter, 1.7)
        expected = definition(x.numpy(), f.numpy(), up, down, padding, flip_filter, 1.7)
        assert y.shape == expected.shape, (shape, up, down, padding)
        # float64 sums of at most 144 products
        assert np.abs(y.numpy() - expected).max() < 1e-12 * 144, (shape, up, down, padding)
        checked += 1
    assert checked > 120


@pytest.mark.parametrize("implementation", [reference, strided])
def test_no_filter_is_the_identity_and_keeps_the_gain(implementation) -> None:
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64)
    y = implementation.upfirdn2d(x, None, (2, 3), (1, 2), (1, -1, 0, 2), False, 0.5)
    expected = definition(x.numpy(), None, (2, 3), (1, 2), (1, -1, 0, 2), False, 0.5)
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-15)


@pytest.mark.parametrize("implementation", [reference, strided])
@pytest.mark.parametrize("shape, up, down", [((4,), 2, 1), ((4,), 1, 2), ((3, 2), 2, 3)])
def test_first_and_second_derivatives(implementation, shape, up, down) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 2, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    f = _taps(shape, generator)

    def call(x: torch.Tensor) -> torch.Tensor:
        y = implementation.upfirdn2d(x, f, (up, up), (down, down), (2, 1, 2, 1), False, 1.5)
        return y.square()  # otherwise the second derivative is zero

    assert torch.autograd.gradcheck(call, x)
    assert torch.autograd.gradgradcheck(call, x)


def test_memory_layout_does_not_matter() -> None:
    x = torch.randn(2, 4, 9, 8)
    f = torch.randn(4, 4)
    last = x.contiguous(memory_format=torch.channels_last)
    window = torch.randn(2, 4, 12, 12)
    window[:, :, 1:10, 2:10] = x
    plain = ops.upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1])
    for other in (last, window[:, :, 1:10, 2:10]):
        y = ops.upfirdn2d(other, f, up=2, padding=[2, 1, 2, 1])
        assert (y - plain).abs().max() < 1e-5  # 16 products in float32


def test_even_sizes_come_out_exactly() -> None:
    f = ops.setup_filter([1, 3, 3, 1])
    x = torch.ones(1, 1, 8, 8)
    assert ops.upsample2d(x, f).shape == (1, 1, 16, 16)
    assert ops.downsample2d(x, f).shape == (1, 1, 4, 4)
    assert ops.filter2d(x, f).shape == (1, 1, 8, 8)
    # A flat picture stays flat away from the border.
    inner = ops.upsample2d(x, f)[:, :, 2:-2, 2:-2]
    assert torch.allclose(inner, torch.ones_like(inner))


def test_setup_filter_makes_matrices_of_short_vectors() -> None:
    expected = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64
    assert torch.equal(ops.setup_filter([1, 3, 3, 1]), expected)
    assert ops.setup_filter([1] * 8).shape == (8,)
    assert ops.setup_filter([1] * 7).shape == (7, 7)
    assert ops.setup_filter(3.0).tolist() == [[1.0]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"up": 0}, "1 or more"),
        ({"padding": [1, 2, 3]}, "1, 2 or 4"),
        ({"padding": -3}, "smaller than the"),
        ({"f": torch.ones(1, 1, 1)}, "vector or a matrix"),
        ({"x": torch.ones(3, 3)}, r"\[N, C, H, W\]"),
    ],
)
def test_impossible_arguments_are_named(arguments, message) -> None:
    complete = {"x": torch.ones(1, 1, 4, 4), "f": torch.ones(2, 2), **arguments}
    with pytest.raises(ValueError, match=message):
        ops.upfirdn2d(**complete)
