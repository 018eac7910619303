"""The GPU kernel of fused_filtered_lrelu against its reference; without a GPU in the interpreter.

Tiles are as small as they can be, because the interpreter takes seconds for each: two columns, one
program per sample, and filters of a third of the usual length where theirs is not the question.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from kernels_triton.choice import implementation
from kernels_triton.filtered_lrelu import Resampling, fused_filtered_lrelu, kernel, reference
from kernels_triton.filtered_lrelu.lanes import FLOAT, HALF
from kernels_triton.filtered_lrelu.launch import Call
from kernels_triton.filtered_lrelu.schedule import schedule
from kernels_triton.filtered_lrelu.tiling import Tiling
from kernels_triton.filtered_lrelu.typical import typical

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EVERY = ("scale_in", "bias", "scale_out")


@pytest.fixture(autouse=True)
def _numpy_speaks_up() -> Iterator[None]:
    """Not a number is tested on purpose; numpy, which the interpreter uses, warns of it."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="triton")
        yield


def inputs(
    how: Resampling,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype = torch.float32,
    given: tuple[str, ...] = EVERY,
) -> tuple[Tensor, dict[str, Tensor]]:
    """x and what is given of scale_in, bias and scale_out; scales are pieces of wider tables."""
    drawn = torch.Generator().manual_seed(sum(shape) + how.pad)
    n, channels = shape[0], shape[3]
    table = torch.rand(n, 3 * channels + 16, generator=drawn) + 0.5
    every = {
        "scale_in": table[:, 16 : 16 + channels],
        "bias": torch.randn(channels, generator=drawn),
        "scale_out": table[:, 16 + channels : 16 + 2 * channels],
    }
    x = torch.randn(shape, generator=drawn).to(DEVICE, dtype)
    table = table.to(DEVICE)
    return x, {name: every[name].to(DEVICE) if n == 1 else _piece(every[name]) for name in given}


def _piece(values: Tensor) -> Tensor:
    """On the device, with the strides that it has."""
    if values.ndim == 1 or values.device == DEVICE:
        return values.to(DEVICE)
    wide = torch.zeros(len(values), values.stride(0), device=DEVICE)
    wide[:, : values.shape[1]] = values
    return wide[:, : values.shape[1]]


