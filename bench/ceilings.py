"""What this machine can do at most, measured in the run that is judged by it.

Three ceilings: matrix products in the storage type, multiply-adds of the vector units, and copying,
for several sizes, since what fits a cache moves faster. A frame's roofline is the sum over its
kernels of the longer of arithmetic and movement, each at its ceiling: no order of the same kernels
is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.work import Part

WIDTHS = {torch.float32: 4, torch.bfloat16: 2, torch.float16: 2}
COPIES = (1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20)  # bytes read plus bytes written
SIDES = {"cpu": (512, 1024), "cuda": (4096, 8192)}  # of the matrices


@dataclass(frozen=True)
class Ceilings:
    """Measured rates.

    Args:
        matrix: Operations per second of a matrix product, by type.
        vector: Operations per second of multiply-adds on vector units, by storage type.
        copies: (bytes read and written, bytes per second), rising sizes.
    """

    matrix: dict[torch.dtype, float]
    vector: dict[torch.dtype, float]
    copies: tuple[tuple[int, float], ...]

    def bandwidth(self, moved: float) -> float:
        """Bytes per second for a pass over so many bytes: the best of what is at least as large.

        Beyond the largest that was copied, that one's.
        """
        rates = [rate for size, rate in self.copies if size >= moved]
        return max(rates, default=self.copies[-1][1])

    def floor_ms(self, parts: Sequence[Part], dtype: torch.dtype) -> float:
        """The roofline: no frame of these parts takes less."""
        width, seconds = WIDTHS[dtype], 0.0
        for part in parts:
            moved = part.bytes(width)
            arithmetic = part.dense / self.matrix[dtype] + part.vector / self.vector[dtype]
            seconds += max(arithmetic, moved / self.bandwidth(moved))
        return seconds * 1000

    def or_better(self, other: Ceilings) -> Ceilings:
        """The higher of two measurements of one machine: a neighbour can only slow it down."""
        return Ceilings(
            {kind: max(rate, other.matrix[kind]) for kind, rate in self.matrix.items()},
            {kind: max(rate, other.vector[kind]) for kind, rate in self.vector.items()},
            tuple(
                (size, max(rate, again))
                for (size, rate), (_, again) in zip(self.copies, other.copies, strict=True)
            ),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the results file."""
        short = {dtype: str(dtype).removeprefix("torch.") for dtype in WIDTHS}
        return {
            "matrix_tflop_per_s": {short[k]: round(v / 1e12, 4) for k, v in self.matrix.items()},
            "vector_tflop_per_s": {short[k]: round(v / 1e12, 4) for k, v in self.vector.items()},
            "copy_gb_per_s": {str(size): round(rate / 1e9, 2) for size, rate in self.copies},
        }

    def describe(self) -> str:
        """One line for the terminal."""
        plain = self.as_dict()
        rates = ", ".join(f"{k} {v:g}" for k, v in plain["matrix_tflop_per_s"].items())
        fma = ", ".join(f"{k} {v:g}" for k, v in plain["vector_tflop_per_s"].items())
        moved = ", ".join(
            f"{int(size) >> 20} MiB {rate:g}" for size, rate in plain["copy_gb_per_s"].items()
        )
        return f"ceilings  TFLOP/s: matrix {rates}; vector {fma}; GB/s copied: {moved}"


def measure(device: str, dtypes: Sequence[torch.dtype], seconds: float = 0.3) -> Ceilings:
    """All ceilings of a device.

    Args:
        device: "cpu" or a CUDA device.
        dtypes: Storage types in use; float32 is always among them.
        seconds: Per figure.
    """
    kind = torch.device(device).type
    wanted = list(dict.fromkeys([torch.float32, *dtypes]))
    with torch.inference_mode():
        matrix = {
            dtype: max(_matrix(device, dtype, side, seconds) for side in SIDES[kind])
            for dtype in wanted
        }
        fma = _vector(device, seconds)
        # A CPU's float32 matrix product runs on its vector units, and no faster than they do.
        matrix[torch.float32] = max(matrix[torch.float32], fma)
        # Half precision is widened before it is filtered, but that CUDA takes float16 in pairs.
        pairs = torch.float16 if kind == "cuda" else None
        vector = {dtype: fma * (2 if dtype == pairs else 1) for dtype in wanted}
        copies = tuple((size, _copy(device, size, seconds / 2)) for size in COPIES)
    return Ceilings(matrix, vector, copies)


def _best(call: Callable[[], object], device: str, seconds: float) -> float:
    """Seconds of the fastest of several calls, in batches that are long against the clock."""
    sync = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    call()
    sync()
    begin = time.monotonic_ns()
    call()
    sync()
    repeats = max(1, int(1e6 / max(1, time.monotonic_ns() - begin)))  # 1 ms a batch
    end = time.monotonic_ns() + int(seconds * 1e9)
    best, count = float("inf"), 0
    while count < 3 or time.monotonic_ns() < end:
        begin = time.monotonic_ns()
        for _ in range(repeats):
            call()
        sync()
        best = min(best, (time.monotonic_ns() - begin) / repeats / 1e9)
        count += 1
    return best


def _matrix(device: str, dtype: torch.dtype, side: int, seconds: float) -> float:
    # Random numbers: a matrix of zeros draws less power and runs faster than any picture does.
    a = torch.randn(side, side, device=device).to(dtype)
    b = torch.randn(side, side, device=device).to(dtype)
    out = torch.empty(side, side, device=device, dtype=dtype)
    return 2 * side**3 / _best(lambda: torch.mm(a, b, out=out), device, seconds)


def _copy(device: str, moved: int, seconds: float) -> float:
    source = torch.ones(moved // 8, device=device)  # float32, read once and written once
    target = torch.empty_like(source)
    return moved / _best(lambda: target.copy_(source), device, seconds)


def _vector(device: str, seconds: float) -> float:
    """Multiply-adds per second in registers, outside the matrix units, two operations each."""

    def best(call: Callable[[], object]) -> float:
        return _best(call, device, seconds)

    if torch.device(device).type == "cpu":
        from bench import fma_simd

        return fma_simd.operations_per_second(torch.get_num_threads(), best)
    from bench import fma_chain

    return fma_chain.operations_per_second(device, best)
