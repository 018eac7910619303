"""What packed networks have in common: static inputs, and a picture at their end."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels_triton.filtered_lrelu import Resampling
from kernels_triton.modulated_conv import PackedConv, own_kernel, tune
from kernels_triton.rgb_to_i420 import image_to_i420
from kernels_triton.styles import StyleTable, style_scales
from models.contracts import Identity, MotionCode
from models.fused.styles import Affines

STAGING = 4  # motion codes on their way to a GPU: more than frames can be in flight


@dataclass(frozen=True)
class Packed:
    """A network ready for executors; they share its weights.

    Args:
        device, dtype: Where it draws, and what activations are stored in.
        resolution: Side of the picture.
        rows: How many latents ws holds.
        w_dim: Their size.
        motion: Name of the motion code's tensor; it goes into every style.
        motion_dim: Its size.
        affines, table: The styles.
        make: Builds an executor for a batch size.
        resamplings: Constants that kernels are compiled for.
    """

    device: torch.device
    dtype: torch.dtype
    resolution: int
    rows: int
    w_dim: int
    motion: str
    motion_dim: int
    affines: Affines
    table: StyleTable
    make: Callable[[Packed, int], Executor] = field(repr=False)
    resamplings: tuple[Resampling, ...] = ()

    def executor(self, batch: int = 1) -> Executor:
        """Buffers for `batch` pictures at once, and the launches that fill them.

        Raises:
            ValueError: `batch` is below 1.
        """
        if batch < 1:
            raise ValueError(f"batch is {batch}; it must be 1 or more")
        with torch.inference_mode():
            return self.make(self, batch)


class Executor(abc.ABC):
    """Draws `batch` pictures from static buffers.

    `put` fills the buffers, `draw` and `draw_i420` read nothing else: on CUDA they may be captured
    in a graph once and replayed for ever. Used by one thread at a time.
    """

    def __init__(self, packed: Packed, batch: int) -> None:
        self.packed = packed
        self.batch = batch
        self.device = packed.device
        self.dtype = packed.dtype
        self.resolution = packed.resolution
        styles, demods = packed.table.widths
        self._base = torch.zeros(batch, styles, device=self.device)
        self._raw = torch.zeros(batch, styles, device=self.device)  # a kernel's scratch
        self._scale = torch.zeros(batch, styles, device=self.device)
        self._demod = torch.zeros(batch, demods, device=self.device)
        self._motion = torch.zeros(batch, packed.motion_dim, device=self.device)
        self._who: list[Identity | None] = [None] * batch
        self._how: list[MotionCode | None] = [None] * batch
        # Motion that no style depends on leaves them as they are from frame to frame.
        self._styles_move = packed.table.matrix.shape[1] > 0
        self._stale = True
        self._staged = [0] * batch  # per sample: each goes round its own rows
        if self.device.type == "cuda":
            self._staging = torch.zeros(STAGING, batch, packed.motion_dim, pin_memory=True)
        self._image: Tensor | None = None
        # Kernels on CUDA take rows that are apart; others want a layer's rows one after the other.
        self._gathers = batch > 1 and self.device.type != "cuda"
        if self._gathers:
            self._scale_rows, self._demod_rows = self._layer_major()

    @torch.inference_mode()
    def put(self, slot: int, identity: Identity, motion: MotionCode) -> None:
        """The codes of one sample of the batch. On CUDA it returns before they have arrived.

        Args:
            slot: From 0 to `batch - 1`.
            identity: `w` [1, rows, w_dim].
            motion: `dw` or `v`, [1, motion_dim].
        Raises:
            ValueError: A tensor is missing or misshapen.
        """
        packed = self.packed
        if self._who[slot] is not identity:
            w = _entry(identity.tensors, "w", (1, packed.rows, packed.w_dim))
            self._who[slot] = None  # should this fail halfway, the base is nobody's
            self._stale = True
            self._set_base(slot, w[0])
            self._who[slot] = identity
        if self._how[slot] is motion:
            return
        code = _entry(motion.tensors, packed.motion, (1, packed.motion_dim))
        if self.device.type == "cuda" and code.device.type == "cpu":
            self._staged[slot] = (self._staged[slot] + 1) % STAGING
            staged = self._staging[self._staged[slot], slot]
            code = staged.copy_(code[0])
        self._motion[slot].copy_(code.reshape(-1), non_blocking=True)
        self._how[slot] = motion
        self._stale |= self._styles_move

    def draw_i420(self, out: Tensor, broken: Tensor) -> None:
        """The pictures as I420, BT.601 limited range.

        Args:
            out: [batch, R*3//2, R] uint8.
            broken: [batch] int32: set to 1 where a picture holds NaN or infinity, else to 0.
        """
        broken.zero_()
        if self._image is None:
            shape = (self.batch, self.resolution, self.resolution, 3)
            self._image = torch.empty(shape, device=self.device)
        self.draw(self._image)
        image_to_i420(self._image, out=out, broken=broken)

    @abc.abstractmethod
    def draw(self, out: Tensor) -> None:
        """The pictures as RGB, nominally in [-1, 1].

        Args:
            out: [batch, R, R, 3] float32.
        """

    def _set_base(self, slot: int, w: Tensor) -> None:
        """What the identity gives the styles: once per identity, not per frame."""
        base, affines = self._base[slot], self.packed.affines
        # A seed's rows of w are one and the same: one product then. A GPU is not waited for to ask.
        alike = w.device.type == "cpu" and bool((w == w[:1]).all())
        w = w.to(self.device, torch.float32, non_blocking=True)
        if alike:
            torch.addmv(affines.bias, affines.matrix, w[0], out=base)
            return
        for row, columns in affines.pieces:
            torch.addmv(affines.bias[columns], affines.matrix[columns], w[row], out=base[columns])

    def _flat(self, *shapes: tuple[int, ...]) -> Tensor:
        """Memory for whichever of these one after the other: it stays in a cache."""
        most = max((math.prod(shape) for shape in shapes), default=0)
        return torch.zeros(self.batch * most, dtype=self.dtype, device=self.device)

    def _view(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        """[batch, *shape] at its beginning."""
        return flat[: self.batch * math.prod(shape)].view(self.batch, *shape)

    def _modulate(self) -> None:
        """Styles and demodulation factors of this frame, where they are not those of the last."""
        if not self._stale and self.device.type == "cpu":
            return
        motion = self._motion if self._styles_move else None
        style_scales(
            self._base,
            motion,
            self.packed.table,
            scale=self._scale,
            demod=self._demod,
            raw=self._raw,
        )
        if self._gathers:
            torch.index_select(self._scale.view(-1), 0, self._scale_rows, out=self._scales)
            torch.index_select(self._demod.view(-1), 0, self._demod_rows, out=self._demods)
        self._stale = False

    def _own(self, x: Tensor, conv: PackedConv) -> bool:
        """Whether our own kernel convolves x, measured first where there is a GPU to measure."""
        if self.device.type == "cuda":
            tune(conv, *x.shape[:3])
        return own_kernel(x, conv)

    def _layer_major(self) -> tuple[Tensor, Tensor]:
        """Where in `scale` and `demod` the pieces of each layer lie, sample after sample."""
        styles, demods = self.packed.table.widths
        layers = self.packed.table.layers
        self._scales = torch.zeros(self.batch * styles, device=self.device)
        self._demods = torch.zeros(self.batch * demods, device=self.device)
        picks = []
        for total, spans in (
            (styles, [(x.start, x.width) for x in layers]),
            (demods, [(x.demod_start, x.demod_width) for x in layers]),
        ):
            sample = torch.arange(self.batch)[:, None] * total
            parts = [(sample + torch.arange(a, a + n)).reshape(-1) for a, n in spans]
            picks.append(torch.cat(parts).to(self.device))
        return picks[0], picks[1]

    def _scale_of(self, layer: int) -> Tensor:
        """[batch, width] of a layer's input."""
        at = self.packed.table.layers[layer]
        if not self._gathers:
            return self._scale[:, at.start : at.start + at.width]
        begin = at.start * self.batch
        return self._scales[begin : begin + at.width * self.batch].view(self.batch, at.width)

    def _demod_of(self, layer: int) -> Tensor:
        """[batch, demod_width] of a layer's output."""
        at = self.packed.table.layers[layer]
        if not self._gathers:
            return self._demod[:, at.demod_start : at.demod_start + at.demod_width]
        begin = at.demod_start * self.batch
        return self._demods[begin : begin + at.demod_width * self.batch].view(self.batch, -1)


def _entry(tensors: object, name: str, shape: tuple[int, ...]) -> Tensor:
    value = tensors.get(name) if hasattr(tensors, "get") else None
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        found = None if value is None else list(value.shape)
        raise ValueError(f"{name} must be a tensor {list(shape)}, not {found}")
    return value
