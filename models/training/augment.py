"""Adaptive discriminator augmentation of clips: the set "bgc", one draw for all frames of a clip.

Karras et al., Training Generative Adversarial Networks with Limited Data (NeurIPS 2020), appendix
B: pixel blitting, geometry and colour. A clip of k frames is one picture of 3 k channels, as in
StyleGAN-V (https://arxiv.org/abs/2112.14683): whatever happens to a frame happens to all of them.
Parameters are drawn on the CPU in float64, so no device is waited for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels_triton.upfirdn2d import setup_filter, upfirdn2d

# Standard deviations and ranges of appendix B.
SHIFT_WHOLE, SHIFT_PART = 0.125, 0.125  # of the side
SCALE, STRETCH = 0.2, 0.2  # of log2
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0
# The wavelet sym6: resampling at twice the resolution with it loses next to nothing.
_SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
_REACH = len(_SYM6) // 4  # pixels that the filter needs around the picture


class Chance:
    """Random numbers of a batch: each transformation draws whether it happens, and how much.

    Args:
        rng: Where they come from.
        clips: How many clips.
        p: Probability of each transformation.
    """

    def __init__(self, rng: np.random.Generator, clips: int, p: float) -> None:
        self._rng, self._clips, self._p = rng, clips, p

    def uniform(self, neutral: float, values: int = 1, p: float | None = None) -> Tensor:
        """[clips, values] in [0, 1), `neutral` where it does not happen."""
        drawn = self._rng.random((self._clips, values))
        return self._gated(drawn, neutral, self._p if p is None else p)

    def normal(self, values: int = 1) -> Tensor:
        """[clips, values], 0 where it does not happen."""
        return self._gated(self._rng.standard_normal((self._clips, values)), 0.0, self._p)

    def rotation(self) -> tuple[Tensor, Tensor]:
        """Two halves of a turn, before and after the stretch: [clips, 1] in [0, 1), 0.5 is none."""
        # Either of them happens with probability p.
        each = 1 - math.sqrt(max(1 - self._p, 0.0))
        return self.uniform(0.5, p=each), self.uniform(0.5, p=each)

    def _gated(self, drawn: np.ndarray, neutral: float, p: float) -> Tensor:
        happens = self._rng.random((self._clips, 1)) < p
        return torch.from_numpy(np.where(happens, drawn, neutral))


class Percentile(Chance):
    """Every transformation happens, at this percentile of its distribution: for comparisons.

    Args:
        clips: How many clips.
        percentile: Above 0 and below 1. Its normal number is erfinv(2 p - 1), without the root of
            two, as in the published code's own debugging.
    """

    def __init__(self, clips: int, percentile: float) -> None:
        self._clips = clips
        self._u = percentile
        self._n = float(torch.erfinv(torch.tensor(2 * percentile - 1, dtype=torch.float64)))

    def uniform(self, neutral: float, values: int = 1, p: float | None = None) -> Tensor:
        return torch.full((self._clips, values), self._u, dtype=torch.float64)

    def normal(self, values: int = 1) -> Tensor:
        return torch.full((self._clips, values), self._n, dtype=torch.float64)

    def rotation(self) -> tuple[Tensor, Tensor]:
        return self.uniform(0.5), torch.full((self._clips, 1), 0.5, dtype=torch.float64)


def _matrix(rows: list[list[Any]]) -> Tensor:
    """[clips, n, n] float64 from rows of numbers and [clips] tensors."""
    clips = max((x.shape[0] for row in rows for x in row if isinstance(x, Tensor)), default=1)
    full = functools.partial(torch.full, (clips,), dtype=torch.float64)
    return torch.stack(
        [torch.stack([x if isinstance(x, Tensor) else full(x) for x in row], -1) for row in rows],
        -2,
    )


def _shift(x: Any, y: Any) -> Tensor:
    return _matrix([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _scale(x: Any, y: Any) -> Tensor:
    return _matrix([[x, 0, 0], [0, y, 0], [0, 0, 1]])


def _turn(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return _matrix([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def geometry(chance: Chance, side: int) -> Tensor:
    """Where each pixel of the result comes from.

    Args:
        chance: Drawn from in a fixed order.
        side: Of the square frames, pixels.
    Returns:
        [clips, 3, 3] float64, on pixels with the picture's centre as origin: the inverse of the
        transformation, so that each is multiplied from the right, and itself inverted.
    """
    flip = (chance.uniform(0) * 2).floor()[:, 0]
    quarter = (chance.uniform(0) * 4).floor()[:, 0]
    whole = (chance.uniform(0.5, 2) * 2 - 1) * SHIFT_WHOLE * side
    # Half a pixel is rounded to the even one, as torch does everywhere.
    whole = whole.round()
    scale = 2 ** (chance.normal() * SCALE)[:, 0]
    before, after = ((u * 2 - 1)[:, 0] * math.pi for u in chance.rotation())
    stretch = 2 ** (chance.normal() * STRETCH)[:, 0]
    part = chance.normal(2) * SHIFT_PART * side
    inverse = _scale(1 / (1 - 2 * flip), 1) @ _turn(quarter * (math.pi / 2))
    inverse = inverse @ _shift(-whole[:, 0], -whole[:, 1]) @ _scale(1 / scale, 1 / scale)
    inverse = inverse @ _turn(before) @ _scale(1 / stretch, stretch) @ _turn(after)
    return inverse @ _shift(-part[:, 0], -part[:, 1])


def colour(chance: Chance) -> Tensor:
    """How each pixel's colour changes: [clips, 4, 4] float64, on (r, g, b, 1)."""
    identity = torch.eye(4, dtype=torch.float64)
    grey = torch.tensor([1.0, 1, 1, 0], dtype=torch.float64) / math.sqrt(3)
    along = torch.outer(grey, grey)  # projection on the axis of greys
    bright = chance.normal()[:, 0] * BRIGHTNESS
    contrast = 2 ** (chance.normal()[:, 0] * CONTRAST)
    flip = (chance.uniform(0) * 2).floor()[:, :, None]
    hue = ((chance.uniform(0.5) * 2 - 1) * math.pi)[:, :, None]
    saturation = 2 ** (chance.normal() * SATURATION)[:, :, None]
    lift = _matrix([[1, 0, 0, bright], [0, 1, 0, bright], [0, 0, 1, bright], [0, 0, 0, 1]])
    gain = _matrix([[contrast, 0, 0, 0], [0, contrast, 0, 0], [0, 0, contrast, 0], [0, 0, 0, 1]])
    colours = torch.diag(torch.tensor([1.0, 1, 1, 0], dtype=torch.float64))
    fourth = identity - colours
    x = 1 / math.sqrt(3)
    cross = torch.tensor([[0, -x, x, 0], [x, 0, -x, 0], [-x, x, 0, 0], [0, 0, 0, 0]]).double()
    # Rodrigues: what lies along the axis stays, the rest is turned about it.
    turned = along + (colours - along) * hue.cos() + cross * hue.sin() + fourth
    vivid = along + (identity - along) * saturation
    # The last entry is the 1 of (r, g, b, 1); read off afterwards, only the first rows count.
    return vivid @ turned @ (identity - 2 * along * flip) @ gain @ lift


