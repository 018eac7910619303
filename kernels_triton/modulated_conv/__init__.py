from kernels_triton.modulated_conv.op import modulated_conv2d, modulated_conv2d_resample
from kernels_triton.modulated_conv.packed import (
    LANES,
    PackedConv,
    own_kernel,
    packed_conv2d,
    padded,
)
from kernels_triton.modulated_conv.tuning import tune

__all__ = [
    "LANES",
    "PackedConv",
    "modulated_conv2d",
    "modulated_conv2d_resample",
    "own_kernel",
    "packed_conv2d",
    "padded",
    "tune",
]
