"""The Triton kernel of fir_bias_act against the definition in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kernels_triton import implementation
from kernels_triton.bias_act import Epilogue
from kernels_triton.upfirdn2d import fir_bias_act, reference
from tests.kernels_triton.guarded import (
    DEVICE,
    DTYPES,
    assert_replays,
    assert_rounded,
    drawn,
    guarded,
)

BINOMIAL = (0.25, 0.75, 0.75, 0.25)
# Two sums of up to 8 products and five more operations.
ROUNDING = 24 * 2**-24


def run(x: Tensor, taps: tuple[float, ...], pad: int, end: Epilogue, **scales: Tensor | None):
    """The kernel's result, and the definition's in float64."""
    grow = 2 * pad - len(taps) + 1
    n, height, width, channels = x.shape
    target = guarded(n, height + grow, width + grow, channels, dtype=x.dtype)
    with implementation("triton"):
        y = fir_bias_act(x, taps, pad, end, out=target.out, **scales)
    assert y is target.out
    target.assert_untouched_around()
    scale_in, scale_out = scales.get("scale_in"), scales.get("scale_out")
    return y, reference.fir_bias_act(x.double(), taps, pad, end, scale_in, scale_out)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(1, 9, 9, 32), (2, 6, 20, 16), (1, 1, 1, 48)], ids=lambda s: "x".join(map(str, s))
)
def test_equals_the_definition(dtype, shape) -> None:
    randn = drawn(1)
    n, height, width, channels = shape
    x = randn(*shape).to(dtype)
    noise = randn(height + 1, width + 1)
    end = Epilogue(randn(channels), noise, slope=0.2, gain=2**0.5, clamp=1.5)
    scales = {"scale_in": randn(n, channels), "scale_out": randn(n, channels)}
    y, expected = run(x, (0.3, -0.8, 1.1, 0.2), 2, end, **scales)
    assert (expected.abs().amax() > 1.5).item()  # scale_out comes after the clamp
    assert_rounded(y, expected, ROUNDING)


@pytest.mark.parametrize("taps", [2, 5, 8])
def test_any_number_of_taps(taps) -> None:
    randn = drawn(2)
    x = randn(1, 8, 7, 16)
    values = tuple(randn(taps).tolist())
    y, expected = run(x, values, taps // 2, Epilogue(randn(16)))
    assert_rounded(y, expected, ROUNDING)


@pytest.mark.parametrize(
    "noise, scale_in, scale_out",
    [(False, False, False), (True, False, False), (False, True, False), (False, False, True)],
)
def test_each_part_may_be_absent(noise, scale_in, scale_out) -> None:
    randn = drawn(3)
    x = randn(2, 3, 5, 16)
    end = Epilogue(randn(16), randn(2, 4) if noise else None, slope=1.0, gain=0.7)
    scales = {
        "scale_in": randn(2, 16) if scale_in else None,
        "scale_out": randn(2, 16) if scale_out else None,
    }
    y, expected = run(x, BINOMIAL, 1, end, **scales)
    assert_rounded(y, expected, ROUNDING)


def test_scales_may_be_columns_of_a_larger_table() -> None:
    randn = drawn(4)
    table = randn(2, 96)
    y, expected = run(
        randn(2, 5, 5, 32),
        BINOMIAL,
        1,
        Epilogue(randn(32)),
        scale_in=table[:, 16:48],
        scale_out=table[:, 48:80],
    )
    assert_rounded(y, expected, ROUNDING)


def test_strips_of_several_turns_meet(monkeypatch) -> None:
    """As at high resolutions, where a program walks down many rows."""
    from kernels_triton.upfirdn2d.fused import kernel

    monkeypatch.setattr(kernel, "FIR_PROGRAMS", 2)
    randn = drawn(5)
    end = Epilogue(randn(16), randn(21, 5))
    y, expected = run(randn(1, 22, 6, 16), BINOMIAL, 1, end)
    assert_rounded(y, expected, ROUNDING)


def test_nan_stays_visible() -> None:
    x = torch.zeros(1, 8, 8, 16, device=DEVICE)
    x[0, 4, 4, 3] = math.nan
    end = Epilogue(torch.zeros(16, device=DEVICE), clamp=1.0)
    with implementation("triton"):
        y = fir_bias_act(x, BINOMIAL, 1, end)
    assert y[0, ..., 3].isnan().sum() == 16 and y.isnan().sum() == 16


def test_what_the_kernel_cannot_walk_is_refused() -> None:
    x = torch.zeros(1, 12, 12, 16, device=DEVICE)
    end = Epilogue(torch.zeros(16, device=DEVICE))
    with implementation("triton"):
        with pytest.raises(ValueError, match="2 to 8"):
            fir_bias_act(x, (0.1,) * 9, 4, end)
        with pytest.raises(ValueError, match="scale_in"):
            fir_bias_act(x, BINOMIAL, 1, end, scale_in=torch.ones(1, 32, device=DEVICE)[:, ::2])


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="a CUDA graph needs a CUDA device")
def test_is_captured_in_a_graph() -> None:
    randn = drawn(6)
    x, end = randn(2, 33, 33, 64).half(), Epilogue(randn(64), randn(32, 32))
    out = torch.empty(2, 32, 32, 64, dtype=x.dtype, device=DEVICE)
    assert_replays(lambda: fir_bias_act(x, BINOMIAL, 1, end, out=out), [out])
