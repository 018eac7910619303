"""StyleGAN-V's motion encoder: noise codes, smoothing, and the acyclic time embedding.

"StyleGAN-V: A Continuous Video Generator with the Price, Image Quality and Perks of StyleGAN2",
Skorokhodov, Tulyakov, Elhoseiny, CVPR 2022, https://arxiv.org/abs/2112.14683, Sec. 3.1.

These modules evaluate whole batches of clips from a given tensor of noise, differentiably: for
training and for parity with published weights. Streams are played by `motion.py`, which reads the
same weights. Differences from the authors' code: phases are formed in float64, where float32
loses 1e-4 of a radian at 1000 frames and everything at 10^7; and nothing is read back from `t`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.layers import FullyConnectedLayer
from models.stylegan_v.config import MotionConfig


class EqLRConv1d(nn.Module):
    """Unpadded convolution over codes with equalised learning rate, then leaky ReLU.

    Unlike every other leaky ReLU of the model this one has no gain of sqrt(2).

    Args:
        in_features: Entries of a code.
        out_features: Entries of a smoothed code.
        kernel_size: Codes seen at once.
    """

    LR = 0.01

    def __init__(self, in_features: int, out_features: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features, kernel_size) / self.LR)
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.weight_gain = self.LR / math.sqrt(in_features * kernel_size)
        self.bias_gain = self.LR

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_features, n] to [N, out_features, n - kernel_size + 1]."""
        y = F.conv1d(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return F.leaky_relu(y, 0.2)


class AlignedTimeEncoder(nn.Module):
    """Waves minus their chords, plus a line between two aligners: a motion code at any time.

    Within a segment of `distance` frames the waves' frequencies and phases come from the segment's
    left code; subtracting the chord makes the value at each end depend on that end's code only,
    so that the motion is continuous although the waves of neighbouring segments differ.

    Args:
        v_dim: Entries of a smoothed code u.
        frequencies: Number of waves n; the embedding has 2 n entries.
        min_period: Of the fastest wave, frames.
        max_period: Of the slowest wave, frames.
        distance: Frames between codes.
    """

    freqs: Tensor
    phase_scales: Tensor

    def __init__(
        self, v_dim: int, frequencies: int, min_period: float, max_period: float, distance: float
    ) -> None:
        super().__init__()
        self.distance = distance
        freqs, scales = frequency_tables(frequencies, min_period, max_period)
        self.register_buffer("freqs", freqs)
        self.register_buffer("phase_scales", scales)
        self.periods_predictor = FullyConnectedLayer(v_dim, frequencies, bias=False)
        self.phase_predictor = FullyConnectedLayer(v_dim, frequencies, bias=False)
        self.aligners_predictor = FullyConnectedLayer(v_dim, 2 * frequencies, bias=False)

    def forward(self, left: Tensor, right: Tensor, start: Tensor, tau: Tensor) -> Tensor:
        """Motion codes.

        Args:
            left: Smoothed code at the segment's left end, [N, v_dim].
            right: The one at its right end, [N, v_dim].
            start: Time of the left end, frames, float64 [N].
            tau: Time since then, frames in [0, distance), float64 [N].
        Returns:
            float32 [N, 2 * frequencies]: sines, then cosines.
        """
        # Waves of the left code. Despite its published name, `periods_predictor` scales frequency.
        omega = self.freqs.double() * (1 + torch.tanh(self.periods_predictor(left))).double()
        phase = self.phase_scales * self.phase_predictor(left)  # [N, n]
        base = omega * start[:, None] + phase.double()
        at_start = _waves(base)
        at_end = _waves(base + omega * self.distance)
        wave = _waves(base + omega * tau[:, None])  # [N, 2n]

        # Aligners.
        alpha = (tau / self.distance)[:, None]
        chord = torch.lerp(at_start, at_end, alpha)
        line = torch.lerp(
            self.aligners_predictor(left), self.aligners_predictor(right), alpha.float()
        )
        return (wave - chord).float() + line


class MotionEncoder(nn.Module):
    """From motion noise and times to motion codes v(t).

    Args:
        c_dim: Entries of the label; it is appended to every noise code.
        config: Sizes and times.
    """

    def __init__(self, c_dim: int, config: MotionConfig) -> None:
        super().__init__()
        self.c_dim = c_dim
        self.config = config
        self.time_encoder = AlignedTimeEncoder(
            config.v_dim,
            config.frequencies,
            config.min_period,
            config.max_period,
            config.distance,
        )
        if config.strategy == "conv":
            self.conv = nn.Sequential(
                EqLRConv1d(config.z_dim + c_dim, config.z_dim, config.kernel_size),
                EqLRConv1d(config.z_dim, config.v_dim, config.kernel_size),
            )
        else:
            self.rnn = nn.LSTM(config.z_dim + c_dim, config.z_dim, batch_first=True)

    def draw(self, batch: int, t: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fresh noise for training clips: [batch, n, z_dim] float32 on the device of `t`.

        Reads the greatest time back to the host. Streams take keyed noise instead (`motion.py`).
        """
        last = max(float(t.max()), self.config.max_num_frames - 1.0)
        codes = math.ceil(last / self.config.distance) + 2 + self.config.reach
        return torch.randn(batch, codes, self.config.z_dim, device=t.device, generator=generator)

    def codes(self, motion_z: Tensor, c: Tensor) -> Tensor:
        """Smoothed codes u of a row of noise codes (Sec. 3.1, "Motion codes").

        Args:
            motion_z: Noise, [B, n, z_dim].
            c: Labels, [B, c_dim].
        Returns:
            [B, n - 2 (kernel_size - 1), v_dim]; code j is at time j * distance. With the LSTM as
            many as there are noise codes.
        """
        x = motion_z.float()
        if self.c_dim > 0:
            x = torch.cat([x, c.float()[:, None].expand(-1, x.shape[1], -1)], dim=2)
        if self.config.strategy == "conv":
            return self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.rnn(x)[0]

    def forward(self, t: Tensor, c: Tensor, motion_z: Tensor | None = None) -> Tensor:
        """Motion codes v(t).

        Args:
            t: Times, [B, F] frames of the training data, not negative, float or integer.
            c: Labels, [B, c_dim].
            motion_z: Noise, [>= B, n, >= z_dim]; further rows and columns are ignored. It must
                reach index `floor(t / distance) + 2 kernel_size - 1`. None: drawn afresh.
        Returns:
            float32 [B * F, 2 * frequencies], frame index fastest.
        """
        if motion_z is None:
            motion_z = self.draw(t.shape[0], t)
        u = self.codes(motion_z[: t.shape[0], :, : self.config.z_dim], c)  # [B, n_u, v_dim]

        times = t.double()
        segment = torch.floor(times / self.config.distance)
        start = segment * self.config.distance
        index = segment.long()[:, :, None].expand(-1, -1, u.shape[2])  # [B, F, v_dim]
        left = torch.gather(u, 1, index).flatten(0, 1)  # [B * F, v_dim]
        right = torch.gather(u, 1, index + 1).flatten(0, 1)
        return self.time_encoder(left, right, start.flatten(), (times - start).flatten())


def frequency_tables(
    frequencies: int, min_period: float, max_period: float
) -> tuple[Tensor, Tensor]:
    """Angular frequencies, log-spaced and rising, and what their phases are scaled by.

    Returns:
        Two float32 tensors [1, frequencies]: radians per frame; `max_period / period`.
    """
    exponents = np.linspace(np.log2(min_period), np.log2(max_period), frequencies)
    freqs = torch.from_numpy(np.sort(2 * np.pi / 2.0**exponents)).float()[None]
    return freqs, max_period / (2 * np.pi / freqs)


def _waves(theta: Tensor) -> Tensor:
    return torch.cat([theta.sin(), theta.cos()], dim=1)
