"""The materials: what a sample of the mesh looks like. All of it vanishes into `resolve`."""

from __future__ import annotations

import math

from models.training.heads import lights
from models.training.heads.jit import inlined
from models.training.heads.lights import irradiance
from models.training.heads.shade import eye as eye_module
from models.training.heads.shade.eye import eye_albedo
from models.training.heads.shade.single import F, smooth

USES = (lights, eye_module)  # whose code is in here too

# Classes of the mask.
BACKGROUND, SKIN, LIPS, EYES, MOUTH, HAIR, CLOTH, GLASSES, OCCLUDER = range(9)
# Materials of triangles, as `anatomy.Anatomy.mat` numbers them.
M_SKIN, M_EYE, M_CLOTH, M_GUMS, M_TEETH, M_SOCKET = range(6)

_SKIN_F0 = F(0.03)  # reflectance of skin seen straight


@inlined
def weights(a, b, c, x, y, sx, sy):
    """Barycentric weights of a sample's middle (x, y) in a projected triangle."""
    bx, by = sx[b] - sx[a], sy[b] - sy[a]
    cx, cy = sx[c] - sx[a], sy[c] - sy[a]
    px, py = x - sx[a], y - sy[a]
    inverse = F(1.0) / (bx * cy - by * cx)
    wb = (px * cy - py * cx) * inverse
    wc = (bx * py - by * px) * inverse
    return F(1.0) - wb - wc, wb, wc


@inlined
def skin_albedo(u, v, face, back):
    """Red, green, blue, roughness, strength of highlights, tilts in x and y, class.

    Args:
        u, v: Of the texture; u >= 1 is in `back`. Both [size, size, 8], see `skin_paint`.
    """
    tex = face if u < F(1.0) else back
    if u >= F(1.0):
        u -= F(1.0)
    h, w = F(tex.shape[0]), F(tex.shape[1])
    fu = min(max(u * w - F(0.5), F(0.0)), w - F(1.001))
    fv = min(max((F(1.0) - v) * h - F(0.5), F(0.0)), h - F(1.001))
    i, j = int(fu), int(fv)
    fu, fv = fu - F(i), fv - F(j)
    a, b, c, d = (F(1) - fu) * (F(1) - fv), fu * (F(1) - fv), (F(1) - fu) * fv, fu * fv
    red = a * tex[j, i, 0] + b * tex[j, i + 1, 0] + c * tex[j + 1, i, 0] + d * tex[j + 1, i + 1, 0]
    green = (
        a * tex[j, i, 1] + b * tex[j, i + 1, 1] + c * tex[j + 1, i, 1] + d * tex[j + 1, i + 1, 1]
    )
    blue = a * tex[j, i, 2] + b * tex[j, i + 1, 2] + c * tex[j + 1, i, 2] + d * tex[j + 1, i + 1, 2]
    k = F(1.0) / F(65025.0)  # square roots of 8 bits
    what = SKIN
    if tex[j, i, 5] > 50:
        what = HAIR if tex[j, i, 5] > 150 else LIPS
    return (
        red * red * k,
        green * green * k,
        blue * blue * k,
        tex[j, i, 3] * (F(1.0) / F(255.0)),
        tex[j, i, 4] * (F(1.0) / F(127.0)),
        tex[j, i, 6] - F(128.0),
        tex[j, i, 7] - F(128.0),
        what,
    )


@inlined
def cloth_shade(height, across, below, stripes):
    """What the shirt's colour is multiplied by: collar seam, stripes, weave."""
    k = F(1.0) - F(0.35) * smooth(F(0.16), F(0.0), abs(below - F(1.0)))
    if stripes > 0 and below > F(1.0):
        k *= F(1.0) - F(0.6) * stripes * smooth(-F(0.2), F(0.2), math.sin(height * F(3.4)))
    return k * (F(1.0) + F(0.05) * math.sin(across * F(37.0)) * math.sin(height * F(41.0)))


@inlined
def key_highlight(nx, ny, nz, vx, vy, vz, nv, key, rough):
    """What the surface mirrors of the key light: two GGX lobes.

    86 % at the roughness and 14 % at .6 of it: oil on skin.

    Source: Walter et al., "Microfacet models for refraction through rough surfaces", EGSR 2007.
    """
    nl = nx * key[0] + ny * key[1] + nz * key[2]
    if nl <= F(0.0):
        return F(0.0)
    hx, hy, hz = vx + key[0], vy + key[1], vz + key[2]
    k = F(1.0) / math.sqrt(hx * hx + hy * hy + hz * hz + F(1e-9))
    nh = max((nx * hx + ny * hy + nz * hz) * k, F(0.0))
    vh = F(1.0) - max((vx * hx + vy * hy + vz * hz) * k, F(0.0))
    fresnel = _SKIN_F0 + (F(1.0) - _SKIN_F0) * vh * vh * vh * vh * vh
    wide = rough * rough
    wide *= wide
    narrow = wide * F(0.1296)
    a = nh * nh * (wide - F(1.0)) + F(1.0)
    b = nh * nh * (narrow - F(1.0)) + F(1.0)
    lobes = F(0.86) * wide / (a * a) + F(0.14) * narrow / (b * b)
    g = rough * rough * F(0.5)
    return lobes * fresnel * F(0.25) * nl / ((nl * (F(1) - g) + g) * (nv * (F(1) - g) + g))


