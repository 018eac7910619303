"""How the matrix product of a convolution is cut into tiles, and whether torch's is taken instead.

cuDNN comes first: it needs no tuning. Our kernel is taken where `tuning.tune` has measured that it
is faster. Where nothing was measured, it is taken in two cases: a 1x1 kernel in half precision,
which is a plain matrix product without any unfolding, and "tf32x3", which cuDNN does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from kernels_triton.modulated_conv.packed import PackedConv

LARGEST_KERNEL = 5  # the kernel keeps one bit per tap, in 32
SHARED = 99 * 1024  # bytes that a program may use on every GPU since sm_80

# What one multiprocessor of an H100 does in a cycle: multiply-adds of half precision, and bytes
# that arrive from the L2 cache. Only their ratio matters below, and other GPUs have a similar one.
PRODUCTS_PER_CYCLE = 2048
BYTES_PER_CYCLE = 64


@dataclass(frozen=True)
class Tiles:
    """One way to run the kernel.

    Args:
        pixels, channels: Of the output, per program.
        depth: Steps of the sum per turn of the loop.
        warps, stages: Per program; turns whose loads are under way at once.
    """

    pixels: int
    channels: int
    depth: int
    warps: int
    stages: int

    def shared(self, itemsize: int) -> int:
        """Bytes of shared memory that the loads under way take."""
        return (self.pixels + self.channels) * self.depth * self.stages * itemsize


HALF = (
    Tiles(128, 128, 64, warps=8, stages=3),
    Tiles(128, 64, 64, warps=4, stages=4),
    Tiles(64, 64, 64, warps=4, stages=4),
    Tiles(256, 32, 32, warps=8, stages=4),
    Tiles(128, 32, 32, warps=4, stages=4),
    Tiles(128, 256, 64, warps=8, stages=3),  # 144 KiB: not on every GPU
)
FULL = (
    Tiles(128, 64, 32, warps=8, stages=3),
    Tiles(64, 64, 32, warps=4, stages=3),
    Tiles(128, 32, 32, warps=4, stages=3),
)
# Without tensor cores every product is an instruction and a thread holds its tile's sums itself.
SINGLE = (Tiles(64, 64, 16, warps=4, stages=2), Tiles(64, 32, 32, warps=4, stages=2))


@dataclass(frozen=True)
class Device:
    """What decides about tiles; "cpu" stands for the interpreter and has an H100's figures."""

    name: str
    processors: int = 132
    capability: tuple[int, int] = (9, 0)
    shared: int = 227 * 1024


@dataclass(frozen=True)
class Work:
    """A convolution of a certain size on a certain device."""

    samples: int
    rows: int
    columns: int
    inputs: int
    outputs: int
    kernel: int
    padding: int
    dtype: torch.dtype
    precision: str
    device: Device

    @classmethod
    def of(cls, conv: PackedConv, samples: int, rows: int, columns: int) -> Work:
        """That of `conv` on [samples, rows, columns, I']."""
        return cls(
            samples,
            rows,
            columns,
            *conv.channels,
            conv.kernel,
            conv.padding,
            conv.weight.dtype,
            conv.precision,
            device_of(conv.weight.device),
        )

    @property
    def pixels(self) -> int:
        """Of one sample's output."""
        grow = 2 * self.padding - self.kernel + 1
        return (self.rows + grow) * (self.columns + grow)

    @property
    def length(self) -> int:
        """Products per output."""
        return self.kernel**2 * self.inputs


@lru_cache
def device_of(device: torch.device) -> Device:
    """Asks the driver once per device and never waits for the GPU."""
    if device.type != "cuda":
        return Device("cpu")
    found = torch.cuda.get_device_properties(device)
    shared = getattr(found, "shared_memory_per_block_optin", SHARED)
    return Device(found.name, found.multi_processor_count, (found.major, found.minor), shared)


def candidates(work: Work) -> list[Tiles]:
    """Tiles that fit the precision, the device and the number of channels."""
    full: tuple[Tiles, ...] = SINGLE if work.precision == "ieee" else FULL
    tiles = full if work.dtype == torch.float32 else HALF
    widest = max(32, 2 * work.outputs - 1)  # beyond it more than half of a tile is idle
    itemsize = work.dtype.itemsize
    return [t for t in tiles if t.channels <= widest and t.shared(itemsize) <= work.device.shared]


def cycles(work: Work, tiles: Tiles) -> int:
    """Estimated time on the busiest multiprocessor: whichever is slower, products or loads.

    Programs come whole, so small maps want small tiles; what a tile reads grows with its edges and
    what it computes with its area, so large maps want large ones.
    """
    across = -(-work.outputs // tiles.channels)
    programs = work.samples * -(-work.pixels // tiles.pixels) * across
    products = tiles.pixels * tiles.channels * tiles.depth // PRODUCTS_PER_CYCLE
    loads = (tiles.pixels + tiles.channels) * tiles.depth * work.dtype.itemsize // BYTES_PER_CYCLE
    turns = -(-work.length // tiles.depth)
    return -(-programs // work.device.processors) * turns * max(products, loads)


def likely_tiles(work: Work) -> Tiles:
    """The best of the candidates by the estimate."""
    return min(candidates(work), key=lambda tiles: cycles(work, tiles))


_measured: dict[Work, Tiles | None] = {}


def remember(work: Work, tiles: Tiles | None) -> Tiles | None:
    """Keep what was measured, for the life of the process. The first answer stays, so that what
    was captured with it and what asks again later agree.
    """
    return _measured.setdefault(work, tiles)


def measured(work: Work) -> bool:
    """Whether `remember` has had an answer."""
    return work in _measured


def chosen(work: Work) -> Tiles | None:
    """The tiles that are faster than torch's convolution; None if none are."""
    if work in _measured:
        return _measured[work]
    if work.device.capability < (8, 0) or work.kernel > LARGEST_KERNEL:
        return None  # before sm_80 Triton's products spill registers
    half = work.dtype in (torch.float16, torch.bfloat16)
    if (half and work.kernel == 1) or (not half and work.precision == "tf32x3"):
        return likely_tiles(work)
    return None


def tiles_of(work: Work) -> Tiles:
    """The tiles to run with, now that the kernel is to run."""
    return chosen(work) or likely_tiles(work)
