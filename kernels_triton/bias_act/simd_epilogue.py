"""`Epilogue` sixteen channels at a time, as the CPU kernels that end in one take it in."""

# mypy: no-check-untyped-defs
# numba types what it compiles; mypy cannot know a vector.

from __future__ import annotations

import numpy as np
from torch import Tensor

from kernels_triton.bias_act.epilogue import Epilogue
from kernels_triton.compiled import flat, inlined
from kernels_triton.simd import vadd, vfma, vmax, vmin, vmul


@inlined
def finished(y, scale, bias, noise, slope, low, high):
    """What follows a convolution, short of `scale_out`; see `folded`."""
    y = vadd(vfma(y, scale, bias), noise)
    y = vmax(y, vmul(y, slope))  # the leaky ReLU: its slope lies between 0 and 1
    return vmin(vmax(y, low), high)


def folded(
    end: Epilogue, scale_in: Tensor | None, scale_out: Tensor | None, n: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Constants per sample and channel, and the noise.

    A leaky ReLU of a positive multiple is that multiple of it, so the gain goes into all that is
    added up before it.

    Returns:
        [N * 3 * C] float32: scale, bias, scale_out of each sample. Then the noise, not yet
        multiplied by the gain, and how far apart its elements are: 0 where it is a single zero.
    """
    channels = end.bias.shape[0]
    table = np.empty((n, 3, channels), np.float32)
    table[:, 0] = end.gain if scale_in is None else scale_in.detach().numpy() * end.gain
    table[:, 1] = end.bias.detach().numpy() * end.gain
    table[:, 2] = 1 if scale_out is None else scale_out.detach().numpy()
    if end.noise is None:
        return table.reshape(-1), np.zeros(1, np.float32), 0
    return table.reshape(-1), flat(end.noise.contiguous()), 1
