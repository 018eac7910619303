from kernels_triton.upfirdn2d.fused import fir_bias_act
from kernels_triton.upfirdn2d.op import (
    downsample2d,
    filter2d,
    setup_filter,
    upfirdn2d,
    upsample2d,
)

__all__ = [
    "downsample2d",
    "filter2d",
    "fir_bias_act",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