class _Sampled(torch.autograd.Function):
    """Bilinear sampling, differentiable to any order in the picture, in which it is linear.

    torch's own has no second derivative; of a linear map A it is A again: the gradient is
    A^T g, and that one's gradient with respect to g is A.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return F.grid_sample(x, grid, "bilinear", "zeros", align_corners=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(gradients[0], grid, ctx.shape), None


class _Spread(torch.autograd.Function):
    """The transpose of `_Sampled`."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        empty = g.new_empty(1).expand(shape)  # of the picture only its shape is read
        bilinear, zeros = 0, 0
        spread, _ = torch.ops.aten.grid_sampler_2d_backward(
            g.contiguous(), empty, grid, bilinear, zeros, False, [True, False]
        )
        return spread

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sampled.apply(gradients[0], grid), None, None


_sampled: Callable[[Tensor, Tensor], Tensor] = _Sampled.apply


def moved(x: Tensor, inverse: Tensor) -> Tensor:
    """Pictures under a geometric change, mirrored at their borders.

    Args:
        x: [B, C, H, W].
        inverse: [B, 3, 3] float64 on the CPU, from `geometry`.
    Returns:
        [B, C, H, W].
    """
    height, width = x.shape[2:]
    cx, cy = (width - 1) / 2, (height - 1) / 2
    # How far beyond the borders anything comes from, over the whole batch.
    corners = torch.tensor([[-cx, -cy, 1], [cx, -cy, 1], [cx, cy, 1], [-cx, cy, 1]]).double()
    reached = (inverse @ corners.T)[:, :2].permute(1, 0, 2).flatten(1)  # [xy, B * 4]
    margin = torch.cat([-reached, reached]).amax(1)  # x0, y0, x1, y1
    margin += torch.tensor([2 * _REACH - cx, 2 * _REACH - cy] * 2)
    most = torch.tensor([width - 1.0, height - 1.0] * 2)  # a mirror shows no more than the picture
    x0, y0, x1, y1 = (int(m) for m in torch.minimum(margin.clamp(min=0), most).ceil())
    x = F.pad(x, [x0, x1, y0, y1], mode="reflect")
    inverse = _shift((x0 - x1) / 2, (y0 - y1) / 2) @ inverse

    # At twice the resolution, sampled bilinearly, and back.
    taps = setup_filter(_SYM6).to(x.device)
    up = (len(_SYM6) + 1) // 2, (len(_SYM6) - 2) // 2
    x = upfirdn2d(x, taps, up=2, padding=[*up, *up], gain=4.0)
    inverse = _scale(2, 2) @ inverse @ _scale(0.5, 0.5)
    inverse = _shift(-0.5, -0.5) @ inverse @ _shift(0.5, 0.5)
    out = [x.shape[0], x.shape[1], (height + 2 * _REACH) * 2, (width + 2 * _REACH) * 2]
    inverse = _scale(2 / x.shape[3], 2 / x.shape[2]) @ inverse @ _scale(out[3] / 2, out[2] / 2)
    grid = F.affine_grid(inverse[:, :2].to(x.device, x.dtype), out, align_corners=False)
    x = _sampled(x, grid)
    down = (len(_SYM6) - 2) // 2 - 2 * _REACH
    return upfirdn2d(x, taps, down=2, padding=down, flip_filter=True)


