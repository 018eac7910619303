from kernels_triton.conv2d_resample.op import conv2d_resample

__all__ = ["conv2d_resample"]
