"""Polylines of equal length into a buffer of samples: hair, beard, lashes, the rims of glasses."""

from __future__ import annotations

import math

from models.training.heads.jit import kernel
from models.training.heads.raster import triangles as buffers
from models.training.heads.raster.triangles import STRAND


@kernel(buffers)
def strands(points, sx, sy, iz, rgb, seen, width, alpha, tag, depth, ids, out, tags):
    """Draws polylines of `points` vertices each as strips.

    A sample that a strand covers holds no triangle any more but STRAND, its colour in `out`
    [h, w, 3] and its class in `tags`. Strands thinner than a sample are blended with a strand that
    is there already; over skin they must cover a third, because skin has no colour at this point.

    Args:
        rgb: [n, 3] of vertices; seen: [n], vertices in the picture and not behind the head.
        width: [n] in samples.
        alpha: 1 covers, less blends.
    """
    h, w = depth.shape
    for s in range(sx.shape[0] // points):
        for k in range(points - 1):
            i = s * points + k
            j = i + 1
            if not (seen[i] or seen[j]):
                continue
            # A hidden end has no colour of its own.
            ci = i if seen[i] else j
            cj = j if seen[j] else i
            wide = max(width[i], width[j])
            if wide <= 0.0:
                continue
            dx, dy = sx[j] - sx[i], sy[j] - sy[i]
            steep = abs(dy) > abs(dx)
            n = int(max(abs(dx), abs(dy))) + 1
            if n > 400:
                continue
            slope = math.sqrt(dx * dx + dy * dy) / max(abs(dx), abs(dy), 1e-6)
            for m in range(n):
                f = (m + 0.5) / n
                z = iz[i] + (iz[j] - iz[i]) * f
                half = 0.5 * (width[i] + (width[j] - width[i]) * f) * slope
                x, y = sx[i] + dx * f, sy[i] + dy * f
                c = x if steep else y
                low, high = int(math.floor(c - half + 0.5)), int(math.floor(c + half + 0.5))
                cover = alpha
                if high <= low:
                    # The sample whose middle is nearest, by the share that is covered.
                    low = int(math.floor(c))
                    high = low + 1
                    cover = alpha * min(1.0, 2.0 * half + 0.15)
                fixed = int(math.floor(y if steep else x))
                for q in range(low, high):
                    xx = q if steep else fixed
                    yy = fixed if steep else q
                    if xx < 0 or yy < 0 or xx >= w or yy >= h or z <= depth[yy, xx]:
                        continue
                    over = ids[yy, xx] == STRAND
                    if cover > 0.98 or (not over and cover > 0.35):
                        depth[yy, xx] = z
                        ids[yy, xx] = STRAND
                        tags[yy, xx] = tag
                        for ch in range(3):
                            out[yy, xx, ch] = rgb[ci, ch] + (rgb[cj, ch] - rgb[ci, ch]) * f
                    elif over:
                        for ch in range(3):
                            v = rgb[ci, ch] + (rgb[cj, ch] - rgb[ci, ch]) * f
                            out[yy, xx, ch] += cover * (v - out[yy, xx, ch])
                        if cover > 0.4:
                            depth[yy, xx] = z


@kernel()
def strands_depth(points, sx, sy, iz, depth, every):
    """Depth of every `every`-th polyline, one texel wide."""
    h, w = depth.shape
    for s in range(0, sx.shape[0] // points, every):
        for k in range(points - 1):
            i = s * points + k
            j = i + 1
            dx, dy = sx[j] - sx[i], sy[j] - sy[i]
            n = int(max(abs(dx), abs(dy))) + 1
            if n > 200:
                continue
            for m in range(n):
                f = (m + 0.5) / n
                x, y = int(sx[i] + dx * f), int(sy[i] + dy * f)
                z = iz[i] + (iz[j] - iz[i]) * f
                if 0 <= x < w and 0 <= y < h and z > depth[y, x]:
                    depth[y, x] = z
