from kernels_triton.modulated_conv.op import modulated_conv2d, modulated_conv2d_resample

__all__ = ["modulated_conv2d", "modulated_conv2d_resample"]
