"""The Triton kernel of upfirdn2d against the definition in float64, and when it is taken."""

from __future__ import annotations

import pytest
import torch

import kernels_triton as ops
from kernels_triton.upfirdn2d import kernel, reference
from tests.kernels_triton.guarded import DTYPES, assert_rounded, drawn

ROUNDING = 2 * 16 * 2**-24  # two sums of up to 12 products, whose parts are larger than they are

# Taps, up, down (x, y each), padding (x before, x after, y before, y after): all factors, both
# kinds of filter, crops, and filters larger than the picture.
CASES = [
    ((4,), (2, 2), (1, 1), (2, 1, 2, 1)),
    ((4, 4), (2, 2), (1, 1), (2, 1, 2, 1)),
    ((4, 4), (1, 1), (2, 2), (1, 1, 1, 1)),
    ((12,), (4, 4), (1, 1), (7, 6, 3, 2)),
    ((12,), (1, 1), (2, 2), (5, 5, 5, 5)),
    ((3, 5), (3, 2), (2, 3), (5, -2, -1, 6)),
    ((2, 3), (1, 3), (4, 1), (-3, 4, 2, -1)),
    ((1,), (1, 1), (1, 1), (0, 0, 0, 0)),
    ((12, 11), (1, 2), (2, 1), (6, 6, 2, 3)),
]


def name(case) -> str:
    shape, up, down, _ = case
    return f"{'x'.join(map(str, shape))}-up{up[0]}{up[1]}-down{down[0]}{down[1]}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_equals_the_definition(case) -> None:
    shape, up, down, padding = case
    flip_filter = CASES.index(case) % 2 == 1
    randn = drawn(1)
    x, f = randn(2, 3, 4, 5), randn(*shape)  # no symmetry hides a flip
    with ops.implementation("triton"):
        y = ops.upfirdn2d(x, f, up, down, padding, flip_filter, 1.7)
    expected = reference.upfirdn2d(x.double(), f.double(), up, down, padding, flip_filter, 1.7)
    assert y.is_contiguous()
    assert_rounded(y, expected, ROUNDING)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["planes", "last", "gaps"])
@pytest.mark.parametrize("taps", [(12,), (4, 4)])
def test_layouts_and_storage(dtype, layout, taps) -> None:
    randn = drawn(2)
    x = randn(1, 5, 6, 14).to(dtype)
    if layout == "last":
        x = x.contiguous(memory_format=torch.channels_last)
    if layout == "gaps":
        x = x[:, 1:4, ::2, 3:]
    f = randn(2 * taps[-1])[::2] if len(taps) == 1 else randn(4, 8)[:, ::2]
    pad = (taps[-1] // 2, taps[-1] // 2 - 1) * 2
    with ops.implementation("triton"):
        y = ops.upfirdn2d(x, f, up=2, padding=pad, gain=2)
    expected = reference.upfirdn2d(x.double(), f.double(), (2, 2), (1, 1), pad, False, 2)
    last = torch.channels_last if layout == "last" else torch.contiguous_format
    assert y.dtype == dtype and y.is_contiguous(memory_format=last)
    assert_rounded(y, expected, ROUNDING)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 70, 1, 3), (3, 1, 2, 600)])
def test_smallest_and_ragged_tiles(shape) -> None:
    randn = drawn(3)
    x, f = randn(*shape), randn(3, 2)
    for memory in (torch.contiguous_format, torch.channels_last):
        with ops.implementation("triton"):
            y = ops.upfirdn2d(x.contiguous(memory_format=memory), f, padding=[1, 0, 2, 0])
        expected = reference.upfirdn2d(
            x.double(), f.double(), (1, 1), (1, 1), (1, 0, 2, 0), False, 1.0
        )
        assert_rounded(y, expected, ROUNDING)


def test_is_taken_where_it_can_and_nothing_else_is_needed(monkeypatch) -> None:
    taken = []
    run = kernel.upfirdn2d
    monkeypatch.setattr(kernel, "upfirdn2d", lambda *a: taken.append(a) or run(*a))
    x, f = torch.randn(1, 2, 4, 4), torch.ones(3)
    with ops.implementation("triton"):
        for unsupported in (
            lambda: ops.upfirdn2d(x.double(), f),
            lambda: ops.upfirdn2d(x, None, up=2),
            lambda: ops.upfirdn2d(x, f, up=5),
            lambda: ops.upfirdn2d(x, torch.ones(kernel.MOST_TAPS + 1), padding=40),
        ):
            unsupported()
        assert not taken
        ops.upfirdn2d(x, f, padding=1)
    assert len(taken) == 1
    ops.upfirdn2d(x, f.to(x.device), padding=1)  # a CPU's own way does not ask for Triton
    assert len(taken) == 1


def test_a_gradient_takes_another_way() -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    with ops.implementation("triton"):
        ops.upfirdn2d(x, torch.ones(3), padding=1).sum().backward()
    assert x.grad is not None and x.grad[0, 0, 1, 1] == 9
