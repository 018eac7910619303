"""The Triton kernels for styles and demodulation against float64."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

import kernels_triton as ops
from kernels_triton.styles import StyleLayer, StyleTable, kernel, style_scales
from kernels_triton.styles.op import PIECE

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDING = 2e-6  # float32 sums of at most some hundred products; rsqrt is good to 2 ulp


def _layer(width, channels, demod=0, normalize=False, gain=1.0):
    return {
        "width": width,
        "channels": channels,
        "demod_width": demod,
        "normalize": normalize,
        "gain": gain,
    }


# As networks mix them: a piece of 4 numbers that is only added up, equal widths, wider on either
# side, more than one turn of the loop, layers without demodulation.
LAYERS = [
    _layer(16, 4),
    _layer(48, 37, demod=48, normalize=True, gain=0.7),
    _layer(48, 48, demod=16, normalize=False, gain=1.3),
    _layer(16, 9, demod=64, normalize=True),
    _layer(272, 260, demod=16, normalize=True, gain=-2.0),
    _layer(32, 32, normalize=True, gain=0.5),
    _layer(64, 51, gain=0.25),
    _layer(16, 5, demod=48, normalize=True),  # last: what it writes too far nobody writes again
]


def _table(layers, motion, seed=0):
    generator = torch.Generator().manual_seed(seed)
    style = demod = 0
    placed, rows, squares, epsilon = [], [], [], []
    for layer in layers:
        placed.append(StyleLayer(start=style, demod_start=demod, **layer))
        matrix = torch.zeros(layer["width"], motion)
        matrix[: layer["channels"]] = torch.randn(layer["channels"], motion, generator=generator)
        rows.append(matrix / max(motion, 1) ** 0.5)
        if layer["demod_width"]:
            q = torch.zeros(layer["demod_width"], layer["width"])
            q[:, : layer["channels"]] = torch.rand(
                q[:, : layer["channels"]].shape, generator=generator
            )
            q[-1] = 0  # a padded output channel
            squares.append(q.to(DEVICE))
            epsilon.append(torch.rand(layer["demod_width"], generator=generator) * 1e-2 + 1e-8)
        style += layer["width"]
        demod += layer["demod_width"]
    return StyleTable(
        torch.cat(rows).to(DEVICE),
        tuple(placed),
        tuple(squares),
        torch.cat([*epsilon, torch.empty(0)]).to(DEVICE),
    )


def _codes(table, n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(n, table.widths[0], generator=generator) + 1
    for layer in table.layers:
        base[:, layer.start + layer.channels : layer.start + layer.width] = 0
    motion = torch.randn(n, table.matrix.shape[1], generator=generator)
    return base.to(DEVICE), motion.to(DEVICE)


def _expected(base, motion, table):
    """The numbered steps of `style_scales`, in float64."""
    raw = base.double()
    raw = raw if motion is None else raw + motion.double() @ table.matrix.double().t()
    squares = iter(table.squares)
    scales, demods = [], []
    for layer in table.layers:
        s = raw[:, layer.start : layer.start + layer.width]
        if layer.normalize:
            s = s / (s.square().sum(1, keepdim=True) / layer.channels + 1e-20).sqrt()
        if layer.demod_width:
            stop = layer.demod_start + layer.demod_width
            epsilon = table.epsilon[layer.demod_start : stop].double()
            demods.append((s.square() @ next(squares).double().t() + epsilon).rsqrt())
        scales.append(s * layer.gain)
    return torch.cat(scales, 1), torch.cat([*demods, raw.new_empty(len(raw), 0)], 1)


def _run(base, motion, table, raw=None):
    n = base.shape[0]
    scale, demod = (torch.full((n, w), float("nan"), device=DEVICE) for w in table.widths)
    found = kernel.run(base, motion, table, scale, demod, raw)
    assert found[0] is scale and found[1] is demod
    return scale, demod


def _assert_close(found, expected):
    for y, wanted in zip(found, expected, strict=True):
        assert y.shape == wanted.shape
        # Relative to the column's own size: demodulation factors differ by orders of magnitude.
        assert ((y.double() - wanted).abs() <= ROUNDING * (wanted.abs() + 1)).all()  # no NaN


@pytest.mark.parametrize("n, motion", [(1, 24), (2, 7), (3, 300), (9, 1)])
def test_ragged_layers_equal_the_definition(n, motion):
    table = _table(LAYERS, motion)
    case = (*_codes(table, n), table)
    _assert_close(_run(*case), _expected(*case))


def test_without_motion_the_base_is_the_style():
    table = _table(LAYERS, 0)
    base = _codes(table, 2)[0]
    before = base.clone()
    _assert_close(_run(base, None, table), _expected(base, None, table))
    assert torch.equal(base, before)


def test_a_style_of_zeros_stays_zero():
    table = _table(LAYERS, 5)
    base, motion = _codes(table, 2)
    base[0], motion[0] = 0, 0
    scale, demod = _run(base, motion, table)
    assert (scale[0] == 0).all()
    _assert_close((scale, demod), _expected(base, motion, table))
    torch.testing.assert_close(demod[0], table.epsilon.rsqrt(), rtol=ROUNDING, atol=0)


@pytest.mark.parametrize(
    "layers",
    [
        [_layer(16, 1, demod=16, normalize=True)],  # one channel
        [_layer(32, 20, gain=3.0)],  # no demodulation anywhere
        [_layer(512, 512, demod=512, normalize=True)],
    ],
)
def test_networks_of_one_layer(layers):
    table = _table(layers, 16)
    case = (*_codes(table, 1), table)
    _assert_close(_run(*case), _expected(*case))


def test_rows_may_lie_apart():
    table = _table(LAYERS, 6)
    base, motion = _codes(table, 3)
    styles, demods = table.widths
    wide = [torch.full((3, w + 13), float("nan"), device=DEVICE) for w in (styles, styles, demods)]
    wide[0][:, 5 : styles + 5] = base
    strided = torch.cat([motion, motion], 1)[:, 6:]
    scale, demod = wide[1][:, 3 : styles + 3], wide[2][:, :demods]
    kernel.run(wide[0][:, 5 : styles + 5], strided, table, scale, demod)
    _assert_close((scale, demod), _expected(base, motion, table))
    assert wide[1][:, :3].isnan().all() and wide[1][:, styles + 3 :].isnan().all()
    assert wide[2][:, demods:].isnan().all()


def test_scratch_is_used_and_nothing_else_is_allocated():
    table = _table(LAYERS, 6)
    base, motion = _codes(table, 2)
    raw = torch.full_like(base, float("nan"))
    _assert_close(_run(base, motion, table, raw), _expected(base, motion, table))
    total = base + motion @ table.matrix.t()
    torch.testing.assert_close(raw, total, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="share memory"):
        kernel.run(base, motion, table, raw, raw.new_empty(2, table.widths[1]), raw)
    with pytest.raises(ValueError, match="share memory"):
        kernel.run(base, None, table, base, raw.new_empty(2, table.widths[1]))


def test_pieces_cover_every_column_once():
    table = _table(LAYERS, 3)
    styles, demods = (torch.zeros(w, dtype=torch.int64) for w in table.widths)
    for start, width, _, demod_start, demod_width, _, first, _ in table.pieces.tolist():
        styles[start + first : start + min(first + PIECE, width)] += 1
        demods[demod_start + first : demod_start + min(first + PIECE, demod_width)] += 1
    assert (styles == 1).all() and (demods == 1).all()
    assert len(table.gains) == len(table.pieces)


def test_the_op_runs_it():
    table = _table(LAYERS, 11)
    case = (*_codes(table, 2), table)
    with ops.implementation("triton"):
        found = style_scales(*case)
    _assert_close(found, _expected(*case))
    with ops.implementation("reference"):
        _assert_close(style_scales(*case), _expected(*case))


def test_layouts_that_cannot_be_read_are_said():
    table = _table(LAYERS, 4)
    base, motion = _codes(table, 2)
    with pytest.raises(ValueError, match="motion"):
        _run(base, motion.t().contiguous().t(), table)
    with pytest.raises(ValueError, match="raw"):
        _run(base, motion, table, base[:, 1:])
