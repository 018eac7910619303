"""What bench/kernels.py measures of the ops that inference runs: channels-last and fused.

Each stands beside the official order: what the published networks do in its place, operator by
operator, in this project's reference code, on the planar layout that they use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.work import Part, filter_work
from kernels_triton import implementation

HALF = {"cpu": torch.bfloat16, "cuda": torch.float16}
LIMIT = 256.0
# How far a sum of separable filters may draw from the radial filter that it stands for, relative to
# the largest value. With as many terms as `models.fused` takes it is 3e-10 in float32 and 6e-7 in
# half precision; with one fewer, 5e-7 and 2e-4.
FILTER_ERROR = {torch.float32: 1e-7, torch.bfloat16: 1e-5, torch.float16: 1e-5}


@dataclass(frozen=True)
class Trial:
    """One op at one size in one storage type, its inputs made.

    Args:
        call: Runs it into `out`, memory made once, and returns what is checked.
        out: Is poisoned before the check.
        exact: The definition in float64 on the same numbers.
        plain: The definition in the storage type: what rounding alone does.
        official: The official order, in float32 (float16 on CUDA where the storage type is).
        part: Its work, for the roofline.
        levels: The result is bytes, and its error counts in levels.
        meant: In float64, what the definition stands for where it is an approximation itself.
        tolerance: How far the definition may be from that, relative to the largest value.
    """

    call: Callable[[], Tensor]
    out: Tensor
    exact: Callable[[], Tensor]
    plain: Callable[[], Tensor]
    official: Callable[[], object]
    part: Part
    levels: bool = False
    meant: Callable[[], Tensor] | None = None
    tolerance: float = 0.0


@dataclass(frozen=True)
class FusedCase:
    """One op at one size. `goal` is how many times the official order's speed it should reach."""

    op: str
    label: str
    make: Callable[[Maker], Trial]
    goal: float | None = None
    halves: bool = True  # it also stores half precision


@dataclass(frozen=True)
class Maker:
    """Random inputs from a generator, rounded to the storage type."""

    device: str
    dtype: torch.dtype
    generator: torch.Generator

    def plain(self, *shape: int, spread: float = 1.0) -> Tensor:
        """float32 on the device."""
        return (torch.randn(*shape, generator=self.generator) * spread).to(self.device)

    def stored(self, *shape: int, spread: float = 1.0) -> Tensor:
        """The same in the storage type."""
        return self.plain(*shape, spread=spread).to(self.dtype)

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.empty(shape, dtype=dtype or self.dtype, device=self.device)

    @property
    def official_dtype(self) -> torch.dtype:
        return self.dtype if self.device.startswith("cuda") else torch.float32


def planar(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, H, W, C] as the published networks hold it: [N, C, H, W], contiguous."""
    return x.permute(0, 3, 1, 2).to(dtype).contiguous()


def double(value: Any) -> Any:
    """A dataclass of tensors, or a tensor, in float64."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(double(one) for one in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    changed = {
        field.name: double(getattr(value, field.name)) for field in dataclasses.fields(value)
    }
    return dataclasses.replace(value, **changed)


def referred(call: Callable[..., Any], *given: Any, **more: Any) -> Callable[[], Any]:
    """A call of the definition."""

    def run() -> Any:
        with torch.inference_mode(), implementation("reference"):
            return call(*given, **more)

    return run


def trial_of(
    m: Maker,
    op: Callable[..., Any],
    given: Sequence[Any],
    out: Tensor,
    official: Callable[[], Any],
    part: Part,
    **more: Any,
) -> Trial:
    """Of an op that is called as `op(*given, out=...)`."""

    def call() -> Any:
        with torch.inference_mode():
            return op(*given, **more, out=out)

    wide = torch.empty_like(out, dtype=torch.float64) if out.is_floating_point() else out.clone()
    exact = referred(op, *map(double, given), **{k: double(v) for k, v in more.items()}, out=wide)
    plain = referred(op, *given, **more, out=torch.empty_like(out))
    return Trial(call, out, exact, plain, official, part, levels=not out.is_floating_point())


