"""filtered_lrelu on a CPU in one pass: channels-last, sixteen channels to a vector register.

The oversampled picture never exists. For each block of 16 channels and ROWS rows of outputs:

  rows up      UP oversampled rows at once from the same window of input rows, scaled, biased
  along x      one sweep in registers: sliding input window -> upsampled sample -> leaky ReLU ->
               clamp -> sliding window of the down filter; UP/2 stores per UP samples
  rows down    a ring of already decimated rows -> ROWS output rows, scaled

The source is generated (`simd_source`) per factor, number of taps, parity of the padding and dtype;
whatever else describes a layer comes at run time. A group of rows whose samples are too small to
reach the clamp anywhere is not clamped.
"""

from __future__ import annotations

import ctypes
import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels_triton import generated, simd, simd_memory
from kernels_triton.filtered_lrelu.resampling import Resampling
from kernels_triton.filtered_lrelu.simd_source import EDGE, UP_TAPS, Variant, offsets, source
from kernels_triton.simd import LANES
from kernels_triton.workers import shared

_EVEN = 2e-7  # an ulp of float32: what a filter may lack to be symmetric, of its largest tap
_SHORTEST_STRIP = 24  # rows of outputs; each strip computes DOWN_TAPS - 2 oversampled rows again


@dataclass(frozen=True)
class _Plan:
    """What a layer's calls have in common, as the kernel reads it."""

    run: Callable[..., None]
    table: np.ndarray  # [floats], see `simd_source.offsets`
    shape: np.ndarray  # [integers], in the order in which the kernel unpacks them
    scratch: int  # floats
    table_at: int
    shape_at: int


class _Scratch(threading.local):
    """Memory of one thread, as much as its largest kernel needed; it is never given back."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def address(self, floats: int) -> int:
        if self._memory.numel() < floats:
            self._memory = torch.empty(floats)  # aligned to cache lines, which numpy's is not
        return self._memory.data_ptr()


_scratch = _Scratch()


def takes(x: Tensor, how: Resampling, size: tuple[int, int]) -> bool:
    """Whether `fused` computes this: float32 or bfloat16, StyleGAN3's six taps per up phase, 4 to
    16 down taps in at most 6 terms.
    """
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.shape[3] % LANES == 0
        and x.numel() > 0
        and min(size) > 0
        and how.up in (2, 4)
        and how.down == 2
        and len(how.up_taps) == UP_TAPS * how.up
        and how.down_taps % 2 == 0
        and 4 <= how.down_taps <= 16
        and len(how.down_terms) <= 6
        and 0 <= how.slope <= 1  # where leaky ReLU is max(u, slope * u)
    )


def fused(
    x: Tensor,
    how: Resampling,
    scale_in: Tensor | None,
    bias: Tensor | None,
    scale_out: Tensor | None,
    out: Tensor,
) -> Tensor:
    """See `kernels_triton.filtered_lrelu.fused_filtered_lrelu`, for the cases that `takes` names.

    Neither pictures nor scratch memory are allocated once every thread has seen its largest layer.
    """
    n, height, width, channels = x.shape
    rows, columns = out.shape[1:3]
    plan = _plan(how, height, width, channels, rows, columns, x.dtype == torch.bfloat16)
    ones, zeros = _constants(channels)
    scale_in, scale_out = (ones if s is None else _rows(s) for s in (scale_in, scale_out))
    bias = zeros if bias is None else bias.detach().float().contiguous()
    threads = torch.get_num_threads()
    strips = _strips(n * channels // LANES, rows, threads)
    tasks = n * channels // LANES * strips
    counter = ctypes.c_int64(0)
    arguments = (
        *(x.data_ptr(), out.data_ptr()),
        *(scale_in.data_ptr(), scale_in.stride(0), bias.data_ptr()),
        *(scale_out.data_ptr(), scale_out.stride(0), plan.table_at, plan.shape_at),
    )

    def work(begin: int, end: int) -> None:
        """Threads take tasks from one counter, so one that is held up does not hold up the rest."""
        scratch = _scratch.address(plan.scratch)
        plan.run(*arguments, scratch, ctypes.addressof(counter), strips, tasks)

    shared(work, min(threads, tasks))
    return out


def _rows(scale: Tensor) -> Tensor:
    """[N, C] float32 whose rows are contiguous."""
    scale = scale.detach().float()
    return scale if scale.stride(1) == 1 else scale.contiguous()


@functools.lru_cache
def _constants(channels: int) -> tuple[Tensor, Tensor]:
    """A scale and a bias that change nothing; the scale's rows are one and the same."""
    return torch.ones(channels).expand(1 << 30, channels), torch.zeros(channels)


