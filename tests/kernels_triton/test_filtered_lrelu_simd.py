"""The one-pass CPU kernel against the definition of filtered_lrelu, in float64.

Compiling takes seconds per variant and empty cache, so cases share variants where they can.
"""

import ast
import builtins
import ctypes
import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kernels_triton.filtered_lrelu import (
    Resampling,
    filtered_lrelu,
    fused_filtered_lrelu,
    reference,
    simd_cpu,
)
from kernels_triton.filtered_lrelu.simd_source import Variant, offsets, source

GAIN, SLOPE = 2**0.5, 0.2


def definition(x, fu, fd, b, up, pads, clamp):
    """Zero insertion, padding, dense FIR, leaky ReLU, gain, clamp, dense FIR, decimation by 2."""
    x = x + b[None, :, None, None]
    n, c, h, w = x.shape
    high = torch.zeros(n, c, h * up, w * up, dtype=x.dtype)
    high[:, :, ::up, ::up] = x
    high = F.pad(high, [pads[0], pads[1], pads[0], pads[1]])
    first = torch.outer(fu, fu).flip(0, 1) * up * up
    high = F.conv2d(high, first[None, None].expand(c, 1, -1, -1), groups=c)
    high = (F.leaky_relu(high, SLOPE) * GAIN).clamp(-clamp, clamp)
    second = torch.outer(fd, fd).flip(0, 1)
    return F.conv2d(high, second[None, None].expand(c, 1, -1, -1), groups=c)[:, :, ::2, ::2]


def case(up, pad_lo, size, out, channels, taps=12, batch=2):
    generator = torch.Generator().manual_seed(up * 1000 + size)
    x = torch.randn(batch, channels, size, size, generator=generator)
    fu = torch.randn(6 * up, generator=generator) / 3  # asymmetric: a mirrored filter shows
    fd = torch.randn(taps, generator=generator) / 3
    b = torch.randn(channels, generator=generator)
    pad_hi = (out - 1) * 2 + 1 - size * up + 6 * up + taps - 2 - pad_lo
    return x, fu, fd, b, (pad_lo, pad_hi)


CASES = [
    (2, 9, 38, 36, 32, 12),  # a layer of config T that keeps its rate
    (4, -6, 38, 52, 16, 12),  # one that doubles it
    (2, -11, 54, 33, 16, 12),  # the cropping layer
    (4, -5, 21, 20, 48, 12),
    (2, 8, 23, 23, 16, 12),
    (2, 11, 7, 9, 16, 12),
    (2, 9, 24, 22, 27, 12),  # channels that fill no whole vector
    (2, 5, 20, 14, 16, 8),  # filter_size 4 on the down side
    (2, 39, 9, 40, 16, 12),  # outputs that read nothing but padding
]


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("up, pad_lo, size, out, channels, taps", CASES)
def test_equals_the_definition(up, pad_lo, size, out, channels, taps, threads):
    x, fu, fd, b, pads = case(up, pad_lo, size, out, channels, taps)
    assert simd_cpu.supports(x, fu, fd, up, 2, pad_lo, (out, out), GAIN, SLOPE)
    expected = definition(x.double(), fu.double(), fd.double(), b.double(), up, pads, 3.0)
    y = simd_cpu.run(x, fu, fd, b, up, pad_lo, (out, out), GAIN, SLOPE, 3.0)
    assert y.shape == expected.shape
    # 18 + 12 products summed in float32 against float64: a few ulp of the largest value
    assert (y - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_memory_layout_of_the_input_does_not_matter():
    x, fu, fd, b, _ = case(2, 9, 30, 28, 16)
    planar = simd_cpu.run(x, fu, fd, b, 2, 9, (28, 28), GAIN, SLOPE, None)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(planar, simd_cpu.run(last, fu, fd, b, 2, 9, (28, 28), GAIN, SLOPE, None))
    assert planar.is_contiguous(memory_format=torch.channels_last)


def test_unsupported_cases_are_declined():
    x, fu, fd, b, _ = case(2, 9, 30, 28, 16)
    square = (28, 28)
    usual = (GAIN, SLOPE)
    assert simd_cpu.supports(x, fu, fd, 2, 2, 9, square, *usual)
    assert not simd_cpu.supports(x.double(), fu, fd, 2, 2, 9, square, *usual)
    assert not simd_cpu.supports(x, torch.outer(fu, fu), fd, 2, 2, 9, square, *usual)
    assert not simd_cpu.supports(x, fu, fd, 2, 1, 9, square, *usual)
    assert not simd_cpu.supports(x, fu, fd, 2, 2, 9, square, GAIN, 1.5)
    assert not simd_cpu.supports(x, fu, fd, 2, 2, 9, square, -1.0, SLOPE)
    with pytest.raises(ValueError, match="supports"):
        simd_cpu.run(x, fu, fd, b, 2, 9, square, GAIN, 1.5, None)


def test_the_op_takes_it_for_inference_only(monkeypatch):
    calls = []
    inner = simd_cpu.run
    monkeypatch.setattr(simd_cpu, "run", lambda *a, **k: calls.append(a) or inner(*a, **k))
    x, fu, fd, b, pads = case(2, 9, 30, 28, 16)
    both = [*pads, *pads]
    with torch.inference_mode():
        fast = filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=both)
    assert len(calls) == 1
    slow = filtered_lrelu(x, fu, fd, b.requires_grad_(), up=2, down=2, padding=both)
    assert len(calls) == 1 and slow.requires_grad
    assert (fast - slow).abs().max() <= 2e-6 * slow.abs().max()