def filtered_lrelu_case(
    up: int, channels: int, size: int, radial: bool = False, goal: float | None = None
) -> FusedCase:
    """A layer of StyleGAN3 that keeps its rate (up 2) or doubles it (up 4)."""
    outputs = size - 2 if up == 2 else 2 * (size - 12)
    total = (outputs - 1) * 2 + 1 - size * up + 6 * up + 12 - 2
    before = (total + up) // 2

    def make(m: Maker) -> Trial:
        from kernels_triton.filtered_lrelu import (
            Resampling,
            filtered_lrelu,
            fused_filtered_lrelu,
        )
        from models.backbones.filters import design_lowpass_filter
        from models.fused.stylegan3 import EXACT, ROUGH

        rate = 128.0 * up
        fu = design_lowpass_filter(6 * up, 45.0, 50.0, rate)
        fd = design_lowpass_filter(12, 60.0, 60.0, rate, radial)
        assert fu is not None and fd is not None
        tolerance = EXACT if m.dtype == torch.float32 else ROUGH
        how = Resampling.of(fu, fd, up=up, pad=before, clamp=LIMIT, tolerance=tolerance)
        x, bias = m.stored(1, size, size, channels), m.plain(channels, spread=0.3)
        padding = [before, total - before, before, total - before]
        scales = {name: 1 + m.plain(1, channels, spread=0.1) for name in ("scale_in", "scale_out")}
        dtype = m.official_dtype
        official = referred(
            filtered_lrelu,
            planar(x, dtype),
            fu.to(m.device),
            fd.to(m.device),
            bias.to(dtype),
            up=up,
            down=2,
            padding=padding,
            clamp=LIMIT,
        )

        def meant() -> Tensor:
            """With the filter as it was designed."""
            y = referred(
                filtered_lrelu,
                planar(x.double() * scales["scale_in"].double()[:, None, None], torch.float64),
                fu.double().to(m.device),
                fd.double().to(m.device),
                bias.double(),
                up=up,
                down=2,
                padding=padding,
                clamp=LIMIT,
            )()
            return y.permute(0, 2, 3, 1) * scales["scale_out"].double()[:, None, None]

        terms = len(how.down_terms)
        part = Part(
            "filters",
            vector=channels * filter_work(size, outputs, up, 6 * up, 2, 12, terms, radial),
            elements=channels * (size**2 + outputs**2),
        )
        out = m.empty(1, outputs, outputs, channels)
        given = (x, how, (outputs, outputs))
        trial = trial_of(m, fused_filtered_lrelu, given, out, official, part, bias=bias, **scales)
        return dataclasses.replace(trial, meant=meant, tolerance=FILTER_ERROR[m.dtype])

    kind = ", radial" if radial else ""
    label = f"up {up}, down 2{kind}, {channels}x{size}x{size}"
    return FusedCase("fused_filtered_lrelu", label, make, goal)


TAPS = (0.25, 0.75, 0.75, 0.25)  # [1, 3, 3, 1] with the gain of doubling


