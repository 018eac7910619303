"""An inference forward can be captured in a CUDA graph: no sync, no random number, no branch on
data.

Three witnesses: a dispatcher that refuses every operator that reads a value back or draws a number;
    a trace with symbolic inputs
without data, which any look at a value breaks; and the trace run on other inputs, which a branch on
data would have frozen.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from models.backbones import stylegan2, stylegan3
from models.backbones.discriminator import Discriminator

READS_A_VALUE = {"_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "is_nonzero"}
DRAWS_A_NUMBER = ("rand", "normal", "bernoulli", "multinomial", "dropout", "uniform", "exponential")

SMALL = {"z_dim": 16, "c_dim": 0, "w_dim": 16, "img_resolution": 32, "img_channels": 3}
GENERATORS = {
    "stylegan2-skip": lambda: stylegan2.Generator(**SMALL, channel_base=256, channel_max=16),
    "stylegan2-resnet": lambda: stylegan2.Generator(
        **SMALL, channel_base=256, channel_max=16, architecture="resnet"
    ),
    "stylegan3-t": lambda: stylegan3.Generator(**SMALL, channel_base=256, channel_max=16),
    "stylegan3-r": lambda: stylegan3.Generator(
        **SMALL, channel_base=512, channel_max=32, conv_kernel=1, use_radial_filters=True
    ),
}


class Refuse(TorchDispatchMode):
    """Raises at the first operator that would stop or falsify a capture; counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        if name in READS_A_VALUE or name.startswith(DRAWS_A_NUMBER):
            raise AssertionError(f"{func} cannot be captured")
        devices = {t.device for t in args if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            assert not devices or result.device in devices, f"{func} crosses devices"
        return result


def _made(name: str) -> nn.Module:
    torch.manual_seed(1)
    net = GENERATORS[name]().eval().requires_grad_(False)
    for layer, parameter in net.named_parameters():
        if layer.endswith("noise_strength"):  # zero at first, which would hide the noise
            parameter.fill_(0.3)
    return net


def test_the_witness_does_refuse() -> None:
    x = torch.ones(2, requires_grad=False)
    reads = (lambda: x.sum().item(), lambda: bool(x[0] > 0), x.nonzero)  # tolist: the next witness
    draws = (lambda: torch.randn(2), lambda: torch.rand(2), lambda: x.clone().normal_())
    for bad in (*reads, *draws):
        with pytest.raises(AssertionError, match="captured"), Refuse():
            bad()


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("n", [1, 2])
def test_forward_reads_no_value_and_draws_no_number(name, n) -> None:
    net = _made(name)
    z = torch.randn(n, 16)
    with torch.inference_mode(), Refuse() as witness:
        img = net(z, truncation_psi=0.7)
    assert img.shape == (n, 3, 32, 32) and witness.calls > 50


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("n", [1, 2])
def test_trace_without_data_gives_the_same_picture_for_other_inputs(name, n) -> None:
    net = _made(name)
    ws = torch.randn(n, net.num_ws, 16)
    with torch.no_grad():
        traced = make_fx(net.synthesis, tracing_mode="fake", _allow_non_fake_inputs=True)(ws)
        other = torch.randn(n, net.num_ws, 16) * 2
        torch.testing.assert_close(traced(other), net.synthesis(other), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", GENERATORS)
def test_synthesis_exports(name) -> None:
    net = _made(name)
    ws = torch.randn(1, net.num_ws, 16)
    program = torch.export.export(net.synthesis, (ws,))
    other = torch.randn(1, net.num_ws, 16)
    torch.testing.assert_close(program.module()(other), net.synthesis(other), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", GENERATORS)
def test_double_precision_goes_all_the_way(name) -> None:
    net = _made(name)
    ws = torch.randn(2, net.num_ws, 16)
    with torch.no_grad():
        single = net.synthesis(ws)
        double = net.double().synthesis(ws.double())
    assert double.dtype == torch.float64
    assert (single - double).abs().max() < 2e-5 * double.abs().max()  # float32 through 15 layers


def test_gradient_in_double_precision_is_that_of_differences() -> None:
    net = _made("stylegan3-t").double()
    ws = torch.randn(1, net.num_ws, 16, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(ws)
    target = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((net.synthesis(ws) * target).sum(), ws)
    step = 1e-7  # few leaky ReLUs change sides in so small a step
    with torch.no_grad():
        ahead = (net.synthesis(ws + step * direction) * target).sum()
        behind = (net.synthesis(ws - step * direction) * target).sum()
    expected = ((ahead - behind) / (2 * step)).item()
    assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-4)


def test_discriminator_forward_can_be_captured() -> None:
    net = Discriminator(2, 16, 3, channel_base=128, channel_max=8).eval().requires_grad_(False)
    img, c = torch.randn(4, 3, 16, 16), torch.eye(2).repeat(2, 1)
    with torch.inference_mode(), Refuse():
        logits = net(img, c)
    assert logits.shape == (4, 1)
