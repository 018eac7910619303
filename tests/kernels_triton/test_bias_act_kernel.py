"""The Triton kernel of bias_act against the definition in float64, and when it is taken."""

from __future__ import annotations

import math

import pytest
import torch

import kernels_triton as ops
from kernels_triton.bias_act import kernel, reference
from kernels_triton.bias_act.reference import ACTIVATIONS
from tests.kernels_triton.guarded import DEVICE, DTYPES, assert_rounded, drawn, guarded

ROUNDING = 16 * 2**-24  # an exponential of a GPU and some ten operations


def expected(x, b, dim, act, alpha, gain, clamp):
    b = None if b is None else b.double()
    return reference.bias_act(x.double(), b, dim, act, alpha, gain, clamp)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_equals_the_definition(dtype, act) -> None:
    randn = drawn(1)
    x, b = randn(2, 6, 5, 7).to(dtype), randn(6).to(dtype)
    target = guarded(*x.shape, dtype=dtype)
    y = kernel.bias_act(x, b, 1, act, 0.3, 1.7, 1.9, target.out)
    assert y is target.out
    target.assert_untouched_around()
    assert_rounded(y, expected(x, b, 1, act, 0.3, 1.7, 1.9), ROUNDING)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_precise_at_both_ends(act) -> None:
    """Relative to each number: where a difference cancels, and where an exponential overflows."""
    sizes = torch.logspace(-20, 4, 200, dtype=torch.float64)
    x = torch.cat([-sizes, torch.zeros(1), sizes]).float().to(DEVICE)
    with ops.implementation("triton"):
        y = ops.bias_act(x[None], act=act, gain=1.0)[0].double()
    right = reference.bias_act(x.double(), None, 0, act, 0.2, 1.0, None)
    assert y.isfinite().all()
    # exp(-80) is a product of 80 * log2(e), rounded, with 2**-24 of 115 in the exponent; below
    # float32's normal numbers nothing is promised.
    assert ((y - right).abs() <= right.abs() * 2e-5 + 2**-126).all()
    near = (x.abs() < 1) & (x != 0)
    assert ((y - right).abs()[near] <= right.abs()[near] * 1e-6).all()


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("clamp", [None, 0.5])
def test_nan_and_infinity_end_as_in_torch(act, clamp) -> None:
    low = 0.0 if act == "swish" else -math.inf  # which is NaN in torch: -inf * 0
    x = torch.tensor([math.nan, math.inf, low, 0.0], device=DEVICE)
    with ops.implementation("triton"):
        y = ops.bias_act(x, act=act, clamp=clamp, gain=1.0)
    right = reference.bias_act(x, None, 0, act, ACTIVATIONS[act].alpha, 1.0, clamp)
    torch.testing.assert_close(y, right, equal_nan=True)


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("layout", ["planes", "last", "gaps"])
@pytest.mark.parametrize("inplace", [False, True])
def test_any_axis_and_layout(dim, layout, inplace) -> None:
    randn = drawn(2)
    x = randn(3, 40, 6, 5)
    if layout == "last":
        x = x.contiguous(memory_format=torch.channels_last)
    if layout == "gaps":
        x = x[:, ::2, 1:]
    b, before = randn(x.shape[dim]), x.clone()
    with ops.implementation("triton"), torch.no_grad():
        y = ops.bias_act(x, b, dim, act="lrelu", inplace=inplace)
    assert_rounded(y, expected(before, b, dim % 4, "lrelu", 0.2, 2**0.5, None), ROUNDING)
    assert torch.equal(x, y if inplace else before)
    assert layout == "gaps" or y.stride() == x.stride()


@pytest.mark.parametrize("shape", [(1, 1), (1, 513), (130, 2), (0, 3), (3000,), (2, 3, 2, 2, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_odd_sizes(shape, bias) -> None:
    randn = drawn(3)
    x = randn(*shape)
    b = randn(x.shape[min(1, x.ndim - 1)]) if bias else None
    with ops.implementation("triton"):
        y = ops.bias_act(x, b, min(1, x.ndim - 1), act="relu")
    right = expected(x, b, min(1, x.ndim - 1), "relu", 0.0, 2**0.5, None)
    assert y.shape == x.shape
    if x.numel():
        assert_rounded(y, right, ROUNDING)


def test_is_taken_where_it_can(monkeypatch) -> None:
    taken = []
    run = kernel.bias_act
    monkeypatch.setattr(kernel, "bias_act", lambda *a: taken.append(a) or run(*a))
    x = torch.randn(2, 3, 4)
    with ops.implementation("triton"):
        ops.bias_act(x.double(), act="relu")
        ops.bias_act(x[..., ::2], act="relu")
        ops.bias_act(x[:1].expand(2, 3, 4), act="relu")
        assert not taken
        ops.bias_act(x, act="relu")
    assert len(taken) == 1


def test_a_gradient_takes_another_way() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    with ops.implementation("triton"):
        ops.bias_act(x, act="lrelu", gain=3.0, inplace=True).sum().backward()
    assert (x.grad == 3).all() and (x == 1).all()


def test_an_output_that_does_not_fit_is_refused() -> None:
    x = torch.zeros(2, 3, device=DEVICE)
    with pytest.raises(ValueError, match="out must be"):
        kernel.bias_act(x, None, 0, "relu", 0.0, 1.0, None, x.T.contiguous().T)
