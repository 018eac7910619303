"""Alias-Free Generative Adversarial Networks. Karras, Aittala, Laine, Harkonen, Hellsten, Lehtinen,
Aila, NeurIPS 2021.
https://arxiv.org/abs/2106.12423

Configurations T (3x3 kernels, separable filters) and R (1x1 kernels, radial filters, twice the
channels). Names of arguments, parameters and buffers are those of the published checkpoints.
Different here: convolution outputs that no picture reads are not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from kernels_triton.filtered_lrelu import filtered_lrelu
from kernels_triton.modulated_conv import modulated_conv2d
from models.backbones.filters import design_lowpass_filter
from models.backbones.layers import FullyConnectedLayer
from models.backbones.mapping import ImageGenerator
from models.errors import BadConfig

Size = int | Sequence[int] | np.ndarray


def _width_height(size: Size) -> tuple[int, int]:
    width, height = np.broadcast_to(np.asarray(size), [2])
    return int(width), int(height)


class SynthesisInput(nn.Module):
    """Fourier features under a learned rotation and translation. Sec. 3.2, appendix F.

    Args:
        w_dim: Size of the latent that steers rotation and translation.
        channels: Features that go out.
        size: Side or [width, height] of what goes out, samples.
        sampling_rate: Samples per unit length; the picture has length 1.
        bandwidth: Frequencies are drawn within this radius.
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor
    columns: Tensor
    rows: Tensor

    def __init__(
        self, w_dim: int, channels: int, size: Size, sampling_rate: float, bandwidth: float
    ) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.channels = channels
        self.sampling_rate = float(sampling_rate)
        self.bandwidth = float(bandwidth)
        width, height = _width_height(size)

        # Frequencies uniform in the disc, phases uniform.
        v = torch.randn(channels, 2)
        radius = v.square().sum(1, keepdim=True)
        freqs = v * radius.rsqrt() * torch.exp(radius * -0.25) * self.bandwidth
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = FullyConnectedLayer(w_dim, 4, weight_init=0, bias_init=[1, 0, 0, 0])
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        # Half-pixel centres: the picture spans [-1/2, 1/2].
        columns = (torch.arange(width, dtype=torch.float64) + 0.5 - width / 2) / self.sampling_rate
        rows = (torch.arange(height, dtype=torch.float64) + 0.5 - height / 2) / self.sampling_rate
        self.register_buffer("columns", columns.to(torch.float32), persistent=False)
        self.register_buffer("rows", rows.to(torch.float32), persistent=False)

    def forward(self, w: Tensor) -> Tensor:
        """[N, w_dim] to [N, channels, height, width], never in half precision."""
        # Motion of the plane: rotation, translation, then the user's own (which is the inverse of
        # what the picture shall do).
        t = self.affine(w)  # [N, 4]
        t = t * t[:, :2].square().sum(1, keepdim=True).rsqrt()
        cos, sin, dx, dy = t.unbind(1)
        turn = torch.stack([cos, -sin, sin, cos], dim=1).reshape(-1, 2, 2)
        move = turn @ torch.stack([-dx, -dy], dim=1)[:, :, None]
        motion = torch.cat([turn, move], dim=2) @ self.transform  # [N, 2, 3]

        # Translation enters as phase. Frequencies pushed out of the band fade to nothing.
        phases = self.phases + (self.freqs @ motion[:, :, 2:])[:, :, 0]  # [N, C]
        freqs = self.freqs @ motion[:, :, :2]  # [N, C, 2]
        excess = freqs.square().sum(2).sqrt() - self.bandwidth
        amplitudes = (1 - excess / (self.sampling_rate / 2 - self.bandwidth)).clamp(0, 1)

        # Waves.
        along_x = self.columns[None, :, None] * freqs[:, None, :, 0]  # [N, W, C]
        along_y = self.rows[None, :, None] * freqs[:, None, :, 1] + phases[:, None]  # [N, H, C]
        turns = along_y[:, :, None] + along_x[:, None]  # [N, H, W, C]
        x = torch.sin(turns * (2 * np.pi)) * amplitudes[:, None, None]

        # Mixing.
        x = x @ (self.weight.t() * self.channels**-0.5)
        return x.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.channels} channels, rate {self.sampling_rate}, band {self.bandwidth}"


