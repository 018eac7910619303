"""Light at the vertices of the mesh, and how it wanders under the skin.

Skin has a vertex every 2 to 4 mm, which is 2 to 4 pixels of a large picture. So all of the diffuse
light, shadows and scattering included, is found at the vertices, and a pixel has little left to do
but its own colour and highlight.
"""

from __future__ import annotations

from models.training.heads import lights
from models.training.heads.jit import inlined, kernel
from models.training.heads.lights import irradiance
from models.training.heads.shade import single
from models.training.heads.shade.single import F

_AWAY = F(-0.45)  # a normal's z from which on only neighbours see the vertex
_LIFT = F(0.28)  # cm along the normal at which the shadow map is asked


@inlined
def _lit(depth, x, y, z):
    """Share of nine texels of the shadow map about (x, y) that see the light from depth z."""
    size = depth.shape[0]
    i, j = int(x), int(y)
    if i < 1 or j < 1 or i >= size - 1 or j >= size - 1:
        return F(1.0)
    nearest = max(
        depth[j - 1, i - 1], depth[j + 1, i + 1], depth[j - 1, i + 1], depth[j + 1, i - 1]
    )
    if max(depth[j, i], nearest) <= z:
        return F(1.0)
    total = F(0.0)
    for b in range(-1, 2):
        for a in range(-1, 2):
            total += F(1.0) - min(max((depth[j + b, i + a] - z) * F(4.0), F(0.0)), F(1.0))
    return total / F(9.0)


@kernel(lights, single)
def light_vertices(v, normal, ao, ao_skin, kind, thin, n, light, shadow, irr, lit):
    """Diffuse light and the key's visibility at the first n vertices.

    Args:
        v, normal: [n, 3] in the world; ao: [n] occlusion; ao_skin: [n_skin, 3] of skin, by channel.
        kind: [n] 0 skin (light wraps round it, reddest), 1 eye, 2 cloth, 3 inner mouth.
        thin: [n] how much light comes through from behind: ears.
        light: sh, key, key_rgb, rim, rim_rgb of a `lights.Light`.
        shadow: The key's map: depth [m, m], right, up, forward, centre, texels per cm.
        irr: [n, 3] irradiance / pi; lit: [n] 0 in the key's shadow .. 1.
    """
    sh, key, key_rgb, rim, rim_rgb = light
    depth, right, up, forward, centre, scale = shadow
    half = F(depth.shape[0]) * F(0.5)
    for i in range(n):
        x, y, z = normal[i, 0], normal[i, 1], normal[i, 2]
        if z < _AWAY and kind[i] < 3:
            # It must be written all the same, or the last frame's light leaks through its
            # neighbours and pictures depend on history.
            lit[i] = F(1.0)
            for c in range(3):
                irr[i, c] = F(0.2821) * sh[0, c] * ao[i]
            continue
        nl = x * key[0] + y * key[1] + z * key[2]
        s = F(1.0)
        if nl > -F(0.3):
            px = v[i, 0] + _LIFT * x - centre[0]
            py = v[i, 1] + _LIFT * y - centre[1]
            pz = v[i, 2] + _LIFT * z - centre[2]
            s = _lit(
                depth,
                half + scale * (px * right[0] + py * right[1] + pz * right[2]),
                half - scale * (px * up[0] + py * up[1] + pz * up[2]),
                px * forward[0] + py * forward[1] + pz * forward[2] + F(0.12),
            )
        lit[i] = s
        nr = x * rim[0] + y * rim[1] + z * rim[2]
        rim_light = max(nr + F(0.15), F(0.0)) / F(1.15)
        a = ao[i]
        for c in range(3):
            if kind[i] == 0:
                wrap = (F(0.30), F(0.12), F(0.06))[c]
                open_ = ao_skin[i, c]
            else:
                wrap = F(0.05)
                open_ = a
                if kind[i] == 3:  # light in the mouth has bounced off red walls
                    open_ = a * ((F(1.3), F(0.86), F(0.70))[c] + (-F(0.3), F(0.14), F(0.30))[c] * a)
            direct = max(nl + wrap, F(0.0)) / (F(1.0) + wrap) * s * (F(0.35) + F(0.65) * a)
            through = thin[i] * (F(0.42), F(0.09), F(0.05))[c]
            irr[i, c] = (
                max(irradiance(sh, x, y, z, c) * open_, F(0.0))
                + key_rgb[c] * (direct + through * F(0.5) * max(-nl, F(0.0)))
                + rim_rgb[c] * (rim_light * a + through * max(F(0.2) - nr, F(0.0)))
            )


@kernel(single)
def diffuse_skin(irr, spare, neighbour, begin, n, passes):
    """Steps of smoothing along the mesh, most for red, which wanders furthest under the skin.

    Args:
        irr: [>= n, 3], changed in place; spare: as large.
        neighbour, begin: Those of vertex i are neighbour[begin[i] : begin[i + 1]].
    """
    for _ in range(passes):
        for i in range(n):
            a, b, c = F(0.0), F(0.0), F(0.0)
            for q in range(begin[i], begin[i + 1]):
                j = neighbour[q]
                a += irr[j, 0]
                b += irr[j, 1]
                c += irr[j, 2]
            m = F(1.0) / F(max(begin[i + 1] - begin[i], 1))
            spare[i, 0] = irr[i, 0] + F(0.62) * (a * m - irr[i, 0])
            spare[i, 1] = irr[i, 1] + F(0.32) * (b * m - irr[i, 1])
            spare[i, 2] = irr[i, 2] + F(0.18) * (c * m - irr[i, 2])
        for i in range(n):
            for k in range(3):
                irr[i, k] = spare[i, k]