def test_a_broken_input_stays_broken():
    x, fu, fd, b, _ = case(2, 9, 30, 28, 16)
    x[0, 3, 12, 12] = float("nan")
    y = simd_cpu.run(x, fu, fd, b, 2, 9, (28, 28), GAIN, SLOPE, 256.0)
    assert y[0, 3].isnan().any() and not y[0, 2].isnan().any() and not y[1].isnan().any()


# The channels-last op. Columns: up, pad, down taps, terms, symmetric, dtype, picture, output.
FUSED = [
    (2, 9, 12, 1, True, torch.float32, (2, 38, 37, 32), (36, 35)),
    (2, 9, 12, 1, True, torch.bfloat16, (2, 38, 37, 32), (36, 35)),
    (2, 9, 12, 1, True, torch.bfloat16, (1, 1, 1, 16), (1, 1)),
    (2, 9, 12, 1, True, torch.float32, (1, 1, 1, 48), (1, 1)),
    (2, 9, 12, 1, True, torch.float32, (1, 1, 40, 16), (1, 39)),
    (2, -11, 12, 1, True, torch.float32, (3, 40, 29, 16), (25, 11)),
    (4, -6, 12, 1, True, torch.float32, (1, 38, 23, 16), (53, 28)),
    (4, -6, 12, 1, True, torch.float32, (2, 5, 9, 16), (1, 3)),
    (2, 9, 12, 3, True, torch.float32, (1, 21, 20, 32), (19, 18)),  # config R
    (4, -6, 4, 4, False, torch.bfloat16, (2, 19, 20, 16), (30, 31)),
]


def filters(up, pad, taps, terms, symmetric, clamp=math.inf):
    generator = torch.Generator().manual_seed(up * 100 + taps + terms)

    def draw(n):
        values = torch.randn(n, generator=generator, dtype=torch.float64) / 3
        return tuple((values + values.flip(0) if symmetric else values).tolist())

    down = tuple((draw(taps), draw(taps)) for _ in range(terms))
    return Resampling(up, draw(6 * up), down, pad, SLOPE, clamp)


def features(shape, dtype):
    generator = torch.Generator().manual_seed(shape[1])
    n, _, _, channels = shape
    x = torch.randn(shape, generator=generator).to(dtype)
    scale_in = torch.rand(n, channels, generator=generator) + 0.5
    bias = torch.randn(channels, generator=generator)
    return x, scale_in, bias, torch.rand(n, channels, generator=generator) - 0.5


def rounding(x, how, size, *scales):
    """The float64 truth, and the error that storing it in the dtype of x makes."""
    truth = reference.fused_filtered_lrelu(x.double(), how, size, *scales)
    return truth, (truth.to(x.dtype).double() - truth).norm()


@pytest.mark.parametrize("clamp", [math.inf, 2.0])
@pytest.mark.parametrize("up, pad, taps, terms, symmetric, dtype, shape, size", FUSED)
def test_fused_equals_the_reference(
    up, pad, taps, terms, symmetric, dtype, shape, size, clamp, threads
):
    how = filters(up, pad, taps, terms, symmetric, clamp)
    x, *scales = features(shape, dtype)
    assert simd_cpu.takes(x, how, size)
    truth, rounded = rounding(x, how, size, *scales)
    before = [t.clone() for t in (x, *scales)]
    out = torch.full((shape[0], *size, shape[3]), float("nan"), dtype=dtype)
    assert simd_cpu.fused(x, how, *scales, out) is out
    error = (out.double() - truth).norm()
    # float32: 1e-6 of the whole. bfloat16: what rounding the truth costs; sums are float32.
    limit = 1e-6 * truth.norm() if dtype == torch.float32 else 1.01 * rounded
    assert error <= limit, f"{error / truth.norm():.2e}, at most {limit / truth.norm():.2e}"
    assert all(torch.equal(a, b) for a, b in zip(before, (x, *scales), strict=True))


