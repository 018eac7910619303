"""The Triton kernel of bias_act_torgb against the definition in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kernels_triton import implementation
from kernels_triton.bias_act import Epilogue, Skip, bias_act_torgb, reference
from kernels_triton.bias_act.fused import kernel
from tests.kernels_triton.guarded import (
    DEVICE,
    DTYPES,
    assert_replays,
    assert_rounded,
    drawn,
    guarded,
)

TAPS = (0.25, 0.75, 0.8, 0.2)  # not symmetric: no mistake in the order hides
# Of the features: five operations. Of the picture: a sum over up to 64 channels, and 16 taps.
FEATURE_ROUNDING, PICTURE_ROUNDING = 8 * 2**-24, 64 * 2**-24


def assert_equals_the_definition(
    x: Tensor,
    end: Epilogue,
    skip: Skip,
    style: Tensor,
    before: Tensor | None = None,
    scale_in: Tensor | None = None,
    scale_out: Tensor | None = None,
    keep: bool = True,
) -> None:
    """Of picture and features; these are kept in x's own memory."""
    n, height, width, channels = x.shape
    picture = guarded(n, height, width, 3)
    features = guarded(*x.shape, dtype=x.dtype)
    features.out.copy_(x)
    image, kept = torch.zeros(n, height, width, 3).double().to(DEVICE), torch.zeros(x.shape)
    kept = kept.double().to(DEVICE)
    reference.bias_act_torgb(
        x.double(), end, skip, style, before, image, scale_in, scale_out, kept if keep else None
    )
    with implementation("triton"):
        result = bias_act_torgb(
            features.out,
            end,
            skip,
            style,
            before,
            picture.out,
            scale_in=scale_in,
            scale_out=scale_out,
            out=features.out if keep else None,
        )
    assert result is picture.out
    picture.assert_untouched_around()
    features.assert_untouched_around()
    assert_rounded(picture.out, image, PICTURE_ROUNDING)
    if keep:
        assert_rounded(features.out, kept, FEATURE_ROUNDING)
    else:
        assert torch.equal(features.out, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(2, 6, 10, 48), (1, 2, 2, 64)], ids=lambda shape: "x".join(map(str, shape))
)
def test_equals_the_definition(dtype, shape) -> None:
    randn = drawn(1)
    n, height, width, channels = shape
    end = Epilogue(randn(channels), randn(height, width), gain=2**0.5, clamp=1.5)
    skip = Skip(randn(3, channels), randn(3), 8.0, TAPS)
    assert_equals_the_definition(
        randn(*shape).to(dtype),
        end,
        skip,
        randn(n, channels),
        before=randn(n, height // 2, width // 2, 3),
        scale_in=randn(n, channels),
        scale_out=randn(n, channels),
    )


@pytest.mark.parametrize("absent", ["noise", "before", "scale_in", "scale_out", "out"])
def test_each_part_may_be_absent(absent) -> None:
    randn = drawn(2)
    end = Epilogue(randn(16), None if absent == "noise" else randn(2, 4), slope=1.0, gain=0.7)
    parts = {
        "before": randn(1, 1, 2, 3),
        "scale_in": randn(1, 16),
        "scale_out": randn(1, 16),
    }
    parts.pop(absent, None)
    skip = Skip(randn(3, 16), randn(3), math.inf, TAPS)
    assert_equals_the_definition(
        randn(1, 2, 4, 16), end, skip, randn(1, 16), **parts, keep=absent != "out"
    )


@pytest.mark.parametrize("shape", [(1, 1, 1, 16), (1, 3, 5, 16)])
def test_odd_sizes_without_a_picture_so_far(shape) -> None:
    randn = drawn(3)
    skip = Skip(randn(3, 16), randn(3), 2.0, TAPS)
    assert_equals_the_definition(randn(*shape), Epilogue(randn(16)), skip, randn(1, 16))


@pytest.mark.parametrize("taps", [2, 6])
def test_any_even_filter_doubles(taps) -> None:
    randn = drawn(4)
    skip = Skip(randn(3, 16), randn(3), math.inf, tuple(randn(taps).tolist()))
    end = Epilogue(randn(16))
    assert_equals_the_definition(
        randn(1, 6, 8, 16), end, skip, randn(1, 16), before=randn(1, 3, 4, 3)
    )


def test_narrow_blocks_as_at_high_resolutions(monkeypatch) -> None:
    monkeypatch.setattr(kernel, "TORGB_PROGRAMS", 1)
    randn = drawn(5)
    skip = Skip(randn(3, 64), randn(3), math.inf, TAPS)
    end = Epilogue(randn(64), randn(2, 132))
    before = randn(1, 1, 66, 3)
    assert_equals_the_definition(
        randn(1, 2, 132, 64), end, skip, randn(1, 64), before=before, scale_out=randn(1, 64)
    )


def test_scales_may_be_columns_of_a_larger_table() -> None:
    randn = drawn(6)
    table = randn(2, 64)
    skip = Skip(randn(3, 16), randn(3), math.inf, TAPS)
    assert_equals_the_definition(
        randn(2, 2, 2, 16),
        Epilogue(randn(16)),
        skip,
        table[:, :16],
        scale_in=table[:, 16:32],
        scale_out=table[:, 32:48],
    )


def test_nan_stays_visible() -> None:
    x = torch.zeros(1, 2, 2, 16, device=DEVICE)
    x[0, 1, 0, 3] = math.nan
    image = torch.zeros(1, 2, 2, 3, device=DEVICE)
    zeros = torch.zeros(3, device=DEVICE)
    skip = Skip(torch.ones(3, 16, device=DEVICE), zeros, 1.0, TAPS)
    end = Epilogue(torch.zeros(16, device=DEVICE), clamp=1.0)
    with implementation("triton"):
        bias_act_torgb(x, end, skip, torch.ones(1, 16, device=DEVICE), None, image)
    assert image[0, 1, 0].isnan().all() and image.isnan().sum() == 3


def test_gaps_in_a_buffer_are_refused() -> None:
    x = torch.zeros(1, 2, 2, 16, device=DEVICE)
    image = torch.zeros(1, 2, 2, 6, device=DEVICE)[..., ::2]
    ones = torch.ones(3, 16, device=DEVICE)
    skip = Skip(ones, ones[:, 0], 1.0, TAPS)
    with implementation("triton"), pytest.raises(ValueError, match="image must be contiguous"):
        bias_act_torgb(x, Epilogue(ones[0]), skip, ones[:1], None, image)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="a CUDA graph needs a CUDA device")
def test_is_captured_in_a_graph() -> None:
    randn = drawn(7)
    x, end = randn(2, 16, 16, 64).half(), Epilogue(randn(64), randn(16, 16))
    skip = Skip(randn(3, 64), randn(3), math.inf, TAPS)
    style, before = randn(2, 64), randn(2, 8, 8, 3)
    image, out = torch.empty(2, 16, 16, 3, device=DEVICE), torch.empty_like(x)
    call = lambda: bias_act_torgb(x, end, skip, style, before, image, out=out)  # noqa: E731
    assert_replays(call, [image, out])
