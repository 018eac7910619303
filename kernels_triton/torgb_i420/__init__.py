from kernels_triton.torgb_i420.op import torgb, torgb_i420

__all__ = ["torgb", "torgb_i420"]
