"""What bench/kernels.py measures: every op, at sizes that its callers have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One op at one size.

    Args:
        inputs: Makes the tensors, float32 on the CPU, from a generator.
        call: Runs the op on them.
        implementations: Beside the reference: names for `kernels_triton.implementation`.
        ways: Further ones by name: each makes, of the inputs, what is called without arguments. It
            raises Wrong where it cannot run.
        overwrites: The input whose memory an implementation may take for its result. It gets a
            scratch copy, filled anew before each call, outside the time.
    """

    op: str
    label: str
    inputs: Callable[[Any], dict[str, Any]]
    call: Callable[..., Any]
    implementations: tuple[str, ...] = ("auto",)
    absolute: float | None = None  # allowed error in levels of a byte, instead of MARGIN
    ways: Mapping[str, Callable[..., Callable[[], Any]]] = field(default_factory=dict)
    overwrites: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All that is measured, the reference first."""
        return ("reference", *self.implementations, *self.ways)


class Wrong(Exception):
    """An implementation does not compute what the reference does."""


def chosen(name: str, call: Callable[..., Any], inputs: dict[str, Any]) -> Callable[[], Any]:
    """`call` by one of `kernels_triton`'s implementations, without gradients."""
    import torch

    from kernels_triton import implementation

    def run() -> Any:
        with torch.inference_mode(), implementation(name):
            return call(**inputs)

    return run


def _randn(generator: Any, *shape: int) -> Any:
    import torch

    return torch.randn(*shape, generator=generator)


def _filtered_lrelu(up: int, channels: int, size: int, on_cpu: bool) -> Case:
    """The definition, torch's convolutions; and on a CPU the kernel that does all in one pass."""
    from kernels_triton.filtered_lrelu import filtered_lrelu

    pad = {2: 9, 4: -6}[up]  # a layer of StyleGAN3-T that keeps its rate, and one that doubles it

    def inputs(g: Any) -> dict[str, Any]:
        taps = {"fu": _randn(g, 6 * up) / 3, "fd": _randn(g, 12) / 3}
        return {"x": _randn(g, 1, channels, size, size), **taps, "b": _randn(g, channels)}

    def call(x: Any, fu: Any, fd: Any, b: Any) -> Any:
        return filtered_lrelu(x, fu, fd, b, up=up, down=2, padding=pad, clamp=256.0)

    def one_pass(x: Any, fu: Any, fd: Any, b: Any) -> Callable[[], Any]:
        from kernels_triton.filtered_lrelu import simd_cpu

        height, width = call(x, fu, fd, b).shape[2:]
        if not simd_cpu.supports(x, fu, fd, up, 2, pad, (height, width), 2**0.5, 0.2):
            raise Wrong(f"filtered_lrelu ({label}): the one-pass kernel does not take it here")
        # Asked for as the generators do, so the choice is part of the time.
        return chosen("auto", call, {"x": x, "fu": fu, "fd": fd, "b": b})

    label = f"up {up}, down 2, {channels}x{size}x{size}"
    ways = {"one pass": one_pass} if on_cpu else {}
    return Case("filtered_lrelu", label, inputs, call, ("torch",), ways=ways)


def _upfirdn2d(channels: int, size: int) -> Case:
    from kernels_triton.upfirdn2d import setup_filter, upsample2d

    def inputs(g: Any) -> dict[str, Any]:
        return {"x": _randn(g, 1, channels, size, size), "f": setup_filter([1.0, 3, 3, 1])}

    return Case("upfirdn2d", f"up 2, 4x4 taps, {channels}x{size}x{size}", inputs, upsample2d)


def _bias_act(channels: int, size: int) -> Case:
    """In place, as the generators call it; without that there is only the definition."""
    from kernels_triton.bias_act import bias_act

    def inputs(g: Any) -> dict[str, Any]:
        return {"x": _randn(g, 1, channels, size, size), "b": _randn(g, channels)}

    def call(x: Any, b: Any) -> Any:
        return bias_act(x, b, act="lrelu", clamp=256.0, inplace=True)

    label = f"lrelu, in place, {channels}x{size}x{size}"
    return Case("bias_act", label, inputs, call, overwrites="x")


