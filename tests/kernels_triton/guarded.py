"""What the tests of Triton kernels share: outputs that show what was not, or wrongly, written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
FENCE = 256  # numbers on both sides of an output


@dataclass(frozen=True)
class Guarded:
    """An output between fences: NaN (or 77 for integers) wherever nothing was stored yet."""

    out: Tensor
    whole: Tensor

    def assert_untouched_around(self) -> None:
        ends = torch.cat([self.whole[:FENCE], self.whole[-FENCE:]])
        touched = ~ends.isnan() if ends.is_floating_point() else ends != 77
        assert not touched.any(), "a kernel wrote beyond its output"


def guarded(*shape: int, dtype: torch.dtype = torch.float32) -> Guarded:
    numbers = torch.Size(shape).numel()
    poison = float("nan") if dtype.is_floating_point else 77
    whole = torch.full((numbers + 2 * FENCE,), poison, dtype=dtype, device=DEVICE)
    return Guarded(whole[FENCE : FENCE + numbers].view(shape), whole)


def drawn(seed: int) -> Callable[..., Tensor]:
    """Normally distributed float32 on the device: `randn(2, 3)`."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator).to(DEVICE)


def assert_rounded(actual: Tensor, expected: Tensor, rounding: float) -> None:
    """`actual` is `expected` (float64), computed in float32 and rounded to its dtype.

    Args:
        rounding: Of float32 sums, relative to the largest number: 2**-24 times about as many
            operations as one result takes.
    """
    assert actual.shape == expected.shape
    assert not actual.isnan().any(), "a number was not written"
    # Triton's interpreter cuts bfloat16 off where a GPU rounds: a whole step instead of half.
    bfloat16 = 2**-8 if actual.is_cuda else 2**-7
    unit = {torch.float32: 0.0, torch.bfloat16: bfloat16, torch.float16: 2**-11}[actual.dtype]
    # The dtype's own rounding is relative to each number, but for float16's subnormal ones.
    limit = expected.abs() * unit * 1.001 + expected.abs().max() * rounding
    limit += 2**-25 if actual.dtype == torch.float16 else 0.0
    error = (actual.double() - expected).abs()
    worst = (error - limit).argmax()
    assert (error <= limit).all(), (
        f"error {error.flatten()[worst]:.3e}, at most {limit.flatten()[worst]:.3e}"
    )


def assert_replays(call: Callable[[], object], outputs: Sequence[Tensor]) -> None:
    """`call` can be captured in a CUDA graph, allocates nothing, and a replay does all of it."""
    call()  # compiles
    first = [output.clone() for output in outputs]
    torch.cuda.synchronize()
    graph, held = torch.cuda.CUDAGraph(), torch.cuda.memory_allocated()
    with torch.cuda.graph(graph):
        call()
    assert torch.cuda.memory_allocated() == held
    for output in outputs:
        output.fill_(77)
    graph.replay()
    torch.cuda.synchronize()
    for output, before in zip(outputs, first, strict=True):
        assert torch.equal(output, before)
