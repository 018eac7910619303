"""The ways of drawing that a frame rate is measured of, and what they are compared with.

A subject draws the next frame of a stream: the motion code at t, synthesis, I420 in host memory; t
advances by 1/60 s. A baseline is given less to do, so that no ratio flatters us: it gets its codes
ready made and ends with the picture as floating point numbers on its own device.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bench import resampled
from bench.fidelity import BYTE_GATES, GATES, POISON, Truth, byte_psnr, gate, placed, psnr
from bench.graphs import Capture, captured
from kernels_triton import implementation
from models.errors import CannotFuse
from models.fused import pack

STEP_S = 1 / 60
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WAYS = {
    "cpu": ("eager", "cpu:fp32", "cpu:bf16"),
    "cuda": ("eager", "triton:fp16", "cuda-graph:fp16", "compile"),
}
PACKED = ("cpu", "triton", "cuda-graph")  # backends on models.fused
CODES = 64  # of a baseline, made ahead and used in turn


class Absent(Exception):
    """A way of drawing does not run here, or not this network; the message says why."""


@dataclass(frozen=True)
class Subject:
    """One way of drawing, ready and checked.

    Args:
        backend: Its name.
        precision: What activations are stored in: "fp32", "bf16", "fp16"; "" is the model's own.
        frames: By sent size: a function that draws the next frame.
        psnr: dB of the float picture against the definition; None where there is none to compare.
        i420_psnr: dB of the bytes at the network's own size; None likewise.
        sent_psnr: By sent size: dB of the bytes there.
    """

    backend: str
    precision: str
    frames: dict[int, Callable[[], object]]
    psnr: float | None = None
    i420_psnr: float | None = None
    sent_psnr: dict[int, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.backend} {self.precision}".strip()


@dataclass(frozen=True)
class Baseline:
    """What subjects are compared with."""

    name: str
    frame: Callable[[], object]
    psnr: float | None = None


def parse(way: str) -> tuple[str, str]:
    """`backend` or `backend:precision` to both; the precision is "auto" if left out."""
    backend, _, precision = way.partition(":")
    return backend, precision or "auto"


def subject(way: str, system: Any, truth: Truth, device: str, sizes: list[int]) -> Subject:
    """A backend of the engine that draws this system, its pictures checked.

    Raises:
        Absent: It does not run here, or draws this network another way.
        Unfaithful: Its pictures are not the definition's.
    """
    from realtime.backends import choose, native_bf16
    from realtime.errors import BackendUnavailable

    name, precision = parse(way)
    if precision == "auto" and name in PACKED:
        best = "bf16" if native_bf16() else "fp32"
        precision = "fp16" if device.startswith("cuda") else best
    try:
        backend = choose(name, device, precision)
    except BackendUnavailable as error:
        raise Absent(str(error)) from error
    renderer = backend.prepare(system.synthesizer)
    if renderer.backend != backend.name:
        raise Absent(f"{way}: {renderer.why}")
    dtype = DTYPES.get(precision, torch.float32)
    checked: float | None = None
    if name in PACKED:
        checked = checked_picture(way, system, truth, backend.device, dtype)
    # The plain forward on CUDA computes some layers in half precision, as published.
    allowed = torch.float16 if backend.device.type == "cuda" else dtype
    own = gate(f"{way}, I420", _levels(renderer, truth, system.resolution), allowed, BYTE_GATES)
    sent = {}
    for size in sizes:
        renderer.warm(size)
        levels = _levels(renderer, truth, size)
        sent[size] = gate(f"{way}, I420 at {size}", levels, allowed, BYTE_GATES)
    return Subject(
        backend.name,
        precision if name in PACKED else "",
        {size: _frames(renderer, system, size) for size in sizes},
        checked,
        own,
        sent,
    )


def _levels(renderer: Any, truth: Truth, size: int) -> list[float]:
    """dB of the I420 that a renderer sends at this size, into poisoned memory; of each moment."""
    out = np.empty((size * 3 // 2, size), np.uint8)
    found = []
    for motion, image, own in zip(truth.motions, truth.images, truth.i420, strict=True):
        out.fill(POISON)
        renderer.render(truth.identity, motion, out)
        exact = [own] if size == image.shape[0] else resampled.i420(image, size)
        found.append(max(byte_psnr(out, one) for one in exact))
    return found


def checked_picture(
    way: str, system: Any, truth: Truth, device: torch.device, dtype: torch.dtype
) -> float:
    """dB of the packed network's float pictures, in memory that held NaN."""
    try:
        executor = pack(system.synthesizer, device, dtype).executor(1)
    except CannotFuse as error:
        raise Absent(f"{way}: {error}") from error
    out = torch.empty(1, system.resolution, system.resolution, 3, device=device)
    found = []
    for motion, exact in zip(truth.motions, truth.images, strict=True):
        out.fill_(torch.nan)
        executor.put(0, placed(truth.identity, device), placed(motion, device))
        executor.draw(out)
        found.append(psnr(out[0].cpu(), exact))
    return gate(way, found, dtype, GATES)