def fir_bias_act_case(channels: int, size: int) -> FusedCase:
    """What follows StyleGAN2's transposed convolution to `size`."""

    def make(m: Maker) -> Trial:
        from kernels_triton.bias_act import Epilogue, bias_act
        from kernels_triton.upfirdn2d import fir_bias_act, upfirdn2d

        x = m.stored(1, size + 1, size + 1, channels)
        noise = m.plain(size, size, spread=0.1)
        end = Epilogue(m.plain(channels), noise, clamp=LIMIT)
        scale_in, scale_out = (1 + m.plain(1, channels, spread=0.1) for _ in range(2))
        taps, dtype = torch.tensor(TAPS, device=m.device), m.official_dtype
        wide = planar(x, dtype)

        def order() -> Tensor:
            y = upfirdn2d(wide, torch.outer(taps, taps), padding=1)
            return bias_act(y + noise.to(dtype), end.bias.to(dtype), act="lrelu", clamp=LIMIT)

        elements = channels * ((size + 1) ** 2 + size**2)
        work = 2.0 * channels * 4 * ((size + 1) * size + size * size)
        part = Part("filter", vector=work, elements=elements)
        out = m.empty(1, size, size, channels)
        scales = {"scale_in": scale_in, "scale_out": scale_out}
        return trial_of(m, fir_bias_act, (x, TAPS, 1, end), out, referred(order), part, **scales)

    return FusedCase("fir_bias_act", f"4 taps, {channels}x{size}x{size}", make)


