"""The end of a resolution of StyleGAN2 as a Triton kernel: `bias_act_torgb`.

All arithmetic is in float32, whatever the storage. Each feature is read once.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels_triton.aot import Variant
from kernels_triton.bias_act.epilogue import Epilogue
from kernels_triton.bias_act.fused.op import Skip
from kernels_triton.bias_act.kernel import channel_block, clip, finish, row_stride, spread

# 4096 features of a tile are 32 to a lane of 4 warps. Blocks of 32 channels leave one pixel to each
# lane for what follows the sums, and 95 registers are enough to have many loads under way. Where
# there are too few tiles to fill a GPU (below TORGB_PROGRAMS), time is a chain of blocks that each
# wait for memory: then blocks are wide and the chain is short.
TORGB_TILE, TORGB_WARPS = 4096, 4
TORGB_NARROW, TORGB_WIDE, TORGB_PROGRAMS = 32, 256, 2048


@triton.jit
def _doubled(before_ptr, row, column, height, width, TAPS: tl.constexpr, HALF: tl.constexpr):
    """One row of one colour of a [height, width, 3] picture doubled by an even filter: [columns].

    Zeros lie between the samples, so that of 2 * HALF taps every other one meets a sample.
    """
    odd_row = (row + HALF) & 1
    odd_column = (column + HALF) & 1
    first_row = (row - HALF + odd_row) >> 1
    first_column = (column - HALF + odd_column) >> 1
    total = tl.zeros(column.shape, tl.float32)
    for i in tl.static_range(HALF):
        x = first_column + i
        here = (x >= 0) & (x < width)
        line = tl.zeros(column.shape, tl.float32)
        for j in tl.static_range(HALF):
            y = first_row + j
            sample = tl.load(
                before_ptr + (y * width + x) * 3, mask=here & (y >= 0) & (y < height), other=0.0
            )
            line += sample * tl.where(odd_row == 1, TAPS[2 * j + 1], TAPS[2 * j])
        total += line * tl.where(odd_column == 1, TAPS[2 * i + 1], TAPS[2 * i])
    return total


@triton.jit(do_not_specialize=["height", "width"])
def bias_act_torgb_kernel(
    x_ptr,
    noise_ptr,
    bias_ptr,
    scale_in_ptr,
    scale_out_ptr,
    style_ptr,
    weight_ptr,
    rgb_bias_ptr,
    before_ptr,
    image_ptr,
    out_ptr,
    height,
    width,
    scale_in_stride_n,
    scale_out_stride_n,
    style_stride_n,
    slope,
    gain,
    limit,
    rgb_limit,
    CHANNELS: tl.constexpr,
    TAPS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    # Tile: BLOCK_P pixels of one row of one picture, all channels in blocks of BLOCK_C, which
    # divides them. Beyond the row its last pixel is read again: that needs no mask, hence no zeros.
    n = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1)
    column = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = column < width
    column = tl.minimum(column, width - 1)
    first = (n * height + row) * width
    r = tl.zeros((BLOCK_P,), tl.float32)
    g = tl.zeros((BLOCK_P,), tl.float32)
    b = tl.zeros((BLOCK_P,), tl.float32)
    for block in range(0, CHANNELS, BLOCK_C):
        c = block + tl.arange(0, BLOCK_C)
        at = column[:, None] * CHANNELS + c[None, :]
        x = tl.load(x_ptr + first * CHANNELS + at).to(tl.float32)
        # A positive gain passes through the leaky ReLU: it costs nothing on scale and bias.
        bias = tl.load(bias_ptr + c) * gain
        if scale_in_ptr is not None:
            scale = tl.load(scale_in_ptr + n * scale_in_stride_n + c) * gain
            y = x * scale[None, :] + bias[None, :]
        else:
            y = x * gain + bias[None, :]
        if noise_ptr is not None:
            y += (tl.load(noise_ptr + row * width + column) * gain)[:, None]
        y = finish(y, slope, limit)
        # Summing each block at once keeps three tiles of sums out of the registers.
        style = tl.load(style_ptr + n * style_stride_n + c)
        r += tl.sum(y * (style * tl.load(weight_ptr + c))[None, :], 1)
        g += tl.sum(y * (style * tl.load(weight_ptr + CHANNELS + c))[None, :], 1)
        b += tl.sum(y * (style * tl.load(weight_ptr + 2 * CHANNELS + c))[None, :], 1)
        if out_ptr is not None:
            if scale_out_ptr is not None:
                y *= tl.load(scale_out_ptr + n * scale_out_stride_n + c)[None, :]
            target = out_ptr + first * CHANNELS + at
            tl.store(target, y.to(out_ptr.dtype.element_ty), mask=inside[:, None])
    r = clip(spread(r) + tl.load(rgb_bias_ptr), rgb_limit)
    g = clip(spread(g) + tl.load(rgb_bias_ptr + 1), rgb_limit)
    b = clip(spread(b) + tl.load(rgb_bias_ptr + 2), rgb_limit)
    if before_ptr is not None:
        below, side = height // 2, width // 2
        source = before_ptr + n * below * side * 3
        r += _doubled(source, row, column, below, side, TAPS, HALF)
        g += _doubled(source + 1, row, column, below, side, TAPS, HALF)
        b += _doubled(source + 2, row, column, below, side, TAPS, HALF)
    target = image_ptr + first * 3 + column * 3
    tl.store(target, r, mask=inside)
    tl.store(target + 1, g, mask=inside)
    tl.store(target + 2, b, mask=inside)


def bias_act_torgb(
    x: Tensor,
    end: Epilogue,
    skip: Skip,
    style: Tensor,
    before: Tensor | None,
    image: Tensor,
    scale_in: Tensor | None,
    scale_out: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    """See `kernels_triton.bias_act.bias_act_torgb`; shapes are already checked here. Allocates
    nothing.

    Raises:
        ValueError: Strides that the kernel cannot walk.
    """
    for name, tensor in (("before", before), ("image", image), ("out", out)):
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, not strided {list(tensor.stride())}")
    n, height, width, channels = x.shape
    tiles = n * height * triton.cdiv(width, TORGB_TILE // TORGB_NARROW)
    block_c = channel_block(channels, TORGB_NARROW if tiles >= TORGB_PROGRAMS else TORGB_WIDE)
    block_p = min(TORGB_TILE // block_c, 128)
    bias_act_torgb_kernel[(triton.cdiv(width, block_p), height, n)](
        x,
        end.noise,
        end.bias,
        scale_in,
        scale_out,
        style,
        skip.weight,
        skip.bias,
        before,
        image,
        out,
        height,
        width,
        row_stride(scale_in, "scale_in"),
        row_stride(scale_out, "scale_out"),
        row_stride(style, "style"),
        end.slope,
        end.gain,
        end.clamp,
        skip.clamp,
        CHANNELS=channels,
        TAPS=skip.taps,
        HALF=len(skip.taps) // 2,
        BLOCK_P=block_p,
        BLOCK_C=block_c,
        num_warps=TORGB_WARPS,
    )
    return image


def _variant(name: str, dtype: str, channels: int, block_c: int, last: bool) -> Variant:
    """`last`: the network's last resolution, whose features nobody reads any more."""
    signature = {
        "x_ptr": f"*{dtype}",
        **dict.fromkeys(("noise_ptr", "bias_ptr", "scale_in_ptr"), "*fp32"),
        "scale_out_ptr": "constexpr" if last else "*fp32",
        **dict.fromkeys(("style_ptr", "weight_ptr", "rgb_bias_ptr"), "*fp32"),
        **dict.fromkeys(("before_ptr", "image_ptr"), "*fp32"),
        "out_ptr": "constexpr" if last else f"*{dtype}",
        **dict.fromkeys(("height", "width"), "i32"),
        **dict.fromkeys(("scale_in_stride_n", "scale_out_stride_n", "style_stride_n"), "i32"),
        **dict.fromkeys(("slope", "gain", "limit", "rgb_limit"), "fp32"),
        "CHANNELS": "constexpr",
        "TAPS": ("constexpr",) * 4,
        **dict.fromkeys(("HALF", "BLOCK_P", "BLOCK_C"), "constexpr"),
    }
    block_p = min(TORGB_TILE // block_c, 128)
    constants = {
        "CHANNELS": channels,
        "TAPS": (0.25, 0.75, 0.75, 0.25),
        "HALF": 2,
        "BLOCK_P": block_p,
    }
    constants |= {"BLOCK_C": block_c} | ({"scale_out_ptr": None, "out_ptr": None} if last else {})
    return Variant(
        name,
        bias_act_torgb_kernel,
        signature,
        constants,
        aligned=("scale_in_stride_n", "scale_out_stride_n", "style_stride_n"),
        num_warps=TORGB_WARPS,
        registers=128,
        shared=16 * 1024,
        outputs=block_p * block_c / (32 * TORGB_WARPS),
    )


def variants() -> list[Variant]:
    """What StyleGAN2 runs with: small maps, large ones, and the last resolution."""
    return [
        _variant("bias_act_torgb_fp16_small", "fp16", 512, TORGB_WIDE, last=False),
        _variant("bias_act_torgb_fp16_large", "fp16", 64, TORGB_NARROW, last=False),
        _variant("bias_act_torgb_fp16_last", "fp16", 32, TORGB_NARROW, last=True),
    ]