def test_the_public_op_uses_it_and_may_leave_out_everything(monkeypatch):
    calls = []
    inner = simd_cpu.fused
    monkeypatch.setattr(simd_cpu, "fused", lambda *a: calls.append(a) or inner(*a))
    how = filters(2, 9, 12, 1, True)
    x, *_ = features((2, 20, 21, 16), torch.float32)
    truth, _ = rounding(x, how, (18, 19), None, None, None)
    y = fused_filtered_lrelu(x, how, (18, 19))
    assert len(calls) == 1
    assert (y - truth).norm() <= 1e-6 * truth.norm()


def test_scales_may_be_columns_of_a_larger_table():
    how = filters(2, 9, 12, 1, True)
    x, *scales = features((2, 20, 21, 16), torch.float32)
    table = torch.full((2, 80), float("nan"))
    table[:, 16:32], table[:, 48:64] = scales[0], scales[2]
    out, expected = torch.empty(2, 18, 19, 16), torch.empty(2, 18, 19, 16)
    simd_cpu.fused(x, how, scales[0], scales[1], scales[2], expected)
    simd_cpu.fused(x, how, table[:, 16:32], scales[1], table[:, 48:64], out)
    assert torch.equal(out, expected)


def test_rows_that_cannot_reach_the_clamp_skip_it_and_only_they():
    """One sample far above the limit: its neighbourhood is clamped, the rest as if unlimited."""
    how = filters(2, 9, 12, 1, True, clamp=50.0)
    x, scale_in, bias, scale_out = features((1, 60, 20, 16), torch.float32)
    x[0, 30, 10, 5] = 1e4
    size = (58, 18)
    out = torch.empty(1, *size, 16)
    simd_cpu.fused(x, how, scale_in, bias, scale_out, out)
    truth, _ = rounding(x, how, size, scale_in, bias, scale_out)
    assert (out - truth).norm() <= 1e-6 * truth.norm()
    unlimited = torch.empty(1, *size, 16)
    never = dataclasses.replace(how, clamp=math.inf)
    simd_cpu.fused(x, never, scale_in, bias, scale_out, unlimited)
    same = (out == unlimited).all(3).all(2)[0]
    assert same[:20].all() and same[40:].all() and not same[30]


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95, 0.999])
def test_a_clamp_that_binds_for_few_samples_binds_for_them(share):
    how = filters(2, 9, 12, 1, True)
    x, *scales = features((1, 20, 21, 16), torch.float32)
    size = (18, 19)
    impulse = (0.0,) * 6 + (1.0,) + (0.0,) * 5  # passes every other sample of the leaky ReLU
    bare = dataclasses.replace(how, down_terms=((impulse, impulse),))
    peak = reference.fused_filtered_lrelu(x, bare, size, *scales[:2], None).abs().max().item()
    how = dataclasses.replace(how, clamp=share * peak)
    truth, _ = rounding(x, how, size, *scales)
    out = torch.empty(1, *size, 16)
    simd_cpu.fused(x, how, *scales, out)
    assert (out - truth).norm() <= 1e-6 * truth.norm()
    unlimited, _ = rounding(x, dataclasses.replace(how, clamp=math.inf), size, *scales)
    assert (unlimited - truth).norm() > 1e-5 * truth.norm()


def test_nan_and_infinity_stay_in_their_channel():
    how = filters(2, 9, 12, 1, True, clamp=256.0)
    x, *scales = features((2, 20, 21, 16), torch.float32)
    x[0, 9, 9, 3], x[0, 9, 9, 4] = float("nan"), float("inf")
    out = torch.empty(2, 18, 19, 16)
    simd_cpu.fused(x, how, *scales, out)
    assert out[0, :, :, 3].isnan().any()
    healthy = [c for c in range(16) if c not in (3, 4)]
    assert out[0][:, :, healthy].isfinite().all() and out[1].isfinite().all()


def test_what_no_kernel_exists_for_is_declined():
    how = filters(2, 9, 12, 1, True)
    x, *_ = features((1, 20, 20, 16), torch.float32)
    assert simd_cpu.takes(x, how, (18, 18))
    assert not simd_cpu.takes(x.half(), how, (18, 18))
    assert not simd_cpu.takes(x.double(), how, (18, 18))
    for changes in ({"up": 3}, {"down": 1}, {"slope": 1.5}, {"up_taps": how.up_taps[:8]}):
        assert not simd_cpu.takes(x, dataclasses.replace(how, **changes), (18, 18))
    odd = (((1.0,) * 5, (1.0,) * 5),)
    assert not simd_cpu.takes(x, dataclasses.replace(how, down_terms=odd), (18, 18))
    many = how.down_terms * 7
    assert not simd_cpu.takes(x, dataclasses.replace(how, down_terms=many), (18, 18))


