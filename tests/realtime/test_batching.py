"""Frames of several sessions due together: drawn as one batch, and still each on its own."""

import asyncio
import random
import threading

import numpy as np
import pytest
import torch

from realtime import barcode
from realtime.backends import FrameBroken
from realtime.backends.cpu import Cpu
from realtime.backends.cuda_graph import CudaGraph
from realtime.backends.eager import Eager
from realtime.config import RenderConfig
from realtime.engine import Engine
from realtime.errors import SessionClosed
from realtime.messages import Look, RenderRequest, Tick
from tests.realtime.backends.slow_device import SlowDevice
from tests.realtime.tiny_stylegan import BROKEN_SEED, SIDE, TinyStyleGan

CPU = torch.device("cpu")
BATCHES = (1, 2, 4)
PATIENCE_S = 30


def fused():
    return Cpu(CPU, "", torch.float32, BATCHES)


def in_flight():
    """As on CUDA: a ring, and a second thread that waits. What is captured is called again."""
    return CudaGraph(CPU, "", torch.float32, BATCHES, lambda: lambda draw, device: draw)


def engine_of(backend, *systems, slots=4):
    systems = systems or (TinyStyleGan(),)
    known = {system.name: system for system in systems}
    config = RenderConfig(model=systems[0].name, slots=slots, threads=1)
    return Engine(config, load=known.__getitem__, names=list(known), backend=backend)


def request(session, index=0, *, t=None, stamped=False, **look):
    tick = Tick(index, index / 30, index * 3000, 0)
    look = {"model": "tiny", "resolution": SIDE, **look}
    return RenderRequest(session, tick, Look(**look), index / 30 if t is None else t, stamped)


