"""The one-pass CPU kernel against the definition of filtered_lrelu, written out here in float64."""

import pytest
import torch
import torch.nn.functional as F

from kernels_triton.filtered_lrelu import filtered_lrelu, simd_cpu

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
]


@pytest.mark.parametrize("up, pad_lo, size, out, channels, taps", CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_equals_the_definition(up, pad_lo, size, out, channels, taps, threads):
    x, fu, fd, b, pads = case(up, pad_lo, size, out, channels, taps)
    assert simd_cpu.supports(x, fu, fd, up, 2, pad_lo, (out, out), GAIN, SLOPE)
    expected = definition(x.double(), fu.double(), fd.double(), b.double(), up, pads, 3.0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = simd_cpu.run(x, fu, fd, b, up, pad_lo, (out, out), GAIN, SLOPE, 3.0)
    finally:
        torch.set_num_threads(before)
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
    assert not simd_cpu.supports(x, fu, fd, 2, 2, 9, (80, 80), *usual)  # beyond the margin
    assert not simd_cpu.supports(x, fu, fd, 2, 2, 40, square, *usual)
    assert not simd_cpu.supports(x, fu, fd, 2, 2, 9, square, GAIN, 1.5)
    assert not simd_cpu.supports(x, fu, fd, 2, 2, 9, square, -1.0, SLOPE)
    with pytest.raises(ValueError, match="supports"):
        simd_cpu.run(x, fu, fd, b, 2, 9, (80, 80), GAIN, SLOPE, None)


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


def test_a_cache_folder_that_is_not_ones_own_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert simd_cpu.cache_folder() == tmp_path / "stylewire" / "kernels"
    assert simd_cpu.cache_folder().stat().st_mode & 0o077 == 0
    monkeypatch.setattr("os.getuid", lambda: 12345)
    other = simd_cpu.cache_folder()
    assert tmp_path not in other.parents
    other.rmdir()


def test_generated_kernels_are_cached_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    simd_cpu._folder.cache_clear()
    simd_cpu._kernel.cache_clear()
    try:
        x, fu, fd, b, _ = case(2, 9, 30, 28, 16)
        simd_cpu.run(x, fu, fd, b, 2, 9, (28, 28), GAIN, SLOPE, None)
        folder = tmp_path / "stylewire" / "kernels"
        assert [p.name for p in folder.glob("filtered_lrelu_up2_taps12_*.py")]
        assert list((folder / "__pycache__").glob("*.nbi"))  # numba's index of machine code
    finally:
        simd_cpu._folder.cache_clear()
        simd_cpu._kernel.cache_clear()