def test_no_call_allocates_after_the_first(monkeypatch):
    from numba.core.runtime import _nrt_python, rtsys

    _nrt_python.memsys_enable_stats()
    how = filters(2, 9, 12, 1, True)
    x, *scales = features((2, 38, 37, 32), torch.float32)
    out = torch.empty(2, 36, 35, 32)
    simd_cpu.fused(x, how, *scales, out)
    before = rtsys.get_allocation_stats().alloc
    address = simd_cpu._scratch.address(0)
    made = []
    inner = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: made.append(a) or inner(*a, **k))
    for _ in range(5):
        simd_cpu.fused(x, how, *scales, out)
    assert rtsys.get_allocation_stats().alloc == before
    assert not made and simd_cpu._scratch.address(0) == address


def test_one_thread_takes_what_another_leaves():
    """A kernel that is called late finds its tasks done, not half done."""
    how = filters(2, 9, 12, 1, True)
    x, *scales = features((1, 38, 37, 32), torch.float32)
    out = torch.full((1, 36, 35, 32), float("nan"))
    plan = simd_cpu._plan(how, 38, 37, 32, 36, 35, False)
    counter = ctypes.c_int64(0)
    arguments = (x.data_ptr(), out.data_ptr(), scales[0].data_ptr(), 32, scales[1].data_ptr())
    arguments += (scales[2].data_ptr(), 32, plan.table_at, plan.shape_at)
    arguments += (simd_cpu._scratch.address(plan.scratch), ctypes.addressof(counter))
    plan.run(*arguments, 2, 4)  # two blocks of channels in two strips each
    assert out.isfinite().all() and counter.value == 5
    out.fill_(float("nan"))
    plan.run(*arguments, 2, 4)
    assert out.isnan().all() and counter.value == 6


@pytest.mark.parametrize(
    "blocks, rows, threads", [(2, 146, 2), (3, 146, 2), (4, 50, 4), (1, 99, 2)]
)
def test_strips_balance_the_threads(blocks, rows, threads):
    strips = simd_cpu._strips(blocks, rows, threads)
    assert blocks * strips >= 2 * threads and blocks * strips % threads == 0
    assert simd_cpu._strips(blocks, rows, 1) == 1
    assert simd_cpu._strips(blocks, 20, threads) == 1  # too short to compute its edges twice


def test_the_table_holds_every_phase():
    how = filters(4, -6, 12, 2, True, clamp=8.0)
    table, even_up, even_down = simd_cpu._table(how)
    assert even_up and even_down
    at = offsets(4, 12, 2)
    phases = table[at["general"] : at["sums"]].reshape(4, 6)
    taps = np.array(how.up_taps, np.float32)
    for q in range(4):
        assert np.array_equal(phases[q], taps[3 - q :: 4])
    even, odd = table[at["folded"] : at["folded"] + 12].reshape(2, 2, 3).swapaxes(0, 1)
    near = {"rtol": 1e-5, "atol": 1e-7}
    np.testing.assert_allclose(even + odd, phases[:2, :3], **near)
    np.testing.assert_allclose(even - odd, phases[:1:-1, :3], **near)
    slope, clamp, reach = table[at["limits"] :]
    assert (slope, clamp) == (np.float32(SLOPE), 8)
    bound = 8 / np.abs(phases).sum(1).max()
    assert 0.9999 * bound < reach < bound


def test_layers_share_kernels():
    """Neither sizes, taps, limits nor channels are part of a kernel: a network needs a handful."""
    names = set()
    for pad in range(-13, 14):
        for up in (2, 4):
            how = filters(up, pad, 12, 1, True)
            names.add(Variant(up, (pad + 1) % 2, 12, 1, *simd_cpu._table(how)[1:], True).name)
    assert len(names) == 4


FUNCTIONS = ["rows_up", "rows_up_edge", "along_x", "along_x_clamped", "rows_down", "run"]
ARGUMENTS = [
    *("x_at", "y_at", "scale_in_at", "scale_in_step", "bias_at", "scale_out_at", "scale_out_step"),
    *("table_at", "shape_at", "scratch_at", "counter_at", "strips", "tasks"),
]


def unknown_names(tree):
    """What is read somewhere and set, imported or built in nowhere."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    set_here = {node.id for node in names if isinstance(node.ctx, ast.Store)} | set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            set_here |= {node.name, *(argument.arg for argument in node.args.args)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            set_here |= {alias.asname or alias.name for alias in node.names}
    return {node.id for node in names} - set_here


def test_the_source_is_whole_for_variants_that_no_layer_here_compiles():
    for variant in (
        Variant(2, 0, 4, 1, True, True, False),
        Variant(4, 1, 16, 6, False, False, True),
    ):
        tree = ast.parse(source(variant), variant.name)
        defined = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert [f.name for f in defined] == FUNCTIONS
        (driver,) = [f for f in defined if f.name == "run"]
        assert [argument.arg for argument in driver.args.args] == ARGUMENTS
        assert unknown_names(tree) == set()
