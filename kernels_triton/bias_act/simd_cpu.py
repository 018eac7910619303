"""bias_act_torgb on a CPU: one pass over the features, four pixels at a time.

A row of pixels leaves partial sums of its colours in the nearest cache (see
`kernels_triton.torgb_i420.simd_cpu`). The picture so far is doubled row by row as well: along y
into one row, along x into one row of the even and one of the odd pixels, which are then woven.
"""

# mypy: no-check-untyped-defs
# numba types what it compiles; mypy cannot know a vector.

from __future__ import annotations

import numpy as np
from numba import types
from torch import Tensor

from kernels_triton.bias_act import reference, simd_epilogue
from kernels_triton.bias_act.epilogue import Epilogue
from kernels_triton.bias_act.fused import Skip
from kernels_triton.bias_act.simd_epilogue import finished, folded
from kernels_triton.compiled import BF16, F32, compiled, flat, inlined, known, spread
from kernels_triton.simd import LANES, vadd, vfma, vload, vmax, vmin, vmul, vsplat, vstore
from kernels_triton.simd_pixels import (
    WEAVE_STARTS,
    vpixels_0,
    vpixels_1,
    vpixels_2,
    vsum4,
    vsum16,
    vweave_0,
    vweave_1,
    vweave_2,
)

_QUAD = 4  # pixels whose partial sums share a vector
_ZERO = np.float32(0)
_START_1, _START_2 = WEAVE_STARTS[1:]


@inlined
def _pixels(
    x, at, count, channels, table, w, tat, noise, nat, hop, end, out, keep, sums, to, plane
):
    """Up to four pixels: their features to `out`, partial sums of their colours to `sums`."""
    gain, slope, low = vsplat(end[0]), vsplat(end[1]), vsplat(-end[2])
    high, zero = vsplat(end[2]), vsplat(_ZERO)
    second, third, fourth = count > 1, count > 2, count > 3
    n0 = vmul(vsplat(noise[nat]), gain)
    n1 = vmul(vsplat(noise[nat + hop]), gain) if second else zero
    n2 = vmul(vsplat(noise[nat + 2 * hop]), gain) if third else zero
    n3 = vmul(vsplat(noise[nat + 3 * hop]), gain) if fourth else zero
    r0, g0, b0, r1, g1, b1 = zero, zero, zero, zero, zero, zero
    r2, g2, b2, r3, g3, b3 = zero, zero, zero, zero, zero, zero
    for c in range(0, channels, LANES):
        scale, bias = vload(table, tat + c), vload(table, tat + channels + c)
        after = vload(table, tat + 2 * channels + c)
        wr, wg = vload(w, tat + c), vload(w, tat + channels + c)
        wb = vload(w, tat + 2 * channels + c)
        i = at + c
        y = finished(vload(x, i), scale, bias, n0, slope, low, high)
        r0, g0, b0 = vfma(y, wr, r0), vfma(y, wg, g0), vfma(y, wb, b0)
        if keep:
            vstore(out, i, vmul(y, after))
        if second:
            i += channels
            y = finished(vload(x, i), scale, bias, n1, slope, low, high)
            r1, g1, b1 = vfma(y, wr, r1), vfma(y, wg, g1), vfma(y, wb, b1)
            if keep:
                vstore(out, i, vmul(y, after))
        if third:
            i += channels
            y = finished(vload(x, i), scale, bias, n2, slope, low, high)
            r2, g2, b2 = vfma(y, wr, r2), vfma(y, wg, g2), vfma(y, wb, b2)
            if keep:
                vstore(out, i, vmul(y, after))
        if fourth:
            i += channels
            y = finished(vload(x, i), scale, bias, n3, slope, low, high)
            r3, g3, b3 = vfma(y, wr, r3), vfma(y, wg, g3), vfma(y, wb, b3)
            if keep:
                vstore(out, i, vmul(y, after))
    vstore(sums, to, vsum4(r0, r1, r2, r3))
    vstore(sums, to + plane, vsum4(g0, g1, g2, g3))
    vstore(sums, to + 2 * plane, vsum4(b0, b1, b2, b3))


@inlined
def _doubled(before, at, height, width, y, taps, some, line, margin, even, odd):
    """Row `y` of the doubled picture: its even pixels and its odd ones, three floats each."""
    size, middle = 3 * width, len(taps) // 2
    whole = size - size % LANES
    for k in range(0, size, LANES):
        total = vsplat(_ZERO)
        for t in range((y - middle) & 1, len(taps), 2):
            row = (y - middle + t) >> 1
            if row >= 0 and row < height:
                i = at + row * size + k
                if k >= whole:  # no reading beyond the picture
                    for lane in range(size - whole):
                        some[lane] = before[i + lane]
                    total = vfma(vload(some, 0), vsplat(taps[t]), total)
                else:
                    total = vfma(vload(before, i), vsplat(taps[t]), total)
        vstore(line, margin + k, total)
    for k in range(size, size + margin):
        line[margin + k] = _ZERO
    for k in range(0, size, LANES):
        e, o = vsplat(_ZERO), vsplat(_ZERO)
        for t in range(middle & 1, len(taps), 2):
            e = vfma(vload(line, margin + k + 3 * ((t - middle) >> 1)), vsplat(taps[t]), e)
        for t in range(~middle & 1, len(taps), 2):
            o = vfma(vload(line, margin + k + 3 * ((t - middle + 1) >> 1)), vsplat(taps[t]), o)
        vstore(even, k, e)
        vstore(odd, k, o)


