"""torgb and torgb_i420 on a CPU: one pass over the features, a row of pixels in the nearest cache.

Of each pixel and colour a vector of sixteen partial sums is left over. Adding those up one by one
would cost more than the products; four pixels at a time, then sixteen, it is a few instructions
each, and what comes out has sixteen pixels side by side.
"""

# mypy: no-check-untyped-defs
# numba types what it compiles; mypy cannot know a vector.

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from torch import Tensor

from kernels_triton.compiled import BF16, F32, I32, U8, compiled, flat, inlined, known, spread
from kernels_triton.rgb_to_i420 import simd_cpu as i420
from kernels_triton.rgb_to_i420.simd_cpu import bounded, flags_of, levels, spill, worse
from kernels_triton.simd import LANES, vadd, vfma, vload, vmax, vmin, vmul, vsplat, vstore
from kernels_triton.simd_pixels import vnan, vpixels_0, vpixels_1, vpixels_2, vsum4, vsum16
from kernels_triton.torgb_i420 import reference
from kernels_triton.torgb_i420.op import ToRgb

_F = np.float32
_ZERO = _F(0)
_QUAD = 4  # pixels whose partial sums share a vector


@inlined
def _pixel(x, at, channels, w, wat):
    """Partial sums of red, green and blue of the pixel at x[at], weights [3, C] at w[wat]."""
    r, g, b = vsplat(_ZERO), vsplat(_ZERO), vsplat(_ZERO)
    for c in range(0, channels, LANES):
        value = vload(x, at + c)
        r = vfma(value, vload(w, wat + c), r)
        g = vfma(value, vload(w, wat + channels + c), g)
        b = vfma(value, vload(w, wat + 2 * channels + c), b)
    return r, g, b


@inlined
def _four_pixels(x, at, channels, w, wat, sums, to, plane):
    r0, g0, b0 = vsplat(_ZERO), vsplat(_ZERO), vsplat(_ZERO)
    r1, g1, b1, r2, g2, b2, r3, g3, b3 = r0, r0, r0, r0, r0, r0, r0, r0, r0
    for c in range(0, channels, LANES):
        wr, wg = vload(w, wat + c), vload(w, wat + channels + c)
        wb = vload(w, wat + 2 * channels + c)
        x0, x1 = vload(x, at + c), vload(x, at + channels + c)
        r0, g0, b0 = vfma(x0, wr, r0), vfma(x0, wg, g0), vfma(x0, wb, b0)
        r1, g1, b1 = vfma(x1, wr, r1), vfma(x1, wg, g1), vfma(x1, wb, b1)
        x2, x3 = vload(x, at + 2 * channels + c), vload(x, at + 3 * channels + c)
        r2, g2, b2 = vfma(x2, wr, r2), vfma(x2, wg, g2), vfma(x2, wb, b2)
        r3, g3, b3 = vfma(x3, wr, r3), vfma(x3, wg, g3), vfma(x3, wb, b3)
    vstore(sums, to, vsum4(r0, r1, r2, r3))
    vstore(sums, to + plane, vsum4(g0, g1, g2, g3))
    vstore(sums, to + 2 * plane, vsum4(b0, b1, b2, b3))


@inlined
def _sums_of_row(x, at, width, channels, w, wat, sums, to, plane):
    """A row of pixels to three planes of partial sums, a vector for every four pixels."""
    whole = width - width % _QUAD
    for i in range(0, whole, _QUAD):
        _four_pixels(x, at + i * channels, channels, w, wat, sums, to + i * _QUAD, plane)
    if whole < width:
        z = vsplat(_ZERO)
        r0, g0, b0 = _pixel(x, at + whole * channels, channels, w, wat)
        r1, g1, b1, r2, g2, b2 = z, z, z, z, z, z
        if whole + 1 < width:
            r1, g1, b1 = _pixel(x, at + (whole + 1) * channels, channels, w, wat)
        if whole + 2 < width:
            r2, g2, b2 = _pixel(x, at + (whole + 2) * channels, channels, w, wat)
        to += whole * _QUAD
        vstore(sums, to, vsum4(r0, r1, r2, z))
        vstore(sums, to + plane, vsum4(g0, g1, g2, z))
        vstore(sums, to + 2 * plane, vsum4(b0, b1, b2, z))


@inlined
def _colour(sums, at, bias, clamp, gain):
    """One colour of sixteen pixels."""
    p, q = vload(sums, at), vload(sums, at + LANES)
    y = vsum16(p, q, vload(sums, at + 2 * LANES), vload(sums, at + 3 * LANES))
    y = vadd(y, vsplat(bias))
    return vmul(vmin(vmax(y, vsplat(-clamp)), vsplat(clamp)), vsplat(gain))


def _of_each_memory(*rest: types.Type) -> list[Any]:
    return [types.void(memory, *rest) for memory in (F32, BF16)]


_SIZE, _NUMBER = types.intp, types.float32