def _conv2d_resample(channels: int, size: int) -> Case:
    """The strided layer of a discriminator's block."""
    from kernels_triton.conv2d_resample import conv2d_resample
    from kernels_triton.upfirdn2d import setup_filter

    def inputs(g: Any) -> dict[str, Any]:
        w = _randn(g, channels, channels, 3, 3)
        f = setup_filter([1.0, 3, 3, 1])
        return {"x": _randn(g, 1, channels, size, size), "w": w, "f": f, "b": _randn(g, channels)}

    def call(x: Any, w: Any, f: Any, b: Any) -> Any:
        return conv2d_resample(x, w, f, down=2, padding=1, bias=b)

    return Case("conv2d_resample", f"3x3, down 2, {channels}x{size}x{size}", inputs, call)


def _modulated_conv(channels: int, size: int) -> Case:
    """StyleGAN3's."""
    from kernels_triton.modulated_conv import modulated_conv2d

    def inputs(g: Any) -> dict[str, Any]:
        w = _randn(g, channels, channels, 3, 3)
        return {"x": _randn(g, 1, channels, size, size), "w": w, "s": _randn(g, 1, channels)}

    def call(x: Any, w: Any, s: Any) -> Any:
        return modulated_conv2d(x, w, s, padding=2)

    return Case("modulated_conv", f"3x3, {channels}x{size}x{size}", inputs, call)


def _modulated_conv_resample(channels: int, size: int) -> Case:
    """StyleGAN2's, in a layer that doubles the picture."""
    from kernels_triton.modulated_conv import modulated_conv2d_resample
    from kernels_triton.upfirdn2d import setup_filter

    def inputs(g: Any) -> dict[str, Any]:
        return {
            "x": _randn(g, 1, channels, size, size),
            "w": _randn(g, channels, channels, 3, 3),
            "s": _randn(g, 1, channels),
            "f": setup_filter([1.0, 3, 3, 1]),
            "noise": _randn(g, 2 * size, 2 * size),
            "b": _randn(g, channels),
        }

    def call(x: Any, w: Any, s: Any, f: Any, noise: Any, b: Any) -> Any:
        return modulated_conv2d_resample(
            x, w, s, noise, up=2, padding=1, resample_filter=f, flip_weight=False, bias=b
        )

    label = f"StyleGAN2, 3x3, up 2, {channels}x{size}x{size}"
    return Case("modulated_conv", label, inputs, call)


def _rgb_to_i420(size: int, on_cpu: bool) -> Case:
    """The op, which has its definition only; and on a CPU the pass that the engine uses."""
    from kernels_triton.rgb_to_i420 import rgb_to_i420

    def inputs(g: Any) -> dict[str, Any]:
        return {"rgb": _randn(g, 1, 3, size, size) * 0.5}  # some of it beyond [-1, 1]

    ways = {"numba": _numba_i420} if on_cpu else {}
    # Rounding to a byte makes half-way cases differ by one level.
    return Case("rgb_to_i420", f"{size}x{size}", inputs, rgb_to_i420, (), absolute=1.0, ways=ways)


def _numba_i420(rgb: Any) -> Callable[[], Any]:
    import numpy as np
    import torch

    from realtime.i420 import chw_to_i420

    picture = rgb[0].numpy()
    out = np.empty((picture.shape[1] * 3 // 2, picture.shape[2]), np.uint8)

    def call() -> Any:
        chw_to_i420(picture, out)
        return torch.from_numpy(out)[None]

    return call


def cases(device: str) -> list[Case]:
    """The registry: sizes that an interactive model has on a CPU, and a published one on a GPU."""
    on_cpu = not device.startswith("cuda")
    channels, size = (32, 148) if on_cpu else (512, 276)
    return [
        _filtered_lrelu(2, channels, size, on_cpu),
        _filtered_lrelu(4, channels, size // 2, on_cpu),
        _upfirdn2d(channels, size),
        _bias_act(channels, size),
        _conv2d_resample(channels, size),
        _modulated_conv(channels, size),
        _modulated_conv_resample(channels, size // 2),
        *(_rgb_to_i420(side, on_cpu) for side in (256, 512, 1024)),
    ]
