"""From the buffer of samples to a picture and its mask."""

from __future__ import annotations

import math

import numpy as np

from models.training.heads.jit import inlined, kernel
from models.training.heads.raster import triangles as buffers
from models.training.heads.raster.triangles import EMPTY, STRAND
from models.training.heads.shade import pixel, single, tone
from models.training.heads.shade.pixel import M_EYE, shade, weights
from models.training.heads.shade.single import F
from models.training.heads.shade.tone import ENTRIES, STEPS

_CLASSES = 9
_SAME = F(0.006)  # share of its depth by which samples of one surface may differ
_BRIGHTEST = F(4)  # of a sample: one highlight must not drown a pixel


@inlined
def _earlier(s, m, x, y, right, down, depth, ids, mat):
    """An earlier sample of this pixel on the same surface, else -1. Eyes are shaded at each."""
    if m == M_EYE:
        return -1
    here = depth[y + down[s], x + right[s]]
    for q in range(s):
        yy, xx = y + down[q], x + right[q]
        other = ids[yy, xx]
        if other >= 0 and mat[other] == m and abs(depth[yy, xx] - here) < _SAME * here:
            return q
    return -1


@inlined
def _ray(x, y, half, per_focal):
    """Unit vector from a sample to the camera."""
    vx, vy = (half - x) * per_focal, (y - half) * per_focal
    vz = F(1) / math.sqrt(vx * vx + vy * vy + F(1))
    return vx * vz, vy * vz, vz


@kernel(pixel, single, buffers, tone, *pixel.USES)
def resolve(samples, mesh, surface, skin, eyes, cloth, parts, light, view, backdrop, out, mask):
    """Shades each pixel once per surface, eyes at every sample, and averages the samples.

    Args:
        samples: Edge (samples along a pixel's edge), depth, ids, colours of strands, their classes.
        mesh: Triangles [T, 3], materials [T], projected x and y [n].
        surface, skin, eyes, cloth, parts, light: As `pixel.shade` has them.
        view: Middle of the picture in samples, 1 / focal length, strength of bumps.
        backdrop: [S, S, 3] linear, the same as bytes, tone curve, exposure.
        out: [S, S, 3]; mask: [S, S], the class that most of a pixel's samples have.
    """
    edge, depth, ids, strand_rgb, tags = samples
    tri, mat, sx, sy = mesh
    half, per_focal, bump = view
    behind, behind_bytes, curve, exposure = backdrop
    count = edge * edge
    # Where a pixel's samples lie; divisions in the loops below would cost a tenth of the time.
    down, right = np.arange(count) // edge, np.arange(count) % edge
    colour = np.zeros((16, 3), np.float32)
    classes = np.zeros(16, np.int32)
    votes = np.zeros(_CLASSES, np.int32)
    for py in range(out.shape[0]):
        for px in range(out.shape[1]):
            x0, y0 = px * edge, py * edge
            empty = 0
            for s in range(count):
                empty += ids[y0 + down[s], x0 + right[s]] == EMPTY
            if empty == count:
                for k in range(3):
                    out[py, px, k] = behind_bytes[py, px, k]
                mask[py, px] = 0
                continue
            votes[:] = 0
            r, g, b = F(0), F(0), F(0)
            for s in range(count):
                y, x = y0 + down[s], x0 + right[s]
                t = ids[y, x]
                if t == EMPTY:
                    for k in range(3):
                        colour[s, k] = behind[py, px, k]
                    classes[s] = 0
                elif t == STRAND:
                    for k in range(3):
                        colour[s, k] = strand_rgb[y, x, k]
                    classes[s] = tags[y, x]
                else:
                    m = mat[t]
                    q = _earlier(s, m, x0, y0, right, down, depth, ids, mat)
                    if q >= 0:
                        for k in range(3):
                            colour[s, k] = colour[q, k]
                        classes[s] = classes[q]
                    else:
                        corner = (tri[t, 0], tri[t, 1], tri[t, 2])
                        cx, cy = F(x) + F(0.5), F(y) + F(0.5)
                        w = weights(corner[0], corner[1], corner[2], cx, cy, sx, sy)
                        ray = _ray(cx, cy, half, per_focal)
                        red, green, blue, what = shade(
                            m, t, w, corner, surface, skin, eyes, cloth, parts, light, ray, bump
                        )
                        colour[s, 0], colour[s, 1], colour[s, 2] = red, green, blue
                        classes[s] = what
                votes[classes[s]] += 1
                r += min(max(colour[s, 0], F(0)), _BRIGHTEST)
                g += min(max(colour[s, 1], F(0)), _BRIGHTEST)
                b += min(max(colour[s, 2], F(0)), _BRIGHTEST)
            k = exposure / F(count) * F(STEPS)
            out[py, px, 0] = curve[min(int(r * k), ENTRIES - 1)]
            out[py, px, 1] = curve[min(int(g * k), ENTRIES - 1)]
            out[py, px, 2] = curve[min(int(b * k), ENTRIES - 1)]
            best = 0
            for q in range(1, _CLASSES):
                if votes[q] > votes[best]:
                    best = q
            mask[py, px] = best
