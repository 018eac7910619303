"""The stages of bench/gpu.py, each of which runs in a process of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import blocks, ceilings, harness, launches, subjects, systems, work
from bench.fidelity import BYTE_GATES, POISON, Truth, byte_psnr, gate
from bench.graphs import captured
from models.fused import Executor, pack

FRAMES = 500  # of ours, at least
BATCHES = (1, 2, 4, 8)
SESSION_MS = 1000 / 30
LEAST_DB = BYTE_GATES[torch.float16]
Keep = Callable[[dict[str, Any]], None]


class Cuda:
    """The device, as the stages use it. Without a GPU they are tested on another one."""

    name = "cuda"
    dtype = torch.float16
    way = "cuda-graph:fp16"  # the engine's backend

    def sync(self) -> None:
        torch.cuda.synchronize()

    def pinned(self, *shape: int) -> Tensor:
        """uint8 host memory that the device writes by itself."""
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)

    def captured(self, draw: Callable[[], object]) -> Callable[[], None]:
        """A replay of what `draw` launches."""
        return captured(draw)

    def event(self) -> Any:
        """Waiting for it lets the thread sleep."""
        return torch.cuda.Event(blocking=True)

    def held(self) -> tuple[int, int]:
        """Bytes allocated and reserved."""
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    @contextmanager
    def strict(self) -> Iterator[None]:
        """Whatever makes the host wait for the device raises RuntimeError."""
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


class Graphed:
    """A packed network in one CUDA graph, from static inputs to I420 in pinned memory."""

    def __init__(self, executor: Executor, gpu: Cuda) -> None:
        n, size = executor.batch, executor.resolution
        shape = (n, size * 3 // 2, size)
        self.executor = executor
        self.on_device = torch.empty(shape, dtype=torch.uint8, device=gpu.name)
        self.pinned = gpu.pinned(*shape)
        self.broken = torch.zeros(n, dtype=torch.int32, device=gpu.name)
        self._gpu = gpu
        self.replay = gpu.captured(self._draw)  # draws what was `put`; returns at once

    def _draw(self) -> None:
        self.executor.draw_i420(self.on_device, self.broken)
        self.pinned.copy_(self.on_device, non_blocking=True)

    def drawn(self, codes: Sequence[tuple[Any, Any]]) -> np.ndarray:
        """I420 [batch, R*3//2, R] of (identity, motion) each, into poisoned memory."""
        self.on_device.fill_(POISON)
        self._gpu.sync()
        self.pinned.fill_(POISON)
        for slot, code in enumerate(codes):
            self.executor.put(slot, *code)
        self.replay()
        self._gpu.sync()
        return self.pinned.numpy().copy()


def packed_of(name: str, gpu: Cuda) -> tuple[Any, Any]:
    """A seeded system, and its network packed in half precision."""
    system = systems.load(name, gpu.name)
    return system, pack(system.synthesizer, torch.device(gpu.name), gpu.dtype)


def warm(name: str, keep: Keep, gpu: Cuda) -> None:
    """Compile what a system needs, so that later stages find it in Triton's cache."""
    _, packed = packed_of(name, gpu)
    for batch in BATCHES:
        Graphed(packed.executor(batch), gpu)
    gpu.sync()
    keep({"model": name})


def extensions(against: str, keep: Keep, gpu: Cuda) -> None:
    """Build the published code's CUDA extensions, which takes minutes once."""
    from bench import published

    published.networks(against, "stylegan3")
    keep({"published": published.extensions(against, torch.device(gpu.name))})


def frames(name: str, against: str | None, seconds: float, keep: Keep, gpu: Cuda) -> None:
    """Batch 1 as I420 in pinned memory, beside the baselines, in one process."""
    system, packed = packed_of(name, gpu)
    place = torch.device(gpu.name)
    truth = Truth(system, place)
    bases, absent = _baselines(name, system, truth, gpu, against)
    exact = subjects.checked_picture("fused", system, truth, place, gpu.dtype)
    ours = Graphed(packed.executor(1), gpu)
    levels = [
        byte_psnr(ours.drawn([(truth.identity, motion)])[0], expected)
        for motion, expected in zip(truth.motions, truth.i420, strict=True)
    ]
    i420_db = gate("fused, I420", levels, gpu.dtype, BYTE_GATES)

    calls: dict[str, Callable[[], object]] = {"ours": _stream_of(ours, system)}
    calls |= {base.name: base.frame for base in bases}
    calls |= _engine(system, truth, absent, gpu)
    timed, limits = _timed(calls, seconds, gpu)
    counted = launches.count(calls["ours"], gpu.name)
    keep(
        {
            "model": name,
            "trained": False,
            "resolution": system.resolution,
            **blocks.figures(timed["ours"]),
            "psnr_db": round(exact, 1),
            "i420_psnr_db": round(i420_db, 1),
            "launches": counted.host,
            "device_operations": counted.device,
            **_roofline(system, timed["ours"], limits, gpu.dtype),
            "engine_ms": blocks.figures(timed["engine"])["p50_ms"] if "engine" in timed else None,
            **_beside(timed, bases),
            "absent": absent,
            "warnings": harness.instabilities(timed["ours"].samples),
        }
    )


def _timed(
    calls: dict[str, Callable[[], object]], seconds: float, gpu: Cuda
) -> tuple[dict[str, blocks.Timed], ceilings.Ceilings]:
    """All in turn, for so long each; and the ceilings, measured before and after."""
    per_block = {
        key: blocks.frames_per_block(call, seconds / blocks.BLOCKS, gpu.sync)
        for key, call in calls.items()
    }
    per_block["ours"] = max(per_block["ours"], FRAMES // blocks.BLOCKS)
    least = min(0.2, seconds / 10)
    limits = ceilings.measure(gpu.name, [gpu.dtype], least)
    timed = blocks.interleave(calls, frames=per_block, sync=gpu.sync)
    return timed, limits.or_better(ceilings.measure(gpu.name, [gpu.dtype], least))


def _roofline(
    system: Any, timed: blocks.Timed, limits: ceilings.Ceilings, dtype: torch.dtype
) -> dict[str, Any]:
    floor = limits.floor_ms(work.parts_of(system.synthesizer) or [], dtype)
    return {
        "roofline_ms": round(floor, 4),
        "roofline_percent": round(100 * floor / blocks.figures(timed)["p50_ms"], 1),
        "ceilings": limits.as_dict(),
    }


def _beside(timed: dict[str, blocks.Timed], bases: list[Any]) -> dict[str, Any]:
    """Ours against every baseline, and against the two that count."""
    eager, graph = _pair(bases)
    return {
        "baseline": eager,
        "vs_eager": _ratio(timed, eager),
        "vs_graph": _ratio(timed, graph),
        "baselines": {
            base.name: {
                **{k: blocks.figures(timed[base.name])[k] for k in ("p50_ms", "frames")},
                "ratio": _ratio(timed, base.name),
            }
            for base in bases
        },
    }


def _baselines(
    name: str, system: Any, truth: Truth, gpu: Cuda, against: str | None
) -> tuple[list[Any], list[str]]:
    """What can be compared with, the published code first; and what cannot, and why."""
    from bench.published import published

    made, absent = [], []
    place = torch.device(gpu.name)

    def attempt(what: str, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except subjects.Absent as error:  # a wrong picture is no absence: it fails the stage
            absent.append(f"{what}: {error}")
            return None

    theirs = None
    if against is not None:
        theirs = attempt("published code", lambda: published(against, name, system, truth, place))
    if theirs is not None:
        made += [
            theirs.eager(),
            attempt("published code, CUDA graph", lambda: theirs.graph(gpu.captured)),
        ]
    made += [
        attempt("official order", lambda: subjects.official_order(system, truth, place)),
        attempt(
            "official order, CUDA graph",
            lambda: subjects.official_order_graph(system, place, gpu.captured),
        ),
    ]
    return [base for base in made if base is not None], absent


def _pair(bases: list[Any]) -> tuple[str | None, str | None]:
    """Names of the eager and the graphed baseline that count: the published code's if it is there
    with its own extensions, which its plain path is far slower than.
    """
    names = [base.name for base in bases]
    own = [n for n in names if "CUDA extensions" in n] or [n for n in names if "official" in n]
    eager = next((n for n in own if not n.endswith("CUDA graph")), None)
    return eager, next((n for n in own if n.endswith("CUDA graph")), None)


def _ratio(timed: dict[str, blocks.Timed], base: str | None) -> dict[str, float] | None:
    if base is None or base not in timed:
        return None
    return blocks.ratio(timed[base], timed["ours"]).as_dict()


def _stream_of(ours: Graphed, system: Any) -> Callable[[], object]:
    """The next frame: its motion from host memory, I420 to pinned memory."""
    source = system.motion(seed=0)
    identity = system.identity(seed=0, psi=0.7)
    motions = itertools.cycle([source.sample(k * subjects.STEP_S) for k in range(subjects.CODES)])

    def frame() -> None:
        ours.executor.put(0, identity, next(motions))
        ours.replay()

    return frame


def _engine(
    system: Any, truth: Truth, absent: list[str], gpu: Cuda
) -> dict[str, Callable[[], object]]:
    """The engine's own cuda-graph backend, down to the frame slot."""
    try:
        made = subjects.subject(gpu.way, system, truth, gpu.name, [system.resolution])
    except subjects.Absent as error:
        absent.append(f"engine: {error}")
        return {}
    return {"engine": made.frames[system.resolution]}


def replays(name: str, count: int, keep: Keep, gpu: Cuda) -> None:
    """Thousands of frames: the last is the first again, memory stands still, nothing waits."""
    system, packed = packed_of(name, gpu)
    ours = Graphed(packed.executor(1), gpu)
    frame = _stream_of(ours, system)
    first = (system.identity(seed=0, psi=0.7), system.motion(seed=0).sample(0.0))
    before = ours.drawn([first])
    for _ in range(min(count, 50)):
        frame()
    gpu.sync()
    held, hidden = gpu.held(), ""
    events = [gpu.event() for _ in range(2)]
    try:
        with gpu.strict():
            for k in range(count):
                if k >= len(events):
                    events[k % 2].synchronize()  # two frames in flight, as the engine has
                frame()
                events[k % 2].record()
    except RuntimeError as error:
        hidden = str(error).splitlines()[0]
    gpu.sync()
    after = ours.drawn([first])
    now = gpu.held()
    keep(
        {
            "model": name,
            "replays": count,
            "differing_bytes": int((before != after).sum()),
            "allocated_growth": now[0] - held[0],
            "reserved_growth": now[1] - held[1],
            "hidden_sync": hidden,
            "broken": int(ours.broken.sum().item()),
        }
    )


def batch(name: str, seconds: float, keep: Keep, gpu: Cuda) -> None:
    """How many sessions one GPU serves at 30 frames per second, by batch."""
    system, packed = packed_of(name, gpu)
    source, identity = system.motion(seed=0), system.identity(seed=0, psi=0.7)
    motions = [source.sample(k * 0.37) for k in range(subjects.CODES)]
    codes = [(identity, motion) for motion in motions[: max(BATCHES)]]
    alone: list[np.ndarray] = []
    for n in BATCHES:
        ours = Graphed(packed.executor(n), gpu)
        if n == 1:
            alone = [ours.drawn([code])[0] for code in codes]
        together = ours.drawn(codes[:n])
        worst = min(byte_psnr(a, b) for a, b in zip(together, alone, strict=False))
        call = _batches(ours, identity, motions)
        count = blocks.frames_per_block(call, seconds / blocks.BLOCKS, gpu.sync)
        timed = blocks.interleave({"ours": call}, frames={"ours": count}, sync=gpu.sync)["ours"]
        row = blocks.figures(timed)
        keep(
            {
                "model": name,
                "batch": n,
                **row,
                "ms_per_picture": round(row["p50_ms"] / n, 4),
                # A batch that is late once in twenty makes a session stutter: p95, not p50.
                "sessions_at_30": n * int(SESSION_MS // row["p95_ms"]),
                "same_as_alone_db": round(worst, 1),
                "same_as_alone": worst >= LEAST_DB,
            }
        )


def _batches(ours: Graphed, identity: Any, motions: list[Any]) -> Callable[[], object]:
    """The next picture of each of a batch."""
    moments = itertools.count()

    def call() -> None:
        moment = next(moments)
        for slot in range(ours.executor.batch):
            ours.executor.put(slot, identity, motions[(moment + slot) % len(motions)])
        ours.replay()

    return call


def kernels(seconds: float, budget_s: float, keep: Keep, gpu: Cuda) -> None:
    """bench/kernels.py, in short."""
    from bench import kernels as ops

    picked = [case for case in ops.registry(gpu.name) if hasattr(case, "make")]
    rows, wrong, left, _ = ops.measure(picked, gpu.name, seconds, blocks.BLOCKS, budget_s)
    for row in rows:
        keep(row)
    for text in wrong:
        keep({"wrong": text})
    for text in left:
        keep({"left": text})
