"""upfirdn2d by depthwise convolutions that touch no inserted zero and make no dropped sample.

Enlarging is a transposed convolution, reducing a strided one. On a CPU both are an order of
magnitude faster in channels-last memory (one core, 32 channels, 12 taps, 148 to 302 samples: 2.5 ms
against 27 ms; the reference takes 41 ms), so a picture that arrives otherwise is converted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
    bias: Tensor | None = None,
) -> Tensor:
    """See `kernels_triton.upfirdn2d.upfirdn2d`; arguments are already checked and completed here.

    `bias` [C] is added to the result (after the gain): a convolution does that for nothing. May
    return `x` itself where there is nothing to do.
    """
    if f is None:
        if bias is None and up == (1, 1) and down == (1, 1) and gain == 1:
            return F.pad(x, list(padding)) if any(padding) else x
        f = torch.ones(1, 1, dtype=x.dtype, device=x.device)
    if x.device.type == "cpu" and x.shape[1] > 1:
        x = x.contiguous(memory_format=torch.channels_last)
    if f.ndim == 2:
        return _filter(x, f * gain, up, down, padding, flip_filter, bias)
    x0, x1, y0, y1 = padding
    row, column = f[None, :] * gain, f[:, None]
    x = _filter(x, row, (up[0], 1), (down[0], 1), (x0, x1, 0, 0), flip_filter, None)
    return _filter(x, column, (1, up[1]), (1, down[1]), (0, 0, y0, y1), flip_filter, bias)


def _filter(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    bias: Tensor | None,
) -> Tensor:
    """One pass with a [fh, fw] filter."""
    channels = x.shape[1]
    (up_x, up_y), (down_x, down_y), (x0, x1, y0, y1) = up, down, padding
    taps = f.to(x.dtype)
    if up == (1, 1):
        taps = taps if flip_filter else taps.flip([0, 1])
        weight = taps[None, None].expand(channels, 1, -1, -1)
        pad = (0, 0)
        if x0 == x1 >= 0 and y0 == y1 >= 0:
            pad = (y0, x0)
        else:
            x = F.pad(x, [x0, x1, y0, y1])
        return F.conv2d(x, weight, bias, (down_y, down_x), pad, groups=channels)

    # A transposed convolution scatters the unmirrored filter: that is a convolution. It covers
    # taps - 1 samples beyond the picture, and lacks the zeros after the last sample.
    taps = taps.flip([0, 1]) if flip_filter else taps
    weight = taps[None, None].expand(channels, 1, -1, -1)
    x = F.conv_transpose2d(x, weight, stride=(up_y, up_x), groups=channels)
    height, width = f.shape
    x = F.pad(x, [x0 - width + 1, x1 - width + up_x, y0 - height + 1, y1 - height + up_y])
    x = x[:, :, ::down_y, ::down_x]
    return x if bias is None else x + bias[:, None, None]
