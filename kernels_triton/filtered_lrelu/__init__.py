from kernels_triton.filtered_lrelu.fused import fused_filtered_lrelu
from kernels_triton.filtered_lrelu.op import filtered_lrelu
from kernels_triton.filtered_lrelu.resampling import Resampling

__all__ = ["Resampling", "filtered_lrelu", "fused_filtered_lrelu"]