@compiled(_of_each_memory(*[_SIZE] * 3, F32, _SIZE, F32, _NUMBER, _NUMBER, F32, _SIZE, _SIZE))
def _rgb_rows(x, height, width, channels, w, w_step, bias, clamp, gain, out, begin, end):
    """Rows [begin, end) of N * H to [N, H, W, 3]."""
    plane = -(-width // LANES) * _QUAD * LANES
    sums = np.zeros(3 * plane, np.float32)
    pixels = np.empty(3 * LANES, np.float32)
    for row in range(begin, end):
        wat = row // height * w_step
        _sums_of_row(x, row * width * channels, width, channels, w, wat, sums, 0, plane)
        for i in range(0, width, LANES):
            r = _colour(sums, i * _QUAD, bias[0], clamp, gain)
            g = _colour(sums, plane + i * _QUAD, bias[1], clamp, gain)
            b = _colour(sums, 2 * plane + i * _QUAD, bias[2], clamp, gain)
            at = 3 * (row * width + i)
            if i + LANES <= width:
                vstore(out, at, vpixels_0(r, g, b))
                vstore(out, at + LANES, vpixels_1(r, g, b))
                vstore(out, at + 2 * LANES, vpixels_2(r, g, b))
            else:
                vstore(pixels, 0, vpixels_0(r, g, b))
                vstore(pixels, LANES, vpixels_1(r, g, b))
                vstore(pixels, 2 * LANES, vpixels_2(r, g, b))
                for k in range(3 * (width - i)):
                    out[at + k] = pixels[k]


@compiled(
    _of_each_memory(*[_SIZE] * 3, F32, _SIZE, F32, _NUMBER, _NUMBER, U8, I32, _SIZE, _SIZE),
    i420,
)
def _i420_rows(x, height, width, channels, w, w_step, bias, clamp, gain, out, broken, begin, end):
    """Pairs of rows [begin, end) of N * H / 2 to [N, H * 3 / 2, W]."""
    half, plane = height >> 1, -(-width // LANES) * _QUAD * LANES
    sums = np.zeros(6 * plane, np.float32)
    some = np.empty(3 * LANES, np.uint8)
    for pair in range(begin, end):
        n, j = pair // half, pair % half
        at = 2 * pair * width * channels
        for to in range(0, 6 * plane, 3 * plane):
            _sums_of_row(x, at, width, channels, w, n * w_step, sums, to, plane)
            at += width * channels
        y0 = n * height * width * 3 // 2 + 2 * j * width
        y1 = y0 + width
        u = n * height * width * 3 // 2 + height * width + j * (width >> 1)
        v = u + height * width // 4
        bad = vsplat(_ZERO)
        for i in range(0, width, LANES):
            k, c = i * _QUAD, i >> 1
            r0 = _colour(sums, k, bias[0], clamp, gain)
            g0 = _colour(sums, plane + k, bias[1], clamp, gain)
            b0 = _colour(sums, 2 * plane + k, bias[2], clamp, gain)
            r1 = _colour(sums, 3 * plane + k, bias[0], clamp, gain)
            g1 = _colour(sums, 4 * plane + k, bias[1], clamp, gain)
            b1 = _colour(sums, 5 * plane + k, bias[2], clamp, gain)
            bad = worse(worse(bad, r0, g0, b0), r1, g1, b1)
            r0, g0, b0 = bounded(r0), bounded(g0), bounded(b0)
            r1, g1, b1 = bounded(r1), bounded(g1), bounded(b1)
            if i + LANES <= width:
                levels(out, y0 + i, y1 + i, u + c, v + c, r0, g0, b0, r1, g1, b1)
            else:
                levels(some, 0, LANES, 2 * LANES, 2 * LANES + 8, r0, g0, b0, r1, g1, b1)
                spill(some, width - i, out, y0 + i, y1 + i, u + c, v + c)
        if vnan(bad):
            broken[n] = 1


def torgb(x: Tensor, to: ToRgb, style: Tensor | None, out: Tensor) -> Tensor:
    """See `kernels_triton.torgb_i420.torgb`; arguments are already checked there."""
    if not known(x) or not out.is_contiguous():
        return out.copy_(reference.torgb(x, to, style))
    n, height, width, channels = x.shape
    constants = (*_constants(to, style), out.view(-1).numpy())
    spread(_rgb_rows, n * height, x.numel(), flat(x), height, width, channels, *constants)
    return out


def torgb_i420(
    x: Tensor, to: ToRgb, style: Tensor | None, out: Tensor, broken: Tensor | None
) -> Tensor:
    """See `kernels_triton.torgb_i420.torgb_i420`; arguments are already checked there."""
    if not known(x):
        return reference.torgb_i420(x, to, style, out, broken)
    n, height, width, channels = x.shape
    constants = (*_constants(to, style), out.view(-1).numpy(), flags_of(broken, n))
    spread(_i420_rows, n * height // 2, x.numel(), flat(x), height, width, channels, *constants)
    return out


def _constants(to: ToRgb, style: Tensor | None) -> tuple[np.ndarray, int, np.ndarray, float, float]:
    """Weights, their elements per sample, bias, clamp and gain."""
    weight = to.weight if style is None else to.weight * style[:, None]  # [3, C] or [N, 3, C]
    step = 0 if style is None else 3 * weight.shape[2]
    return flat(weight.contiguous()), step, flat(to.bias.contiguous()), to.clamp, to.gain
