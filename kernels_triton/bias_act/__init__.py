from kernels_triton.bias_act.op import bias_act, default_gain

__all__ = ["bias_act", "default_gain"]
