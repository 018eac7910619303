"""Losses of StyleGAN-V: the non-saturating logistic loss and R1, per clip.

Source: behaviour of the published code of StyleGAN-V (https://arxiv.org/abs/2112.14683), whose
configuration has path-length regularisation and style mixing off.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Mean of softplus(-D(fake)), a scalar. Logits [B, 1]."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean of softplus(D(fake)) plus mean of softplus(-D(real)), a scalar."""
    return F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()


def r1_penalty(real_logits: Tensor, real_img: Tensor, frames: int) -> Tensor:
    """Squared gradient of the logits with respect to each frame, averaged over a clip's frames.

    Args:
        real_logits: [B, 1], computed from `real_img` with a graph.
        real_img: [B * frames, C, R, R], a leaf that requires grad, frame index fastest.
        frames: Of a clip.
    Returns:
        [B]; differentiable. Times gamma / 2 it is the published regulariser, applied every 16
        steps and then times 16.
    Source: Mescheder, Geiger, Nowozin, ICML 2018, Eq. 9; the average over frames is the authors'.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_img, create_graph=True)
    return gradient.square().sum([1, 2, 3]).view(-1, frames).mean(1)


def r1_gamma(img_resolution: int, batch: int) -> float:
    """The published heuristic: 0.0002 R^2 / batch, batch in clips."""
    return 0.0002 * img_resolution**2 / batch
