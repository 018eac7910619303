"""Light on hair, at the vertices of its strands."""

from __future__ import annotations

import math

from models.training.heads import lights
from models.training.heads.jit import kernel
from models.training.heads.lights import irradiance
from models.training.heads.shade import single
from models.training.heads.shade.single import F, smooth

_HIDDEN = F(1.2)  # cm behind the mesh from where on a vertex is not drawn


@kernel(lights, single)
def light_strands(
    p,
    points,
    tone,
    ao,
    normal,
    turn,
    base,
    gloss,
    light,
    camera,
    shadow,
    sx,
    sy,
    iz,
    mesh,
    rgb,
    seen,
):
    """Colours `rgb` [n, 3] of strand vertices, and which are `seen` [n].

    Two highlights lie across each strand, as Marschner et al. measured: a white one tilted towards
    the root and one of the hair's own colour towards the tip.

    Args:
        p: [n, 3] in the world; `points` vertices make a strand.
        tone: [n / points] brightness of strands; ao: [n].
        normal: [n, 3] of the head under the hair, unturned; turn: [3, 3].
        base: [3] albedo; gloss: strength of the highlights.
        light, shadow: As `vertices.light_vertices` has them; camera: [3].
        sx, sy, iz: [n] projected; mesh: samples of 1 / depth of everything that is no strand.
    Source: Kajiya and Kay, "Rendering fur with three dimensional textures", SIGGRAPH 1989;
        Marschner et al., "Light scattering from human hair fibers", SIGGRAPH 2003.
    """
    sh, key, key_rgb, rim, rim_rgb = light
    depth, right, up, forward, centre, scale = shadow
    size = depth.shape[0]
    middle = F(size) * F(0.5)
    h, w = mesh.shape
    for i in range(p.shape[0]):
        x, y = int(sx[i]), int(sy[i])
        seen[i] = False
        if not (0 <= x < w and 0 <= y < h):
            continue
        if mesh[y, x] > F(0.0) and F(1.0) / iz[i] - F(1.0) / mesh[y, x] >= _HIDDEN:
            continue
        seen[i] = True
        strand = i // points
        j = i + 1 if i - strand * points < points - 1 else i
        tx, ty, tz = p[j, 0] - p[j - 1, 0], p[j, 1] - p[j - 1, 1], p[j, 2] - p[j - 1, 2]
        r = F(1.0) / math.sqrt(tx * tx + ty * ty + tz * tz + F(1e-12))
        tx, ty, tz = tx * r, ty * r, tz * r
        vx, vy, vz = camera[0] - p[i, 0], camera[1] - p[i, 1], camera[2] - p[i, 2]
        r = F(1.0) / math.sqrt(vx * vx + vy * vy + vz * vz)
        tl = tx * key[0] + ty * key[1] + tz * key[2]
        tv = (tx * vx + ty * vy + tz * vz) * r
        sl, sv = math.sqrt(max(F(1) - tl * tl, F(0.0))), math.sqrt(max(F(1) - tv * tv, F(0.0)))
        qx, qy, qz = normal[i, 0], normal[i, 1], normal[i, 2]
        nx = turn[0, 0] * qx + turn[0, 1] * qy + turn[0, 2] * qz
        ny = turn[1, 0] * qx + turn[1, 1] * qy + turn[1, 2] * qz
        nz = turn[2, 0] * qx + turn[2, 1] * qy + turn[2, 2] * qz
        facing = smooth(F(-0.35), F(0.65), nx * key[0] + ny * key[1] + nz * key[2])
        # Hair lets light through: its shadow deepens with the way through it.
        px, py, pz = p[i, 0] - centre[0], p[i, 1] - centre[1], p[i, 2] - centre[2]
        mx = int(middle + scale * (px * right[0] + py * right[1] + pz * right[2]))
        my = int(middle - scale * (px * up[0] + py * up[1] + pz * up[2]))
        if 0 <= mx < size - 1 and 0 <= my < size - 1:
            before = F(0.25) * (
                depth[my, mx] + depth[my + 1, mx] + depth[my, mx + 1] + depth[my + 1, mx + 1]
            )
            before -= px * forward[0] + py * forward[1] + pz * forward[2]
            facing *= math.exp(-max(before - F(0.25), F(0.0)) * F(1.1))
        white = min(max(sl * sv - (tl + F(0.10)) * tv, F(0.0)), F(1.0)) ** 55
        own = min(max(sl * sv - (tl - F(0.14)) * tv, F(0.0)), F(1.0)) ** 16
        tr = tx * rim[0] + ty * rim[1] + tz * rim[2]
        edge = max(nx * rim[0] + ny * rim[1] + nz * rim[2] + F(0.25), F(0.0))
        edge *= math.sqrt(max(F(1) - tr * tr, F(0.0)))
        a = ao[i]
        for c in range(3):
            b = base[c] * tone[strand]
            ambient = max(irradiance(sh, nx, ny, nz, c), F(0.0)) * a
            direct = key_rgb[c] * facing
            rgb[i, c] = (
                b * (ambient + direct * (F(0.25) + F(0.75) * sl) * F(0.85))
                + b * rim_rgb[c] * edge * (F(0.3) + F(0.7) * a)
                + direct * gloss * (F(0.10) * white + (F(0.75) * b + F(0.012)) * own)
                + gloss * F(0.02) * rim_rgb[c] * edge * a
            )
