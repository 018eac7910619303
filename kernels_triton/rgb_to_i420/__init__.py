from kernels_triton.rgb_to_i420.op import rgb_to_i420

__all__ = ["rgb_to_i420"]