def bias_act_torgb_case(channels: int, size: int) -> FusedCase:
    """What follows the last convolution of a resolution: activation, picture, doubled skip."""

    def make(m: Maker) -> Trial:
        from kernels_triton.bias_act import Epilogue, Skip, bias_act, bias_act_torgb
        from kernels_triton.modulated_conv import modulated_conv2d_resample
        from kernels_triton.upfirdn2d import setup_filter, upsample2d

        x = m.stored(1, size, size, channels)
        noise = m.plain(size, size, spread=0.1)
        end = Epilogue(m.plain(channels), noise, clamp=LIMIT)
        skip = Skip(m.plain(3, channels, spread=channels**-0.5), m.plain(3), LIMIT, TAPS)
        style, before = 1 + m.plain(1, channels, spread=0.1), m.plain(1, size // 2, size // 2, 3)
        scales = {k: 1 + m.plain(1, channels, spread=0.1) for k in ("scale_in", "scale_out")}
        features, image = (
            m.empty(1, size, size, channels),
            m.empty(1, size, size, 3, dtype=torch.float32),
        )
        dtype = m.official_dtype
        wide, small = planar(x, dtype), planar(before, torch.float32)
        weight, f = skip.weight[:, :, None, None], setup_filter([1.0, 3, 3, 1]).to(m.device)

        def order() -> Tensor:
            y = wide + noise.to(dtype)
            y = bias_act(y, end.bias.to(dtype), act="lrelu", clamp=LIMIT)
            rgb = modulated_conv2d_resample(y, weight, style, demodulate=False)
            rgb = bias_act(rgb, skip.bias.to(dtype), clamp=LIMIT).float()
            return upsample2d(small, f) + rgb

        def drawn(end: Any, skip: Any, before: Tensor, x: Tensor) -> Tensor:
            picture = torch.empty_like(before).new_empty(1, size, size, 3)
            return bias_act_torgb(x, end, skip, style, before, picture, **scales)

        def call() -> Tensor:
            with torch.inference_mode():
                return bias_act_torgb(x, end, skip, style, before, image, **scales, out=features)

        part = Part(
            "picture",
            vector=2.0 * 3 * channels * size**2,
            elements=2 * channels * size**2,
            plain=4.0 * 3 * (size**2 + (size // 2) ** 2),
        )
        exact = referred(exact_picture, x, end, skip, style, before, scales["scale_in"])
        plain = referred(drawn, end, skip, before, x)
        return Trial(call, image, exact, plain, referred(order), part)

    return FusedCase("bias_act_torgb", f"{channels}x{size}x{size}", make)


def exact_picture(
    x: Tensor, end: Any, skip: Any, style: Tensor, before: Tensor, scale_in: Tensor
) -> Tensor:
    """`bias_act_torgb`'s picture in float64."""
    from kernels_triton.bias_act import reference

    image = torch.empty(*x.shape[:3], 3, dtype=torch.float64, device=x.device)
    return reference.bias_act_torgb(
        x.double(),
        double(end),
        double(skip),
        style.double(),
        before.double(),
        image,
        scale_in.double(),
        None,
        None,
    )


def torgb_i420_case(channels: int, size: int) -> FusedCase:
    """StyleGAN3's last layer, straight to I420."""

    def make(m: Maker) -> Trial:
        from kernels_triton.bias_act import bias_act
        from kernels_triton.modulated_conv import modulated_conv2d
        from kernels_triton.rgb_to_i420 import rgb_to_i420
        from kernels_triton.torgb_i420 import ToRgb, torgb_i420

        x = m.stored(1, size, size, channels)
        to = ToRgb(m.plain(3, channels, spread=channels**-0.5), m.plain(3), LIMIT, 0.25)
        style, dtype = 1 + m.plain(1, channels, spread=0.1), m.official_dtype
        wide, weight = planar(x, dtype), to.weight[:, :, None, None]

        def order() -> Tensor:
            rgb = modulated_conv2d(wide, weight, style, demodulate=False)
            rgb = bias_act(rgb, to.bias.to(dtype), clamp=LIMIT) * to.gain
            return rgb_to_i420(rgb.float())

        part = Part(
            "picture",
            vector=2.0 * 3 * channels * size**2,
            elements=channels * size**2,
            plain=1.5 * size**2,
        )
        out = m.empty(1, size * 3 // 2, size, dtype=torch.uint8)
        return trial_of(m, torgb_i420, (x, to, style), out, referred(order), part)

    return FusedCase("torgb_i420", f"{channels}x{size}x{size}", make)


def image_to_i420_case(size: int) -> FusedCase:
    """A finished picture to what an encoder reads."""

    def make(m: Maker) -> Trial:
        from kernels_triton.rgb_to_i420 import image_to_i420, rgb_to_i420

        image = m.plain(1, size, size, 3, spread=0.5)
        part = Part("i420", plain=(4 * 3 + 1.5) * size**2)
        out = m.empty(1, size * 3 // 2, size, dtype=torch.uint8)
        official = referred(rgb_to_i420, planar(image, torch.float32))
        trial = trial_of(m, image_to_i420, (image,), out, official, part)
        exact = referred(rgb_to_i420, planar(image, torch.float64))  # the op itself takes float32
        return dataclasses.replace(trial, exact=exact)

    return FusedCase("image_to_i420", f"{size}x{size}", make, halves=False)


def fused_cases(device: str) -> list[FusedCase]:
    """The registry: StyleGAN layers that a CPU has time for, and on a GPU published ones too."""
    from bench.fused_input_cases import fourier_case, packed_conv_case, styles_case

    first = [
        filtered_lrelu_case(2, 64, 148, goal=None if device.startswith("cuda") else 25.0),
        filtered_lrelu_case(4, 64, 148, goal=None if device.startswith("cuda") else 80.0),
        filtered_lrelu_case(2, 64, 148, radial=True),
    ]
    if not device.startswith("cuda"):
        return [
            *first,
            fir_bias_act_case(32, 256),
            bias_act_torgb_case(32, 256),
            torgb_i420_case(32, 256),
            *(image_to_i420_case(side) for side in (256, 512, 1024)),
            fourier_case(32, 36),
            styles_case(32, 10, 64),
            packed_conv_case(64, 148, 3),
        ]
    return [
        *first,
        filtered_lrelu_case(2, 128, 532),
        filtered_lrelu_case(4, 128, 276),
        filtered_lrelu_case(2, 128, 532, radial=True),
        fir_bias_act_case(64, 1024),
        bias_act_torgb_case(64, 1024),
        torgb_i420_case(32, 1024),
        *(image_to_i420_case(side) for side in (256, 512, 1024)),
        fourier_case(512, 36),
        styles_case(512, 14, 512),
        packed_conv_case(512, 52, 3),
        packed_conv_case(256, 276, 3),
        packed_conv_case(512, 148, 1),
    ]
