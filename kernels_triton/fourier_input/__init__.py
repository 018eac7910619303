from kernels_triton.fourier_input.op import FourierTable, fourier_input

__all__ = ["FourierTable", "fourier_input"]
