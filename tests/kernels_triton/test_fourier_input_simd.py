"""The CPU's fourier_input against the definition in float64."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from kernels_triton.fourier_input import FourierTable, op, reference, simd_cpu

# float32: sums of up to 48 products. bfloat16: half a step of rounding, relative to the largest.
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8}
# batch, height, width; frequencies, features: padded or not, whole pairs of vectors or not
CASES = [
    ((1, 1, 1), (16, 16)),
    ((2, 3, 2), (13, 16)),
    ((1, 5, 7), (20, 32)),
    ((2, 6, 9), (48, 48)),
    ((1, 36, 36), (32, 32)),
]


def _table(height, width, frequencies, channels, generator, rate=16.0) -> FourierTable:
    def positions(count):
        return ((torch.arange(count) + 0.5) / count * 2 - 1) * 0.5 * count / rate

    mixing = torch.zeros(channels, channels)
    mixing[:frequencies] = torch.randn(frequencies, channels, generator=generator)
    transform = torch.eye(3) + torch.randn(3, 3, generator=generator) / 4
    return FourierTable(
        torch.randn(frequencies, 2, generator=generator) * 3,  # some fade, some vanish
        torch.rand(frequencies, generator=generator) - 0.5,
        transform,
        mixing / frequencies**0.5,
        positions(width),
        positions(height),
        rate,
        2.0,
    )


def _case(size, channels):
    generator = torch.Generator().manual_seed(size[1] * 100 + size[2] + channels[0])
    table = _table(*size[1:], *channels, generator)
    turn = torch.randn(size[0], 4, generator=generator)
    return turn, table, torch.rand(size[0], channels[1], generator=generator) + 0.5


def _wide(turn, table, scale):
    fields = {f.name: getattr(table, f.name) for f in dataclasses.fields(table)}
    wide = FourierTable(**{k: v.double() if torch.is_tensor(v) else v for k, v in fields.items()})
    return reference.fourier_input(turn.double(), wide, None if scale is None else scale.double())


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("size, channels", CASES)
def test_features(size, channels, dtype, scaled, threads) -> None:
    turn, table, scale = _case(size, channels)
    scale = scale if scaled else None
    out = torch.full((*size, channels[1]), math.nan, dtype=dtype)
    assert simd_cpu.run(turn, table, scale, out) is out
    expected = _wide(turn, table, scale)
    assert (out - expected).abs().max() <= ROUNDING[dtype] * expected.abs().max()


def test_phases_far_from_the_origin_keep_their_digits() -> None:
    turn, table, _ = _case((1, 6, 6), (16, 16))
    turn[:, 2:] = torch.tensor([[300.0, -200.0]])  # hundreds of turns
    out = torch.empty(1, 6, 6, 16)
    simd_cpu.run(turn, table, None, out)
    expected = _wide(turn, table, None)
    assert (out - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_rows_of_turns_may_be_strided() -> None:
    turn, table, scale = _case((2, 3, 4), (16, 16))
    out, expected = torch.empty(2, 3, 4, 16), torch.empty(2, 3, 4, 16)
    strided = torch.randn(2, 9)
    strided[:, 3:7] = turn
    simd_cpu.run(strided[:, 3:7], table, scale, out)
    assert out.equal(simd_cpu.run(turn, table, scale, expected))


def test_a_turn_without_a_direction_gives_nan() -> None:
    turn, table, _ = _case((2, 3, 4), (16, 16))
    turn[1, :2] = 0
    out = torch.zeros(2, 3, 4, 16)
    simd_cpu.run(turn, table, None, out)
    assert out[0].isfinite().all() and out[1].isnan().all()


def test_float16_takes_the_definition() -> None:
    turn, table, scale = _case((1, 3, 4), (16, 16))
    out = torch.full((1, 3, 4, 16), math.nan, dtype=torch.float16)
    simd_cpu.run(turn, table, scale, out)
    assert out.equal(reference.fourier_input(turn, table, scale).half())


def test_the_public_op_comes_here(monkeypatch) -> None:
    turn, table, scale = _case((1, 3, 4), (16, 16))
    monkeypatch.setattr(op, "reference", None)
    out = torch.full((1, 3, 4, 16), math.nan, dtype=torch.bfloat16)
    assert op.fourier_input(turn, table, scale, out=out).isfinite().all()


def test_allocates_no_picture(allocated_bytes) -> None:
    turn, table, scale = _case((1, 128, 128), (16, 16))
    out = torch.empty(1, 128, 128, 16)
    call = lambda: simd_cpu.run(turn, table, scale, out)  # noqa: E731
    assert allocated_bytes(call) < out.nbytes // 8
