"""Lines, outlines and soft strokes in the plane of a texture; units are texels, y down."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.training.heads.jit import kernel

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@kernel()
def paint_strokes(mask, x, y, dx, dy, bend, width, strength):
    """Adds short curved strokes that taper to `mask` [h, w], each over what is there already.

    Stroke s leads from (x, y) to (x + dx, y + dy), bent sideways by `bend` of its length.
    """
    h, w = mask.shape
    for s in range(x.shape[0]):
        if strength[s] < 0.02:
            continue
        steps = int(math.hypot(dx[s], dy[s])) * 2 + 2
        for m in range(steps):
            f = m / (steps - 1)
            px = x[s] + dx[s] * f - dy[s] * bend[s] * f * f
            py = y[s] + dy[s] * f + dx[s] * bend[s] * f * f
            r = width[s] * (1.0 - 0.75 * f)
            for j in range(int(py - 2), int(py + 3)):
                for i in range(int(px - 2), int(px + 3)):
                    if 0 <= i < w and 0 <= j < h:
                        d = ((i + 0.5 - px) ** 2 + (j + 0.5 - py) ** 2) / (r * r + 0.12)
                        v = strength[s] * math.exp(-d)
                        if v > 0.02:
                            mask[j, i] = 1.0 - (1.0 - mask[j, i]) * (1.0 - 0.55 * v)


@kernel()
def _line_distance(px, py, line, closed, out):
    for i in range(px.shape[0]):
        best, inside = 1e9, False
        last = line.shape[0] - 1
        j = last if closed else 0
        for k in range(0 if closed else 1, line.shape[0]):
            ax, ay, bx, by = line[j, 0], line[j, 1], line[k, 0], line[k, 1]
            square = (bx - ax) ** 2 + (by - ay) ** 2 + 1e-12
            t = ((px[i] - ax) * (bx - ax) + (py[i] - ay) * (by - ay)) / square
            t = min(max(t, 0.0), 1.0)
            d = (ax + t * (bx - ax) - px[i]) ** 2 + (ay + t * (by - ay) - py[i]) ** 2
            best = min(best, d)
            crosses = (ay > py[i]) != (by > py[i])
            if crosses and px[i] < (bx - ax) * (py[i] - ay) / (by - ay) + ax:
                inside = not inside
            j = k
        out[i] = -math.sqrt(best) if closed and inside else math.sqrt(best)


def distance(size: int, line: npt.NDArray[np.floating], *, closed: bool, reach: float) -> F32:
    """Distance of a texture's texels [size, size] to a line [M, 2]; inside an outline negative.

    Farther away than `reach` it is `reach`.
    """
    out = np.full((size, size), reach, np.float32)
    low = np.maximum(np.floor(line.min(0) - reach), 0).astype(int)
    high = np.minimum(np.ceil(line.max(0) + reach), size).astype(int)
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]] + 0.5
    near = np.zeros(x.size, np.float32)
    _line_distance(x.ravel(), y.ravel(), np.ascontiguousarray(line, np.float64), closed, near)
    out[low[1] : high[1], low[0] : high[0]] = np.minimum(near, reach).reshape(x.shape)
    return out


def spline(points: npt.NDArray[np.floating], count: int, closed: bool) -> F64:
    """Catmull-Rom curve through points [M, 2] -> [count, 2]."""
    m = len(points)
    t = np.linspace(0, m if closed else m - 1, count, endpoint=not closed)
    i = np.minimum(t.astype(int), m - 1 if closed else m - 2)
    f = (t - i)[:, None]

    def at(k: npt.NDArray[np.int_]) -> F64:
        return np.asarray(points[k % m if closed else np.clip(k, 0, m - 1)], np.float64)

    a, b, c, d = at(i - 1), at(i), at(i + 1), at(i + 2)
    cubic = (3 * b - a - 3 * c + d) * f**3
    return 0.5 * (2 * b + (c - a) * f + (2 * a - 5 * b + 4 * c - d) * f**2 + cubic)


def blur(picture: F32, radius: int) -> F32:
    """Two box filters of 2 radius + 1 texels along each axis; borders are repeated."""
    span = 2 * radius + 1
    for _ in range(2):
        for axis in (0, 1):
            pad = [(radius + 1, radius) if d == axis else (0, 0) for d in range(picture.ndim)]
            sums = np.cumsum(np.pad(picture, pad, mode="edge"), axis=axis, dtype=np.float64)
            upper = np.take(sums, range(span, sums.shape[axis]), axis)
            lower = np.take(sums, range(sums.shape[axis] - span), axis)
            picture = ((upper - lower) / span).astype(np.float32)
    return picture