@inlined
def catch_light(lx, ly, lz, key, cornea):
    """What an eye mirrors of the key, and fainter of a light opposite to it, from direction l."""
    toward = lx * key[0] + ly * key[1] + lz * key[2]
    other = -lx * key[0] + ly * F(0.25) + lz * key[2]
    glint = smooth(F(0.90), F(0.94), toward) * (F(0.15) + F(1.25) * cornea)
    return glint + F(0.14) * smooth(F(0.90), F(0.97), other) * cornea


@inlined
def shade(m, t, w, triangle, surface, skin, eyes, cloth, parts, light, ray, bump):
    """Colour and class of a sample.

    Args:
        m, t: The triangle's material and number; triangle: its vertices; w: the sample's weights.
        surface: uv [T, 3, 2], normals, irr [n, 3] and lit [n] of the vertices.
        skin: Two textures; eyes: first vertex, directions, iris, its radius; cloth: colour [3],
            stripes, pattern [n, 3]; parts: [6, 3] colours of gums, teeth and socket.
        light: As in `vertices.light_vertices`; ray: from the sample to the camera.
    Returns:
        Red, green, blue in linear light, and the class.
    """
    a, b, c = triangle
    wa, wb, wc = w
    uv, normal, irr, lit = surface
    sh, key, key_rgb, _, _ = light
    vx, vy, vz = ray
    nx = wa * normal[a, 0] + wb * normal[b, 0] + wc * normal[c, 0]
    ny = wa * normal[a, 1] + wb * normal[b, 1] + wc * normal[c, 1]
    nz = wa * normal[a, 2] + wb * normal[b, 2] + wc * normal[c, 2]
    s = wa * lit[a] + wb * lit[b] + wc * lit[c]
    i0 = wa * irr[a, 0] + wb * irr[b, 0] + wc * irr[c, 0]
    i1 = wa * irr[a, 1] + wb * irr[b, 1] + wc * irr[c, 1]
    i2 = wa * irr[a, 2] + wb * irr[b, 2] + wc * irr[c, 2]
    k = F(1.0) / math.sqrt(nx * nx + ny * ny + nz * nz + F(1e-12))
    cornea = F(0.0)
    if m == M_SKIN:
        u = wa * uv[t, 0, 0] + wb * uv[t, 1, 0] + wc * uv[t, 2, 0]
        v = wa * uv[t, 0, 1] + wb * uv[t, 1, 1] + wc * uv[t, 2, 1]
        red, green, blue, rough, spec, dx, dy, what = skin_albedo(u, v, skin[0], skin[1])
        # Tilts are added in view space: noise needs no tangents.
        nx, ny, nz = nx * k + dx * bump, ny * k + dy * bump, nz * k
        k = F(1.0) / math.sqrt(nx * nx + ny * ny + nz * nz)
        rim = F(0.30)
    elif m == M_EYE:
        e, d = eyes[0], eyes[1]
        ex = wa * d[a - e, 0] + wb * d[b - e, 0] + wc * d[c - e, 0]
        ey = wa * d[a - e, 1] + wb * d[b - e, 1] + wc * d[c - e, 1]
        ez = wa * d[a - e, 2] + wb * d[b - e, 2] + wc * d[c - e, 2]
        red, green, blue, cornea = eye_albedo(ex, ey, ez, eyes[2], eyes[3])
        rough, spec, rim, what = F(0.22), F(0.04) + F(0.2) * cornea, F(0.30), EYES
    elif m == M_CLOTH:
        p = cloth[2]
        light_ = cloth_shade(
            wa * p[a, 0] + wb * p[b, 0] + wc * p[c, 0],
            wa * p[a, 1] + wb * p[b, 1] + wc * p[c, 1],
            wa * p[a, 2] + wb * p[b, 2] + wc * p[c, 2],
            cloth[1],
        )
        red, green, blue = cloth[0][0] * light_, cloth[0][1] * light_, cloth[0][2] * light_
        rough, spec, rim, what = F(0.8), F(0.25), F(0.6), CLOTH
    else:
        red, green, blue = parts[m, 0], parts[m, 1], parts[m, 2]
        rough, spec, rim, what = F(0.35), F(0.5) if m == M_TEETH else F(0.25), F(0.30), MOUTH
        s *= min(i0 + i1, F(1.0))
    nx, ny, nz = nx * k, ny * k, nz * k
    nv = max(nx * vx + ny * vy + nz * vz, F(0.04))
    total = key_highlight(nx, ny, nz, vx, vy, vz, nv, key, rough) * s * spec * F(3.14159)
    # A grazing sheen of the surroundings; none where no light comes in.
    f = F(1.0) - nv
    sheen = (
        (_SKIN_F0 + rim * f * f * f * f * f) * spec * F(0.55) * min((i0 + i1 + i2) * F(0.5), F(1.0))
    )
    lx, ly, lz = F(2) * nv * nx - vx, F(2) * nv * ny - vy, F(2) * nv * nz - vz
    if m == M_EYE:
        total += catch_light(lx, ly, lz, key, cornea)
        sheen *= F(2.0)
    return (
        red * i0 + key_rgb[0] * total + sheen * max(irradiance(sh, lx, ly, lz, 0), F(0.0)),
        green * i1 + key_rgb[1] * total + sheen * max(irradiance(sh, lx, ly, lz, 1), F(0.0)),
        blue * i2 + key_rgb[2] * total + sheen * max(irradiance(sh, lx, ly, lz, 2), F(0.0)),
        what,
    )
