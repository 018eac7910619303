"""image_to_i420 on a CPU: sixteen pixels of two rows at a time, from channels-last colours.

Constants fold the input's scale, the mean of four pixels and the rounding into the matrix. The
lower half of a vector of chroma is U, the upper half V.
"""

# mypy: no-check-untyped-defs
# numba types what it compiles; mypy cannot know a vector.

from __future__ import annotations

import numpy as np
import torch
from numba import types
from torch import Tensor

from kernels_triton.compiled import F32, I32, U8, compiled, inlined, spread
from kernels_triton.rgb_to_i420.reference import BLUE, LUMA, RED
from kernels_triton.simd import LANES, vadd, vfma, vload, vmax, vmin, vsplat
from kernels_triton.simd_pixels import (
    vblue,
    vgreen,
    vnan,
    vneighbours,
    vred,
    vstore_bytes,
    vstore_halves,
)

_F = np.float32
# [-1, 1] to [0, 1] is x / 2 + 1 / 2; rows of chroma sum to zero, so their half drops out.
_YR, _YG, _YB = (_F(weight / 2) for weight in LUMA)
_Y_BIAS = _F(16 + sum(LUMA) / 2 + 0.5)
_CHROMA = np.array([[u / 8] * 8 + [v / 8] * 8 for u, v in zip(BLUE, RED, strict=True)], _F).ravel()
_C_BIAS = _F(128.5)
_ONE, _ZERO = _F(1), _F(0)


@inlined
def bounded(x):
    """[-1, 1]; not a number becomes -1, since what has no level may not be converted to one."""
    return vmin(vsplat(_ONE), vmax(vsplat(-_ONE), x))


@inlined
def worse(broken, r, g, b):
    """`broken`, not a number in lanes where a colour is not finite."""
    zero = vsplat(_ZERO)
    return vfma(r, zero, vfma(g, zero, vfma(b, zero, broken)))


@inlined
def _luma(r, g, b):
    y = vfma(r, vsplat(_YR), vsplat(_Y_BIAS))
    return vfma(g, vsplat(_YG), vfma(b, vsplat(_YB), y))


@inlined
def levels(out, y0, y1, u, v, r0, g0, b0, r1, g1, b1):
    """Sixteen bounded pixels of two rows to 16 Y from `out[y0]`, 16 from y1, 8 from u and v."""
    vstore_bytes(out, y0, _luma(r0, g0, b0))
    vstore_bytes(out, y1, _luma(r1, g1, b1))
    chroma = vfma(vneighbours(vadd(r0, r1)), vload(_CHROMA, 0), vsplat(_C_BIAS))
    chroma = vfma(vneighbours(vadd(g0, g1)), vload(_CHROMA, LANES), chroma)
    chroma = vfma(vneighbours(vadd(b0, b1)), vload(_CHROMA, 2 * LANES), chroma)
    vstore_halves(out, u, v, chroma)


@inlined
def spill(some, count, out, y0, y1, u, v):
    """The first `count` pixels of what `levels(some, 0, 16, 32, 40, ...)` has written."""
    for k in range(count):
        out[y0 + k] = some[k]
        out[y1 + k] = some[LANES + k]
    for k in range(count >> 1):
        out[u + k] = some[2 * LANES + k]
        out[v + k] = some[2 * LANES + 8 + k]


@inlined
def _sixteen(image, at0, at1, out, y0, y1, u, v, broken):
    p, q, s = vload(image, at0), vload(image, at0 + LANES), vload(image, at0 + 2 * LANES)
    r0, g0, b0 = vred(p, q, s), vgreen(p, q, s), vblue(p, q, s)
    p, q, s = vload(image, at1), vload(image, at1 + LANES), vload(image, at1 + 2 * LANES)
    r1, g1, b1 = vred(p, q, s), vgreen(p, q, s), vblue(p, q, s)
    broken = worse(worse(broken, r0, g0, b0), r1, g1, b1)
    r0, g0, b0 = bounded(r0), bounded(g0), bounded(b0)
    levels(out, y0, y1, u, v, r0, g0, b0, bounded(r1), bounded(g1), bounded(b1))
    return broken


@compiled([types.void(F32, types.intp, types.intp, U8, I32, types.intp, types.intp)])
def _rows(image, height, width, out, broken, begin, end):
    """Pairs of rows [begin, end) of N * H / 2."""
    pixels, half = np.zeros(6 * LANES, np.float32), height >> 1
    some = np.empty(3 * LANES, np.uint8)
    whole = width - width % LANES
    for pair in range(begin, end):
        n, j = pair // half, pair % half
        at0 = pair * 6 * width
        at1 = at0 + 3 * width
        y0 = n * height * width * 3 // 2 + 2 * j * width
        y1 = y0 + width
        u = n * height * width * 3 // 2 + height * width + j * (width >> 1)
        v = u + height * width // 4
        bad = vsplat(_ZERO)
        for i in range(0, whole, LANES):
            a, b, c = at0 + 3 * i, at1 + 3 * i, i >> 1
            bad = _sixteen(image, a, b, out, y0 + i, y1 + i, u + c, v + c, bad)
        if whole < width:
            for k in range(3 * (width - whole)):
                pixels[k] = image[at0 + 3 * whole + k]
                pixels[3 * LANES + k] = image[at1 + 3 * whole + k]
            bad = _sixteen(pixels, 0, 3 * LANES, some, 0, LANES, 2 * LANES, 2 * LANES + 8, bad)
            c = whole >> 1
            spill(some, width - whole, out, y0 + whole, y1 + whole, u + c, v + c)
        if vnan(bad):
            broken[n] = 1


def image_to_i420(image: Tensor, out: Tensor, broken: Tensor | None) -> Tensor:
    """See `kernels_triton.rgb_to_i420.image_to_i420`; arguments are already checked there."""
    n, height, width, _ = image.shape
    flags = flags_of(broken, n)
    flat = image.detach().view(-1).numpy()
    spread(_rows, n * height // 2, image.numel(), flat, height, width, out.view(-1).numpy(), flags)
    return out


def flags_of(broken: Tensor | None, n: int) -> np.ndarray:
    """[N] int32 that a kernel may set: the caller's own, or one that nobody reads."""
    if broken is None:
        return np.zeros(n, np.int32)
    if broken.shape != (n,) or broken.dtype != torch.int32 or not broken.is_contiguous():
        raise ValueError(
            f"broken must be contiguous int32 {[n]}, not {broken.dtype} {list(broken.shape)}"
        )
    return broken.numpy()
