"""How both forms of the filtered leaky ReLU's kernel are launched, and compiled ahead of time.

They take the same values and constants of a tiling; what differs is how wide it may be.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels_triton.aot import Variant
from kernels_triton.filtered_lrelu.resampling import Resampling
from kernels_triton.filtered_lrelu.schedule import schedule
from kernels_triton.filtered_lrelu.tiling import WARP, Tiling, tiling

# Not worth a compilation each: 1, and multiples of 16, are sizes like others.
SIZES = (
    "height",
    "width",
    "out_height",
    "out_width",
    "rows",
    "turns",
    "origin",
    "scale_in_stride",
    "scale_out_stride",
)
OPTIONAL = ("scale_in", "bias", "scale_out")


@dataclass(frozen=True, eq=False)
class Call:
    """What `fused_filtered_lrelu` was called with, shapes checked."""

    x: Tensor
    how: Resampling
    scale_in: Tensor | None
    bias: Tensor | None
    scale_out: Tensor | None
    out: Tensor

    def check(self) -> None:
        """What the kernels need beyond what `fused_filtered_lrelu` has looked at.

        Raises:
            ValueError: See `kernel.run`.
        """
        for name in OPTIONAL:
            scale = getattr(self, name)
            if scale is not None and (scale.dtype != torch.float32 or scale.stride(-1) != 1):
                raise ValueError(
                    f"{name} is {scale.dtype} with strides {list(scale.stride())}; "
                    "it must be float32 with adjacent channels"
                )
        largest = max(self.x[:1].numel(), self.out[:1].numel())
        if largest >= 2**31:
            raise ValueError(f"a picture of {largest} values: 2^31 or more are not supported")

    def tiling(self, math: int, columns_at_most: int) -> Tiling:
        """The one that is expected to be fastest; see `tiling.tiling`."""
        batch, _, _, channels = self.x.shape
        size = (self.out.shape[1], self.out.shape[2])
        lanes = channels // channels_per_lane(math)
        processors = processors_of(self.x.device)
        return tiling(schedule(self.how), size, lanes, batch, processors, columns_at_most)

    def arguments(
        self, cut: Tiling, math: int
    ) -> tuple[tuple[int, int, int], tuple[Any, ...], dict[str, Any]]:
        """Grid, values and constants of a launch, all but SIGNED."""
        batch, height, width, channels = self.x.shape
        _, out_height, out_width, _ = self.out.shape
        constants = constants_of(self.how, cut, channels, math)
        lanes = -(-out_width // cut.columns) * (channels // channels_per_lane(math))
        grid = (-(-lanes // constants["LANES"]), -(-out_height // cut.rows), batch)
        values = (
            *(self.x, self.scale_in, self.bias, self.scale_out, self.out),
            *(height, width, out_height, out_width),
            *(cut.rows, cut.turns, schedule(self.how).origin),
            0 if self.scale_in is None else self.scale_in.stride(0),
            0 if self.scale_out is None else self.scale_out.stride(0),
        )
        return grid, values, constants


def channels_per_lane(math: int) -> int:
    """Two in packed half precision."""
    from kernels_triton.filtered_lrelu.lanes import PACKED  # with Triton, which may be absent

    return 2 if math == PACKED.value else 1


def constants_of(how: Resampling, cut: Tiling, channels: int, math: int) -> dict[str, Any]:
    """The compile-time arguments, all but SIGNED."""
    plan = schedule(how)
    return {
        "CHANNELS": channels,
        "LANES": WARP * cut.warps,
        "COLUMNS": cut.columns,
        "SAMPLES": plan.samples(cut.columns),
        "UNROLL": cut.unroll,
        "UP": plan.up,
        "WINDOW": plan.window,
        "TAPS": plan.taps,
        "TERMS": plan.terms,
        "STEPS": plan.steps,
        "SLOPE": how.slope,
        "RISE": plan.rise,
        "LIMITS": plan.limits,
        "FOLD": plan.fold,
        "ACROSS": plan.across,
        "FALL": plan.fall,
        "MATH": math,
    }


@functools.lru_cache
def processors_of(device: torch.device) -> int:
    """Multiprocessors; one in the interpreter, where every program costs time."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def variant(
    name: str,
    kernel: Any,
    how: Resampling,
    cut: Tiling,
    *,
    channels: int,
    dtype: str,
    math: int,
    signed: bool,
    given: tuple[str, ...] = (),
    **more: Any,
) -> Variant:
    """A variant of either form.

    Args:
        given: Which of `OPTIONAL` there are.
        more: Other arguments of `Variant`.
    """
    constants: dict[str, Any] = {f"{it}_ptr": None for it in OPTIONAL if it not in given}
    constants |= constants_of(how, cut, channels, math) | {"SIGNED": signed}
    constants |= {it: cut.warps for it in kernel.arg_names if it == "WARPS"}
    signature: dict[str, Any] = {}
    for argument in kernel.arg_names:
        if argument in constants:
            value = constants[argument]
            signature[argument] = (
                ("constexpr",) * len(value) if isinstance(value, tuple) else "constexpr"
            )
        elif argument.endswith("_ptr"):
            signature[argument] = f"*{dtype}" if argument in ("x_ptr", "out_ptr") else "*fp32"
        else:
            signature[argument] = "i32"
    return Variant(
        name=f"filtered_lrelu {name}",
        kernel=kernel,
        signature=signature,
        constants=constants,
        num_warps=cut.warps,
        shared=0,
        outputs=float(cut.unroll * schedule(how).classes * cut.columns * channels_per_lane(math)),
        **more,
    )