def _strips(blocks: int, rows: int, threads: int) -> int:
    """Strips of rows per block of channels: as few as give every thread two tasks, and as many as
    every other.
    """
    if threads == 1:
        return 1
    strips = -(-2 * threads // blocks)
    while blocks * strips % threads and blocks * strips < 8 * threads:
        strips += 1
    return max(1, min(strips, rows // _SHORTEST_STRIP))


@functools.lru_cache(maxsize=256)
def _plan(
    how: Resampling,
    height: int,
    width: int,
    channels: int,
    rows: int,
    columns: int,
    narrow: bool,
) -> _Plan:
    table, even_up, even_down = _table(how)
    up, taps, terms = how.up, how.down_taps, len(how.down_terms)
    parity = (how.pad + 1) % 2
    variant = Variant(up, parity, taps, terms, even_up, even_down, narrow)
    start = -(-(how.pad + 1) % up)  # the first group of oversampled columns begins here, at most 0
    first = (start + up - 1 - how.pad) // up  # the first input column that it reads
    rounds = -(-(2 * columns + taps - 2 - start) // (up * variant.unroll))
    stop = first + UP_TAPS - 1 + rounds * variant.unroll  # one behind the last that the sweep reads
    lead = max(0, -first)
    # Odd numbers of vectors: rows whose distance is a multiple of 4 kB share their cache sets.
    line = lead + max(width, stop) | 1
    row = rounds * variant.unroll * up // 2 | 1
    skipped = (taps - 1 - (start + 1 - parity)) // 2  # decimated columns before the first output
    shape = np.array(
        [height, width, channels, rows, columns, how.pad, lead, line, first, rounds, row, skipped],
        np.int64,
    )
    scratch = EDGE + LANES * (up * variant.groups * line + variant.ring * terms * row)
    module = generated.load(variant.name, source(variant), simd, simd_memory)
    return _Plan(module.run, table, shape, scratch, table.ctypes.data, shape.ctypes.data)


@functools.lru_cache
def _table(how: Resampling) -> tuple[np.ndarray, bool, bool]:
    """The kernel's table of taps, and whether the up and the down taps are symmetric."""
    up, half = how.up, UP_TAPS // 2
    taps = np.array(how.up_taps)
    down = np.array(how.down_terms)  # [terms, (y, x), taps]
    even_up, even_down = _is_even(taps), _is_even(down)
    if even_up:
        taps = (taps + taps[::-1]) / 2
    if even_down:
        down = (down + down[..., ::-1]) / 2
    phases = np.stack([taps[up - 1 - q :: up] for q in range(up)])  # in the order of a group
    head, tail = phases[: up // 2, :half], phases[: up // 2, : half - 1 : -1]
    largest = np.abs(phases).sum(1).max()
    # What the row pass may yield at most where nothing along x can exceed the clamp, less rounding.
    reach = how.clamp / largest * (1 - 1e-5) if largest else math.inf
    at = offsets(up, how.down_taps, len(how.down_terms))
    table = np.zeros(at.pop("size"), np.float32)
    parts = {
        "folded": np.stack([head + tail, head - tail], 1) / 2,
        "general": phases,
        "sums": phases.sum(1),
        "along_x": down[:, 1],
        "along_y": down[:, 0],
        "limits": np.array([how.slope, how.clamp, reach]),
    }
    for name, values in parts.items():
        table[at[name] : at[name] + values.size] = values.reshape(-1)
    return table, even_up, even_down


def _is_even(taps: np.ndarray) -> bool:
    return bool(np.abs(taps - taps[..., ::-1]).max() <= _EVEN * np.abs(taps).max())


def supports(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    up: int,
    down: int,
    pad_lo: int,
    out_size: tuple[int, int],
    gain: float,
    slope: float,
) -> bool:
    """Whether `run` computes this: float32, CPU, separable filters, 4 to 16 down taps.

    The slope must lie in [0, 1], where leaky ReLU is max(u, slope * u), and the gain be positive.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and up in (2, 4)
        and down == 2
        and fu is not None
        and fd is not None
        and fu.ndim == 1
        and fd.ndim == 1
        and fu.shape[0] == UP_TAPS * up
        and fd.shape[0] % 2 == 0
        and 4 <= fd.shape[0] <= 16
        and gain > 0
        and 0 <= slope <= 1
    )


def run(
    x: Tensor,
    fu: Tensor,
    fd: Tensor,
    b: Tensor | None,
    up: int,
    pad_lo: int,
    out_size: tuple[int, int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool = False,
) -> Tensor:
    """filtered_lrelu with down = 2 for the cases `supports` names.

    Args:
        x: [N, C, H, W]; channels-last memory of 16, 32, ... channels is used as it is, anything
            else is copied (and padded to whole vectors) once.
        b: [C] or None.
        pad_lo: Padding before both axes, on the oversampled grid; negative crops.
        out_size: (rows, columns) of the output.
    Returns:
        [N, C, rows, columns] in channels-last memory (of padded pixels, if C was padded).
    Raises:
        ValueError: `supports` says no.
    """
    if not supports(x, fu, fd, up, 2, pad_lo, out_size, gain, slope):
        raise ValueError(
            f"filtered_lrelu: no CPU kernel for {list(x.shape)} {x.dtype}, up {up}, pad {pad_lo}, "
            f"gain {gain}, slope {slope}: ask `supports` first, or use the reference implementation"
        )
    n, wanted = x.shape[:2]
    missing = -wanted % LANES
    how = _resampling(_bytes(fu), _bytes(fd), up, pad_lo, gain, slope, clamp, flip_filter)
    source = x.detach().permute(0, 2, 3, 1)
    source = F.pad(source, (0, missing)) if missing else source
    bias = b if b is None or not missing else F.pad(b.detach(), (0, missing))
    out = torch.empty((n, *out_size, wanted + missing))
    fused(source.contiguous(), how, None, bias, None, out)
    return out.permute(0, 3, 1, 2)[:, :wanted]


def _bytes(taps: Tensor) -> bytes:
    return taps.detach().double().contiguous().numpy().tobytes()


@functools.lru_cache(maxsize=256)
def _resampling(
    fu: bytes,
    fd: bytes,
    up: int,
    pad: int,
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool,
) -> Resampling:
    """From the bytes of float64 taps, so that layers' constants are computed once."""
    rows, taps = (torch.frombuffer(bytearray(data), dtype=torch.float64) for data in (fu, fd))
    return Resampling.of(
        *(rows, taps), up=up, pad=pad, gain=gain, slope=slope, clamp=clamp, flip_filter=flip_filter
    )
