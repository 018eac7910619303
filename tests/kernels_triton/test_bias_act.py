"""bias_act, and the choice of implementation."""

from __future__ import annotations

import pytest
import torch

import kernels_triton as ops
from kernels_triton.bias_act.reference import ACTIVATIONS
from kernels_triton.choice import needs_gradient, reference_wanted


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_in_place_gives_the_same_numbers(act) -> None:
    x, b = torch.randn(2, 3, 4), torch.randn(3)
    options = {"act": act, "gain": 1.7, "clamp": 0.9}
    with torch.no_grad():
        plain = ops.bias_act(x, b, **options)
        assert torch.equal(ops.bias_act(x.clone(), b, **options, inplace=True), plain)


def test_takes_the_memory_only_when_told() -> None:
    x = torch.randn(2, 3, 4)
    before = x.clone()
    with torch.no_grad():
        ops.bias_act(x, act="lrelu", clamp=0.5)
        assert torch.equal(x, before)
        y = ops.bias_act(x, act="lrelu", clamp=0.5, inplace=True)
    assert y.data_ptr() == x.data_ptr()


def test_keeps_its_input_where_a_gradient_is_due() -> None:
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    before = x.detach().clone()
    y = ops.bias_act(x, act="lrelu", inplace=True)
    y.sum().backward()
    assert torch.equal(x, before) and x.grad is not None


@pytest.mark.parametrize("act", ["lrelu", "swish", "softplus", "tanh"])
def test_has_two_derivatives(act) -> None:
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, b: ops.bias_act(x, b, act=act), (x, b))
    assert torch.autograd.gradgradcheck(lambda x, b: ops.bias_act(x, b, act=act), (x, b))


def test_unknown_names_and_misshapen_biases_are_named() -> None:
    with pytest.raises(ValueError, match="gelu"):
        ops.bias_act(torch.ones(1, 2), act="gelu")
    with pytest.raises(ValueError, match="does not fit"):
        ops.bias_act(torch.ones(1, 2), torch.ones(3))


def test_implementation_is_chosen_for_a_block_only() -> None:
    assert not reference_wanted()
    with pytest.raises(RuntimeError, match="inside"), ops.implementation("reference"):
        assert reference_wanted()
        with ops.implementation("auto"):
            assert not reference_wanted()
        raise RuntimeError("inside")
    assert not reference_wanted()
    with pytest.raises(ValueError, match="cuda"), ops.implementation("cuda"):
        pass


def test_gradient_is_needed_only_where_it_is_recorded() -> None:
    x = torch.ones(1, requires_grad=True)
    assert needs_gradient(None, x) and not needs_gradient(x.detach(), None)
    with torch.no_grad():
        assert not needs_gradient(x)
