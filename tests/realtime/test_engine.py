"""The engine: isolation, bounds, threads, faults."""

import asyncio
import dataclasses
import gc
import random
import threading
import time
import tracemalloc

import cv2
import numpy as np
import pytest
import torch

from models.errors import ModelError
from models.sample import draw
from realtime import barcode, gaps
from realtime.backends import FrameBroken
from realtime.config import RenderConfig
from realtime.engine import Engine, NoFreeSlot
from realtime.errors import (
    OverCapacity,
    RealtimeError,
    SessionClosed,
    SignalingError,
)
from realtime.i420 import chw_to_i420
from realtime.messages import Look, RenderRequest, Tick
from realtime.painter import IDENTITIES, LOADED_MODELS, Painter
from realtime.test_card import colour_in, colour_of
from tests.realtime.tiny_system import TinySystem

PATIENCE_S = 30


def engine_of(*systems, slots=3, threads=0):
    """An engine that knows these systems, and the test card."""
    known = {system.name: system for system in systems}

    def load(name):
        if name not in known:
            raise ModelError(f"no model is called {name!r}.")
        return known[name]

    config = RenderConfig(model=systems[0].name if systems else "testcard", slots=slots)
    config = dataclasses.replace(config, threads=threads)
    return Engine(config, load=load, names=list(known))


def request(session="a", index=0, *, t=None, barcode=False, **look):
    t = index / 30 if t is None else t
    tick = Tick(index, index / 30, index * 3000, time.monotonic_ns())
    look = {"model": "tiny", "resolution": 32, **look}
    return RenderRequest(session, tick, Look(**look), t, barcode)


