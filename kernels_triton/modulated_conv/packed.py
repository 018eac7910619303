"""packed_conv2d: a convolution whose weight is packed once; activations are modulated instead.

A style scales input channels, so whoever writes the input applies it; a demodulation factor scales
output channels, so whoever touches the output next applies it: `packed_conv2d` itself where that is
free, else the op that reads its result.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels_triton.choice import fused_way, triton_wanted
from kernels_triton.modulated_conv.tiles import Work, chosen

LANES = 16  # channels are padded to whole vectors
PRECISIONS = ("ieee", "tf32x3", "tf32")


def padded(channels: int) -> int:
    """The next multiple of LANES."""
    return -(-channels // LANES) * LANES


@dataclass(frozen=True)
class PackedConv:
    """A weight as kernels want it.

    Args:
        weight: [O', I', k, k] in channels-last memory (of a transposed convolution [I', O', k, k]);
            storage dtype; padded channels are zero. To a matrix product it is O' rows of k * k * I'
            numbers each, which is the order that tensor cores read fastest.
        padding: Of the picture, each side. A transposed convolution has none.
        up: 1, or 2 for a transposed convolution of stride 2.
        precision: Of float32 products on CUDA: "ieee"; "tf32x3", three products of tensor cores
            that together come close to it; "tf32", one, with errors of about 5e-4.
    """

    weight: Tensor
    padding: int
    up: int = 1
    precision: str = "ieee"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} must be one of {PRECISIONS}")

    @classmethod
    def of(
        cls,
        weight: Tensor,
        padding: int,
        dtype: torch.dtype,
        up: int = 1,
        precision: str = "ieee",
    ) -> PackedConv:
        """Of a weight [O, I, k, k] that correlates (up 1) or convolves (up 2)."""
        o, i = weight.shape[:2]
        w = F.pad(weight.detach(), (0, 0, 0, 0, 0, padded(i) - i, 0, padded(o) - o)).to(dtype)
        w = w.transpose(0, 1) if up == 2 else w
        return cls(w.contiguous(memory_format=torch.channels_last), padding, up, precision)

    @property
    def kernel(self) -> int:
        """Side of the kernel."""
        return self.weight.shape[2]

    @property
    def channels(self) -> tuple[int, int]:
        """(I', O')."""
        a, b = self.weight.shape[:2]
        return (a, b) if self.up == 2 else (b, a)

    def output_size(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of the result."""
        grow = self.kernel - self.up if self.up == 2 else 2 * self.padding - self.kernel + 1
        return rows * self.up + grow, columns * self.up + grow


def packed_conv2d(
    x: Tensor,
    conv: PackedConv,
    *,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """`conv(x) * scale + bias`.

    Args:
        x: [N, H, W, I'], contiguous, in the dtype of the weight.
        scale: [N, O'] float32; None is 1.
        bias: [O'] float32; None is 0.
        out: [N, H + 2 * padding - k + 1, ..., O'] (up 2: [N, 2 * H + k - 2, ..., O']) to write
            into; None makes a new one. Where the work is torch's own (`own_kernel` is False), the
            result is made by torch, and `out` costs a copy.
    Returns:
        `out`, in the dtype of x, contiguous [N, H', W', O'].
    Raises:
        ValueError: Shapes or dtypes do not fit.
    """
    i, o = conv.channels
    if x.ndim != 4 or x.shape[3] != i or x.dtype != conv.weight.dtype or not x.is_contiguous():
        raise ValueError(
            f"x {x.dtype} {list(x.shape)} must be contiguous {conv.weight.dtype} [N, H, W, {i}]"
        )
    wanted = (x.shape[0], *conv.output_size(x.shape[1], x.shape[2]), o)
    if out is not None and (out.shape != wanted or out.dtype != x.dtype):
        raise ValueError(f"out must be {x.dtype} {list(wanted)}, not {out.dtype} {list(out.shape)}")
    if own_kernel(x, conv):
        from kernels_triton.modulated_conv import kernel

        out = torch.empty(wanted, dtype=x.dtype, device=x.device) if out is None else out
        return kernel.run(x, conv, scale, bias, out)
    y = plain_conv2d(x, conv)
    if scale is not None:
        y = y * scale.to(y.dtype)[:, None, None]
    if bias is not None:
        y = y + bias.to(y.dtype)
    return y if out is None else out.copy_(y)


def plain_conv2d(x: Tensor, conv: PackedConv) -> Tensor:
    """torch's convolution: cuDNN's or oneDNN's, which read and write channels-last memory.

    Args:
        x: [N, H, W, I'].
    Returns:
        [N, H', W', O'].
    """
    picture = x.permute(0, 3, 1, 2)
    with _tf32(x, conv.precision == "tf32"):
        if conv.up == 2:
            y = F.conv_transpose2d(picture, conv.weight, stride=2)
        else:
            y = F.conv2d(picture, conv.weight, padding=conv.padding)
    return y.permute(0, 2, 3, 1).contiguous()


_TF32 = threading.Lock()  # torch has one setting for all threads; two would restore each other's


@contextmanager
def _tf32(x: Tensor, allowed: bool) -> Iterator[None]:
    """cuDNN rounds float32 to tf32 unless it is told not to, which costs three decimal digits."""
    if x.device.type != "cuda" or x.dtype != torch.float32:
        yield
        return
    with _TF32:
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = allowed
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = before


def own_kernel(x: Tensor, conv: PackedConv) -> bool:
    """Whether the Triton kernel computes this here, `scale` and `bias` being free in it.

    A question of sizes and settings alone: it reads nothing from a GPU. For one size the answer
    changes at most once, when `tuning.tune` measures it; tune before buffers and graphs are made.
    `packed_conv2d` is right either way.

    Args:
        x: [N, H, W, I'].
    """
    if conv.up != 1 or fused_way(x) != "triton":
        return False
    return triton_wanted() or chosen(Work.of(conv, *x.shape[:3])) is not None
