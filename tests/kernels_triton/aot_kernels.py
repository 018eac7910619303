"""Kernels with one fault each, and their sound neighbours: what test_aot.py compiles."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from kernels_triton import aot


@triton.jit
def hoard(x_ptr, y_ptr, N: tl.constexpr):
    """32 * N values in one warp, all alive until their sum is known."""
    at = tl.arange(0, 32 * N)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, x * tl.sum(x))


@triton.jit
def product(x_ptr, y_ptr, DOT: tl.constexpr):
    """A 32x32 matrix times itself; without DOT, the largest product instead of their sum."""
    at = tl.arange(0, 32)[:, None] * 32 + tl.arange(0, 32)[None, :]
    x = tl.load(x_ptr + at)
    if DOT:
        y = tl.dot(x, x)
    else:
        y = tl.max(x.to(tl.float32)[:, :, None] * x.to(tl.float32)[None, :, :], axis=1)
    tl.store(y_ptr + at, y)


@triton.jit
def powers(x_ptr, y_ptr, n, EXTRA: tl.constexpr):
    """Steps of a recurrence: 60 multiply-adds a turn, and EXTRA more."""
    at = tl.program_id(0) * 128 + tl.arange(0, 128)
    x = tl.load(x_ptr + at)
    y = x
    for _ in range(n):
        for _ in tl.static_range(60 + EXTRA):
            y = y * x + 1.0
        tl.store(y_ptr + at, y)
    tl.store(y_ptr + at, y)


@gluon.jit
def doubled(x_ptr, y_ptr, PER: gl.constexpr):
    """Twice the input, PER neighbours to a thread."""
    layout: gl.constexpr = gl.BlockedLayout([PER], [32], [4], [0])
    at = gl.program_id(0) * 128 * PER + gl.arange(0, 128 * PER, layout=layout)
    gl.store(y_ptr + at, gl.load(x_ptr + at) * 2)


def variants() -> list[aot.Variant]:
    """Each for one architecture."""
    one = {"x_ptr": "*fp32", "y_ptr": "*fp32"}
    half = {"x_ptr": "*fp16", "y_ptr": "*fp32", "DOT": "constexpr"}
    steps = {**one, "n": "i32", "EXTRA": "constexpr"}
    many = {**one, "N": "constexpr"}
    layout = {**one, "PER": "constexpr"}
    cc = (80,)
    return [
        aot.Variant("spills", hoard, many, {"N": 512}, num_warps=1, targets=cc),
        aot.Variant("greedy", hoard, many, {"N": 64}, num_warps=1, registers=40, targets=cc),
        aot.Variant("product", product, half, {"DOT": True}, dot=True, targets=cc),
        aot.Variant("crowded", product, half, {"DOT": True}, dot=True, shared=1024, targets=cc),
        aot.Variant("no product", product, half, {"DOT": False}, dot=True, targets=cc),
        aot.Variant("powers", powers, steps, {"EXTRA": 0}, outputs=2, targets=cc),
        aot.Variant("longer powers", powers, steps, {"EXTRA": 7}, outputs=2, targets=cc),
        aot.Variant("gluon", doubled, layout, {"PER": 8}, gluon=True, targets=cc),
        aot.Variant("undefined", powers, steps, {}, targets=cc),
    ]