def tile(
    how: Resampling, size: tuple[int, int], *, columns: int = 2, rows: int = 0, warps: int = 1
) -> Tiling:
    """One strip over all rows, unless `rows` says otherwise."""
    plan = schedule(how)
    rows = rows or -(-size[0] // plan.classes) * plan.classes
    turns = -(-(rows + plan.halves - 1) // plan.classes)
    return Tiling(columns, rows, 1, turns, warps)


def computed(
    x: Tensor,
    how: Resampling,
    size: tuple[int, int],
    more: dict[str, Tensor],
    cut: Tiling | None = None,
    math: int = FLOAT.value,
) -> Tensor:
    """By the plain kernel, into memory that holds nothing but NaN."""
    out = torch.full((x.shape[0], *size, x.shape[3]), torch.nan, dtype=x.dtype, device=DEVICE)
    call = Call(x, how, *[more.get(name) for name in EVERY], out)
    return kernel.launch(call, cut or tile(how, size), math)


def expected(x: Tensor, how: Resampling, size: tuple[int, int], more: dict[str, Tensor]) -> Tensor:
    """By the reference, in float64."""
    return reference.fused_filtered_lrelu(x.double(), how, size, *[more.get(n) for n in EVERY])


def assert_as_good(
    actual: Tensor,
    x: Tensor,
    how: Resampling,
    size: tuple[int, int],
    more: dict[str, Tensor],
    what: str = "",
) -> None:
    """At most twice the reference's own error in this dtype (three times in float32, where sums in
    another order are all the difference there is).
    """
    exact = expected(x, how, size, more)
    own = reference.fused_filtered_lrelu(x, how, size, *[more.get(n) for n in EVERY]).to(x.dtype)
    factor = 3 if x.dtype == torch.float32 else 2
    # A map of one value may be right by chance: at least the rounding of the largest counts.
    least = torch.finfo(x.dtype).eps * exact.abs().max()
    limit = factor * max((own.double() - exact).abs().max(), least)
    error = (actual.double() - exact).abs().max()
    assert error <= limit, f"{what} error {error:.2e}, at most {limit:.2e}"


def short(up: int, pad: int, clamp: float = 0.9) -> Resampling:
    """Filters of 2 taps per unit."""
    return typical(up, pad, taps=2, clamp=clamp)


def radial(up: int, pad: int, terms: int = 3) -> Resampling:
    return typical(up, pad, terms, clamp=0.9)


@pytest.mark.parametrize(
    ("up", "pad"), [(2, 8), (2, 9), (4, 16), (4, 17), (4, 18), (4, 19), (2, -5)]
)
def test_every_phase_of_the_padding_as_the_reference(up: int, pad: int) -> None:
    how = typical(up, pad, clamp=0.9)
    size = (3, 4)  # even: tiles end with the picture; rows do not fill whole steps of up 4
    x, more = inputs(how, (1, 5, 6, 16))
    assert_as_good(computed(x, how, size, more), x, how, size, more)


@pytest.mark.parametrize(("up", "pad"), [(2, 9), (4, 16)])
def test_sums_of_terms_as_the_reference(up: int, pad: int) -> None:
    how, size = radial(up, pad), (2, 3)
    assert schedule(how).fold is not None and schedule(how).terms == 3
    x, more = inputs(how, (1, 5, 4, 16))
    assert_as_good(computed(x, how, size, more), x, how, size, more)


def test_filters_without_symmetry_as_the_reference() -> None:
    drawn = np.random.default_rng(0).normal(size=(2, 2, 11)) / 6  # odd numbers of taps, too
    terms = tuple((tuple(y), tuple(x)) for y, x in drawn.tolist())
    how = dataclasses.replace(
        typical(2, 9, clamp=0.9),
        up_taps=tuple(np.random.default_rng(1).normal(size=11).tolist()),
        down_terms=terms,
    )
    assert schedule(how).fold is None and schedule(how).terms == 2
    x, more = inputs(how, (1, 4, 5, 16))
    assert_as_good(computed(x, how, (3, 2), more), x, how, (3, 2), more)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_storage_rounds_once(dtype: torch.dtype) -> None:
    how, size = short(2, 3), (3, 3)
    x, more = inputs(how, (1, 5, 5, 16), dtype)
    assert_as_good(computed(x, how, size, more), x, how, size, more)


@pytest.mark.parametrize("given", [(), ("scale_in",), ("bias",), ("scale_out",)])
def test_scales_and_bias_may_be_missing(given: tuple[str, ...]) -> None:
    how, size = short(2, 2), (2, 2)
    x, more = inputs(how, (1, 4, 3, 16), given=given)
    assert_as_good(computed(x, how, size, more), x, how, size, more, str(given))


def test_batches_and_ragged_channels() -> None:
    how, size = short(2, 3), (1, 3)
    x, more = inputs(how, (2, 3, 5, 48))  # 2 tiles of 48 channels on 2 times 64 lanes
    assert more["scale_in"].stride(0) != 48
    assert_as_good(computed(x, how, size, more, tile(how, size, warps=2)), x, how, size, more)


def test_strips_of_rows_meet() -> None:
    how, size = short(4, 5), (5, 2)
    x, more = inputs(how, (1, 4, 4, 16), given=("bias",))
    actual = computed(x, how, size, more, tile(how, size, rows=2))
    assert_as_good(actual, x, how, size, more)


def test_one_value_wide_and_high() -> None:
    how = typical(2, 16)
    x, more = inputs(how, (1, 1, 1, 16))
    assert_as_good(computed(x, how, (1, 1), more), x, how, (1, 1), more)


@pytest.mark.parametrize("missing", [0, 1])
def test_only_tiles_inside_need_no_masks(missing: int) -> None:
    how, size = short(2, -20), (2, 4)  # cropped so far that the left border is not reached
    plan = schedule(how)
    assert plan.origin >= 0
    height = plan.origin + plan.samples(4)  # what four columns, and so two rows, read
    x, more = inputs(how, (1, height, height - missing, 16))
    assert_as_good(computed(x, how, size, more), x, how, size, more)


def test_clamp_limits_the_oversampled_values() -> None:
    how = short(2, 3, clamp=0.25)
    x, more = inputs(how, (1, 4, 4, 16))
    limited = computed(x, how, (2, 2), more)
    assert_as_good(limited, x, how, (2, 2), more)
    free = expected(x, dataclasses.replace(how, clamp=float("inf")), (2, 2), more)
    assert (limited - free).abs().max() > 0.1
    unlimited = dataclasses.replace(how, clamp=float("inf"))
    assert_as_good(computed(x, unlimited, (2, 2), more), x, unlimited, (2, 2), more)


def test_what_is_not_a_number_stays_so() -> None:
    how = short(2, 3)
    x, _ = inputs(how, (1, 4, 4, 16))
    x[0, 1, 1, 3] = torch.nan
    out = computed(x, how, (2, 2), {})
    assert out[..., 3].isnan().all() and not out[..., :3].isnan().any()


def test_sums_of_half_precision_keep_75_db() -> None:
    """The Gluon kernel's arithmetic on float16, every product and sum rounded; it rounds less, as
    a fused multiply-add rounds once. Signal to noise as of a picture whose range is 6 deviations:
    81 dB here, where storing the results alone leaves 88.
    """
    for how in (typical(2, 9), radial(4, 17)):
        x, more = inputs(how, (1, 8, 8, 32), torch.float16, ("bias", "scale_out"))
        size = (4, 2)
        actual = computed(x, how, size, more, math=HALF.value)
        exact = expected(x, how, size, more)
        noise = (actual.double() - exact).square().mean().sqrt() / (6 * exact.std())
        assert -20 * torch.log10(noise) >= 75, f"{-20 * torch.log10(noise):.1f} dB"


def test_the_op_runs_the_kernel() -> None:
    how, size = short(2, 3), (2, 3)
    x, more = inputs(how, (1, 4, 5, 16))
    out = torch.full((1, *size, 16), torch.nan, device=DEVICE)
    with implementation("triton"):
        assert fused_filtered_lrelu(x, how, size, **more, out=out) is out
    assert_as_good(out, x, how, size, more)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type != "cuda", reason="Gluon has no interpreter")
@pytest.mark.parametrize("terms", [1, 3])
@pytest.mark.parametrize(("up", "pad"), [(2, 9), (2, 10), (4, 17), (4, 18)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gluon_as_the_reference(up: int, pad: int, terms: int, dtype: torch.dtype) -> None:
    """A failing Gluon kernel warns, and warnings are errors."""
    how = typical(up, pad, terms, clamp=0.9)
    for size, channels in (((37, 41), 48), ((5, 150), 512), ((1, 1), 16)):
        shape = (2, size[0] * 2 // up + 3, size[1] * 2 // up + 3, channels)
        x, more = inputs(how, shape, dtype)
        out = torch.full((2, *size, channels), torch.nan, dtype=dtype, device=DEVICE)
        kernel.run(x, how, *[more.get(name) for name in EVERY], out)
        if dtype != torch.float16:
            assert_as_good(out, x, how, size, more)
            continue
        exact = expected(x, how, size, more)
        noise = (out.double() - exact).square().mean().sqrt() / (6 * exact.std())
        assert -20 * torch.log10(noise) >= 75


def test_a_failure_of_gluon_is_told_once_and_plain_triton_takes_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gluon_kernel = pytest.importorskip("kernels_triton.filtered_lrelu.gluon_kernel")
    tried = []

    def fails(*arguments: object) -> Tensor:
        tried.append(arguments)
        raise RuntimeError("no such layout")

    monkeypatch.setattr(gluon_kernel, "run", fails)
    monkeypatch.setattr(kernel, "gluon_runs", lambda device: True)
    monkeypatch.setattr(kernel, "_gluon_wanted", True)
    how, size = short(2, 3), (1, 2)
    x, more = inputs(how, (1, 3, 3, 16))
    for told in (True, False):
        out = torch.full((1, *size, 16), torch.nan, device=DEVICE)
        scales = [more.get(name) for name in EVERY]
        if told:
            with pytest.warns(RuntimeWarning, match="RuntimeError: no such layout.*plain Triton"):
                kernel.run(x, how, *scales, out)
        else:
            kernel.run(x, how, *scales, out)
        assert_as_good(out, x, how, size, more)
    assert len(tried) == 1


def test_refusals_say_what_is_wrong() -> None:
    how = typical(2, 9)
    x, more = inputs(how, (2, 4, 4, 16))
    out = torch.empty(2, 2, 2, 16, device=DEVICE)
    with pytest.raises(ValueError, match=r"scale_in is torch\.float16"):
        kernel.run(x, how, more["scale_in"].half(), None, None, out)
    with pytest.raises(ValueError, match="up 3 and down 2"):
        kernel.run(x, dataclasses.replace(how, up=3), None, None, None, out)
    with pytest.raises(ValueError, match="slope 1.5"):
        kernel.run(x, dataclasses.replace(how, slope=1.5), None, None, None, out)
