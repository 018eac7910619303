"""filtered_lrelu on a CPU in one pass: channels-last, sixteen channels to a vector register.

The oversampled picture never exists. For each block of 16 channels and each row of outputs:

  rows up      UP oversampled rows at once from the same window of input rows, bias folded in
  along x      one sweep in registers: sliding input window -> upsampled sample -> leaky ReLU ->
               clamp -> rotating accumulators of the down filter; UP/2 stores per UP samples
  rows down    a ring of already decimated rows -> one output row

Every filter phase is straight-line code, so the source is generated per (up, down taps, pad phase)
and kept in a cache folder, where numba caches its machine code beside it: a first start compiles,
later ones load.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels_triton import simd
from kernels_triton.simd import LANES

UP_TAPS = 6  # taps of one up phase: StyleGAN3's filter_size
MARGIN = 16  # zero samples on both sides of a row, so that no column of the sweep branches


def _lines_along_x(up: int, down_taps: int, pad: int) -> list[str]:
    """The sweep along x: `v` holds one row-upsampled line, `d` receives the decimated one."""
    halves = down_taps // 2
    phase = [(pad - q) % up for q in range(up)]  # first tap that meets a sample
    base = [(q + phase[q] - pad) // up for q in range(up)]  # its sample, relative to the group

    def shift(indent: str) -> str:
        moves = "; ".join(f"w{j} = w{j + 1}" for j in range(UP_TAPS - 1))
        return f"{indent}{moves}; w{UP_TAPS - 1} = vload(v, p); p += {LANES}"

    out = ["@njit(boundscheck=False, cache=True, inline='never', nogil=True)"]
    out += ["def along_x(v, v_at, d, d_at, out_width, f, g, slope, clamp):"]
    out += [f"    f{k} = vsplat(f[{k}])" for k in range(UP_TAPS * up)]
    out += [f"    g{k} = vsplat(g[{k}])" for k in range(down_taps)]
    out += ["    slopes = vsplat(slope); high = vsplat(clamp); low = vsplat(-clamp)"]
    out += ["    zero = vsplat(np.float32(0))", f"    p = v_at + ({base[0]}) * {LANES}"]
    out += [f"    w{j} = vload(v, p + {j * LANES})" for j in range(UP_TAPS)]
    out += [f"    p += {UP_TAPS * LANES}"] + [f"    a{j} = zero" for j in range(halves)]
    out += [f"    groups = (2 * out_width + {down_taps - 2} + {up - 1}) // {up}"]
    out += [f"    o = d_at - {(halves - 1) * LANES}", f"    end = d_at + out_width * {LANES}"]
    out += ["    for m in range(groups):"]
    for q in range(up):
        if q and base[q] != base[q - 1]:
            out += [shift("        ")]
        value = f"vmul(w0, f{phase[q]})"
        for j in range(1, UP_TAPS):
            value = f"vfma(w{j}, f{phase[q] + j * up}, {value})"
        out += [f"        u = {value}", "        u = vmax(u, vmul(u, slopes))"]
        out += ["        u = vmin(vmax(u, low), high)"]
        last = halves - 1
        taps = [(last - j, 2 * j + q % 2) for j in range(halves)]
        if q % 2 == 0:  # a new output begins with the even tap 0
            out += [f"        a{last} = vmul(u, g0)"]
            taps = taps[1:]
        out += [f"        a{a} = vfma(u, g{k}, a{a})" for a, k in taps]
        if q % 2:
            out += ["        if o >= d_at and o < end:", "            vstore(d, o, a0)"]
            out += [f"        o += {LANES}"] + [f"        a{j} = a{j + 1}" for j in range(last)]
    if base[0] + 1 != base[up - 1]:  # the next group starts one sample further on
        out += [shift("        ")]
    return [*out, "", ""]


def _lines_rows_up(up: int) -> list[str]:
    out = ["@njit(boundscheck=False, cache=True, nogil=True)"]
    out += ["def rows_up(x, at, rows, channels, width, taps, ones, v, v_stride, c0, bias):"]
    out += ["    b = vload(bias, c0)"]
    for q in range(up):
        out += [f"    k{q}_{j} = vsplat(taps[{q}, {j}])" for j in range(UP_TAPS)]
        out += [f"    b{q} = vmul(b, vsplat(ones[{q}]))"]
    out += [f"    o = {MARGIN * LANES}; i = at + c0", "    for column in range(width):"]
    out += [f"        x{j} = vload(x, i + rows[{j}])" for j in range(UP_TAPS)]
    for q in range(up):
        value = f"b{q}"
        for j in range(UP_TAPS):
            value = f"vfma(x{j}, k{q}_{j}, {value})"
        out += [f"        vstore(v, {q} * v_stride + o, {value})"]
    return [*out, f"        o += {LANES}; i += channels", "", ""]


def _lines_rows_down(down_taps: int, ring: int) -> list[str]:
    out = ["@njit(boundscheck=False, cache=True, nogil=True)"]
    out += ["def rows_down(d, first, row, out_width, g, y, at, channels, c0):"]
    for k in range(down_taps):
        out += [f"    g{k} = vsplat(g[{k}]); r{k} = ((first + {k}) % {ring}) * row"]
    out += [
        "    o = at + c0",
        "    for column in range(out_width):",
        f"        p = column * {LANES}",
    ]
    out += ["        a = vmul(vload(d, r0 + p), g0)", "        b = vmul(vload(d, r1 + p), g1)"]
    for k in range(2, down_taps, 2):
        out += [f"        a = vfma(vload(d, r{k} + p), g{k}, a)"]
        out += [f"        b = vfma(vload(d, r{k + 1} + p), g{k + 1}, b)"]
    return [*out, "        vstore(y, o, vadd(a, b))", "        o += channels", "", ""]


_DRIVER = '''
@njit(boundscheck=False, cache=True, nogil=True, error_model="numpy")
def run(
    x, height, width, channels, y, out_height, out_width, f, g, bias, slope, clamp,
    begin, end, strips,
):
    """Tasks [begin, end) of (channels / LANES) * strips; a task is a strip of rows of a block."""
    for task in range(begin, end):
        c0 = (task // strips) * LANES
        y0 = out_height * (task % strips) // strips
        y1 = out_height * (task % strips + 1) // strips
        v_stride = (width + 2 * MARGIN) * LANES
        v = np.zeros(UP * v_stride, np.float32)
        row = out_width * LANES
        d = np.empty(RING * row, np.float32)
        taps = np.empty((UP, UP_TAPS), np.float32)
        ones = np.empty(UP, np.float32)
        rows = np.empty(UP_TAPS, np.int64)
        t = 2 * y0
        t -= (t - (PAD + 1)) % UP  # a group: UP oversampled rows with one input window
        for oy in range(y0, y1):
            while t < 2 * oy + DOWN_TAPS:
                i0 = (t + UP - 1 - PAD) // UP
                for j in range(UP_TAPS):
                    rows[j] = min(max(i0 + j, 0), height - 1) * width * channels
                for q in range(UP):
                    total = np.float32(0)
                    for j in range(UP_TAPS):
                        inside = i0 + j >= 0 and i0 + j < height
                        tap = f[UP - 1 - q + j * UP] if inside else np.float32(0)
                        taps[q, j] = tap
                        total += tap
                    ones[q] = total  # the padded border does not receive the bias
                rows_up(x, 0, rows, channels, width, taps, ones, v, v_stride, c0, bias)
                for q in range(UP):
                    if t + q >= 2 * y0:
                        line, to = q * v_stride + MARGIN * LANES, ((t + q) % RING) * row
                        along_x(v, line, d, to, out_width, f, g, slope, clamp)
                t += UP
            rows_down(d, 2 * oy, row, out_width, g, y, oy * out_width * channels, channels, c0)
'''


def _source(up: int, down_taps: int, pad: int) -> str:
    ring = 1 << (down_taps + up - 2).bit_length()
    vectors = hashlib.sha256(Path(simd.__file__).read_bytes()).hexdigest()[:16]
    head = [
        f"# Compiled against vectors {vectors}: numba looks only at this file when it caches.",
        "import numpy as np",
        "from numba import njit",
        "from kernels_triton.simd import vadd, vfma, vload, vmax, vmin, vmul, vsplat, vstore",
        "",
        f"LANES, UP, PAD, UP_TAPS, DOWN_TAPS = {LANES}, {up}, {pad}, {UP_TAPS}, {down_taps}",
        f"RING, MARGIN = {ring}, {MARGIN}",
        "",
        "",
    ]
    body = [*_lines_along_x(up, down_taps, pad), *_lines_rows_up(up)]
    body += _lines_rows_down(down_taps, ring)
    return "\n".join(head + body) + _DRIVER


def cache_folder() -> Path:
    """Where generated kernels live: under XDG_CACHE_HOME (if absolute) or ~/.cache.

    What lies there is run, so it must be the user's alone; where that cannot be had (a read-only
    home, somebody else's folder) a private temporary one is taken, and each start compiles again.
    """
    base = os.environ.get("XDG_CACHE_HOME") or ""
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    folder = root / "stylewire" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # fails where it belongs to somebody else
        (folder / "__pycache__").mkdir(exist_ok=True, mode=0o700)
        owned = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
    except OSError:
        owned = False
    return folder if owned else Path(tempfile.mkdtemp(prefix="stylewire-kernels-"))


@functools.lru_cache
def _folder() -> Path:
    return cache_folder()


@functools.lru_cache
def _kernel(up: int, down_taps: int, pad: int) -> Callable[..., None]:
    source = _source(up, down_taps, pad)
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    name = f"filtered_lrelu_up{up}_taps{down_taps}_{digest}"
    path = _folder() / f"{name}.py"
    if not path.is_file() or path.read_text() != source:
        temporary = path.with_suffix(f".{os.getpid()}.tmp")  # another process may be writing it too
        temporary.write_text(source)
        temporary.replace(path)
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None
    module: ModuleType = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # numba pickles its functions by module name when it caches them
    specification.loader.exec_module(module)
    return module.run


@functools.lru_cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="filtered-lrelu")


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
        and x.shape[1] > 0
        and up in (2, 4)
        and down == 2
        and fu is not None
        and fd is not None
        and fu.ndim == 1
        and fd.ndim == 1
        and fu.shape[0] == UP_TAPS * up
        and fd.shape[0] % 2 == 0
        and 4 <= fd.shape[0] <= 16
        and _reach(out_size[1], fd.shape[0], up, pad_lo) <= x.shape[3] + MARGIN
        and -pad_lo // up >= -MARGIN
        and gain > 0
        and 0 <= slope <= 1
    )


def _reach(columns: int, down_taps: int, up: int, pad_lo: int) -> int:
    """Input columns that a row of outputs reads, counted from the picture's left edge; one more
    than it uses where the last window is moved on before the sweep ends.
    """
    return (2 * (columns - 1) + down_taps - pad_lo) // up + UP_TAPS + 2


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
    """
    n, wanted, height, width = x.shape
    channels = -(-wanted // LANES) * LANES
    rows, columns = out_size
    if not supports(x, fu, fd, up, 2, pad_lo, out_size, gain, slope):
        raise ValueError(
            f"filtered_lrelu: no CPU kernel for {list(x.shape)} {x.dtype}, up {up}, pad {pad_lo}, "
            f"output {rows}x{columns}: ask `supports` first, or use the reference implementation"
        )
    kernel = _kernel(up, fd.shape[0], pad_lo)
    scale = (
        up * gain**0.5
    )  # on each axis; the leaky ReLU is homogeneous, so the gain may come first
    f = (fu if flip_filter else fu.flip(0)).mul(scale).contiguous().numpy()
    g = (fd if flip_filter else fd.flip(0)).contiguous().numpy()
    bias = np.zeros(channels, np.float32)
    if b is not None:
        bias[:wanted] = b.detach().numpy()
    limit = np.float32(np.inf if clamp is None else clamp)
    source = x.detach()
    if channels != wanted:
        source = F.pad(source, (0, 0, 0, 0, 0, channels - wanted))
    source = source.contiguous(memory_format=torch.channels_last)
    out = torch.empty((n, channels, rows, columns), memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    blocks = channels // LANES
    strips = 1 if threads == 1 else -(-2 * threads // blocks)
    tasks = blocks * strips
    for index in range(n):
        picture = source[index].permute(1, 2, 0).reshape(-1).numpy()
        result = out[index].permute(1, 2, 0).view(-1).numpy()
        shape = (picture, height, width, channels, result, rows, columns)
        common = (*shape, f, g, bias, np.float32(slope), limit)
        if threads == 1:
            kernel(*common, 0, tasks, strips)
            continue
        edges = [tasks * k // threads for k in range(threads + 1)]
        jobs = [
            _pool(threads).submit(kernel, *common, begin, end, strips)
            for begin, end in zip(edges[1:-1], edges[2:], strict=True)
        ]
        kernel(*common, edges[0], edges[1], strips)
        for job in jobs:
            job.result()
    return out[:, :wanted]
