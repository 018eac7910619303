"""The source of the one-pass CPU kernel of filtered_lrelu, written out for one set of constants.

Every filter phase becomes straight-line code, and every sample that a later tap needs stays in a
register with a name of its own. Taps come at run time, so layers share kernels.

Symmetric filters are folded, since processors from Zen 4 on add beside multiplying: two phases of
the upsampling filter that mirror each other are the sum and the difference of one even and one odd
part; the downsampling filter adds some samples before it multiplies.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernels_triton.simd import LANES

UP_TAPS = 6  # taps of one up phase: StyleGAN3's filter_size
ROWS = 4  # rows of outputs at a time: each decimated row is read from L2 half as often as with one
EDGE = 64  # floats at the start of the scratch memory, for the taps of a group of rows at an edge


@dataclass(frozen=True)
class Variant:
    """Constants of a generated kernel.

    Args:
        parity: Of the first sample in a group of `up` samples that share a window of inputs.
        even_up, even_down: The filters are symmetric, and folded.
        narrow: Pictures are bfloat16.
    """

    up: int
    parity: int
    down_taps: int
    terms: int
    even_up: bool
    even_down: bool
    narrow: bool

    @property
    def name(self) -> str:
        folded = "even" * self.even_up + "even" * self.even_down
        return (
            f"filtered_lrelu_up{self.up}_parity{self.parity}_taps{self.down_taps}x{self.terms}"
            f"_{folded or 'general'}_{'bf16' if self.narrow else 'fp32'}"
        )

    @property
    def inner(self) -> str:
        """The part of the table that rows and columns away from the edges are upsampled with."""
        return "folded" if self.even_up else "general"

    @property
    def unroll(self) -> int:
        """Groups of samples a round of the sweep along x: fewer copies between registers."""
        return 3 if self.up == 2 else 2

    @property
    def groups(self) -> int:
        """Groups of oversampled rows at a time, four rows together: they share most inputs."""
        return 4 // self.up

    @property
    def ring(self) -> int:
        """Decimated rows that are kept: what ROWS outputs read, and what four rows overshoot."""
        return self.down_taps + 2 * (ROWS - 1) + self.up * self.groups - 1

    @property
    def folds(self) -> int:
        """Pairs of down taps that are added first: two thirds, which keeps the adders and the
        multipliers equally busy."""
        return (self.down_taps // 2 * 2 + 2) // 3 if self.even_down else 0


def offsets(up: int, down_taps: int, terms: int) -> dict[str, int]:
    """Where the parts of the table begin: `folded` and `general` up taps, their `sums` per phase,
    `along_x` and `along_y` down taps per term, then slope, clamp and the reach without clamping.
    """
    sizes = {
        "folded": UP_TAPS * up,
        "general": UP_TAPS * up,
        "sums": up,
        "along_x": terms * down_taps,
        "along_y": terms * down_taps,
        "limits": 3,
    }
    begins, at = {}, 0
    for part, size in sizes.items():
        begins[part], at = at, at + size
    return {**begins, "size": at}


def _chain(factors: list[str], taps: list[str], total: str | None = None) -> str:
    """Multiply-adds, first to last."""
    for factor, tap in zip(factors, taps, strict=True):
        total = f"vfma({factor}, {tap}, {total})" if total else f"vmul({factor}, {tap})"
    assert total is not None
    return total


def _up_constants(v: Variant, folded: bool, array: str, at: str) -> list[str]:
    """Load the taps of the upsampling filter into k<phase>_<tap>, or their even and odd parts."""
    if not folded:
        return [
            f"    k{q}_{j} = vsplat({array}[{at} + {q * UP_TAPS + j}])"
            for q in range(v.up)
            for j in range(UP_TAPS)
        ]
    half = UP_TAPS // 2
    return [
        f"    {part}{p}_{j} = vsplat({array}[{at} + {(2 * p + n) * half + j}])"
        for p in range(v.up // 2)
        for n, part in enumerate(("even", "odd"))
        for j in range(half)
    ]


def _up_phases(v: Variant, folded: bool, inputs: list[str], indent: str) -> tuple[list[str], list]:
    """Lines that prepare, and the expression of each phase, from a window of inputs."""
    if not folded:
        taps = [[f"k{q}_{j}" for j in range(UP_TAPS)] for q in range(v.up)]
        return [], [_chain(inputs, taps[q]) for q in range(v.up)]
    half = UP_TAPS // 2
    lines, phases = [], [""] * v.up
    for j in range(half):
        a, b = inputs[j], inputs[-1 - j]
        lines += [f"{indent}s{j} = vadd({a}, {b})", f"{indent}d{j} = vsub({a}, {b})"]
    for p in range(v.up // 2):
        for part, source in (("even", "s"), ("odd", "d")):
            total = _chain(
                [f"{source}{j}" for j in range(half)], [f"{part}{p}_{j}" for j in range(half)]
            )
            lines += [f"{indent}{part}{p} = {total}"]
        phases[p], phases[-1 - p] = f"vadd(even{p}, odd{p})", f"vsub(even{p}, odd{p})"
    return lines, phases


def _rows_up(v: Variant, name: str, folded: bool, groups: int) -> list[str]:
    """Oversampled rows from a window of input rows; answers the largest magnitude."""
    inputs = [f"x{j}" for j in range(UP_TAPS + groups - 1)]
    out = [
        "@njit(boundscheck=False, nogil=True)",
        f"def {name}(x, i, rows, height, pitch, channels, width, taps, k, ones, s, o, line,",
        "          scale, scale_at, bias, c0):",
        *_up_constants(v, folded, "taps", "k"),
        "    factor = vload(scale, scale_at + c0); b = vload(bias, c0)",
        "    peak = vsplat(np.float32(0))",
        *[f"    b{q} = vmul(b, vsplat(taps[ones + {q}]))" for q in range(v.up)],
        *[
            f"    r{j} = i + min(max(rows + {j}, 0), height - 1) * pitch"
            for j in range(len(inputs))
        ],
        "    for column in range(width):",
        *[f"        {x} = vload(x, r{j} + column * channels)" for j, x in enumerate(inputs)],
    ]
    for group in range(groups):
        lines, phases = _up_phases(v, folded, inputs[group : group + UP_TAPS], "        ")
        out += lines
        for q, phase in enumerate(phases):
            to = f"o + {group * v.up + q} * line"
            out += [f"        u = vfma({phase}, factor, b{q})"]
            out += [f"        peak = vmax(peak, vabs(u)); vstore(s, {to}, u)"]
    return [*out, f"        o += {LANES}", "    return vlargest(peak)", "", ""]


def _along_x(v: Variant, name: str, clamped: bool, unroll: int) -> list[str]:
    """One oversampled row to one decimated row per term, all of it in registers."""
    at = offsets(v.up, v.down_taps, v.terms)
    kept = v.down_taps - 2 + v.parity  # oversampled columns that the next group reads again
    out = [
        "@njit(boundscheck=False, nogil=True)",
        f"def {name}(s, i, o, skip, rounds, c, ahead, step):",
        *_up_constants(v, v.even_up, "c", str(at[v.inner])),
        *[
            f"    g{t}_{k} = vsplat(c[{at['along_x'] + t * v.down_taps + k}])"
            for t in range(v.terms)
            for k in range(v.down_taps // 2 if v.even_down else v.down_taps)
        ],
        f"    slope = vsplat(c[{at['limits']}])",
    ]
    if clamped:
        out += [f"    high = vsplat(c[{at['limits'] + 1}]); low = vsplat(-c[{at['limits'] + 1}])"]
    out += [f"    w{j} = vload(s, i + {j * LANES})" for j in range(UP_TAPS - 1)]
    out += [f"    u{k} = vsplat(np.float32(0))" for k in range(kept)]
    out += [f"    i += {(UP_TAPS - 1) * LANES}", "    for m in range(rounds):"]
    samples, stores = kept, 0
    for group in range(unroll):
        out += [f"        w{group + UP_TAPS - 1} = vload(s, i + {group * LANES})"]
        window = [f"w{group + j}" for j in range(UP_TAPS)]
        lines, phases = _up_phases(v, v.even_up, window, "        ")
        out += lines
        for q, phase in enumerate(phases):
            u = f"u{samples}"
            out += [f"        {u} = {phase}", f"        {u} = vmax({u}, vmul({u}, slope))"]
            if clamped:
                out += [f"        {u} = vmin(vmax({u}, low), high)"]
            samples += 1
            if (v.parity + q) % 2:  # the last sample that an output reads is odd
                out += _output(v, samples - v.down_taps, stores)
                stores += 1
    out += [f"        w{j} = w{j + unroll}" for j in range(UP_TAPS - 1)]
    out += [f"        u{k} = u{k + unroll * v.up}" for k in range(kept)]
    return [*out, f"        i += {unroll * LANES}; o += {stores * LANES}", "", ""]


def _output(v: Variant, first: int, stores: int) -> list[str]:
    """One decimated sample of each term from the oversampled ones."""
    last = first + v.down_taps - 1
    lines = [f"        a{k} = vadd(u{first + k}, u{last - k})" for k in range(v.folds)]
    if v.even_down:  # the newest samples last: the chain waits for them
        rest = range(v.folds, v.down_taps // 2)
        order = [(f"u{first + k}", k) for k in rest] + [(f"u{last - k}", k) for k in rest[::-1]]
        order += [(f"a{k}", k) for k in reversed(range(v.folds))]
    else:
        order = [(f"u{first + k}", k) for k in range(v.down_taps)]
    for t in range(v.terms):
        total = _chain([factor for factor, _ in order], [f"g{t}_{k}" for _, k in order])
        lines += [f"        vstore(s, o + {t} * skip + {stores * LANES}, {total})"]
    return [*lines, "        prefetch(ahead); ahead += step"]


def _rows_down(v: Variant) -> list[str]:
    """ROWS rows of outputs from the decimated ones.

    Rows behind the last one hold it again, written before it is.
    """
    at = offsets(v.up, v.down_taps, v.terms)["along_y"]
    taps = v.down_taps // 2 if v.even_down else v.down_taps
    lines = v.down_taps + 2 * (ROWS - 1)
    out = [
        "@njit(boundscheck=False, nogil=True)",
        "def rows_down(s, i, first, row, width, c, y, o, oy, last, pitch, channels, scale, at):",
        *[
            f"    g{t}_{k} = vsplat(c[{at + t * v.down_taps + k}])"
            for t in range(v.terms)
            for k in range(taps)
        ],
        *[f"    r{k} = i + (first + {k}) % RING * (TERMS * row)" for k in range(lines)],
        *[f"    o{r} = o + min(oy + {r}, last) * pitch" for r in range(ROWS)],
        "    factor = vload(scale, at)",
        "    for column in range(width):",
        f"        p = column * {LANES}",
        *[
            f"        l{t}_{k} = vload(s, r{k} + {t} * row + p)"
            for t in range(v.terms)
            for k in range(lines)
        ],
    ]
    for r in reversed(range(ROWS)):
        total = None
        for t in range(v.terms):
            line = [f"l{t}_{2 * r + k}" for k in range(v.down_taps)]
            if v.even_down:
                line = [f"vadd({line[k]}, {line[-1 - k]})" for k in range(taps)]
            total = _chain(line, [f"g{t}_{k}" for k in range(taps)], total)
        out += [f"        vstore(y, o{r} + column * channels, vmul({total}, factor))"]
    return [*out, "", ""]


_DRIVER = '''
@njit([void(*[int64] * 13)], boundscheck=False, cache=True, error_model="numpy", nogil=True)
def run(
    x_at, y_at, scale_in_at, scale_in_step, bias_at, scale_out_at, scale_out_step,
    table_at, shape_at, scratch_at, counter_at, strips, tasks,
):
    """Tasks until none is left; a task is a strip of rows of a block of channels of a picture."""
    x = memory_at(x_at); y = memory_at(y_at); c = floats_at(table_at); s = floats_at(scratch_at)
    scale_in = floats_at(scale_in_at); bias = floats_at(bias_at)
    scale_out = floats_at(scale_out_at)
    shape = integers_at(shape_at)
    height = shape[0]; width = shape[1]; channels = shape[2]
    out_height = shape[3]; out_width = shape[4]; pad = shape[5]
    lead = shape[6]; line = shape[7] * LANES; first = shape[8]; rounds = shape[9]
    row = shape[10] * LANES; skipped = shape[11] * LANES
    pitch = width * channels; out_pitch = out_width * channels
    lines = EDGE  # LINES oversampled rows, zero beside the picture
    ring = lines + LINES * line  # RING decimated rows of TERMS terms
    for q in range(LINES):
        for k in range(lead * LANES):
            s[lines + q * line + k] = 0
        for k in range((lead + width) * LANES, line):
            s[lines + q * line + k] = 0
    blocks = channels // LANES
    while True:
        task = next_task(counter_at)
        if task >= tasks:
            return
        strip = task % strips; c0 = task // strips % blocks * LANES
        sample = task // strips // blocks
        y0 = out_height * strip // strips; y1 = out_height * (strip + 1) // strips
        i = sample * height * pitch + c0; o = sample * out_height * out_pitch + c0
        t = 2 * y0
        t -= (t - (pad + 1)) % UP  # a group: UP oversampled rows with one window of input rows
        for oy in range(y0, y1, ROWS):
            while t < 2 * min(oy + ROWS, y1) + DOWN_TAPS - 2:
                rows = (t + UP - 1 - pad) // UP
                to = lines + lead * LANES
                peak = np.float32(0)
                if rows >= 0 and rows + WINDOW <= height:
                    peak = rows_up(
                        x, i, rows, height, pitch, channels, width, c, INNER, SUMS, s, to, line,
                        scale_in, sample * scale_in_step, bias, c0,
                    )
                else:  # the padded border receives neither samples nor bias
                    for group in range(GROUPS):
                        for q in range(UP):
                            total = np.float32(0)
                            for j in range(UP_TAPS):
                                tap = c[GENERAL + q * UP_TAPS + j]
                                if rows + group + j < 0 or rows + group + j >= height:
                                    tap = np.float32(0)
                                s[q * UP_TAPS + j] = tap
                                total += tap
                            s[UP * UP_TAPS + q] = total
                        largest = rows_up_edge(
                            x, i, rows + group, height, pitch, channels, width,
                            s, 0, UP * UP_TAPS, s, to + group * UP * line, line,
                            scale_in, sample * scale_in_step, bias, c0,
                        )
                        peak = max(peak, largest)
                inside = peak <= c[LIMITS + 2]  # nothing along x can reach the clamp
                for q in range(LINES):
                    u = t + q
                    if u < 2 * y0 or u >= 2 * y1 + DOWN_TAPS - 2:
                        continue
                    # Ask for the memory of what comes next: an input row, or outputs.
                    if q % 2 and q // 2 < GROUPS:
                        ahead = x_at + (i + min(rows + WINDOW + q // 2, height - 1) * pitch) * SIZE
                        step = 2 * channels * SIZE // UP
                    else:
                        done = min(max((u - DOWN_TAPS + 2) // 2, y0), y1 - 1)
                        ahead = y_at + (o + done * out_pitch) * SIZE
                        step = channels * SIZE
                    v = lines + q * line + (lead + first) * LANES
                    to = ring + u % RING * (TERMS * row)
                    if inside:
                        along_x(s, v, to, row, rounds, c, ahead, step)
                    else:
                        along_x_clamped(s, v, to, row, rounds * UNROLL, c, ahead, step)
                t += LINES
            rows_down(
                s, ring + skipped, 2 * oy, row, out_width, c, y, o, oy, y1 - 1, out_pitch, channels,
                scale_out, sample * scale_out_step + c0,
            )
'''


def source(v: Variant) -> str:
    """The module: `run` is the kernel, everything else vanishes into it."""
    at = offsets(v.up, v.down_taps, v.terms)
    vectors = "vabs, vadd, vfma, vlargest, vload, vmax, vmin, vmul, vsplat, vstore, vsub"
    memory = "halves_at" if v.narrow else "floats_at"
    head = [
        "import numpy as np",
        "from numba import int64, njit, void",
        f"from kernels_triton.simd import {vectors}",
        "from kernels_triton.simd_memory import floats_at, integers_at, next_task, prefetch",
        f"from kernels_triton.simd_memory import {memory} as memory_at",
        "",
        f"LANES, EDGE, SIZE = {LANES}, {EDGE}, {2 if v.narrow else 4}",
        f"UP, UP_TAPS, DOWN_TAPS, TERMS = {v.up}, {UP_TAPS}, {v.down_taps}, {v.terms}",
        f"ROWS, RING, GROUPS, LINES = {ROWS}, {v.ring}, {v.groups}, {v.up * v.groups}",
        f"WINDOW = {UP_TAPS + v.groups - 1}",
        f"UNROLL, INNER, GENERAL = {v.unroll}, {at[v.inner]}, {at['general']}",
        f"SUMS, LIMITS = {at['sums']}, {at['limits']}",
        "",
        "",
    ]
    body = _rows_up(v, "rows_up", v.even_up, v.groups)
    body += _rows_up(v, "rows_up_edge", folded=False, groups=1)
    body += _along_x(v, "along_x", clamped=False, unroll=v.unroll)
    body += _along_x(v, "along_x_clamped", clamped=True, unroll=1)
    body += _rows_down(v)
    return "\n".join(head + body).rstrip() + "\n\n" + _DRIVER
