"""upfirdn2d: pad, upsample, filter, downsample; and the filters and paddings that go with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kernels_triton.choice import fused_way, needs_gradient, reference_wanted, watched
from kernels_triton.upfirdn2d import reference, strided

Factor = int | Sequence[int]


def pair(value: Factor, name: str) -> tuple[int, int]:
    """`[x, y]` from one number or two; both at least 1."""
    x, y = (value, value) if isinstance(value, int) else tuple(int(v) for v in value)
    if x < 1 or y < 1:
        raise ValueError(f"{name} is [{x}, {y}]: both factors must be 1 or more")
    return x, y


def four(padding: Factor) -> tuple[int, int, int, int]:
    """`[x before, x after, y before, y after]` from one number, `[x, y]` or all four."""
    if isinstance(padding, int):
        return padding, padding, padding, padding
    numbers = tuple(int(v) for v in padding)
    if len(numbers) == 2:
        return numbers[0], numbers[0], numbers[1], numbers[1]
    if len(numbers) != 4:
        raise ValueError(f"padding has {len(numbers)} numbers: give 1, 2 or 4")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def filter_size(f: Tensor | None) -> tuple[int, int]:
    """`[width, height]` in taps. None is the identity, 1x1; a vector acts along both axes.

    Raises:
        ValueError: not a non-empty vector or matrix.
    """
    if f is None:
        return 1, 1
    if f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(f"a filter is a vector or a matrix of taps, not {list(f.shape)}")
    return f.shape[-1], f.shape[0]


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Factor = 1,
    down: Factor = 1,
    padding: Factor = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Per channel:

    1. Insert `up - 1` zeros after every sample (the last one included) on each axis.
    2. Pad with zeros; a negative number crops. The padding counts in the upsampled grid.
    3. Convolve ("valid") with `f`; correlate when `flip_filter`. Multiply by `gain`.
    4. Keep every `down`-th sample, starting with the first.

    Args:
        x: [N, C, H, W], floating point.
        f: [taps] (separable: along x and along y) or [fh, fw], a constant; None is the identity.
        up, down: One factor or [x, y].
        padding: One number, [x, y], or [x before, x after, y before, y after].
        gain: Applied once in total.
    Returns:
        [N, C, (H*up + pads - fh) // down + 1, the same of W], dtype of x.
    Raises:
        ValueError: a shape or factor is impossible.
    Source: Karras et al., StyleGAN2 (CVPR 2020); the filter conventions are those of StyleGAN3
    (NeurIPS 2021).
    """
    up, down, pad = pair(up, "up"), pair(down, "down"), four(padding)
    if x.ndim != 4:
        raise ValueError(f"x must be [N, C, H, W], not {list(x.shape)}")
    width, height = filter_size(f)
    padded = (x.shape[3] * up[0] + pad[0] + pad[1], x.shape[2] * up[1] + pad[2] + pad[3])
    if padded[0] < width or padded[1] < height:
        raise ValueError(
            f"upsampled and padded picture of {padded} is smaller than the {width}x{height} filter"
        )
    if fused_way(x, f) == "triton" and not needs_gradient(x, f) and not watched(x):
        from kernels_triton.upfirdn2d import kernel

        if f is not None and kernel.takes(x, f, up, down):
            return kernel.upfirdn2d(x, f, up, down, pad, flip_filter, gain)
    implementation = reference if reference_wanted() else strided
    return implementation.upfirdn2d(x, f, up, down, pad, flip_filter, gain)


def setup_filter(
    f: Sequence[float] | Sequence[Sequence[float]] | np.ndarray | Tensor | float,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> Tensor:
    """Taps for `upfirdn2d`.

    A vector becomes its outer product with itself unless `separable`, by default so for 8 taps or
    more. Then: divide by the sum if `normalize`, mirror if `flip_filter`, multiply by `gain **
    (ndim / 2)`.

    Returns:
        [taps] or [fh, fw], float32.
    Raises:
        ValueError: not a scalar, vector or matrix.
    """
    taps = torch.as_tensor(f, dtype=torch.float32)
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f"a filter is a scalar, vector or matrix, not {list(taps.shape)}")
    if taps.ndim == 0:
        taps = taps[None]
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= 8
    if taps.ndim == 1 and not separable:
        taps = torch.outer(taps, taps)
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    return taps * gain ** (taps.ndim / 2)


def filter2d(
    x: Tensor,
    f: Tensor | None,
    padding: Factor = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Filter at the same size: `padding` comes on top of what keeps the size."""
    (x0, x1, y0, y1), (width, height) = four(padding), filter_size(f)
    pad = (
        x0 + width // 2,
        x1 + (width - 1) // 2,
        y0 + height // 2,
        y1 + (height - 1) // 2,
    )
    return upfirdn2d(x, f, padding=pad, flip_filter=flip_filter, gain=gain)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: Factor = 2,
    padding: Factor = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Enlarge by `up`: [N, C, H*upy, W*upx]. Brightness is kept: the gain is multiplied by upx *
    upy.
    """
    (up_x, up_y), (x0, x1, y0, y1) = pair(up, "up"), four(padding)
    width, height = filter_size(f)
    pad = (
        x0 + (width + up_x - 1) // 2,
        x1 + (width - up_x) // 2,
        y0 + (height + up_y - 1) // 2,
        y1 + (height - up_y) // 2,
    )
    gain = gain * up_x * up_y
    return upfirdn2d(x, f, up=(up_x, up_y), padding=pad, flip_filter=flip_filter, gain=gain)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: Factor = 2,
    padding: Factor = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Reduce by `down`: [N, C, H/downy, W/downx] for sizes that divide."""
    (down_x, down_y), (x0, x1, y0, y1) = pair(down, "down"), four(padding)
    width, height = filter_size(f)
    pad = (
        x0 + (width - down_x + 1) // 2,
        x1 + (width - down_x) // 2,
        y0 + (height - down_y + 1) // 2,
        y1 + (height - down_y) // 2,
    )
    return upfirdn2d(x, f, down=(down_x, down_y), padding=pad, flip_filter=flip_filter, gain=gain)
