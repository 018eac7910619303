"""The Triton kernel for Fourier features against float64."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl

import kernels_triton as ops
from kernels_triton.fourier_input import FourierTable, fourier_input, kernel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Of the largest result. Positions times frequencies reach some ten turns here, and float32 knows
# them to 1e-6 of a turn. Half precision rounds sines, mixing matrix and result, each to half a unit
# in the last place. bfloat16 holds the result alone; the interpreter cuts off where a GPU rounds.
ROUNDING = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}


def _table(channels, rows, columns, generator, shift=0.0):
    """Rows and columns lie apart by different steps, so that exchanging them shows."""
    width = -(-channels // 16) * 16
    mixing = torch.zeros(width, width)
    mixing[:channels, :channels] = torch.randn(channels, channels, generator=generator)
    transform = torch.eye(3) + 0.1 * torch.randn(3, 3, generator=generator)
    transform[2] = torch.tensor([0.0, 0.0, 1.0])
    table = {
        "freqs": 3 * torch.randn(channels, 2, generator=generator),
        "phases": torch.rand(channels, generator=generator) - 0.5 + shift,
        "transform": transform,
        "mixing": mixing / channels**0.5,
        "columns": (torch.arange(columns) + 0.5 - columns / 2) / 16,
        "rows": (torch.arange(rows) + 0.5 - rows / 2) / 20,
    }
    table = {key: value.to(DEVICE) for key, value in table.items()}
    return FourierTable(**table, rate=16.0, bandwidth=2.0)  # many channels fade, some vanish


def _case(n, channels, rows, columns, shift=0.0):
    generator = torch.Generator().manual_seed(channels * 100 + rows)
    table = _table(channels, rows, columns, generator, shift)
    turn = torch.randn(n, 4, generator=generator)
    scale = torch.randn(n, table.mixing.shape[1], generator=generator)
    return turn.to(DEVICE), table, scale.to(DEVICE)


def _expected(turn, table, scale):
    """Pixel by pixel as the definition has it, in float64."""
    t = turn.double()
    t = t / t[:, :2].square().sum(1, keepdim=True).sqrt()
    plane = torch.zeros(len(t), 3, 3, dtype=torch.float64, device=t.device)
    plane[:, 0, 0], plane[:, 0, 1], plane[:, 1, 0], plane[:, 1, 1] = (
        t[:, 0],
        -t[:, 1],
        t[:, 1],
        t[:, 0],
    )
    plane[:, 2, 2] = 1
    shift = torch.eye(3, dtype=torch.float64, device=t.device).repeat(len(t), 1, 1)
    shift[:, 0, 2], shift[:, 1, 2] = -t[:, 2], -t[:, 3]
    m = plane @ shift @ table.transform.double()
    freqs = table.freqs.double()
    phases = table.phases.double() + (freqs @ m[:, :2, 2:])[:, :, 0]
    freqs = freqs @ m[:, :2, :2]
    fade = 1 - (freqs.norm(dim=2) - table.bandwidth) / (table.rate / 2 - table.bandwidth)
    turns = (
        freqs[:, None, None, :, 0] * table.columns.double()[:, None]
        + freqs[:, None, None, :, 1] * table.rows.double()[:, None, None]
        + phases[:, None, None]
    )
    waves = (2 * math.pi * turns).sin() * fade.clamp(0, 1)[:, None, None]
    y = waves @ table.mixing.double()[: waves.shape[3]]
    return y if scale is None else y * scale.double()[:, None, None]


def _run(turn, table, scale, dtype):
    shape = (len(turn), len(table.rows), len(table.columns), table.mixing.shape[1])
    guarded = torch.full((math.prod(shape) + 4096,), float("nan"), dtype=dtype, device=DEVICE)
    out = guarded[: math.prod(shape)].view(shape)
    assert kernel.run(turn, table, scale, out) is out
    assert guarded[out.numel() :].isnan().all()
    return out


def _assert_close(y, expected):
    error = (y.double() - expected).abs().max()
    assert error <= ROUNDING[y.dtype] * expected.abs().max()  # NaN where a result was not written


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "n, channels, rows, columns",
    [
        (2, 48, 9, 17),
        (1, 21, 8, 8),  # padded channels
        (3, 16, 1, 1),
        (1, 80, 5, 3),  # a last piece of channels, in both directions
        (1, 150, 7, 10),  # more than one turn of the loop in half precision too
    ],
)
def test_equals_the_definition(n, channels, rows, columns, dtype):
    case = _case(n, channels, rows, columns)
    y = _run(*case, dtype)
    _assert_close(y, _expected(*case))
    assert (y[..., channels:] == 0).all()


def test_scale_may_be_missing_or_a_slice_and_turn_too():
    turn, table, scale = _case(2, 32, 6, 5)
    _assert_close(_run(turn, table, None, torch.float32), _expected(turn, table, None))
    wide = torch.full((2, 100), float("nan"), device=DEVICE)
    wide[:, 16:48], wide[:, 64:68] = scale, turn
    y = _run(wide[:, 64:68], table, wide[:, 16:48], torch.float32)
    _assert_close(y, _expected(turn, table, scale))


def test_the_length_of_the_rotation_does_not_matter():
    turn, table, scale = _case(1, 16, 4, 4)
    y = _run(turn, table, scale, torch.float32)
    torch.testing.assert_close(_run(turn * 4, table, scale, torch.float32), y, rtol=0, atol=1e-5)


def test_whole_turns_of_phase_change_nothing():
    """A long journey of the plane adds whole turns: 256 of them leave 2^-16 of a turn's digits."""
    turn, table, scale = _case(1, 16, 4, 4, shift=256.0)
    expected = _expected(turn, table, scale)
    error = (_run(turn, table, scale, torch.float32) - expected).abs().max()
    assert error <= 2 * math.pi * 2**-15 * expected.abs().max()


@triton.jit
def _circle(turns_ptr, sine_ptr, cosine_ptr, SIZE: tl.constexpr):
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    sine, cosine = kernel.sine_and_cosine(tl.load(turns_ptr + at))
    tl.store(sine_ptr + at, sine)
    tl.store(cosine_ptr + at, cosine)


def test_sines_are_as_good_as_float32_is():
    generator = torch.Generator().manual_seed(0)
    spread = torch.cat([torch.full((2048,), size) for size in (1.0, 10.0, 1e3, 1e5)])
    turns = ((torch.rand(8192, generator=generator) - 0.5) * spread).to(DEVICE)
    turns[:16] = torch.arange(-8, 8, device=DEVICE) / 8  # the seams
    found = torch.empty(2, 8192, device=DEVICE)
    _circle[(8,)](turns, found[0], found[1], SIZE=1024)
    angle = (turns.double() % 1) * 2 * math.pi
    # One unit in the last place below one.
    assert (found[0] - angle.sin()).abs().max() <= 2**-23
    assert (found[1] - angle.cos()).abs().max() <= 2**-23


def test_the_op_runs_it():
    turn, table, scale = _case(2, 32, 5, 6)
    out = torch.full((2, 5, 6, 32), float("nan"), device=DEVICE)
    with ops.implementation("triton"):
        assert fourier_input(turn, table, scale, out=out) is out
    _assert_close(out, _expected(turn, table, scale))


def test_layouts_that_cannot_be_read_are_said():
    turn, table, scale = _case(2, 32, 4, 4)
    with pytest.raises(ValueError, match="turn"):
        _run(turn.t().contiguous().t(), table, scale, torch.float32)
    with pytest.raises(ValueError, match="scale"):
        _run(turn, table, scale.t().contiguous().t(), torch.float32)
