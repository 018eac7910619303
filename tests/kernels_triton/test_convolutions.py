"""conv2d_resample, the modulated convolutions and filtered_lrelu: fast routes against the
definitions.
"""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

import kernels_triton as ops

EXACT = {"atol": 1e-11, "rtol": 1e-11}  # float64 sums of some hundred products of order one


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype)


def _both(call):
    with ops.implementation("reference"):
        slow = call()
    with ops.implementation("torch"):
        return call(), slow


RESAMPLINGS = list(
    itertools.product((1, 3), ((1, 1), (2, 1), (1, 2), (2, 2), (3, 1)), (True, False), (1, 2))
)


@pytest.mark.parametrize("kernel, factors, flip_weight, groups", RESAMPLINGS)
def test_resampling_convolution_takes_an_equal_route(kernel, factors, flip_weight, groups) -> None:
    up, down = factors
    x, w, b = _random(2, 4, 8, 8), _random(6, 4 // groups, kernel, kernel), _random(6)
    for f in (_random(4, 4), _random(5), None):
        for padding in (kernel // 2, [1, 2, 0, 3], [2, -1, 1, 1]):
            fast, slow = _both(
                lambda f=f, padding=padding: ops.conv2d_resample(
                    x,
                    w,
                    f,
                    up=up,
                    down=down,
                    padding=padding,
                    groups=groups,
                    flip_weight=flip_weight,
                    bias=b,
                )
            )
            torch.testing.assert_close(fast, slow, **EXACT)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("gain_shape", [None, (), (5,), (-1, 5)])
def test_modulation_of_stylegan3_takes_an_equal_route(n, demodulate, gain_shape) -> None:
    x, w, s = _random(n, 5, 7, 6), _random(4, 5, 3, 3), _random(n, 5)
    gain = None
    if gain_shape is not None:
        gain = _random(*[n if side == -1 else side for side in gain_shape]).abs() + 0.5
    fast, slow = _both(
        lambda: ops.modulated_conv2d(x, w, s, demodulate, padding=2, input_gain=gain)
    )
    torch.testing.assert_close(fast, slow, **EXACT)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [1, 2])
def test_modulation_of_stylegan2_takes_an_equal_route(n, demodulate, up) -> None:
    x, w, s, b = _random(n, 5, 6, 6), _random(4, 5, 3, 3), _random(n, 5), _random(4)
    noise, f = _random(n, 1, 6 * up, 6 * up), _random(4, 4)
    fast, slow = _both(
        lambda: ops.modulated_conv2d_resample(
            x,
            w,
            s,
            noise,
            up=up,
            padding=1,
            resample_filter=f,
            demodulate=demodulate,
            flip_weight=up == 1,
            bias=b,
            gain=1.3,
        )
    )
    torch.testing.assert_close(fast, slow, **EXACT)


def test_demodulation_gives_unit_variance() -> None:
    """StyleGAN2, Sec. 2.2: with unit-variance input, output has unit variance whatever the
    style.
    """
    x, w, s = _random(1, 64, 48, 48), _random(8, 64, 3, 3), _random(1, 64).exp()
    y = ops.modulated_conv2d_resample(x, w, s, padding=0)
    assert y.std(dim=(0, 2, 3)).sub(1).abs().max() < 0.1


@pytest.mark.parametrize("op", [ops.modulated_conv2d, ops.modulated_conv2d_resample])
def test_samples_of_a_batch_do_not_mix(op) -> None:
    x, w, s = _random(3, 5, 6, 6), _random(4, 5, 3, 3), _random(3, 5)
    together = op(x, w, s, padding=1)
    alone = torch.cat([op(x[k : k + 1], w, s[k : k + 1], padding=1) for k in range(3)])
    # 1e-8 under the root, after a normalisation over the batch (StyleGAN3)
    torch.testing.assert_close(together, alone, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("op", [ops.modulated_conv2d, ops.modulated_conv2d_resample])
@pytest.mark.parametrize("n", [1, 2])
def test_half_precision_survives_large_weights(op, n) -> None:
    """Weights and styles whose product leaves the range of float16 by far."""
    x, w, s = _random(n, 16, 8, 8), _random(8, 16, 3, 3) * 1e6, _random(n, 16) * 1e3
    expected = op(x, w, s, padding=1)
    y = op(x.half(), w.float(), s.float(), padding=1)
    assert y.dtype == torch.float16 and y.isfinite().all()
    # half has 11 bits; 144 products of independent rounding errors
    assert (y.double() - expected).abs().max() < 2**-8 * expected.abs().max()


@pytest.mark.parametrize("op", [ops.modulated_conv2d, ops.modulated_conv2d_resample])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("implementation", ["torch", "reference"])
def test_modulation_has_two_derivatives(op, n, implementation) -> None:
    inputs = [_random(n, 2, 4, 4), _random(2, 2, 3, 3), _random(n, 2)]
    inputs = [tensor.requires_grad_(True) for tensor in inputs]
    with ops.implementation(implementation):
        assert torch.autograd.gradcheck(lambda *a: op(*a, padding=1), inputs)
        assert torch.autograd.gradgradcheck(lambda *a: op(*a, padding=1), inputs)


@pytest.mark.parametrize("op", [ops.modulated_conv2d, ops.modulated_conv2d_resample])
def test_shapes_that_do_not_fit_are_named(op) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        op(torch.ones(2, 3, 4, 4), torch.ones(5, 3, 3, 3), torch.ones(1, 3))


FILTERED = [
    (1, 1, None, None, 0),
    (2, 2, (12,), (12,), [9, 8, 9, 8]),
    (4, 2, (24,), (12,), [-6, -9, -6, -9]),
    (2, 2, (12,), (12, 12), [11, 10, 11, 10]),
    (3, 2, (5, 4), (7,), [4, 3, 9, 2]),
]


@pytest.mark.parametrize("up, down, fu, fd, padding", FILTERED)
@pytest.mark.parametrize("clamp", [None, 0.8])
def test_filtered_lrelu_takes_an_equal_route(up, down, fu, fd, padding, clamp) -> None:
    x, b = _random(2, 3, 19, 17), _random(3)
    fu = None if fu is None else _random(*fu, seed=1)
    fd = None if fd is None else _random(*fd, seed=2)
    fast, slow = _both(
        lambda: ops.filtered_lrelu(x, fu, fd, b, up, down, padding, slope=0.3, clamp=clamp)
    )
    torch.testing.assert_close(fast, slow, **EXACT)


def test_filtered_lrelu_biases_the_picture_and_not_its_border() -> None:
    x = torch.zeros(1, 1, 4, 4)
    y = ops.filtered_lrelu(x, b=torch.ones(1), padding=2, gain=1.0)
    assert torch.equal(y, F.pad(torch.ones(1, 1, 4, 4), [2] * 4))


def test_filtered_lrelu_clamps_before_the_second_filter() -> None:
    x = torch.full((1, 1, 4, 4), 100.0)
    y = ops.filtered_lrelu(x, fd=torch.tensor([3.0]), clamp=2.0)
    assert torch.equal(y, torch.full((1, 1, 4, 4), 2.0 * 9))


def test_filtered_lrelu_leaves_its_input_alone() -> None:
    x = torch.randn(1, 2, 6, 6)
    before = x.clone()
    with torch.inference_mode():
        ops.filtered_lrelu(x, b=torch.ones(2), clamp=0.1)
        ops.filtered_lrelu(x, clamp=0.1)
    assert torch.equal(x, before)


def test_filtered_lrelu_refuses_to_crop_everything() -> None:
    with pytest.raises(ValueError, match="pad more"):
        ops.filtered_lrelu(torch.ones(1, 1, 4, 4), padding=-2)
