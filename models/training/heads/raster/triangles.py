"""Triangles into a buffer of samples, the nearest kept."""

from __future__ import annotations

import math

from models.training.heads.jit import inlined, kernel

EMPTY, STRAND = -1, -2  # of the buffer of ids, where no triangle is seen


@inlined
def _span(wa, wb, ea, eb, width):
    """First and last step inside a triangle along a row; empty: last < first.

    `wa`, `wb`: weights at the row's start; `ea`, `eb`: their growth per step. Small triangles are
    cheaper this way than by a test at every sample.
    """
    wc, ec = 1.00002 - wa - wb, -ea - eb
    low, high = 0.0, width
    if ea > 1e-12:
        low = max(low, -wa / ea)
    elif ea < -1e-12:
        high = min(high, -wa / ea)
    elif wa < 0.0:
        high = -1.0
    if eb > 1e-12:
        low = max(low, -wb / eb)
    elif eb < -1e-12:
        high = min(high, -wb / eb)
    elif wb < 0.0:
        high = -1.0
    if ec > 1e-12:
        low = max(low, -wc / ec)
    elif ec < -1e-12:
        high = min(high, -wc / ec)
    elif wc < 0.0:
        high = -1.0
    if high < low:
        return 0, -1
    return int(math.ceil(low)), int(high)


@kernel()
def triangles(tri, sx, sy, iz, depth, ids, write_ids):
    """Fills `depth` [h, w] with the largest `iz`, and `ids` with the triangle it belongs to.

    Triangles that turn away (clockwise ones, y down) are left out.
    """
    h, w = depth.shape
    for t in range(tri.shape[0]):
        a, b, c = tri[t, 0], tri[t, 1], tri[t, 2]
        ax, ay, bx, by, cx, cy = sx[a], sy[a], sx[b], sy[b], sx[c], sy[c]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= -1e-9:
            continue
        x0 = max(int(math.ceil(min(ax, bx, cx) - 0.5)), 0)
        x1 = min(int(math.floor(max(ax, bx, cx) - 0.5)), w - 1)
        y0 = max(int(math.ceil(min(ay, by, cy) - 0.5)), 0)
        y1 = min(int(math.floor(max(ay, by, cy) - 0.5)), h - 1)
        if x1 < x0 or y1 < y0:
            continue
        inv = 1.0 / area
        da, db, zc = iz[a] - iz[c], iz[b] - iz[c], iz[c]
        ea, eb = (by - cy) * inv, (cy - ay) * inv  # growth of the weights along x
        fa, fb = (cx - bx) * inv, (ax - cx) * inv  # and along y
        zx = ea * da + eb * db
        for y in range(y0, y1 + 1):
            px, py = x0 + 0.5 - cx, y + 0.5 - cy
            wa = ea * px + fa * py + 1e-5
            wb = eb * px + fb * py + 1e-5
            first, last = _span(wa, wb, ea, eb, float(x1 - x0))
            z = zc + wa * da + wb * db + first * zx
            for x in range(x0 + first, x0 + last + 1):
                if z > depth[y, x]:
                    depth[y, x] = z
                    if write_ids:
                        ids[y, x] = t
                z += zx
