from kernels_triton.upfirdn2d.fused.op import fir_bias_act

__all__ = ["fir_bias_act"]
