"""Triangles into a buffer of samples, the nearest kept."""

from __future__ import annotations

import math

from models.training.heads.jit import inlined, kernel
from models.training.heads.shade import single
from models.training.heads.shade.single import F

EMPTY, STRAND = -1, -2  # of the buffer of ids, where no triangle is seen


@inlined
def _span(wa, wb, ea, eb, width):
    """First and last step inside a triangle along a row; empty: last < first.

    `wa`, `wb`: weights at the row's start; `ea`, `eb`: their growth per step. Small triangles are
    cheaper this way than by a test at every sample.
    """
    wc, ec = F(1.00002) - wa - wb, -ea - eb
    low, high = F(0.0), width
    if ea > F(1e-12):
        low = max(low, -wa / ea)
    elif ea < -F(1e-12):
        high = min(high, -wa / ea)
    elif wa < F(0.0):
        high = -F(1.0)
    if eb > F(1e-12):
        low = max(low, -wb / eb)
    elif eb < -F(1e-12):
        high = min(high, -wb / eb)
    elif wb < F(0.0):
        high = -F(1.0)
    if ec > F(1e-12):
        low = max(low, -wc / ec)
    elif ec < -F(1e-12):
        high = min(high, -wc / ec)
    elif wc < F(0.0):
        high = -F(1.0)
    if high < low:
        return 0, -1
    return int(math.ceil(low)), int(high)


@kernel(single)
def triangles(tri, sx, sy, iz, depth, ids, write_ids):
    """Fills `depth` [h, w] with the largest `iz`, and `ids` with the triangle it belongs to.

    Triangles that turn away (clockwise ones, y down) are left out.
    """
    h, w = depth.shape
    for t in range(tri.shape[0]):
        a, b, c = tri[t, 0], tri[t, 1], tri[t, 2]
        ax, ay, bx, by, cx, cy = sx[a], sy[a], sx[b], sy[b], sx[c], sy[c]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= -F(1e-9):
            continue
        x0 = max(int(math.ceil(min(ax, bx, cx) - F(0.5))), 0)
        x1 = min(int(math.floor(max(ax, bx, cx) - F(0.5))), w - 1)
        y0 = max(int(math.ceil(min(ay, by, cy) - F(0.5))), 0)
        y1 = min(int(math.floor(max(ay, by, cy) - F(0.5))), h - 1)
        if x1 < x0 or y1 < y0:
            continue
        inv = F(1.0) / area
        da, db, zc = iz[a] - iz[c], iz[b] - iz[c], iz[c]
        ea, eb = (by - cy) * inv, (cy - ay) * inv  # growth of the weights along x
        fa, fb = (cx - bx) * inv, (ax - cx) * inv  # and along y
        zx = ea * da + eb * db
        for y in range(y0, y1 + 1):
            px, py = F(x0) + F(0.5) - cx, F(y) + F(0.5) - cy
            wa = ea * px + fa * py + F(1e-5)
            wb = eb * px + fb * py + F(1e-5)
            first, last = _span(wa, wb, ea, eb, F(x1 - x0))
            z = zc + wa * da + wb * db + F(first) * zx
            for x in range(x0 + first, x0 + last + 1):
                if z > depth[y, x]:
                    depth[y, x] = z
                    if write_ids:
                        ids[y, x] = t
                z += zx
