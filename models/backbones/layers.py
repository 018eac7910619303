"""Equalised-rate dense and convolution layers.

Sources: Karras et al., Progressive Growing of GANs (ICLR 2018), Sec. 4.1 (equalised learning rate:
weights are stored with unit variance and scaled at run time); Karras et al., StyleGAN2 (CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels_triton.bias_act import bias_act, default_gain
from kernels_triton.conv2d_resample import conv2d_resample
from kernels_triton.upfirdn2d import setup_filter


class FullyConnectedLayer(nn.Module):
    """Dense layer: `act(x @ (weight * lr_multiplier / sqrt(in))^T + bias * lr_multiplier)`.

    Args:
        in_features, out_features: Sizes.
        activation: A name known to `bias_act`, with its default gain.
        bias: Whether there is one.
        lr_multiplier: Run-time scale of weight and bias; what is stored is drawn larger by its
            inverse.
        weight_init: Standard deviation of the effective weight before the fan-in scale.
        bias_init: Effective bias at the start: one number or one per output.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str = "linear",
        bias: bool = True,
        lr_multiplier: float = 1.0,
        weight_init: float = 1.0,
        bias_init: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        self.weight_gain = lr_multiplier / in_features**0.5
        self.bias_gain = lr_multiplier
        self.weight = nn.Parameter(
            torch.randn(out_features, in_features) * (weight_init / lr_multiplier)
        )
        start = torch.as_tensor(bias_init, dtype=torch.float32).expand(out_features)
        self.bias = nn.Parameter(start / lr_multiplier) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_features] to [N, out_features]."""
        b = None if self.bias is None else self.bias.to(x.dtype)
        if b is not None and self.bias_gain != 1:
            b = b * self.bias_gain
        # Scaling x costs N*I, scaling the weight O*I.
        x = F.linear(x * self.weight_gain, self.weight.to(x.dtype), b)
        return bias_act(x, act=self.activation, dim=-1, inplace=True)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.activation}"


class Conv2dLayer(nn.Module):
    """Plain convolution, optionally enlarging or reducing, then bias and activation.

    Args:
        in_channels, out_channels, kernel_size: Of the convolution.
        bias: Whether there is one.
        activation: A name known to `bias_act`.
        up, down: Resampling factor.
        resample_filter: Taps for it.
        conv_clamp: Limit of the result's magnitude (times the gain of the call); None is no limit.
        channels_last: Keep the weight in this memory format.
        trainable: False stores weight and bias as buffers under the same names.
    Source: Karras et al., StyleGAN2 (CVPR 2020).
    """

    resample_filter: Tensor
    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        resample_filter: Sequence[float] | Sequence[Sequence[float]] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        channels_last: bool = False,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.activation = activation
        self.up = up
        self.down = down
        self.conv_clamp = conv_clamp
        self.padding = kernel_size // 2
        self.weight_gain = 1 / (in_channels * kernel_size**2) ** 0.5
        self.act_gain = default_gain(activation)
        self.register_buffer("resample_filter", setup_filter(resample_filter))
        layout = torch.channels_last if channels_last else torch.contiguous_format
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
        weight = weight.to(memory_format=layout)
        offset = torch.zeros(out_channels) if bias else None
        if trainable:
            self.weight = nn.Parameter(weight)
            self.bias = None if offset is None else nn.Parameter(offset)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("bias", offset)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, H*up/down, W*up/down]; `gain` also scales
        the clamp.
        """
        x = conv2d_resample(
            x,
            (self.weight * self.weight_gain).to(x.dtype),
            self.resample_filter,
            up=self.up,
            down=self.down,
            padding=self.padding,
            flip_weight=self.up == 1,
            bias=None if self.bias is None else self.bias.to(x.dtype),
        )
        return bias_act(
            x,
            act=self.activation,
            gain=self.act_gain * gain,
            clamp=None if self.conv_clamp is None else self.conv_clamp * gain,
            inplace=True,
        )

    def extra_repr(self) -> str:
        size = f"{self.in_channels} -> {self.out_channels}, {self.activation}"
        return f"{size}, up {self.up}, down {self.down}"
