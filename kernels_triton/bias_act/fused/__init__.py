from kernels_triton.bias_act.fused.op import Skip, bias_act_torgb

__all__ = ["Skip", "bias_act_torgb"]
