"""Eyes: the texture of an iris, the shadow of the lids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.faces.traits import Traits
from models.training.heads import deform
from models.training.heads.colour import iris_rgb
from models.training.heads.deform import smooth, smoothstep
from models.training.heads.jit import kernel
from models.training.heads.noise import Use, draws

if TYPE_CHECKING:
    from models.training.heads.anatomy import Anatomy

F32 = npt.NDArray[np.float32]
IRIS = np.float32(0.455)  # radius over the eyeball's; a real one has .39, larger reads friendlier
_RINGS, _SPOKES = 28, 128


def iris_texture(traits: Traits) -> F32:
    """[rings, spokes, 3] linear RGB: fibres, a warm collar about the pupil, a dark outer ring."""
    rng = draws(Use.IRIS)
    angle = np.arange(_SPOKES) / _SPOKES * 2 * np.pi
    fibres = np.zeros(_SPOKES)
    for f in (5, 9, 14, 23, 37):
        fibres += rng.normal(0, f**-0.4) * np.cos(f * angle + rng.random() * 2 * np.pi)
    fibres /= fibres.std()
    r = (np.arange(_RINGS) / (_RINGS - 1))[:, None]
    swirl = np.stack([np.roll(fibres, int(k * 0.35)) for k in range(_RINGS)])
    rgb, pupil = iris_rgb(traits), traits["pupil"]
    light = 1.0 + 0.16 * swirl * smoothstep(pupil, pupil + 0.25, r)
    light *= 1 + 0.40 * np.exp(-(((r - pupil - 0.14) / 0.12) ** 2))
    light *= 1 - 0.78 * smoothstep(0.74, 1.0, r)
    warm = (0.5 - 0.35 * traits["iris_melanin"]) * np.exp(-(((r - pupil - 0.08) / 0.13) ** 2))[
        ..., None
    ]
    collar = np.array([0.30, 0.17, 0.06]) * (rgb.max() / 0.3)
    colour = (
        (rgb * (1 - warm) + collar * warm) * light[..., None] * (1.4 - 0.4 * traits["iris_melanin"])
    )
    colour = colour * smoothstep(pupil - 0.05, pupil + 0.05, r)[..., None] + 0.006
    return np.ascontiguousarray(colour, np.float32)


def lid_landmarks(anatomy: Anatomy) -> npt.NDArray[np.int64]:
    """Vertices [16] of the lids' margins for `lid_shadow`: upper and lower lid of the left eye,
    then of the right one, four each in the order of x."""
    lm = anatomy.landmarks
    rows = (lm[[42, 43, 44, 45]], lm[[42, 47, 46, 45]], lm[[36, 37, 38, 39]], lm[[36, 41, 40, 39]])
    return np.concatenate(rows).astype(np.int64)


@kernel(deform)
def lid_shadow(v, first, left, count, lids, out):
    """Occlusion of the eyeballs' vertices by the lids, from the height of the margins around them.

    Args:
        v: [n, 3] before the head is turned; first: the first eyeball vertex; left, count: how many
            belong to the left eye and to both.
        lids: [16] of `lid_landmarks`.
        out: [n] gets the eyeballs' entries: .22 under the upper lid .. 1.
    """
    for s in range(2):
        begin = first if s == 0 else first + left
        end = first + left if s == 0 else first + count
        up = lids[8 * s : 8 * s + 4]
        low = lids[8 * s + 4 : 8 * s + 8]
        for i in range(begin, end):
            x, y = v[i, 0], v[i, 1]
            k = 0
            while k < 2 and x > v[up[k + 1], 0]:
                k += 1
            t = (x - v[up[k], 0]) / max(v[up[k + 1], 0] - v[up[k], 0], 1e-3)
            t = min(max(t, 0.0), 1.0)
            top = v[up[k], 1] + t * (v[up[k + 1], 1] - v[up[k], 1])
            if k == 1:  # the lid's arch rises above the line between its two landmarks
                top += 0.10 * (1 - abs(2 * t - 1))
            k = 0
            while k < 2 and x > v[low[k + 1], 0]:
                k += 1
            t = (x - v[low[k], 0]) / max(v[low[k + 1], 0] - v[low[k], 0], 1e-3)
            t = min(max(t, 0.0), 1.0)
            bottom = v[low[k], 1] + t * (v[low[k + 1], 1] - v[low[k], 1])
            side = min(x - v[up[0], 0], v[up[3], 0] - x)
            shade = 0.22 + 0.78 * smooth(-0.10, 0.62, top - y)
            shade *= 0.62 + 0.38 * smooth(-0.1, 0.35, y - bottom)
            out[i] = shade * (0.55 + 0.45 * smooth(-0.05, 0.5, side))