class Wanted:
    """What each request shows, by the plain forward and without the engine."""

    def __init__(self, system=None):
        self.system = system or TinyStyleGan()
        self.renderer = Eager(CPU, "").prepare(self.system.synthesizer)

    def __call__(self, ask):
        look = ask.look
        out = np.empty((look.resolution * 3 // 2, look.resolution), np.uint8)
        source = self.system.motion(seed=look.motion_seed, who=look.seed)
        who = self.system.identity(seed=look.seed, psi=look.psi)
        self.renderer.render(who, source.sample(ask.motion_t), out)
        return out


def close(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max() <= 1


async def opened(engine, *sessions, resolution=SIDE, model="tiny"):
    await engine.load(model, resolution)
    for session in sessions:
        await engine.open(session, resolution)


class Hold:
    """The render thread does nothing while the block runs, so that frames gather."""

    def __init__(self, engine):
        self.engine, self.gate, self.inside = engine, threading.Event(), threading.Event()

    def _wait(self):
        self.inside.set()
        self.gate.wait(PATIENCE_S)

    async def __aenter__(self):
        self.engine._render.call(self._wait)
        await asyncio.to_thread(self.inside.wait, PATIENCE_S)

    async def __aexit__(self, *exc_info):
        await asyncio.sleep(0)  # what the block started reaches the queue
        self.gate.set()


@pytest.mark.parametrize("backend", [fused, in_flight])
async def test_frames_that_wait_together_are_drawn_together_and_each_is_its_own(backend):
    names, wanted = [f"s{k}" for k in range(7)], Wanted()
    async with engine_of(backend()) as engine, asyncio.TaskGroup() as group:
        await opened(engine, *names)
        asks = [request(n, 40 + k, seed=k, stamped=True) for k, n in enumerate(names)]
        async with Hold(engine):
            tasks = [group.create_task(engine.render(ask)) for ask in asks]
        for ask, task in zip(asks, tasks, strict=True):
            frame = await task
            assert barcode.read(frame.planes[0]) == ask.tick.index
            assert close(frame.i420[SIDE // 32 :], wanted(ask)[SIDE // 32 :])  # below the barcode
            assert frame.stamps["sampled"] <= frame.stamps["rendered"]
            frame.release()
        assert engine.stats()["batches"] == {1: 1, 2: 1, 4: 1}
        assert engine.stats()["frames"] == 7


async def test_nobody_waits_for_a_batch_to_fill():
    async with engine_of(fused()) as engine:
        await opened(engine, "a", "b")
        for k in range(5):
            (await engine.render(request("a", k))).release()
        assert engine.stats()["batches"] == {1: 5}


async def test_only_frames_of_one_model_and_one_size_are_drawn_together():
    other = TinyStyleGan("other")
    async with engine_of(fused(), TinyStyleGan(), other) as engine, asyncio.TaskGroup() as group:
        await opened(engine, "a", "b", "c", "d")
        await engine.load("other", SIDE)
        await engine.load("testcard", SIDE)
        for name in ("e", "f"):
            await engine.open(name, 16)
        looks = [
            ("a", {}),
            ("b", {"model": "other"}),
            ("e", {"resolution": 16}),
            ("c", {"model": "testcard"}),
            ("d", {"seed": 5}),
            ("f", {"resolution": 16}),
        ]
        asks = [request(session, **look) for session, look in looks]
        async with Hold(engine):
            tasks = [group.create_task(engine.render(ask)) for ask in asks]
        for ask, task in zip(asks, tasks, strict=True):
            frame = await task
            assert frame.model == ask.look.model and frame.width == ask.look.resolution
            frame.release()
        assert engine.stats()["batches"] == {1: 2, 2: 2}


async def test_frames_of_one_session_keep_their_order():
    order = []
    async with engine_of(fused(), slots=8) as engine, asyncio.TaskGroup() as group:
        await opened(engine, "a", "b")

        async def one(session, index):
            frame = await engine.render(request(session, index))
            order.append((session, index))
            frame.release()

        async with Hold(engine):
            for index in range(3):
                group.create_task(one("a", index))
                group.create_task(one("b", index))
    for name in "ab":
        assert [index for session, index in order if session == name] == [0, 1, 2]


@pytest.mark.parametrize("backend", [fused, in_flight])
async def test_one_broken_sample_breaks_its_own_frame_only(backend):
    wanted = Wanted()
    async with engine_of(backend()) as engine, asyncio.TaskGroup() as group:
        await opened(engine, "a", "b", "c", "d")
        seeds = (1, BROKEN_SEED, 2, 3)
        asks = [request(n, seed=s) for n, s in zip("abcd", seeds, strict=True)]
        async with Hold(engine):
            tasks = [group.create_task(caught(engine.render(ask))) for ask in asks]
        results = [await task for task in tasks]
        assert isinstance(results[1], FrameBroken)
        for k in (0, 2, 3):
            assert close(results[k].i420, wanted(asks[k]))
            results[k].release()
        stats = engine.stats()
        assert stats["batches"] == {4: 1} and stats["broken"] == 1
        assert stats["slots_free"] == stats["slots"]


async def until(condition):
    """Wait for what another thread does."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (threads set no asyncio event)
            await asyncio.sleep(0.001)


async def caught(awaitable):
    try:
        return await awaitable
    except Exception as error:
        return error


async def test_a_model_that_fails_for_one_frame_fails_for_that_one():
    class Choosy(TinyStyleGan):
        def motion(self, *, seed, who=None):
            if who == 13:
                raise RuntimeError("not this one")
            return super().motion(seed=seed, who=who)

    async with engine_of(fused(), Choosy()) as engine, asyncio.TaskGroup() as group:
        await opened(engine, "a", "b", "c")
        async with Hold(engine):
            tasks = [
                group.create_task(caught(engine.render(request(name, seed=seed))))
                for name, seed in (("a", 1), ("b", 13), ("c", 2))
            ]
        first, second, third = [await task for task in tasks]
        assert isinstance(second, FrameBroken) and "not this one" in str(second)
        for frame in (first, third):
            frame.release()
        assert engine.stats()["batches"] == {2: 1}


@pytest.mark.parametrize("where", ["submit", "wait"])
async def test_what_fails_for_the_batch_fails_for_each_with_its_own_exception(where, monkeypatch):
    device = SlowDevice()
    monkeypatch.setattr(torch, "get_device_module", lambda _: device)

    def lost(*_):
        raise torch.AcceleratorError("the device is lost")

    async with engine_of(in_flight()) as engine, asyncio.TaskGroup() as group:
        await opened(engine, "a", "b")
        with monkeypatch.context() as broken:
            if where == "submit":
                broken.setattr(engine._painter.loaded("tiny").renderer, "_enqueue", lost)
            else:
                broken.setattr(device.Event, "synchronize", lost)
            async with Hold(engine):
                tasks = [group.create_task(caught(engine.render(request(n)))) for n in "ab"]
            errors = [await task for task in tasks]
        assert [type(error) for error in errors] == [FrameBroken] * 2
        assert errors[0] is not errors[1] and "the device is lost" in str(errors[0])
        assert engine.stats()["slots_free"] == engine.stats()["slots"]
        for name in "ab":  # the engine goes on
            (await engine.render(request(name))).release()


async def test_drawing_goes_on_while_pictures_are_copied(monkeypatch):
    device = SlowDevice()
    monkeypatch.setattr(torch, "get_device_module", lambda _: device)
    wanted = Wanted()
    async with engine_of(in_flight()) as engine, asyncio.TaskGroup() as group:
        await opened(engine, "a", "b", "c")
        device.hold()
        asks = [request(name, seed=k, t=k / 5) for k, name in enumerate("abc")]
        tasks = []
        for k, ask in enumerate(asks):
            tasks.append(group.create_task(engine.render(ask)))
            await until(lambda k=k: sum(engine.stats()["batches"].values()) > k)
        assert engine.stats()["batches"] == {1: 3}  # all handed over, and none is finished
        assert not any(task.done() for task in tasks) and engine.stats()["in_flight"] == 3
        for ask, task in zip(asks, tasks, strict=True):
            device.let()
            frame = await task
            assert close(frame.i420, wanted(ask))
            frame.release()
        waited = {who for what, who, _ in device.log if what == "synchronize"}
        assert "stylewire-finish" in waited and "stylewire-render" not in waited
        device.let(10)


async def test_a_cancelled_frame_under_way_keeps_its_slot_until_it_is_copied(monkeypatch):
    device = SlowDevice()
    monkeypatch.setattr(torch, "get_device_module", lambda _: device)
    async with engine_of(in_flight(), slots=2) as engine:
        await opened(engine, "a")
        device.hold()
        while device.waiting.acquire(blocking=False):
            pass
        async with asyncio.TaskGroup() as group:
            task = group.create_task(engine.render(request("a")))
            await asyncio.to_thread(device.waiting.acquire, timeout=PATIENCE_S)
            task.cancel()
        assert task.cancelled() and engine.stats()["slots_free"] == 1
        device.let()
        await until(lambda: engine.stats()["slots_free"] == 2)
        device.let(10)


async def test_a_cancelled_frame_that_waits_is_taken_out_of_the_queue():
    async with engine_of(fused(), slots=2) as engine, asyncio.TaskGroup() as group:
        await opened(engine, "a", "b")
        async with Hold(engine):
            for _ in range(50):  # many more than there are slots
                task = group.create_task(engine.render(request("a")))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert len(engine._render._jobs) == 1
                task.cancel()
                await asyncio.wait([task])
                assert not engine._render._jobs
            kept = group.create_task(engine.render(request("b")))
        (await kept).release()
        assert engine.stats()["slots_free"] == 4 and engine.stats()["batches"] == {1: 1}


@pytest.mark.parametrize("backend", [fused, in_flight])
async def test_no_session_ever_sees_another_ones_pixels(backend):
    """Batches of changing sizes, cancellations among them, hundreds of interleaved frames."""
    rng, wanted = random.Random(5), Wanted()
    seeds = {f"s{k}": 100 + k for k in range(6)}
    memory = {name: set() for name in seeds}
    async with engine_of(backend()) as engine:
        await opened(engine, *seeds)
        pictures = {n: wanted(request(n, t=0.0, seed=s)) for n, s in seeds.items()}
        assert len({picture.tobytes() for picture in pictures.values()}) == len(seeds)

        async def one(name, patience):
            async with asyncio.timeout(patience):
                frame = await engine.render(request(name, t=0.0, seed=seeds[name]))
            memory[name].add(frame.i420.ctypes.data)
            await asyncio.sleep(0)
            assert close(frame.i420, pictures[name]), name
            frame.release()

        for _ in range(60):
            async with asyncio.TaskGroup() as group:
                for name in rng.sample(list(seeds), rng.randrange(1, len(seeds) + 1)):
                    hasty = rng.random() < 0.2
                    made = one(name, 0.001 if hasty else PATIENCE_S)
                    group.create_task(caught(made) if hasty else made)
        await until(lambda: engine.stats()["slots_free"] == engine.stats()["slots"])
        assert len(engine.stats()["batches"]) > 1 and engine.stats()["in_flight"] == 0
    for name, used in memory.items():
        others = set().union(*(memory[other] for other in memory if other != name))
        assert used and not used & others


async def test_closing_finishes_what_is_under_way_and_refuses_what_comes():
    before = threading.active_count()
    async with engine_of(in_flight()) as engine:
        await opened(engine, "a", "b")
        tasks = [asyncio.ensure_future(engine.render(request(name))) for name in "ab"]
        await asyncio.sleep(0)
    for task in tasks:
        (await task).release()
    with pytest.raises(SessionClosed):
        engine._render.call(print)
    await until(lambda: threading.active_count() <= before)


async def test_a_size_that_is_new_is_prepared_beside_the_stream():
    async with engine_of(in_flight()) as engine:
        await opened(engine, "a")
        renderer = engine._painter.loaded("tiny").renderer
        assert renderer.ready(SIDE) and not renderer.ready(16)
        assert (await engine.load("tiny", 16)).backend == "cuda-graph"
        assert renderer.ready(16) and renderer.batches(16) == BATCHES


async def test_a_capture_that_fails_later_is_shown():
    captures = []

    def capture(draw, device):
        if len(captures) == len(BATCHES):
            raise RuntimeError("operation not permitted when stream is capturing")
        captures.append(draw)
        return draw

    backend = CudaGraph(CPU, "", torch.float32, BATCHES, lambda: capture)
    async with engine_of(backend) as engine:
        assert (await engine.load("tiny", SIDE)).backend == "cuda-graph"
        info = await engine.load("tiny", 16)
        assert info.backend == "triton" and "cannot capture" in info.backend_why
        assert engine.info("tiny") == info
        assert engine.stats()["models"][0]["backend"] == "triton"
