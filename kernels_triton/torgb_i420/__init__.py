from kernels_triton.torgb_i420.op import ToRgb, torgb, torgb_i420

__all__ = ["ToRgb", "torgb", "torgb_i420"]