class SynthesisLayer(nn.Module):
    """Modulated convolution, then a leaky ReLU at a higher sampling rate. Sec. 3.2, Fig. 4b.

    Args:
        w_dim: Size of the latent its style comes from.
        is_torgb: The last layer: 1x1, no demodulation, no filters, linear.
        is_critically_sampled: Its cutoff is half its sampling rate; never a radial filter.
        use_fp16: Half precision on CUDA.
        in_channels, out_channels: Of the convolution.
        in_size, out_size: Side or [width, height], samples.
        in_sampling_rate, out_sampling_rate: Samples per unit length.
        in_cutoff, out_cutoff: Of the filters before and after the nonlinearity.
        in_half_width, out_half_width: Half the width of their transition bands.
        conv_kernel: Side of the kernel.
        filter_size: Taps per filter and unit of its resampling factor.
        lrelu_upsampling: Sampling rate of the nonlinearity relative to the higher of both.
        use_radial_filters: Radially symmetric filters for downsampling.
        conv_clamp: Limit of the magnitude at the high rate; None is no limit.
        magnitude_ema_beta: Decay of the running mean square of the input.
    """

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(
        self,
        w_dim: int,
        is_torgb: bool,
        is_critically_sampled: bool,
        use_fp16: bool,
        in_channels: int,
        out_channels: int,
        in_size: Size,
        out_size: Size,
        in_sampling_rate: float,
        out_sampling_rate: float,
        in_cutoff: float,
        out_cutoff: float,
        in_half_width: float,
        out_half_width: float,
        conv_kernel: int = 3,
        filter_size: int = 6,
        lrelu_upsampling: int = 2,
        use_radial_filters: bool = False,
        conv_clamp: float | None = 256,
        magnitude_ema_beta: float = 0.999,
    ) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.is_torgb = is_torgb
        self.use_fp16 = use_fp16
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.in_size = _width_height(in_size)
        self.out_size = _width_height(out_size)
        self.conv_kernel = 1 if is_torgb else conv_kernel
        self.conv_clamp = conv_clamp
        self.magnitude_ema_beta = magnitude_ema_beta

        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(
            torch.randn(out_channels, in_channels, self.conv_kernel, self.conv_kernel)
        )
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("magnitude_ema", torch.ones([]))

        # The nonlinearity runs at `rate`; both filters are designed for it. Appendix C.
        rate = max(in_sampling_rate, out_sampling_rate) * (1 if is_torgb else lrelu_upsampling)
        self.up_factor = _whole(rate / in_sampling_rate)
        self.down_factor = _whole(rate / out_sampling_rate)
        up_taps = filter_size * self.up_factor if self.up_factor > 1 and not is_torgb else 1
        down_taps = filter_size * self.down_factor if self.down_factor > 1 and not is_torgb else 1
        radial = use_radial_filters and not is_critically_sampled
        up_filter = design_lowpass_filter(up_taps, in_cutoff, in_half_width * 2, rate)
        down_filter = design_lowpass_filter(down_taps, out_cutoff, out_half_width * 2, rate, radial)
        self.register_buffer("up_filter", up_filter)
        self.register_buffer("down_filter", down_filter)
        spans = [
            self._span(size_in, size_out, up_taps, down_taps)
            for size_in, size_out in zip(self.in_size, self.out_size, strict=True)
        ]
        self.padding = [p for _, *pads in spans for p in pads]
        # Rings of the full convolution that nobody reads are not computed.
        unread = min(rings for rings, *_ in spans)
        self.conv_padding = self.conv_kernel - 1 - unread
        self.inner_padding = [p + unread * self.up_factor for p in self.padding]

    def _span(
        self, size_in: int, size_out: int, up_taps: int, down_taps: int
    ) -> tuple[int, int, int]:
        """One axis: (unread rings of the full convolution, padding before, padding after)."""
        up, down, k = self.up_factor, self.down_factor, self.conv_kernel
        total = (size_out - 1) * down + 1 - (size_in + k - 1) * up + up_taps + down_taps - 2
        # Samples sit at pixel centres: without `+ up` the picture would drift from layer to layer.
        before = (total + up) // 2
        # Column c of the convolution lands on c * up + before; the filters read [0, reach].
        reach = (size_out - 1) * down + down_taps + up_taps - 2
        first = max(-(before // up), 0)
        last = (reach - before) // up
        unread = min(first, size_in + k - 2 - last, k - 1)
        return max(unread, 0), before, total - before

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        noise_mode: str = "const",
        force_fp32: bool = False,
        update_emas: bool = False,
    ) -> Tensor:
        """One layer.

        Args:
            x: [N, in_channels, in height, in width].
            w: [N, w_dim].
            noise_mode: Accepted, without effect: there is no noise.
            force_fp32: No half precision even on CUDA.
            update_emas: Training: move `magnitude_ema` towards this input first.
        Returns:
            [N, out_channels, out height, out width].
        """
        if update_emas:
            square = x.detach().to(self.magnitude_ema.dtype).square().mean()
            self.magnitude_ema.copy_(
                square + self.magnitude_ema_beta * (self.magnitude_ema - square)
            )
        styles = self.affine(w)
        if self.is_torgb:
            styles = styles * (self.in_channels * self.conv_kernel**2) ** -0.5
        half = self.use_fp16 and not force_fp32 and x.device.type == "cuda"
        dtype = torch.float16 if half else self.weight.dtype
        x = modulated_conv2d(
            x.to(dtype),
            self.weight,
            styles,
            demodulate=not self.is_torgb,
            padding=self.conv_padding,
            input_gain=self.magnitude_ema.rsqrt(),
        )
        return filtered_lrelu(
            x,
            fu=self.up_filter,
            fd=self.down_filter,
            b=self.bias.to(dtype),
            up=self.up_factor,
            down=self.down_factor,
            padding=self.inner_padding,
            gain=1.0 if self.is_torgb else 2**0.5,
            slope=1.0 if self.is_torgb else 0.2,
            clamp=self.conv_clamp,
        )

    def extra_repr(self) -> str:
        size = f"{self.in_channels} -> {self.out_channels}, {self.in_size} -> {self.out_size}"
        return f"{size}, up {self.up_factor}, down {self.down_factor}, padding {self.padding}"


def _whole(factor: float) -> int:
    if factor != int(factor):
        raise BadConfig(f"resampling by {factor}: rates must be whole multiples of each other")
    return int(factor)


@dataclass(frozen=True)
class LayerPlan:
    """What one row of the layer schedule derives, in float64. Sec. 3.2, "Flexible layer
    specifications".
    """

    cutoff: float
    stopband: float
    sampling_rate: float
    half_width: float
    size: int
    channels: int


def plan_layers(
    img_resolution: int,
    img_channels: int,
    channel_base: float,
    channel_max: int,
    num_layers: int,
    num_critical: int,
    first_cutoff: float,
    first_stopband: float,
    last_stopband_rel: float,
    margin_size: int,
) -> list[LayerPlan]:
    """Layers 0 ... num_layers; the last one is ToRGB.

    Raises:
        BadConfig: no layer remains before the critically sampled ones.
    """
    if not 0 <= num_critical < num_layers:
        raise BadConfig(f"num_critical {num_critical} must be 0 or more and below {num_layers}")
    last_cutoff = img_resolution / 2
    last_stopband = last_cutoff * last_stopband_rel
    exponents = np.minimum(np.arange(num_layers + 1) / (num_layers - num_critical), 1)
    cutoffs = first_cutoff * (last_cutoff / first_cutoff) ** exponents
    stopbands = first_stopband * (last_stopband / first_stopband) ** exponents
    rates = np.exp2(np.ceil(np.log2(np.minimum(stopbands * 2, img_resolution))))
    half_widths = np.maximum(stopbands, rates / 2) - cutoffs
    sizes = rates + margin_size * 2
    sizes[-2:] = img_resolution
    channels = np.rint(np.minimum((channel_base / 2) / cutoffs, channel_max))
    channels[-1] = img_channels
    return [
        LayerPlan(float(fc), float(ft), float(s), float(fh), int(size), int(ch))
        for fc, ft, s, fh, size, ch in zip(
            cutoffs, stopbands, rates, half_widths, sizes, channels, strict=True
        )
    ]


class SynthesisNetwork(nn.Module):
    """ws [N, num_ws, w_dim] to pictures [N, img_channels, R, R], nominally in [-1, 1].

    Args:
        w_dim: Size of the latent.
        img_resolution, img_channels: Of the picture.
        channel_base, channel_max: A layer of cutoff fc has min(channel_base / 2 / fc, channel_max)
            channels.
        num_layers: Without ToRGB.
        num_critical: How many of the last layers are critically sampled.
        first_cutoff, first_stopband: Of the first layer, cycles per picture.
        last_stopband_rel: Stop band of the last layer relative to its cutoff.
        margin_size: Samples kept outside the picture on each side.
        output_scale: What the last layer is multiplied by.
        num_fp16_res: How many of the highest sampling rates use half precision on CUDA.
        layer_kwargs: For `SynthesisLayer`.
    Raises:
        BadConfig: impossible schedule.
    """

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: float = 32768,
        channel_max: int = 512,
        num_layers: int = 14,
        num_critical: int = 2,
        first_cutoff: float = 2,
        first_stopband: float = 2**2.1,
        last_stopband_rel: float = 2**0.3,
        margin_size: int = 10,
        output_scale: float = 0.25,
        num_fp16_res: int = 4,
        **layer_kwargs: Any,
    ) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.num_ws = num_layers + 2
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.num_layers = num_layers
        self.num_critical = num_critical
        self.margin_size = margin_size
        self.output_scale = output_scale
        self.num_fp16_res = num_fp16_res
        self.plan = plan_layers(
            img_resolution,
            img_channels,
            channel_base,
            channel_max,
            num_layers,
            num_critical,
            first_cutoff,
            first_stopband,
            last_stopband_rel,
            margin_size,
        )
        first = self.plan[0]
        self.input = SynthesisInput(
            w_dim, first.channels, first.size, first.sampling_rate, bandwidth=first.cutoff
        )
        self.layer_names: list[str] = []
        for index, after in enumerate(self.plan):
            before = self.plan[max(index - 1, 0)]
            layer = SynthesisLayer(
                w_dim,
                is_torgb=index == num_layers,
                is_critically_sampled=index >= num_layers - num_critical,
                use_fp16=after.sampling_rate * 2**num_fp16_res > img_resolution,
                in_channels=before.channels,
                out_channels=after.channels,
                in_size=before.size,
                out_size=after.size,
                in_sampling_rate=before.sampling_rate,
                out_sampling_rate=after.sampling_rate,
                in_cutoff=before.cutoff,
                out_cutoff=after.cutoff,
                in_half_width=before.half_width,
                out_half_width=after.half_width,
                **layer_kwargs,
            )
            name = f"L{index}_{after.size}_{after.channels}"
            self.add_module(name, layer)
            self.layer_names.append(name)

    def layers(self) -> list[SynthesisLayer]:
        """L0 ... ToRGB."""
        return [cast(SynthesisLayer, self._modules[name]) for name in self.layer_names]

    def forward(
        self,
        ws: Tensor,
        noise_mode: str = "const",
        force_fp32: bool = False,
        update_emas: bool = False,
    ) -> Tensor:
        """Pictures.

        Args:
            ws: [N, num_ws, w_dim]: one row for the input, one per layer.
            noise_mode: Accepted, without effect.
            force_fp32: No half precision even on CUDA.
            update_emas: Training: update every `magnitude_ema` first.
        Returns:
            [N, img_channels, R, R] in the dtype of the parameters.
        Raises:
            ValueError: misshapen ws.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"ws must be [N, {self.num_ws}, {self.w_dim}], not {list(ws.shape)}")
        rows = ws.to(self.input.weight.dtype).unbind(dim=1)
        x = self.input(rows[0])
        for layer, w in zip(self.layers(), rows[1:], strict=True):
            x = layer(x, w, noise_mode, force_fp32, update_emas)
        return (x * self.output_scale).to(self.input.weight.dtype).contiguous()

    def extra_repr(self) -> str:
        return f"{self.img_resolution} px, w_dim {self.w_dim}, num_ws {self.num_ws}"


class Generator(ImageGenerator):
    """StyleGAN3: a mapping network of two layers, and synthesis; see `ImageGenerator`."""

    synthesis_network = SynthesisNetwork
    mapping_defaults = {"num_layers": 2}
