"""fourier_input on a CPU: sines of rows and of columns, then rows of pixels made and mixed at once.

Phases are reduced to a fraction of a turn in float64, since a float32 turn count has lost the
digits that its sine is made of. The picture of unmixed features never exists: a row of it lies in
the nearest caches while it is multiplied.
"""

# mypy: no-check-untyped-defs
# numba types what it compiles; mypy cannot know a vector.

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numba import types
from torch import Tensor

from kernels_triton.compiled import BF16, F32, compiled, flat, inlined, known, spread
from kernels_triton.fourier_input import reference
from kernels_triton.simd import LANES, vfma, vload, vmax, vmin, vmul, vsplat, vstore

if TYPE_CHECKING:
    from kernels_triton.fourier_input.op import FourierTable

_F = np.float32
_ZERO, _ONE, _HALF, _QUARTER = _F(0), _F(1), _F(0.5), _F(0.25)
# sin(2 pi r) = r * (s0 + s1 r^2 + ...), |r| <= 1 / 4: the next term is below 1e-9.
_S0, _S1, _S2, _S3, _S4, _S5, _S6 = (
    _F((-1) ** k * math.tau ** (2 * k + 1) / math.factorial(2 * k + 1)) for k in range(7)
)
_WHOLE = 1.5 * 2.0**52  # what is added to it becomes a whole number
_PRODUCTS = 32  # of a matrix, in the time that other kernels need for a number


@inlined
def _sine(r):
    """sin(2 pi r) of r from -1/4 to 1/4."""
    q = vmul(r, r)
    y = vfma(q, vsplat(_S6), vsplat(_S5))
    y = vfma(q, y, vsplat(_S4))
    y = vfma(q, y, vsplat(_S3))
    y = vfma(q, y, vsplat(_S2))
    y = vfma(q, y, vsplat(_S1))
    return vmul(r, vfma(q, y, vsplat(_S0)))


@inlined
def _axis(positions, freqs, phases, fade, sines, cosines):
    """[positions, channels]: sine and cosine of position * frequency + phase in turns, faded."""
    channels = len(freqs)
    half, quarter, minus = vsplat(_HALF), vsplat(_QUARTER), vsplat(-_ONE)
    for i in range(len(positions)):
        position, line = np.float64(positions[i]), sines[i * channels : (i + 1) * channels]
        for c in range(channels):
            turns = position * freqs[c] + phases[c]
            line[c] = np.float32(turns - ((turns + _WHOLE) - _WHOLE))
        for c in range(i * channels, (i + 1) * channels, LANES):
            r, amplitude = vload(sines, c), vload(fade, c - i * channels)
            mirrored = vmin(r, vfma(r, minus, half))  # at a quarter of a turn, as a sine is
            mirrored = vmax(mirrored, vfma(mirrored, minus, vsplat(-_HALF)))
            beyond = vfma(vmax(r, vmul(r, minus)), minus, quarter)
            vstore(sines, c, vmul(_sine(mirrored), amplitude))
            vstore(cosines, c, vmul(_sine(beyond), amplitude))


_AXES = types.void(*[F32] * 6, types.float64, types.float64, F32, types.intp)