async def until(condition):
    """Wait for what another thread does."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (threads set no asyncio event)
            await asyncio.sleep(0.002)


async def opened(engine, *sessions, resolution=32, model="tiny"):
    await engine.load(model, resolution)
    for session in sessions or ("a",):
        await engine.open(session, resolution)


def expected(system, look, t):
    """The I420 picture, computed without the engine."""
    with torch.inference_mode():
        identity = system.identity(seed=look.seed, psi=look.psi)
        image = system.synthesizer(identity, system.motion(seed=0).sample(t))[0]
    out = np.empty((look.resolution * 3 // 2, look.resolution), np.uint8)
    chw_to_i420(image.contiguous().numpy(), out)
    return out


async def test_a_frame_is_the_systems_picture_at_the_motion_time():
    system = TinySystem()
    async with engine_of(system) as engine:
        await opened(engine)
        ask = request(index=7, t=12.25, seed=3, psi=0.5)
        before = time.monotonic_ns()
        frame = await engine.render(ask)
        assert np.array_equal(frame.i420, expected(system, ask.look, 12.25))
        assert frame.tick is ask.tick and frame.model == "tiny" and not frame.trained
        stamps = frame.stamps
        assert stamps["due"] == ask.tick.deadline_ns
        assert before <= stamps["sampled"] <= stamps["rendered"] <= time.monotonic_ns()


async def test_motion_is_sampled_in_the_one_render_thread_and_loading_in_another():
    system = TinySystem()
    async with engine_of(system) as engine:
        await opened(engine)
        warm_up = list(system.synthesizer.calls)
        for k in range(3):
            (await engine.render(request(index=k, t=-k / 7))).release()
        drawn = system.synthesizer.calls[len(warm_up) :]
    assert set(warm_up) == {"stylewire-load"}
    assert set(drawn) == {"stylewire-render"}
    assert [source.asked for source in system.sources[1:]] == [[0.0, -1 / 7, -2 / 7]]


async def test_threads_are_set_in_the_render_thread():
    class Counting(TinySystem):
        def motion(self, *, seed, who=None):
            self.threads = torch.get_num_threads()
            return super().motion(seed=seed)

    before, system = torch.get_num_threads(), Counting()
    try:
        async with engine_of(system, threads=2) as engine:
            await opened(engine)
            (await engine.render(request())).release()
            assert system.threads == 2 == engine.threads
    finally:
        torch.set_num_threads(before)


async def test_a_loaded_model_is_known_and_loading_again_costs_nothing():
    system = TinySystem()
    async with engine_of(system) as engine:
        info = await engine.load("tiny", 64)
        assert (info.name, info.trained, info.resolution, info.parameters) == ("tiny", False, 32, 3)
        assert info.backend == "eager" and info.warmup_ms > info.frame_ms > 0
        assert "cpu cannot draw this model" in info.backend_why
        calls = len(system.synthesizer.calls)
        assert await engine.load("tiny", 64) is info and engine.info("tiny") is info
        assert len(system.synthesizer.calls) == calls
        assert engine.models() == ["tiny", "testcard"]


async def test_a_stream_shows_what_sample_draws(tmp_path):
    draw("aurora", tmp_path / "a.png", seed=3, t=1.5, psi=0.7)
    drawn = cv2.imread(str(tmp_path / "a.png")).astype(int)
    async with Engine(RenderConfig(model="aurora")) as engine:
        await opened(engine, "a", resolution=256, model="aurora")
        frame = await engine.render(request(t=1.5, model="aurora", seed=3, resolution=256))
        shown = cv2.cvtColor(frame.i420, cv2.COLOR_YUV2BGR_I420).astype(int)
        frame.release()
    assert np.abs(shown - drawn).mean() < 3  # chroma is halved and the range limited on the way


async def test_a_file_is_loaded_by_its_path_and_known_by_its_name():
    asked = []

    def load(name):
        asked.append(name)
        return TinySystem()

    config = RenderConfig(model="mine", path="/somewhere/mine.json")
    async with Engine(config, load=load, names=["tiny"]) as engine:
        assert engine.models() == ["mine", "tiny", "testcard"]
        assert (await engine.load("mine", 32)).name == "mine"
        await engine.load("tiny", 32)
    assert asked == ["/somewhere/mine.json", "tiny"]


async def test_a_model_that_cannot_be_loaded_is_one_sentence_and_the_old_one_stays():
    broken, system = TinySystem("broken"), TinySystem()
    broken.synthesizer.break_next = 1
    async with engine_of(system, broken) as engine:
        await opened(engine)
        for name, says in (("nobody", "no model"), ("broken", "NaN")):
            with pytest.raises(ModelError, match=says):
                await engine.load(name, 32)
            assert engine.info(name) is None
        with pytest.raises(ModelError, match="not loaded"):
            await engine.render(request(model="nobody"))
        (await engine.render(request())).release()


async def test_frames_go_on_while_a_slow_model_warms_up():
    slow, system = TinySystem("slow"), TinySystem()
    slow.synthesizer.delay_s = 0.15
    async with engine_of(system, slow) as engine, asyncio.TaskGroup() as group:
        await opened(engine)
        loading = group.create_task(engine.load("slow", 32))
        frames = 0
        while not loading.done():
            (await engine.render(request(index=frames))).release()
            frames += 1
        assert frames > 20  # 0.45 s of warm-up; a blocked render thread would give one or two
        assert (await engine.render(request(model="slow", index=999))).model == "slow"


class Slow(TinySystem):
    """Its construction waits at `gate` until it is told to go on."""

    def __init__(self, name="slow"):
        super().__init__(name)
        self.gate, self.built = threading.Event(), 0

    def build(self):
        self.built += 1
        assert self.gate.wait(PATIENCE_S)
        return self


def slow_engine(slow, *systems):
    known = {system.name: system for system in systems}

    def load(name):
        return slow.build() if name == slow.name else known[name]

    return Engine(RenderConfig(model=slow.name), load=load, names=list(known))


async def test_known_models_and_the_test_card_do_not_wait_for_one_being_built():
    slow = Slow()
    async with slow_engine(slow, TinySystem()) as engine, asyncio.TaskGroup() as group:
        await opened(engine)
        loading = group.create_task(engine.load("slow", 32))
        try:
            await until(lambda: slow.built)
            times = []
            for _ in range(5):
                begin = time.monotonic()
                async with asyncio.timeout(PATIENCE_S / 2):
                    await engine.load("tiny", 32)
                    await engine.load("testcard", 32)
                    await engine.thumbnail("tiny", len(times))
                times.append(time.monotonic() - begin)
            assert min(times) < 0.05 and not loading.done()
        finally:
            slow.gate.set()
    assert loading.result().name == "slow"


async def test_who_asks_for_the_same_model_shares_one_load_and_cancels_only_himself():
    slow = Slow()
    async with slow_engine(slow) as engine, asyncio.TaskGroup() as group:
        first, second, third = (group.create_task(engine.load("slow", 32)) for _ in range(3))
        await until(lambda: slow.built)
        first.cancel()
        await asyncio.wait([first])
        slow.gate.set()
        assert await second is await third is engine.info("slow")
        assert first.cancelled() and slow.built == 1


async def test_a_load_that_failed_can_be_tried_again_and_a_lonely_one_that_fails_is_quiet(caplog):
    slow = Slow()
    slow.synthesizer.break_next = 2
    async with slow_engine(slow) as engine, asyncio.TaskGroup() as group:
        for _ in range(2):
            slow.gate.clear()
            task = group.create_task(engine.load("slow", 32))
            built = slow.built
            await until(lambda before=built: slow.built > before)
            task.cancel()  # nobody waits for it any more
            await asyncio.wait([task])
            slow.gate.set()
            await until(lambda: not engine._loader._pending)
        assert (await engine.load("slow", 32)).name == "slow" and slow.built == 3
    gc.collect()
    await asyncio.sleep(0)
    assert "never retrieved" not in caplog.text


async def test_closing_while_a_model_is_built_tells_who_waits_at_once():
    slow, other = Slow(), TinySystem("other")
    asked = []
    try:
        async with slow_engine(slow, other) as engine:
            asked = [asyncio.ensure_future(engine.load(name, 32)) for name in ("slow", "other")]
            await until(lambda: slow.built)
        async with asyncio.timeout(PATIENCE_S / 2):
            results = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(result) for result in results] == [SessionClosed] * 2
        assert not slow.gate.is_set() and not slow.synthesizer.calls
    finally:
        slow.gate.set()
    await until(lambda: "stylewire-load" not in {t.name for t in threading.enumerate()})
    assert not slow.synthesizer.calls and not other.synthesizer.calls  # no use any more


async def test_no_session_ever_sees_another_ones_pixels():
    """A colour code per session through the real engine, hundreds of interleaved renders."""
    rng = random.Random(4)
    system, sessions = TinySystem(), {f"s{k}": 1000 + 17 * k for k in range(5)}
    memory = {name: set() for name in sessions}
    async with engine_of(system) as engine:
        await opened(engine, *sessions)
        await engine.load("testcard", 32)

        async def one(name, seed, index):
            model = rng.choice(("tiny", "testcard"))
            ask = request(name, index, t=0.0, seed=seed, psi=1.0, model=model)
            frame = await engine.render(ask)
            memory[name].add(frame.i420.ctypes.data)
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)  # the others draw while this one is held
            if model == "tiny":
                assert np.array_equal(frame.i420, wanted[name]), name
            else:
                assert colour_in(frame.i420) == pytest.approx(colour_of(seed), abs=0.01), name
            frame.release()

        wanted = {
            n: expected(system, request(seed=s, psi=1.0).look, 0.0) for n, s in sessions.items()
        }
        assert len({w.tobytes() for w in wanted.values()}) == len(sessions)
        for index in range(120):
            async with asyncio.TaskGroup() as group:
                for name, seed in rng.sample(list(sessions.items()), len(sessions)):
                    group.create_task(one(name, seed, index))
    for name, used in memory.items():
        others = set().union(*(memory[other] for other in memory if other != name))
        assert used and not used & others


async def test_slots_are_fixed_and_a_frame_without_one_is_dropped_at_once():
    async with engine_of(TinySystem(), slots=2) as engine:
        await opened(engine)
        memory = set()
        for k in range(40):
            held = [await engine.render(request(index=k)) for _ in range(2)]
            begin = time.monotonic()
            with pytest.raises(NoFreeSlot):
                await engine.render(request(index=k))
            assert time.monotonic() - begin < 5
            memory |= {frame.i420.ctypes.data for frame in held}
            for frame in held:
                frame.release()
        assert len(memory) == 2
        assert engine.stats()["no_slot"] == 40 and engine.stats()["slots_free"] == 2


async def test_no_pixels_are_allocated_per_frame_after_warm_up():
    async with engine_of() as engine:
        await opened(engine, resolution=512, model="testcard")
        ask = request(model="testcard", resolution=512, barcode=True)
        for _ in range(3):
            (await engine.render(ask)).release()
        gc.collect()
        tracemalloc.start()
        try:
            base = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            for _ in range(30):
                (await engine.render(ask)).release()
            now, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    slot = 512 * 512 * 3 // 2
    assert peak - base < slot / 4 and now - base < slot / 4


async def test_a_session_unknown_or_closed_or_of_another_size_is_told_so():
    async with engine_of(TinySystem()) as engine:
        await opened(engine)
        with pytest.raises(SessionClosed):
            await engine.render(request("nobody"))
        with pytest.raises(RealtimeError, match="open that size first"):
            await engine.render(request(resolution=64))
        await engine.close("a")
        await engine.close("a")
        with pytest.raises(SessionClosed):
            await engine.render(request())
    with pytest.raises(SessionClosed):
        await engine.load("tiny", 32)


async def test_a_change_of_size_keeps_the_stream_and_gives_the_old_slots_up():
    async with engine_of(TinySystem()) as engine:
        await opened(engine)
        await engine.open("a", 64)
        small = await engine.render(request())  # the old size goes on until the switch
        large = await engine.render(request(resolution=64))
        assert (small.width, large.width) == (32, 64)
        assert engine.stats()["slots"] == 3
        small.release()
        assert large.planes[0].min() > 0
        with pytest.raises(RealtimeError):
            await engine.render(request())


async def test_another_resolution_is_resampled_without_aliases():
    class Stripes(TinySystem):
        """Columns alternate black and white: anything but an average would alias."""

        def motion(self, *, seed, who=None):
            self.synthesizer.forward = lambda identity, motion: (
                torch.tensor([-1.0, 1.0]).repeat(16).expand(1, 3, 32, 32)
            )
            return super().motion(seed=seed)

    async with engine_of(Stripes()) as engine:
        await opened(engine, resolution=16)
        frame = await engine.render(request(resolution=16))
        assert np.ptp(frame.planes[0]) <= 1 and abs(int(frame.planes[0][8, 8]) - 126) <= 1


@pytest.mark.parametrize("size", [16, 64, 128])
async def test_resampling_keeps_colours_in_place(size):
    system = TinySystem()
    async with engine_of(system) as engine:
        await opened(engine, resolution=size)
        frame = await engine.render(request(seed=5, t=30.0, resolution=size))
        native = expected(system, request(seed=5).look, 30.0)
        left, right = frame.planes[0][size // 2, size // 4], frame.planes[0][size // 2, -size // 4]
        assert abs(int(left) - int(native[16, 8])) <= 1
        assert abs(int(right) - int(native[16, 24])) <= 1


async def test_one_bad_frame_raises_and_the_engine_goes_on():
    system = TinySystem()
    async with engine_of(system, slots=2) as engine:
        await opened(engine)
        for k in range(6):  # more than there are slots: each comes back
            if k % 2:
                system.synthesizer.break_next = 1
            else:
                system.synthesizer.fail_next = torch.OutOfMemoryError("no memory left")
            with pytest.raises(FrameBroken):
                await engine.render(request(index=k))
        frame = await engine.render(request(index=9))
        assert np.array_equal(frame.i420, expected(system, request().look, 0.3))
        assert engine.stats()["broken"] == 6


async def test_cancelled_renders_give_their_slots_back():
    system = TinySystem()
    async with engine_of(system, slots=2) as engine:
        await opened(engine)
        system.synthesizer.delay_s = 0.03
        for wait_s in (0, 0, 0.01, 0.02, 0.03, 0.04):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(engine.render(request()))
                await asyncio.sleep(wait_s)
                cancelled = task.cancel()
            if not task.cancelled():
                assert not cancelled
                task.result().release()
            await until(lambda: engine.stats()["slots_free"] == 2)
        assert engine.stats()["in_flight"] == 0


async def test_a_slot_is_not_free_while_the_cancelled_frame_is_still_drawn():
    system = TinySystem()
    async with engine_of(system, slots=2) as engine:
        await opened(engine)
        gate, inside = threading.Event(), threading.Event()

        def wait(identity, motion):
            inside.set()
            gate.wait(PATIENCE_S)
            return torch.zeros(1, 3, 32, 32)

        system.synthesizer.forward = wait
        async with asyncio.TaskGroup() as group:
            task = group.create_task(engine.render(request()))
            await until(inside.is_set)
            task.cancel()
        assert engine.stats()["slots_free"] == 1
        gate.set()
        await until(lambda: engine.stats()["slots_free"] == 2)


async def test_looks_that_stay_are_remembered_and_ramps_are_not():
    system = TinySystem()
    async with engine_of(system) as engine:
        await opened(engine, "a", "b")
        for k in range(500):
            (await engine.render(request(index=k, psi=0.3 + k / 1000))).release()
        assert engine.stats()["identities"] == 0
        made = system.identities
        for k in range(50):
            (await engine.render(request(index=k, seed=8))).release()
        assert system.identities == made + 1 and engine.stats()["identities"] == 1
        (await engine.render(request("b", seed=8))).release()
        assert system.identities == made + 1
        for seed in range(3 * IDENTITIES):
            for _ in range(2):
                (await engine.render(request(seed=seed))).release()
        assert engine.stats()["identities"] == IDENTITIES


async def test_blends_are_made_of_their_seeds():
    system = TinySystem()
    w = {seed: system.identity(seed=seed, psi=1.0).tensors["w"] for seed in (1, 2, 3)}
    seen = []
    forward = system.synthesizer.forward
    system.synthesizer.forward = lambda identity, motion: (
        seen.append(identity.tensors["w"].clone()),
        forward(identity, motion),
    )[1]
    async with engine_of(system) as engine:
        await opened(engine)
        seen.clear()
        for look in (
            {"seed": 1},
            {"seed": 1, "blend_seed": 2, "blend": 0.25},
            {"seed": 1, "mix": ((1, 0.75), (2, 0.25)), "blend_seed": 3, "blend": 0.0},
            {"seed": 1, "mix": ((1, 0.5), (2, 0.3), (3, 0.2)), "blend_seed": 2, "blend": 0.5},
        ):
            (await engine.render(request(psi=1.0, **look))).release()
    wanted = [
        w[1],
        0.75 * w[1] + 0.25 * w[2],
        0.75 * w[1] + 0.25 * w[2],
        0.25 * w[1] + 0.65 * w[2] + 0.1 * w[3],
    ]
    for got, want in zip(seen, wanted, strict=True):
        torch.testing.assert_close(got, want)


async def test_barcode_is_the_ticks_index():
    async with engine_of() as engine:
        await opened(engine, resolution=64, model="testcard")
        ask = request(index=4711, model="testcard", resolution=64, barcode=True)
        frame = await engine.render(ask)
        assert barcode.read(frame.planes[0]) == 4711
        assert frame.trained


async def test_loaded_models_are_bounded_and_those_shown_stay():
    systems = [TinySystem(f"m{k}") for k in range(LOADED_MODELS + 3)]
    async with engine_of(*systems) as engine:
        await opened(engine, model="m0")
        (await engine.render(request(model="m0"))).release()
        for system in systems[1:]:
            await engine.load(system.name, 32)
        loaded = {info["name"] for info in engine.stats()["models"]}
        assert len(loaded) == LOADED_MODELS and {"m0", systems[-1].name} <= loaded
        (await engine.render(request(model="m0"))).release()


async def test_the_configured_model_and_those_that_sessions_want_stay_loaded():
    names = [f"m{k}" for k in range(2 * LOADED_MODELS + 2)]
    async with engine_of(*map(TinySystem, names)) as engine:
        await engine.load("m0", 32)  # the configured one, which nobody shows
        await engine.load("m1", 32)
        await engine.open("a", 32, model="m1")  # before its first frame
        for name in names[2:]:
            await engine.load(name, 32)
        loaded = {info["name"] for info in engine.stats()["models"]}
        assert len(loaded) == LOADED_MODELS and {"m0", "m1", names[-1]} <= loaded
        (await engine.render(request(model="m1"))).release()
        await engine.load("m2", 32)
        await engine.open("a", 32, model="m2")  # still shows m1, wants m2
        for name in names[3:]:
            await engine.load(name, 32)
        assert engine.info("m1") and engine.info("m2")
        await engine.close("a")
        for name in names[3:]:
            await engine.load(name, 32)
        assert engine.info("m0") and not engine.info("m1") and not engine.info("m2")


async def test_a_model_stays_from_its_load_to_the_sessions_first_frame():
    names = [f"m{k}" for k in range(2 * LOADED_MODELS)]
    async with engine_of(*map(TinySystem, names)) as engine, asyncio.TaskGroup() as group:

        async def begin(name):
            await engine.load(name, 32)
            await engine.open(name, 32, model=name)

        tasks = [group.create_task(begin(name)) for name in names]
        await asyncio.wait(tasks)
        for name in names:
            (await engine.render(request(name, model=name))).release()


async def test_thumbnails_load_nothing():
    system, other = TinySystem(), TinySystem("other")
    async with engine_of(system, other) as engine:
        await engine.load("tiny", 32)
        with pytest.raises(SignalingError, match="not loaded") as caught:
            await engine.thumbnail("other", 1)
        assert (caught.value.status, caught.value.code) == (409, "not_loaded")
        assert engine.info("other") is None and not other.synthesizer.calls


async def test_thumbnails_are_jpegs_of_the_seed_and_remembered():
    system = TinySystem()
    async with engine_of(system) as engine:
        await engine.load("tiny", 48)
        await engine.load("testcard", 64)
        jpeg = await engine.thumbnail("tiny", 5, size=48, psi=1.0)
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert picture.shape == (48, 48, 3)
        wanted = (system.identity(seed=5).tensors["w"][0, 0].numpy() + 1) * 127.5
        assert picture[24, 24] == pytest.approx(wanted, abs=4)
        calls = len(system.synthesizer.calls)
        assert await engine.thumbnail("tiny", 5, size=48, psi=1.0) == jpeg
        assert len(system.synthesizer.calls) == calls
        card = await engine.thumbnail("testcard", 3)
        assert cv2.imdecode(np.frombuffer(card, np.uint8), cv2.IMREAD_COLOR).shape == (64, 64, 3)


async def test_thumbnails_wait_for_a_gap_between_frames(monkeypatch):
    """Frames back to back: a thumbnail gets in now and then, never in a row."""
    system, drawn = TinySystem(), ""
    for method in (Painter.paint, Painter.thumbnail):

        def noted(*given, real=method):
            nonlocal drawn
            drawn += real.__name__[0]
            return real(*given)

        monkeypatch.setattr(Painter, method.__name__, noted)
    async with engine_of(system) as engine, asyncio.TaskGroup() as group:
        await opened(engine)
        (await engine.render(request())).release()
        system.synthesizer.delay_s = 0.01
        wanted = [group.create_task(engine.thumbnail("tiny", seed, size=32)) for seed in range(3)]
        begin, frames, most = time.monotonic(), 0, 0.0
        while not all(task.done() for task in wanted) and time.monotonic() < begin + PATIENCE_S:
            tick = Tick(frames, 0.0, 0, time.monotonic_ns())
            ask = dataclasses.replace(request(), tick=tick)
            asked = time.monotonic()
            (await engine.render(ask)).release()
            most, frames = max(most, time.monotonic() - asked), frames + 1
        elapsed = time.monotonic() - begin
        assert all(task.done() for task in wanted)
        assert elapsed > 3 * gaps.PATIENCE_S  # each had to wait for its patience to end
        assert frames > 20 and most < 1
        assert drawn.count("t") == 3 and "tt" not in drawn  # a frame is delayed by one at most


async def test_the_first_thumbnail_costs_what_warm_up_said():
    """A slow model's first one does not fit between frames either, though none was measured."""
    system = TinySystem()
    system.synthesizer.delay_s = 0.12
    async with engine_of(system) as engine:
        await opened(engine)
        await engine.load("testcard", 32)
        begin = time.monotonic_ns()
        for k in (0, 1):  # the next is due 60 ms from now, and a thumbnail takes 120 ms
            due_ns = begin + ((k - 1) * 100 - 40) * 1_000_000
            ask = request(model="testcard")
            ask = dataclasses.replace(ask, tick=Tick(k, k / 10, k * 9000, due_ns))
            (await engine.render(ask)).release()
        await engine.thumbnail("tiny", 1)
        # Begun only when it was certain that the frame that was due does not come.
        assert time.monotonic_ns() - begin > (0.06 + gaps.IDLE_S + 0.12) * 1e9


async def test_too_many_waiting_thumbnails_are_refused():
    system = TinySystem()
    async with engine_of(system) as engine, asyncio.TaskGroup() as group:
        await opened(engine)
        system.synthesizer.delay_s = 0.005
        tasks = [group.create_task(engine.thumbnail("tiny", seed, size=16)) for seed in range(64)]
        await asyncio.sleep(0)
        with pytest.raises(OverCapacity):
            await engine.thumbnail("tiny", 1000)
        for task in tasks:
            task.cancel()


async def test_closing_frees_the_threads_and_ends_what_waits():
    before = threading.active_count()
    system = TinySystem()
    async with engine_of(system) as engine:
        await opened(engine)
        (await engine.render(request())).release()
    await until(lambda: threading.active_count() <= before)
