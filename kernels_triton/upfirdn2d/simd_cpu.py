"""fir_bias_act on a CPU, a stretch of a row at a time.

A stretch of all channels is filtered along y into the nearest cache, in the order of memory; then,
sixteen channels in registers, along x and through the epilogue. Sweeping whole rows sixteen
channels at a time instead reads memory in jumps: as fast for pictures that fit a cache, but up to
twice as slow for larger ones.
"""

# mypy: no-check-untyped-defs
# numba types what it compiles; mypy cannot know a vector.

from __future__ import annotations

import numpy as np
from numba import types
from torch import Tensor

from kernels_triton.bias_act import simd_epilogue
from kernels_triton.bias_act.epilogue import Epilogue
from kernels_triton.bias_act.simd_epilogue import finished, folded
from kernels_triton.compiled import BF16, F32, compiled, flat, inlined, known, spread
from kernels_triton.simd import LANES, vadd, vfma, vload, vmul, vsplat, vstore
from kernels_triton.upfirdn2d import reference

_ZERO = np.float32(0)
_STRETCH = 4096  # numbers of a stretch: 16 KiB, half of a small first-level cache


@inlined
def _along_y(x, at, count, rows, taps, first, line, to):
    """`count` numbers of four rows, from tap `first`; later taps add to what `line` holds."""
    r0, r1 = at + rows[first], at + rows[first + 1]
    r2, r3 = at + rows[first + 2], at + rows[first + 3]
    t0, t1 = vsplat(taps[first]), vsplat(taps[first + 1])
    t2, t3 = vsplat(taps[first + 2]), vsplat(taps[first + 3])
    for k in range(0, count, LANES):
        y = vfma(vload(x, r1 + k), t1, vmul(vload(x, r0 + k), t0))
        z = vfma(vload(x, r3 + k), t3, vmul(vload(x, r2 + k), t2))
        if first:
            z = vadd(z, vload(line, to + k))
        vstore(line, to + k, vadd(y, z))


@inlined
def _last_four(line, at, channels, h4, h5, h6, h7, y):
    y = vfma(vload(line, at), h4, y)
    y = vfma(vload(line, at + channels), h5, y)
    y = vfma(vload(line, at + 2 * channels), h6, y)
    return vfma(vload(line, at + 3 * channels), h7, y)


@inlined
def _along_x(line, at, channels, taps, long, table, tat, noise, nat, hop, end, out, to, count):
    """Sixteen channels of `count` outputs from a line that has been filtered along y."""
    h0, h1, h2, h3 = vsplat(taps[0]), vsplat(taps[1]), vsplat(taps[2]), vsplat(taps[3])
    h4, h5, h6, h7 = vsplat(taps[4]), vsplat(taps[5]), vsplat(taps[6]), vsplat(taps[7])
    scale, bias = vload(table, tat), vload(table, tat + channels)
    after = vload(table, tat + 2 * channels)
    gain, slope, low, high = end[0], vsplat(end[1]), vsplat(-end[2]), vsplat(end[2])
    a, b = vload(line, at), vload(line, at + channels)
    c = vload(line, at + 2 * channels)
    at += 3 * channels
    for _ in range(count):
        d = vload(line, at)
        at += channels
        y = vadd(vfma(b, h1, vmul(a, h0)), vfma(d, h3, vmul(c, h2)))
        if long:
            y = _last_four(line, at, channels, h4, h5, h6, h7, y)
        y = finished(y, scale, bias, vsplat(noise[nat] * gain), slope, low, high)
        vstore(out, to, vmul(y, after))
        a, b, c = b, c, d
        to += channels
        nat += hop


_PAIR, _TRIPLE = types.UniTuple(types.intp, 2), types.UniTuple(types.intp, 3)
_SIGNATURES = [
    types.void(
        *(memory, _TRIPLE, F32, types.intp, types.intp, F32, F32, types.intp, F32),
        *(memory, _PAIR, types.intp, types.intp),
    )
    for memory in (F32, BF16)
]


@compiled(_SIGNATURES, simd_epilogue)
def _rows(x, shape, taps, reach, pad, table, noise, hop, end, out, out_shape, begin, stop):
    """Rows [begin, stop) of N * H'; eight taps, of which `reach` (4 or 8) may not be zero."""
    (height, width, channels), (high, wide) = shape, out_shape
    step = max(_STRETCH // channels, LANES)
    line = np.zeros((step + 8) * channels, np.float32)
    rows, down = np.empty(8, np.int64), np.empty(8, np.float32)
    for row in range(begin, stop):
        n, j = row // high, row % high
        for t in range(8):
            source = j - pad + t
            rows[t] = min(max(source, 0), height - 1) * width * channels
            down[t] = taps[t] if source >= 0 and source < height else _ZERO
        for first in range(0, wide, step):
            count = min(step, wide - first)
            # What the stretch sees lies between columns `left` and `right` of the picture, and is
            # zero outside.
            left = min(max(first - pad, 0), width)
            right = max(min(first + count + reach - 1 - pad, width), left)
            size, to = (right - left) * channels, max(left - first + pad, 0) * channels
            line[:to] = _ZERO
            line[to + size : (count + reach - 1) * channels] = _ZERO
            at = (n * height * width + left) * channels
            _along_y(x, at, size, rows, down, 0, line, to)
            if reach > 4:
                _along_y(x, at, size, rows, down, 4, line, to)
            at, nat = (row * wide + first) * channels, (j * wide + first) * hop
            for c in range(0, channels, LANES):
                tat, to = n * 3 * channels + c, at + c
                common = (table, tat, noise, nat, hop, end, out, to, count)
                if reach > 4:  # with constants, so that four taps never ask for the others
                    _along_x(line, c, channels, taps, True, *common)
                else:
                    _along_x(line, c, channels, taps, False, *common)


def fir_bias_act(
    x: Tensor,
    taps: tuple[float, ...],
    pad: int,
    end: Epilogue,
    scale_in: Tensor | None,
    scale_out: Tensor | None,
    out: Tensor,
) -> Tensor:
    """See `kernels_triton.upfirdn2d.fir_bias_act`; arguments are already checked there."""
    if not known(x) or len(taps) > 8 or pad < 0:
        return out.copy_(reference.fir_bias_act(x, taps, pad, end, scale_in, scale_out))
    n, height, width, channels = x.shape
    _, high, wide, _ = out.shape
    table, noise, hop = folded(end, scale_in, scale_out, n)
    eight = np.array(taps + (0.0,) * (8 - len(taps)), np.float32)
    spread(
        _rows,
        n * high,
        x.numel(),
        *(flat(x), (height, width, channels), eight, 4 if len(taps) <= 4 else 8, pad),
        *(table, noise, hop, np.array([end.gain, end.slope, end.clamp], np.float32)),
        *(flat(out), (high, wide)),
    )
    return out