def _frames(renderer: Any, system: Any, size: int) -> Callable[[], object]:
    identity, source = system.identity(seed=0, psi=0.7), system.motion(seed=0)
    out = np.empty((size * 3 // 2, size), np.uint8)
    moments = itertools.count()

    def frame() -> None:
        renderer.render(identity, source.sample(next(moments) * STEP_S), out)

    return frame


def codes(system: Any, device: torch.device) -> Iterator[tuple[Any, Any]]:
    """(identity, motion) on the device, for ever; the identity is one."""
    source = system.motion(seed=0)
    identity = placed(system.identity(seed=0, psi=0.7), device)
    made = [placed(source.sample(k * STEP_S), device) for k in range(CODES)]
    return itertools.cycle([(identity, motion) for motion in made])


def official_order(system: Any, truth: Truth, device: torch.device) -> Baseline:
    """The published order of operators, in this project's reference code.

    Weights modulated per sample, zeros inserted, every filter a pass of its own. On CUDA in half
    precision where the published network is.
    """
    network = copy.deepcopy(system.synthesizer).to(device).eval()
    following = codes(system, device)

    def draw(identity: Any, motion: Any) -> Any:
        with torch.inference_mode(), implementation("reference"):
            return network(identity, motion)

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    found = []
    for motion, exact in zip(truth.motions, truth.images, strict=True):
        image = draw(placed(truth.identity, device), placed(motion, device))
        found.append(psnr(image[0].expand(3, -1, -1).permute(1, 2, 0).cpu(), exact))
    checked = gate("official order", found, dtype)
    return Baseline("official order", lambda: draw(*next(following)), checked)


def graphed(
    forward: Callable[[Any, Any], Any],
    system: Any,
    device: torch.device,
    capture: Capture = captured,
) -> Callable[[], Any]:
    """The same forward in a CUDA graph: a function that replays it for the next codes.

    Raises:
        Absent: It cannot be captured.
    """
    following = codes(system, device)
    identity, motion = next(following)
    static = copy.deepcopy(motion)
    image: Any = None

    def draw() -> None:
        nonlocal image
        with torch.inference_mode():
            image = forward(identity, static)

    try:
        replay = capture(draw)
    except RuntimeError as error:
        raise Absent(f"it cannot be captured: {str(error).splitlines()[0]}") from error

    def frame() -> Any:
        _, motion = next(following)
        for name, value in motion.tensors.items():
            static.tensors[name].copy_(value, non_blocking=True)
        replay()
        return image

    return frame


def official_order_graph(
    system: Any, device: torch.device, capture: Capture = captured
) -> Baseline:
    """`official_order` captured in a CUDA graph. Raises Absent."""
    network = copy.deepcopy(system.synthesizer).to(device).eval()

    def forward(identity: Any, motion: Any) -> Any:
        with implementation("reference"):
            return network(identity, motion)

    return Baseline("official order, CUDA graph", graphed(forward, system, device, capture))
