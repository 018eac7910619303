from kernels_triton.rgb_to_i420.op import image_to_i420, rgb_to_i420

__all__ = ["image_to_i420", "rgb_to_i420"]
