"""filtered_lrelu: bias, upsample, leaky ReLU, gain, clamp, downsample."""

from __future__ import annotations

from torch import Tensor

from kernels_triton.bias_act import bias_act
from kernels_triton.choice import needs_gradient, reference_wanted, torch_wanted, watched
from kernels_triton.filtered_lrelu import reference
from kernels_triton.upfirdn2d import upfirdn2d
from kernels_triton.upfirdn2d.op import Factor, filter_size, four


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Factor = 0,
    gain: float = 2**0.5,
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
) -> Tensor:
    """Per channel:

    1. Add the bias. This comes before the padding: the padded border does not receive it.
    2. Insert `up - 1` zeros after every sample, pad (a negative number crops; counted in the
       upsampled grid), convolve with `fu`, multiply by `up^2`.
    3. Multiply negative values by `slope`.
    4. Multiply by `gain`.
    5. Clamp to [-clamp, clamp]. This is before the second filter, so results may exceed it.
    6. Convolve with `fd`, keep every `down`-th sample.

    Args:
        x: [N, C, H, W], floating point.
        fu, fd: [taps] (separable) or [fh, fw], constants; None is the identity.
        b: [C] in the dtype of x, or None.
        up, down: Whole factors for both axes.
        padding: One number, [x, y], or [x before, x after, y before, y after].
        clamp: None is no limit.
        flip_filter: Correlate instead of convolving.
    Returns:
        [N, C, (H*up + pads - (fuh-1) - (fdh-1) + (down-1)) // down, the same of W], dtype of x.
    Raises:
        ValueError: shapes do not fit, or nothing is left of the picture.
    Source: Karras et al., Alias-Free Generative Adversarial Networks (NeurIPS 2021), Sec. 3.2.
    """
    pad = four(padding)
    if x.ndim != 4 or (b is not None and b.shape != x.shape[1:2]):
        shape = None if b is None else list(b.shape)
        raise ValueError(f"x {list(x.shape)} and b {shape} do not fit: [N, C, H, W] and [C]")
    if up < 1 or down < 1:
        raise ValueError(f"up {up} and down {down} must be 1 or more")
    width, height = _output_size(x, fu, fd, up, down, pad)
    if width < 1 or height < 1:
        raise ValueError(f"padding {pad} leaves a picture of {width}x{height}: pad more")
    if reference_wanted():
        return reference.filtered_lrelu(
            x, fu, fd, b, up, down, pad, gain, slope, clamp, flip_filter
        )
    if not torch_wanted() and _one_pass(x, fu, fd, b, up, down, pad):
        from kernels_triton.filtered_lrelu import simd_cpu  # imports numba: only where it runs

        size = (height, width)
        if simd_cpu.supports(x, fu, fd, up, down, pad[0], size, gain, slope):
            assert fu is not None and fd is not None
            return simd_cpu.run(
                x, fu, fd, b, up, pad[0], size, gain, slope, clamp, flip_filter=flip_filter
            )
    y = x if b is None else x + b[:, None, None]
    y = upfirdn2d(y, fu, up=up, padding=pad, flip_filter=flip_filter, gain=float(up * up))
    own = y is not x  # else it is the caller's memory
    y = bias_act(y, act="lrelu", alpha=slope, gain=gain, clamp=clamp, inplace=own)
    return upfirdn2d(y, fd, down=down, flip_filter=flip_filter)


def _one_pass(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    pad: tuple[int, int, int, int],
) -> bool:
    """Whether the fused CPU kernel may be asked: inference on a CPU, both axes padded alike."""
    return (
        x.device.type == "cpu"
        and down == 2
        and pad[0] == pad[2]
        and not needs_gradient(x, b)
        and not watched(x)
    )


def _output_size(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    up: int,
    down: int,
    pad: tuple[int, int, int, int],
) -> tuple[int, int]:
    """[width, height] of the result."""
    (fuw, fuh), (fdw, fdh) = filter_size(fu), filter_size(fd)
    width = (x.shape[3] * up + pad[0] + pad[1] - (fuw - 1) - (fdw - 1) + (down - 1)) // down
    height = (x.shape[2] * up + pad[2] + pad[3] - (fuh - 1) - (fdh - 1) + (down - 1)) // down
    return width, height
