from kernels_triton.bias_act.epilogue import Epilogue
from kernels_triton.bias_act.fused import Skip, bias_act_torgb
from kernels_triton.bias_act.op import bias_act, default_gain

__all__ = ["Epilogue", "Skip", "bias_act", "bias_act_torgb", "default_gain"]
