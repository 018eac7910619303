"""conv2d_resample: a convolution that also enlarges or reduces its input, by the shortest equal
route.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kernels_triton.choice import reference_wanted
from kernels_triton.conv2d_resample import reference
from kernels_triton.upfirdn2d import strided
from kernels_triton.upfirdn2d.op import Factor, filter_size, four

Pad = tuple[int, int, int, int]


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Factor = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    """1. Pad once, at the start, counted in the upsampled grid: `padding`, and what keeps up- and
    downsampling centred.
    2. If `up > 1`: insert zeros, filter with `f`, gain up^2.
    3. Correlate with `w` ("valid"); convolve when `flip_weight` is False.
    4. If `down > 1`: filter with `f`, keep every `down`-th sample.
    5. Add `bias`.

    Args:
        x: [N, I, H, W].
        w: [O, I / groups, kh, kw], dtype of x.
        f: [taps] or [fh, fw] from `setup_filter`; None is the identity.
        bias: [O] in the dtype of x, or None.
    Returns:
        [N, O, H*up/down, W*up/down] when `padding` is half the kernel.
    Raises:
        ValueError: shapes do not fit.
    Source: Karras et al., StyleGAN2 (CVPR 2020), appendix B.
    """
    if x.ndim != 4 or w.ndim != 4 or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ValueError(f"x {list(x.shape)} and w {list(w.shape)} do not fit with {groups} groups")
    fw, fh = filter_size(f)
    x0, x1, y0, y1 = four(padding)
    if up > 1:
        x0, x1 = x0 + (fw + up - 1) // 2, x1 + (fw - up) // 2
        y0, y1 = y0 + (fh + up - 1) // 2, y1 + (fh - up) // 2
    if down > 1:
        x0, x1 = x0 + (fw - down + 1) // 2, x1 + (fw - down) // 2
        y0, y1 = y0 + (fh - down + 1) // 2, y1 + (fh - down) // 2
    pad = (x0, x1, y0, y1)

    if reference_wanted() or (up > 1 and down > 1):
        return reference.conv2d_resample(
            x, w, f, up, down, pad, groups, flip_weight, flip_filter, bias
        )
    if up > 1:
        return _enlarge(x, w, f, up, pad, groups, flip_weight, flip_filter, bias)
    weight = w if flip_weight else w.flip([2, 3])
    if down > 1:
        return _reduce(x, weight, f, down, pad, groups, flip_filter, bias)
    if x0 == x1 >= 0 and y0 == y1 >= 0:
        return F.conv2d(x, weight, bias, padding=(y0, x0), groups=groups)
    return F.conv2d(F.pad(x, list(pad)), weight, bias, groups=groups)


def _enlarge(
    x: Tensor,
    w: Tensor,
    f: Tensor | None,
    up: int,
    pad: Pad,
    groups: int,
    flip_weight: bool,
    flip_filter: bool,
    bias: Tensor | None,
) -> Tensor:
    """Convolve first, filter afterwards: never touches an inserted zero."""
    out_channels, in_channels, kh, kw = w.shape
    x0, x1, y0, y1 = pad
    gain = float(up * up)
    if kh == 1 and kw == 1:  # commutes with resampling: do it on the small picture
        x = F.conv2d(x, w, groups=groups)
        return strided.upfirdn2d(x, f, (up, up), (1, 1), pad, flip_filter, gain, bias)
    # A transposed convolution scatters the unmirrored kernel: that is the convolution of the
    # zero-inserted picture.
    weight = w.flip([2, 3]) if flip_weight else w
    weight = weight.reshape(groups, out_channels // groups, in_channels, kh, kw).transpose(1, 2)
    weight = weight.reshape(groups * in_channels, out_channels // groups, kh, kw)
    x = F.conv_transpose2d(x, weight, stride=up, groups=groups)
    # It covers k - 1 more samples than the picture on either side, and lacks the up - 1 zeros after
    # the last sample.
    pad = (x0 - kw + 1, x1 - kw + up, y0 - kh + 1, y1 - kh + up)
    return strided.upfirdn2d(x, f, (1, 1), (1, 1), pad, flip_filter, gain, bias)


def _reduce(
    x: Tensor,
    weight: Tensor,
    f: Tensor | None,
    down: int,
    pad: Pad,
    groups: int,
    flip_filter: bool,
    bias: Tensor | None,
) -> Tensor:
    """Filter first, so that the convolution makes only the samples that are kept."""
    first, second = (down, 1) if weight.shape[2] == 1 and weight.shape[3] == 1 else (1, down)
    x = strided.upfirdn2d(x, f, (1, 1), (first, first), pad, flip_filter, 1.0)
    return F.conv2d(x, weight, bias, stride=second, groups=groups)
