from kernels_triton.filtered_lrelu.op import filtered_lrelu

__all__ = ["filtered_lrelu"]