def recoloured(x: Tensor, change: Tensor) -> Tensor:
    """Pictures under a change of colour, of each RGB triple of their channels alike.

    Args:
        x: [B, 3 k, H, W].
        change: [B, 4, 4], from `colour`.
    """
    change = change.to(x.device, x.dtype)
    triples = x.reshape(x.shape[0], -1, 3, x.shape[2] * x.shape[3])  # [B, k, 3, HW]
    triples = change[:, None, :3, :3] @ triples + change[:, None, :3, 3:]
    return triples.reshape(x.shape)


def augment(img: Tensor, frames: int, chance: Chance) -> Tensor:
    """Clips, augmented.

    Args:
        img: [B * frames, 3, R, R], frame index fastest. Gradients pass to any order.
        frames: Of a clip.
        chance: Random numbers of B clips.
    Returns:
        [B * frames, 3, R, R].
    """
    clips = img.reshape(-1, frames * 3, *img.shape[2:])
    return recoloured(moved(clips, geometry(chance, img.shape[3])), colour(chance)).reshape(
        img.shape
    )


@dataclass
class Adaptive:
    """The strength of augmentation, led by how sure the discriminator is of real clips.

    Args:
        target: Mean sign of D(real) that is aimed at.
        kimg: Thousands of clips over which p can go from 0 to 1.
        interval: Steps between moves.
        p_max: Ceiling. None was published, but near 1 augmentations show in what is generated.
        p: Where it is.
    """

    target: float = 0.6
    kimg: float = 100.0
    interval: int = 4
    p_max: float = 0.85
    p: float = 0.0

    def __post_init__(self) -> None:
        self._signs = torch.zeros(
            2, dtype=torch.float64
        )  # their sum and number since the last move

    def heard(self, step: int, signs: float, clips: int) -> None:
        """After each step: the sum of sign(D(real)) and how many clips it is over."""
        self._signs += torch.tensor([signs, clips], dtype=torch.float64)
        if step % self.interval == 0 and self._signs[1] > 0:
            mean = float(self._signs[0] / self._signs[1])
            towards = (mean > self.target) - (mean < self.target)
            self.p += towards * clips * self.interval / (self.kimg * 1000)
            self.p = min(max(self.p, 0.0), self.p_max)
            self._signs.zero_()

    def state(self) -> Tensor:
        """float64 [3]; what `load` takes."""
        return torch.cat([torch.tensor([self.p], dtype=torch.float64), self._signs])

    def load(self, state: Tensor) -> None:
        """Takes up where another left off."""
        self.p = float(state[0])
        self._signs = state[1:].double().clone()
