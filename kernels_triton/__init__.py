"""Fused operators of the generators. Knows tensors; knows no network, face or clock."""

from kernels_triton.bias_act import bias_act
from kernels_triton.choice import IMPLEMENTATIONS, implementation
from kernels_triton.conv2d_resample import conv2d_resample
from kernels_triton.filtered_lrelu import filtered_lrelu
from kernels_triton.modulated_conv import modulated_conv2d, modulated_conv2d_resample
from kernels_triton.rgb_to_i420 import rgb_to_i420
from kernels_triton.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

__all__ = [
    "IMPLEMENTATIONS",
    "bias_act",
    "conv2d_resample",
    "downsample2d",
    "filter2d",
    "filtered_lrelu",
    "implementation",
    "modulated_conv2d",
    "modulated_conv2d_resample",
    "rgb_to_i420",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
