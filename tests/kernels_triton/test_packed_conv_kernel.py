"""The Triton convolution against float64, and when it is the one that runs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

import kernels_triton as ops
from kernels_triton.modulated_conv import PackedConv, own_kernel, packed_conv2d
from kernels_triton.modulated_conv import tiles as choices
from kernels_triton.modulated_conv.tiles import Tiles, Work
from kernels_triton.modulated_conv.tuning import fastest, tune

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Of the largest result: float32 sums of hundreds of products; half a unit in the last place of the
# stored result, and as much again where the sum lay on the other side of a rounding boundary.
# The interpreter cuts bfloat16 off where a GPU rounds: another factor of two.
ROUNDING = {torch.float32: 2e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
SMALL = Tiles(32, 32, 32, warps=4, stages=2)


def _case(sizes, kernel, padding, channels, dtype, modulated=True):
    n, rows, columns = sizes
    i, o = channels
    generator = torch.Generator().manual_seed(rows * 100 + columns + i)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    x = draw(n, rows, columns, i).to(DEVICE, dtype)
    conv = PackedConv.of(draw(o, i, kernel, kernel).to(DEVICE) / i**0.5, padding, dtype)
    scale = draw(n, o).to(DEVICE) if modulated else None
    bias = draw(o).to(DEVICE) if modulated else None
    return x, conv, scale, bias


def _expected(x, conv, scale, bias):
    """In float64, of the values as they are stored."""
    y = F.conv2d(x.double().permute(0, 3, 1, 2), conv.weight.double(), padding=conv.padding)
    y = y.permute(0, 2, 3, 1)
    y = y if scale is None else y * scale.double()[:, None, None]
    return y if bias is None else y + bias.double()


def _run(x, conv, scale, bias, tiles=SMALL):
    from kernels_triton.modulated_conv import kernel

    shape = (x.shape[0], *conv.output_size(*x.shape[1:3]), conv.channels[1])
    out = torch.full(shape, float("nan"), dtype=x.dtype, device=x.device)
    assert kernel.run(x, conv, scale, bias, out, tiles) is out
    return out


def _assert_close(y, expected, dtype):
    error = (y.double() - expected).abs().max()
    assert error <= ROUNDING[dtype] * expected.abs().max()  # NaN where a result was not written


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "sizes, kernel, padding, channels",
    [
        ((2, 5, 7), 3, 2, (48, 48)),  # ragged tiles in every sample
        ((1, 9, 4), 3, 0, (16, 16)),
        ((1, 1, 1), 3, 1, (16, 48)),  # one pixel, all taps but one outside
        ((2, 1, 1), 1, 0, (48, 16)),
        ((2, 6, 5), 1, 0, (16, 80)),
        ((1, 3, 3), 3, 1, (336, 32)),  # a sum that DEPTH does not divide
    ],
)
def test_equals_a_convolution_in_float64(sizes, kernel, padding, channels, dtype):
    case = _case(sizes, kernel, padding, channels, dtype)
    _assert_close(_run(*case), _expected(*case), dtype)


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_every_padding_and_kernels_of_five(padding):
    for kernel in (2, 5):
        case = _case((1, 6, 7), kernel, padding, (16, 16), torch.float32)
        _assert_close(_run(*case), _expected(*case), torch.float32)


@pytest.mark.parametrize("present", [(True, False), (False, True), (False, False)])
def test_scale_and_bias_may_be_missing(present):
    x, conv, scale, bias = _case((2, 4, 5), 3, 1, (16, 32), torch.float32)
    case = (x, conv, scale if present[0] else None, bias if present[1] else None)
    _assert_close(_run(*case), _expected(*case), torch.float32)


def test_scale_is_applied_before_rounding():
    """Sums beyond the range of half precision are brought back by their scale."""
    x, conv, scale, bias = _case((1, 4, 4), 3, 1, (32, 16), torch.float16)
    large = PackedConv(conv.weight * 2.0**14, conv.padding)
    assert _expected(x, large, None, None).abs().max() > 65504
    case = (x, large, scale * 2.0**-14, bias)
    _assert_close(_run(*case), _expected(*case), torch.float16)


@pytest.mark.parametrize("n", [1, 3])
def test_scale_may_be_a_slice_of_all_layers(n):
    x, conv, scale, bias = _case((n, 3, 5), 3, 1, (16, 16), torch.float32)
    wide = torch.full((n, 80), float("nan"), device=DEVICE)
    wide[:, 32:48] = scale
    case = (x, conv, wide[:, 32:48], bias)
    _assert_close(_run(*case), _expected(*case), torch.float32)


TRIED = [*choices.HALF[1:5], Tiles(16, 64, 16, warps=4, stages=2)]


@pytest.mark.parametrize("tiles", TRIED, ids=str)
def test_tiles_that_overhang_leave_no_trace(tiles):
    x, conv, scale, bias = _case((2, 7, 6), 3, 2, (16, 48), torch.float16)
    guarded = torch.full((2 * 9 * 8 * 48 + 4096,), float("nan"), dtype=x.dtype, device=DEVICE)
    out = guarded[: 2 * 9 * 8 * 48].view(2, 9, 8, 48)
    from kernels_triton.modulated_conv import kernel

    kernel.run(x, conv, scale, bias, out, tiles)
    _assert_close(out, _expected(x, conv, scale, bias), x.dtype)
    assert guarded[out.numel() :].isnan().all()


def test_the_op_runs_it_and_the_plain_route_agrees():
    case = _case((2, 5, 6), 3, 2, (16, 32), torch.float32)
    x, conv, scale, bias = case
    with ops.implementation("triton"):
        assert own_kernel(x, conv)
        out = torch.full((2, 7, 8, 32), float("nan"), device=DEVICE)
        assert packed_conv2d(x, conv, scale=scale, bias=bias, out=out) is out
    _assert_close(out, _expected(*case), torch.float32)
    with ops.implementation("torch"):
        assert not own_kernel(x, conv)
        plain = packed_conv2d(x, conv, scale=scale, bias=bias)
    _assert_close(plain, _expected(*case), torch.float32)


def test_transposed_convolutions_stay_with_torch():
    w = torch.randn(16, 16, 3, 3, device=DEVICE)
    conv = PackedConv.of(w, 0, torch.float32, up=2)
    x = torch.randn(1, 4, 4, 16, device=DEVICE)
    with ops.implementation("triton"):
        assert not own_kernel(x, conv)
        assert packed_conv2d(x, conv).shape == (1, 9, 9, 16)
        with pytest.raises(ValueError, match="up 1"):
            _run(x, conv, None, None)


def test_what_does_not_fit_is_said():
    x, conv, scale, bias = _case((2, 4, 4), 3, 1, (16, 32), torch.float32)
    with pytest.raises(ValueError, match="scale"):
        _run(x, conv, scale[:1], bias)
    with pytest.raises(ValueError, match="bias"):
        _run(x, conv, scale, bias[:16])
    with pytest.raises(ValueError, match="channels-last"):
        _run(x, PackedConv(conv.weight.contiguous(), 1), scale, bias)
    with pytest.raises(ValueError, match="precision"):
        PackedConv(conv.weight, 1, precision="tf23")


# Which way is taken.


def _work(kernel=3, dtype=torch.float16, precision="ieee", side=36, channels=(512, 512), **device):
    i, o = channels
    device = choices.Device("a GPU", **device)
    return Work(1, side, side, i, o, kernel, kernel - 1, dtype, precision, device)


def test_untuned_cudnn_comes_first_but_for_plain_matrix_products():
    assert choices.chosen(_work(3)) is None
    assert choices.chosen(_work(1)) is not None
    assert choices.chosen(_work(1, torch.bfloat16)) is not None
    assert choices.chosen(_work(1, torch.float32)) is None
    assert choices.chosen(_work(3, torch.float32, "tf32x3")) is not None
    assert choices.chosen(_work(1, capability=(7, 5))) is None


def test_what_was_measured_stays(monkeypatch):
    monkeypatch.setattr(choices, "_measured", {})
    plain, product = _work(3), _work(1)
    assert choices.remember(plain, SMALL) is SMALL
    assert choices.remember(plain, None) is SMALL
    assert choices.chosen(plain) is SMALL
    assert choices.remember(product, None) is None
    assert choices.chosen(product) is None
    assert choices.tiles_of(product) == choices.likely_tiles(product)


def test_the_fastest_wins_and_a_tie_is_torch_s():
    other = Tiles(64, 64, 64, 4, 4)
    assert fastest({None: 2.0, SMALL: 1.0, other: 1.5}) is SMALL
    assert fastest({SMALL: 1.0, other: 1.0, None: 1.0}) is None


def test_small_maps_get_small_tiles_and_few_channels_narrow_ones():
    def tiles(side, channels, **more):
        return choices.likely_tiles(_work(3, side=side, channels=channels, **more))

    assert tiles(36, (512, 512)).channels == 64
    assert tiles(148, (512, 512)).channels >= 128
    assert tiles(1024, (32, 32)).channels == 32
    assert tiles(148, (512, 512), shared=99 * 1024).shared(2) <= 99 * 1024
    for precision in ("ieee", "tf32x3", "tf32"):
        tiles(36, (16, 16), dtype=torch.float32, precision=precision)


def test_on_a_cpu_nothing_is_tuned(monkeypatch):
    monkeypatch.setattr(choices, "_measured", {})
    conv = PackedConv.of(torch.randn(16, 16, 3, 3), 1, torch.float16)
    assert tune(conv, 1, 8, 8) is None
    assert not choices._measured


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
@pytest.mark.parametrize("kernel", [1, 3])
def test_tuning_settles_the_question(kernel, monkeypatch):
    monkeypatch.setattr(choices, "_measured", {})
    case = _case((2, 36, 36), kernel, kernel - 1, (64, 64), torch.float16)
    x, conv = case[:2]
    winner = tune(conv, 2, 36, 36)
    assert own_kernel(x, conv) == (winner is not None)
    assert tune(conv, 2, 36, 36) is winner
    _assert_close(packed_conv2d(x, conv, scale=case[2], bias=case[3]), _expected(*case), x.dtype)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter knows one precision")
@pytest.mark.parametrize("precision, rounding", [("ieee", 2e-6), ("tf32x3", 4e-6), ("tf32", 2e-3)])
def test_precision_of_float32(precision, rounding):
    x, conv, scale, bias = _case((1, 20, 20), 3, 1, (64, 64), torch.float32)
    conv = PackedConv(conv.weight, conv.padding, precision=precision)
    tiles = choices.likely_tiles(Work.of(conv, 1, 20, 20))
    expected = _expected(x, conv, scale, bias)
    error = (_run(x, conv, scale, bias, tiles).double() - expected).abs().max()
    assert error <= rounding * expected.abs().max()
