"""The multiply-add rate of a GPU's vector units: chains in registers, without memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl

LANES, ROUNDS = 256, 512
CHAINS = 8  # independent: a multiply-add's result is needed only some cycles later


@triton.jit
def fma_chain(out_ptr, factor, ROUNDS: tl.constexpr, LANES: tl.constexpr):
    """A program writes LANES sums of eight chains of ROUNDS multiply-adds each."""
    lane = tl.arange(0, LANES)
    step = lane.to(tl.float32) * 1e-6
    a, b, c, d = step, step + 1, step + 2, step + 3
    e, f, g, h = step + 4, step + 5, step + 6, step + 7
    for _ in range(ROUNDS):
        a = a * factor + step
        b = b * factor + step
        c = c * factor + step
        d = d * factor + step
        e = e * factor + step
        f = f * factor + step
        g = g * factor + step
        h = h * factor + step
    at = tl.program_id(0).to(tl.int64) * LANES + lane
    tl.store(out_ptr + at, a + b + c + d + e + f + g + h)


def run(out: torch.Tensor, factor: float, rounds: int = ROUNDS) -> torch.Tensor:
    """Fill `out` [programs * LANES] float32."""
    fma_chain[(out.numel() // LANES,)](out, factor, ROUNDS=rounds, LANES=LANES, num_warps=4)
    return out


def operations_per_second(device: str, best: Callable[[Callable[[], object]], float]) -> float:
    """Two per multiply-add.

    Args:
        best: Gives the seconds of the fastest call.
    """
    programs = torch.cuda.get_device_properties(device).multi_processor_count * 64
    out = torch.empty(programs * LANES, device=device)
    return 2 * CHAINS * ROUNDS * out.numel() / best(lambda: run(out, 0.999))