@compiled([_AXES])
def _axes(turn, transform, freqs, phases, columns, rows, rate, bandwidth, waves, channels):
    """Sines and cosines: [N, 2, H, channels] along y, then [N, 2, W, channels] along x."""
    height, width = len(rows), len(columns)
    fx, fy, shift = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    still, fade, ones = np.zeros(channels), np.zeros(channels, _F), np.ones(channels, _F)
    motion = np.empty((2, 3))
    for n in range(len(turn) // 4):
        cos, sin = np.float64(turn[4 * n]), np.float64(turn[4 * n + 1])
        length = math.sqrt(cos * cos + sin * sin)
        cos, sin = cos / length, sin / length
        dx, dy = turn[4 * n + 2] / length, turn[4 * n + 3] / length
        plane = ((cos, -sin, sin * dy - cos * dx), (sin, cos, -sin * dx - cos * dy))
        for i in range(2):
            for j in range(3):
                a, b, c = plane[i]
                motion[i, j] = a * transform[j] + b * transform[3 + j] + c * transform[6 + j]
        for c in range(len(phases)):
            u, v = freqs[2 * c], freqs[2 * c + 1]
            fx[c] = u * motion[0, 0] + v * motion[1, 0]
            fy[c] = u * motion[0, 1] + v * motion[1, 1]
            shift[c] = phases[c] + u * motion[0, 2] + v * motion[1, 2]
            excess = math.sqrt(fx[c] * fx[c] + fy[c] * fy[c]) - bandwidth
            fade[c] = min(max(1 - excess / (rate / 2 - bandwidth), 0.0), 1.0)
        size = 2 * (height + width) * channels
        own, h, w = waves[n * size : (n + 1) * size], height * channels, width * channels
        _axis(rows, fy, shift, fade, own[:h], own[h : 2 * h])
        _axis(columns, fx, still, ones, own[2 * h : 2 * h + w], own[2 * h + w :])


@inlined
def _two_vectors(line, at, channels, count, mixing, d, wide, scale, sat, out, to, left):
    """Thirty-two mixed features of up to four pixels of the line."""
    z = vsplat(_ZERO)
    a0, b0, a1, b1, a2, b2, a3, b3 = z, z, z, z, z, z, z, z
    for _ in range(count):
        m, k = vload(mixing, d), vload(mixing, d + LANES)
        x0, x1 = vsplat(line[at]), vsplat(line[at + channels])
        x2, x3 = vsplat(line[at + 2 * channels]), vsplat(line[at + 3 * channels])
        a0, b0, a1, b1 = vfma(x0, m, a0), vfma(x0, k, b0), vfma(x1, m, a1), vfma(x1, k, b1)
        a2, b2, a3, b3 = vfma(x2, m, a2), vfma(x2, k, b2), vfma(x3, m, a3), vfma(x3, k, b3)
        at += 1
        d += wide
    s, t = vload(scale, sat), vload(scale, sat + LANES)
    vstore(out, to, vmul(a0, s))
    vstore(out, to + LANES, vmul(b0, t))
    if left > 1:
        vstore(out, to + wide, vmul(a1, s))
        vstore(out, to + wide + LANES, vmul(b1, t))
    if left > 2:
        vstore(out, to + 2 * wide, vmul(a2, s))
        vstore(out, to + 2 * wide + LANES, vmul(b2, t))
    if left > 3:
        vstore(out, to + 3 * wide, vmul(a3, s))
        vstore(out, to + 3 * wide + LANES, vmul(b3, t))


@inlined
def _vector(line, at, channels, count, mixing, d, wide, scale, sat, out, to, left):
    """Sixteen of them."""
    a0, a1, a2, a3 = vsplat(_ZERO), vsplat(_ZERO), vsplat(_ZERO), vsplat(_ZERO)
    for _ in range(count):
        m = vload(mixing, d)
        a0, a1 = vfma(vsplat(line[at]), m, a0), vfma(vsplat(line[at + channels]), m, a1)
        a2 = vfma(vsplat(line[at + 2 * channels]), m, a2)
        a3 = vfma(vsplat(line[at + 3 * channels]), m, a3)
        at += 1
        d += wide
    s = vload(scale, sat)
    vstore(out, to, vmul(a0, s))
    if left > 1:
        vstore(out, to + wide, vmul(a1, s))
    if left > 2:
        vstore(out, to + 2 * wide, vmul(a2, s))
    if left > 3:
        vstore(out, to + 3 * wide, vmul(a3, s))


_SHAPE = types.UniTuple(types.intp, 5)
_SIGNATURES = [
    types.void(F32, _SHAPE, F32, F32, memory, types.intp, types.intp) for memory in (F32, BF16)
]


@compiled(_SIGNATURES)
def _rows(waves, shape, mixing, scale, out, begin, stop):
    """Rows [begin, stop) of N * H; `shape` is H, W, channels of waves, inputs and outputs mixed."""
    height, width, channels, count, wide = shape
    h, w = height * channels, width * channels
    line = np.zeros((width + 3) * channels, np.float32)
    for row in range(begin, stop):
        n, j = row // height, row % height
        y, x = n * 2 * (h + w) + j * channels, n * 2 * (h + w) + 2 * h
        for i in range(0, w, channels):
            for c in range(0, channels, LANES):
                value = vmul(vload(waves, y + h + c), vload(waves, x + i + c))
                value = vfma(vload(waves, y + c), vload(waves, x + w + i + c), value)
                vstore(line, i + c, value)
        for d in range(0, wide, 2 * LANES):
            sat = n * wide + d
            for i in range(0, width, 4):
                at, to, left = i * channels, (row * width + i) * wide + d, width - i
                if d + LANES < wide:
                    _two_vectors(
                        line, at, channels, count, mixing, d, wide, scale, sat, out, to, left
                    )
                else:
                    _vector(line, at, channels, count, mixing, d, wide, scale, sat, out, to, left)


def run(turn: Tensor, table: FourierTable, scale: Tensor | None, out: Tensor) -> Tensor:
    """See `kernels_triton.fourier_input.fourier_input`; arguments are already checked there."""
    if not known(out) or turn.dtype != torch.float32:
        return out.copy_(reference.fourier_input(turn, table, scale))
    n, height, width, wide = out.shape
    count = len(table.phases)
    channels = -(-count // LANES) * LANES
    waves = np.empty(n * 2 * (height + width) * channels, np.float32)
    plane = (flat(table.transform.contiguous()), flat(table.freqs.contiguous()))
    axes = (flat(table.phases), flat(table.columns), flat(table.rows))
    _axes(flat(turn.contiguous()), *plane, *axes, table.rate, table.bandwidth, waves, channels)
    scales = np.ones(n * wide, np.float32) if scale is None else flat(scale.contiguous())
    constants = (flat(table.mixing.contiguous()), scales, flat(out))
    arguments = (waves, (height, width, channels, count, wide), *constants)
    products = n * height * width * count * wide
    spread(_rows, n * height, products // _PRODUCTS, *arguments)
    return out
