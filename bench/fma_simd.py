"""The multiply-add rate of a CPU's vector units: chains in registers, without memory.

Not that of a float32 matrix product: the library behind torch.mm uses half-width vectors on some
processors, which convolutions and our own kernels then beat.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from kernels_triton.simd import LANES, vfma, vload, vstore
from kernels_triton.workers import shared

CHAINS = 8  # independent: a multiply-add's result is needed only some cycles later
ROUNDS = 1_000_000  # a few milliseconds: waking a thread takes a twentieth of one


@numba.njit(nogil=True, boundscheck=False)
def _chains(memory: np.ndarray, rounds: int, begin: int, end: int) -> None:
    """Each task takes eight vectors, a factor and a step, and leaves the vectors `rounds` on."""
    for task in range(begin, end):
        at = task * (CHAINS + 2) * LANES
        a, b = vload(memory, at), vload(memory, at + LANES)
        c, d = vload(memory, at + 2 * LANES), vload(memory, at + 3 * LANES)
        e, f = vload(memory, at + 4 * LANES), vload(memory, at + 5 * LANES)
        g, h = vload(memory, at + 6 * LANES), vload(memory, at + 7 * LANES)
        factor, step = vload(memory, at + 8 * LANES), vload(memory, at + 9 * LANES)
        for _ in range(rounds):
            a, b = vfma(a, factor, step), vfma(b, factor, step)
            c, d = vfma(c, factor, step), vfma(d, factor, step)
            e, f = vfma(e, factor, step), vfma(f, factor, step)
            g, h = vfma(g, factor, step), vfma(h, factor, step)
        vstore(memory, at, a)
        vstore(memory, at + LANES, b)
        vstore(memory, at + 2 * LANES, c)
        vstore(memory, at + 3 * LANES, d)
        vstore(memory, at + 4 * LANES, e)
        vstore(memory, at + 5 * LANES, f)
        vstore(memory, at + 6 * LANES, g)
        vstore(memory, at + 7 * LANES, h)


def run(memory: np.ndarray, rounds: int = ROUNDS) -> np.ndarray:
    """Go on `rounds` steps, in place, on as many threads as torch has.

    Args:
        memory: float32 [tasks * (CHAINS + 2) * LANES]: per task the chains, the factor, the step.
    """
    shared(_chains, len(memory) // ((CHAINS + 2) * LANES), memory, rounds)
    return memory


def operations_per_second(threads: int, best: Callable[[Callable[[], object]], float]) -> float:
    """Two per multiply-add, on all threads together.

    Args:
        best: Gives the seconds of the fastest call.
    """
    memory = np.full((threads, CHAINS + 2, LANES), 0.5, np.float32)
    memory[:, CHAINS] = 0.999
    flat = memory.reshape(-1)
    return 2 * CHAINS * LANES * ROUNDS * threads / best(lambda: run(flat))
