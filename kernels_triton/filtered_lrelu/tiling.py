"""How a filtered leaky ReLU is cut into programs: width and height of a tile, by a small model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from kernels_triton.filtered_lrelu.schedule import Schedule

WARP = 32
SCHEDULERS = 4  # of a multiprocessor; each starts one instruction of one warp per cycle
# Columns of the widest tiles whose values fit 255 registers, with one term and with more, by (two
# channels a lane, up): compiled one column wider each time until they spilled, with scales and
# without, for windows of 6 samples and 12 taps, the filters of published configurations.
WIDEST = {(True, 2): (10, 8), (True, 4): (12, 10), (False, 2): (9, 7), (False, 4): (12, 10)}
HELD = 170  # registers that values living through the loop may take where that was not tried
# A warp alone on its scheduler waits for its own results: taken for two thirds of full speed.
ALONE = 1.5
FILL = 1  # what filling the window costs, in oversampled input rows


@dataclass(frozen=True)
class Tiling:
    """Programs of `warps` warps; a lane makes `rows` by `columns` outputs of its channels.

    Args:
        columns: Output columns of a tile.
        rows: Output rows of a tile.
        unroll: Input rows of a turn of the loop. The window of six rows and the sums rotate by
            renaming inside a turn and by moves at its end: few turns against a small loop, which
            has to stay in the instruction cache (it is 30 to 50 KB).
        turns: Of the loop.
    """

    columns: int
    rows: int
    unroll: int
    turns: int
    warps: int


def unrolled(schedule: Schedule) -> int:
    """See `Tiling.unroll`: four oversampled rows."""
    return max(4 // schedule.up, 1)


def widest(schedule: Schedule, packed: bool) -> int:
    """The most columns that a lane has registers for; at least one for each class of columns.

    Args:
        packed: Whether a lane has two channels of half precision.
    """
    tried = WIDEST.get((packed, schedule.up))
    if tried and schedule.window <= 6 and schedule.taps <= 12:
        return tried[schedule.terms > 1]
    columns = schedule.classes
    while _held(schedule, columns + schedule.classes) <= HELD:
        columns += schedule.classes
    return columns


def _held(schedule: Schedule, columns: int) -> int:
    """Values of a lane that live through the loop: the window, a row on its way, sums, pairs."""
    pairs = schedule.taps * schedule.classes if schedule.terms > 1 else 0
    rows = (schedule.window + 1) * schedule.samples(columns)
    return rows + columns * schedule.halves + pairs


@lru_cache(maxsize=256)
def tiling(
    schedule: Schedule,
    size: tuple[int, int],
    lanes: int,
    batch: int,
    processors: int,
    columns_at_most: int,
) -> Tiling:
    """The tiling that the model expects to be fastest.

    Narrow tiles and short strips compute more of their surroundings again, but only they give
    small maps enough warps to fill the GPU. The busiest scheduler decides.

    Args:
        size: (rows, columns) of the output.
        lanes: Of one pixel: channels, or pairs of them.
        processors: Multiprocessors of the GPU.
        columns_at_most: What the kernel can hold; see `widest`.
    """
    step = schedule.classes  # output rows, and columns, of one input sample
    unroll = unrolled(schedule)
    best: tuple[float, Tiling] | None = None
    for columns in range(min(2 * step, columns_at_most), columns_at_most + 1, step):
        per_strip = -(-(-(-size[1] // columns) * lanes) // WARP) * batch
        turns = 0
        while True:
            turns += 1
            rows = (turns * unroll * step - (schedule.halves - 1)) // step * step
            if rows < 1:
                continue
            warps = per_strip * -(-size[0] // rows)
            load = max(-(-warps // (SCHEDULERS * processors)), ALONE)
            work = (turns * unroll + FILL) * step * columns * schedule.slots(columns)
            if best is None or load * work < best[0]:
                # Warps of one program read their tiles' common columns from the first cache.
                together = 4 if warps >= SCHEDULERS * processors else 1
                best = load * work, Tiling(columns, rows, unroll, turns, together)
            if rows >= size[0]:
                break
    assert best is not None
    return best[1]