@inlined
def _colour(sums, at, bias, clamp):
    p, q = vload(sums, at), vload(sums, at + LANES)
    y = vsum16(p, q, vload(sums, at + 2 * LANES), vload(sums, at + 3 * LANES))
    return vmin(vmax(vadd(y, vsplat(bias)), vsplat(-clamp)), vsplat(clamp))


@inlined
def _woven(image, at, i, sums, plane, bias, clamp, even, odd):
    """Sixteen pixels from pixel i of the row, to image[at]."""
    r = _colour(sums, i * _QUAD, bias[0], clamp)
    g = _colour(sums, plane + i * _QUAD, bias[1], clamp)
    b = _colour(sums, 2 * plane + i * _QUAD, bias[2], clamp)
    k = 3 * i // 2
    first = vweave_0(vload(even, k), vload(odd, k))
    second = vweave_1(vload(even, k + _START_1), vload(odd, k + _START_1))
    third = vweave_2(vload(even, k + _START_2), vload(odd, k + _START_2))
    vstore(image, at, vadd(vpixels_0(r, g, b), first))
    vstore(image, at + LANES, vadd(vpixels_1(r, g, b), second))
    vstore(image, at + 2 * LANES, vadd(vpixels_2(r, g, b), third))


_SIGNATURES = [
    types.void(
        *(memory, types.UniTuple(types.intp, 3), F32, F32, F32, types.intp, F32, memory),
        *(types.boolean, F32, F32, types.boolean, F32, F32, types.intp, types.intp),
    )
    for memory in (F32, BF16)
]


@compiled(_SIGNATURES, simd_epilogue)
def _rows(
    x, shape, table, w, noise, hop, end, out, keep, bias, before, double, taps, image, begin, stop
):
    """Rows [begin, stop) of N * H."""
    height, width, channels = shape
    plane = -(-width // LANES) * _QUAD * LANES
    sums = np.zeros(3 * plane, np.float32)
    margin = 2 * len(taps) + LANES  # what the taps reach beyond a line, and whole vectors
    line = np.zeros(3 * (width >> 1) + 2 * margin + LANES, np.float32)
    even = np.zeros(3 * -(-width // LANES) * LANES, np.float32)
    odd = np.zeros(3 * -(-width // LANES) * LANES, np.float32)
    some = np.zeros(3 * LANES, np.float32)
    whole = width - width % _QUAD
    for row in range(begin, stop):
        n, y = row // height, row % height
        tat, at, nat = n * 3 * channels, row * width * channels, y * width * hop
        for i in range(0, whole, _QUAD):  # the constant count unfolds: it is four times as fast
            j, k, to = at + i * channels, nat + i * hop, i * _QUAD
            _pixels(
                x, j, _QUAD, channels, table, w, tat, noise, k, hop, end, out, keep, sums, to, plane
            )
        if whole < width:
            j, k, to, rest = at + whole * channels, nat + whole * hop, whole * _QUAD, width - whole
            _pixels(
                x, j, rest, channels, table, w, tat, noise, k, hop, end, out, keep, sums, to, plane
            )
        if double:
            h, v = height >> 1, width >> 1
            _doubled(before, n * 3 * h * v, h, v, y, taps, some, line, margin, even, odd)
        for i in range(0, width, LANES):
            to = 3 * (row * width + i)
            if i + LANES <= width:
                _woven(image, to, i, sums, plane, bias, end[3], even, odd)
            else:
                _woven(some, 0, i, sums, plane, bias, end[3], even, odd)
                for k in range(3 * (width - i)):
                    image[to + k] = some[k]


def bias_act_torgb(
    x: Tensor,
    end: Epilogue,
    skip: Skip,
    style: Tensor,
    before: Tensor | None,
    image: Tensor,
    scale_in: Tensor | None,
    scale_out: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    """See `kernels_triton.bias_act.bias_act_torgb`; arguments are already checked there."""
    n, height, width, channels = x.shape
    whole = image.is_contiguous() and (out is None or out.is_contiguous())
    if not known(x) or not whole or (before is not None and not before.is_contiguous()):
        return reference.bias_act_torgb(
            x, end, skip, style, before, image, scale_in, scale_out, out
        )
    table, noise, hop = folded(end, scale_in, scale_out, n)
    numbers = np.array([end.gain, end.slope, end.clamp, skip.clamp], np.float32)
    source, picture = flat(x), flat(image)
    spread(
        _rows,
        n * height,
        x.numel(),
        *(source, (height, width, channels), table, flat(skip.weight * style[:, None])),
        *(noise, hop, numbers, source if out is None else flat(out), out is not None),
        *(flat(skip.bias.contiguous()), picture if before is None else flat(before)),
        *(before is not None, np.array(skip.taps, np.float32), picture),
    )
    return image
