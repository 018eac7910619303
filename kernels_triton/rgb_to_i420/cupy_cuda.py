"""rgb_to_i420 on a GPU by a CUDA kernel that cupy compiles: for machines without Triton.

Without it the picture would be converted by a dozen torch kernels and passes over memory, every
frame. `SOURCE` is C but for the last function, so that a C compiler can check its arithmetic where
there is no GPU.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from kernels_triton.choice import needs_gradient, reference_wanted, torch_wanted, watched
from kernels_triton.rgb_to_i420.reference import BLUE, LUMA, RED

NAME = "rgb_to_i420"
THREADS = 128  # a warp's share of a row of Y fills whole sectors


def _row(weights: tuple[float, float, float], offset: float) -> str:
    r, g, b = (f"{weight!r}f" for weight in weights)
    return f"level({r} * r + {g} * g + {b} * b + {offset!r}f)"


ARITHMETIC = f"""
#ifndef FUNCTION
#define FUNCTION static __device__ __forceinline__
#endif

/* The nearest level of a positive number; half rounds up. */
FUNCTION unsigned char level(float value) {{ return (unsigned char)(int)(value + 0.5f); }}

FUNCTION unsigned char level_y(float r, float g, float b) {{ return {_row(LUMA, 16.0)}; }}
FUNCTION unsigned char level_u(float r, float g, float b) {{ return {_row(BLUE, 128.0)}; }}
FUNCTION unsigned char level_v(float r, float g, float b) {{ return {_row(RED, 128.0)}; }}

/* [-1, 1], or beyond, to [0, 1]. What is not finite clears `sound`; not a number becomes 0. */
FUNCTION float unit(float value, int *sound)
{{
    if (value - value != 0.0f) *sound = 0;
    value = value > -1.0f ? value : -1.0f;
    value = value < 1.0f ? value : 1.0f;
    return value * 0.5f + 0.5f;
}}

/* One square of 2x2 pixels: four bytes of Y, one of U and V each. Gives 0 if a colour is not
   finite. rgb, out: the picture's first element and byte. column, row: of squares. Strides are in
   elements. */
FUNCTION int square(
    const float *rgb, unsigned char *out, int column, int row, int height, int width,
    long long stride_c, long long stride_h, long long stride_w)
{{
    const int half = width / 2;
    float red = 0.0f, green = 0.0f, blue = 0.0f;
    int sound = 1;
    for (int k = 0; k < 4; k++) {{
        const int y = 2 * row + k / 2, x = 2 * column + k % 2;
        const float *at = rgb + y * stride_h + x * stride_w;
        const float r = unit(at[0], &sound);
        const float g = unit(at[stride_c], &sound);
        const float b = unit(at[2 * stride_c], &sound);
        out[(long long)y * width + x] = level_y(r, g, b);
        red += r;
        green += g;
        blue += b;
    }}
    red *= 0.25f;
    green *= 0.25f;
    blue *= 0.25f;
    out += (long long)height * width + (long long)row * half + column;
    out[0] = level_u(red, green, blue);
    out[(long long)(height / 2) * half] = level_v(red, green, blue);
    return sound;
}}
"""

SOURCE = (
    ARITHMETIC
    + f"""
/* Tile: {THREADS} squares of one pair of rows of one picture. */
extern "C" __global__ void {NAME}(
    const float *rgb, unsigned char *out, int *broken, int height, int width,
    long long stride_n, long long stride_c, long long stride_h, long long stride_w)
{{
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const long long n = blockIdx.z;
    if (column >= width / 2) return;
    rgb += n * stride_n;
    out += n * (height / 2 * 3) * width;
    const int sound =
        square(rgb, out, column, blockIdx.y, height, width, stride_c, stride_h, stride_w);
    /* All who find a fault store the same number: no order is needed. */
    if (!sound && broken) broken[n] = 1;
}}
"""
)


@functools.lru_cache
def installed() -> bool:
    """Whether there is a cupy to import; imports nothing."""
    return find_spec("cupy") is not None


def takes(rgb: Tensor) -> bool:
    """Whether `rgb_to_i420` here may convert these pictures: float32 on CUDA, for inference."""
    return (
        rgb.device.type == "cuda"
        and rgb.dtype == torch.float32
        and installed()
        and not (reference_wanted() or torch_wanted())
        and not needs_gradient(rgb)
        and not watched(rgb)
    )


def rgb_to_i420(rgb: Tensor, out: Tensor, broken: Tensor | None = None) -> Tensor:
    """See `kernels_triton.rgb_to_i420.rgb_to_i420`; shapes are already checked here. Allocates
    nothing, and waits for nothing but, at the first call, its compilation.

    Args:
        rgb: [N, 3, H, W] float32, with any strides.
        out: [N, H*3//2, W] uint8, contiguous, on the same device.
        broken: [N] int32: set to 1 where a picture holds NaN or infinity; else left as it is.
    Returns:
        `out`.
    """
    import cupy

    n, _, height, width = rgb.shape
    index = rgb.device.index
    stream = torch.cuda.current_stream(rgb.device).cuda_stream
    found = (rgb.data_ptr(), out.data_ptr(), 0 if broken is None else broken.data_ptr())
    pointers = tuple(cupy.uint64(pointer) for pointer in found)
    sizes = (cupy.int32(height), cupy.int32(width))
    strides = tuple(cupy.int64(stride) for stride in rgb.stride())
    with cupy.cuda.Device(index), cupy.cuda.ExternalStream(stream, index):
        _kernel(index)(
            (-(-width // 2 // THREADS), height // 2, n),
            (THREADS,),
            (*pointers, *sizes, *strides),
        )
    return out


@functools.lru_cache
def _kernel(index: int) -> Any:
    """Compiled for the GPU of this index, which is the current one."""
    import cupy

    kernel = cupy.RawKernel(SOURCE, NAME)
    kernel.compile()
    return kernel
