"""Pictures without a head, some of them made from heads, to train and to try the observer with."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_TILE = 16  # pixels of a torn-up head
_POOL = 8  # people of each untrained model; a third of a second for some


def torn(heads: Tensor, random: np.random.Generator) -> Tensor:
    """A head in square pieces, [3, S, S], none of which is where it was."""
    picture = heads[int(random.integers(len(heads)))]
    side = picture.shape[-1]
    rows = side // _TILE
    tiles = F.unfold(picture[None], _TILE, stride=_TILE)[0]  # [3 * 256, pieces]
    step = int(random.integers(1, rows * rows))
    order = (random.permutation(rows * rows)).argsort()
    place = np.empty(rows * rows, np.int64)
    place[order] = np.roll(order, step)
    whole = F.fold(tiles[:, torch.from_numpy(place)][None], side, _TILE, stride=_TILE)
    return whole[0]


def upturned(heads: Tensor, random: np.random.Generator) -> Tensor:
    """A head on its head."""
    return heads[int(random.integers(len(heads)))].flip(1)


def clouds(heads: Tensor, random: np.random.Generator) -> Tensor:
    """Coloured noise of all sizes, as a backdrop out of focus is."""
    side = heads.shape[-1]
    total = torch.zeros(3, side, side)
    slope = random.uniform(0.3, 1.5)
    for cells in (2, 3, 5, 9, 17, 33, side):
        noise = torch.from_numpy(random.standard_normal((1, 3, cells, cells), np.float32))
        grey = noise.mean(1, keepdim=True)
        noise = grey + float(random.uniform(0, 0.8)) * (noise - grey)
        big = F.interpolate(noise, (side, side), mode="bicubic", align_corners=False)[0]
        total += big * cells**-slope
    total = total / total.std() * random.uniform(0.05, 0.5) + random.uniform(-0.5, 0.5)
    return total.clamp(-1, 1)


def things(heads: Tensor, random: np.random.Generator) -> Tensor:
    """Round and square things before clouds."""
    from models.training.heads import occluders  # on demand, like all of that folder

    side = heads.shape[-1]
    back = ((clouds(heads, random) + 1) * 127.5).to(torch.uint8)
    rgb = back.permute(1, 2, 0).contiguous().numpy()
    found = occluders.random_occluders(random, most=4)
    occluders.draw(found, rgb, np.zeros((side, side), np.uint8))
    return torch.from_numpy(rgb).permute(2, 0, 1) / 127.5 - 1


@functools.lru_cache(maxsize=1)
def _untrained(side: int) -> Tensor:
    from models.metrics.generated import clip
    from models.seeded import MODELS, RECIPES

    frames = [
        clip(system, [0.37 * seed], seed=seed)
        for system in (MODELS[name]() for name in RECIPES)
        for seed in range(_POOL)
    ]
    small = F.interpolate(torch.cat(frames).float(), (side, side), mode="bilinear", antialias=True)
    return small / 127.5 - 1


def untrained(heads: Tensor, random: np.random.Generator) -> Tensor:
    """What generators with random weights draw, in any of eight positions."""
    pool = _untrained(heads.shape[-1])
    picture = pool[int(random.integers(len(pool)))]
    if random.random() < 0.5:
        picture = picture.flip(2)
    return torch.rot90(picture, int(random.integers(4)), (1, 2))


KINDS: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "torn": torn,
    "upturned": upturned,
    "clouds": clouds,
    "things": things,
    "untrained": untrained,
}


def negatives(heads: Tensor, count: int, random: np.random.Generator) -> Tensor:
    """Some of all kinds.

    Args:
        heads: [N, 3, S, S] in [-1, 1], S a multiple of 16, of which some are made.
    Returns:
        [count, 3, S, S].
    """
    makers = list(KINDS.values())
    made = [makers[int(random.integers(len(makers)))](heads, random) for _ in range(count)]
    return torch.stack(made)
