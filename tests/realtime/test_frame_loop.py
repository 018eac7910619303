"""The frame loop on a fake clock: what becomes of each tick, and a clean end at each await."""

import asyncio
import time

import numpy as np
import pytest

from realtime.backends import FrameBroken
from realtime.clock import FrameClock
from realtime.controls import Controls, LiveControls, change_of
from realtime.engine import NoFreeSlot
from realtime.errors import RealtimeError
from realtime.frame import Frame, FramePool
from realtime.frame_loop import BROKEN_IN_A_ROW, frame_loop, sleep_until

MS = 1_000_000


class Over(Exception):
    """The fake world has ended."""


class World:
    """Time, an engine whose frames take as long as told, and a sink that remembers."""

    def __init__(self, costs_ms=(), ticks=10, fps=100):
        self.now = 5_000 * MS
        self.clock = FrameClock(fps, self.now)
        self.live = LiveControls(Controls(fps=fps, model="testcard", resolution=32))
        self.costs, self.left = list(costs_ms), ticks
        self.pool = FramePool(32, 32, 2)
        self.requests, self.shown, self.held = [], [], []
        self.keep = False

    async def sleep(self, deadline_ns):
        await asyncio.sleep(0)
        self.now = max(self.now, deadline_ns)
        if self.left == 0:
            raise Over
        self.left -= 1

    async def render(self, request, deliver):
        self.requests.append(request)
        cost = self.costs.pop(0) if self.costs else 1
        if isinstance(cost, Exception):
            raise cost
        await asyncio.sleep(0)
        self.now += round(cost * MS)
        frame = self.pool.acquire(request.tick)
        if frame is None:
            raise NoFreeSlot("none")
        try:
            deliver(frame)
        except BaseException:
            frame.release()  # as the engine does
            raise
        return frame

    def offer(self, frame):
        assert not frame.released
        self.shown.append(frame.tick.index)
        if self.keep:
            self.held.append(frame.retain())

    async def aclose(self):
        pass

    async def run(self, watched=None):
        with pytest.raises(Over):
            await frame_loop(
                self.clock,
                self.live,
                self,
                self,
                session="s",
                barcode=True,
                watched=watched,
                now_ns=lambda: self.now,
                sleep_until=self.sleep,
            )
        self.clock.counters.due -= 1  # the tick whose turn the end of the world took
        return self.clock.counters


async def test_frames_on_time_are_all_shown():
    world = World(ticks=10)
    counters = await world.run()
    assert world.shown == list(range(10))
    assert counters.as_dict() == {"due": 10, "late": 0, "dropped": 0, "repeated": 0}
    assert world.pool.free == 2
    asked = world.requests[3]
    assert asked.session == "s" and asked.barcode
    assert asked.motion_t == asked.tick.t == 0.03
    assert asked.look == world.live.look_at(0.03)


async def test_a_slow_frame_is_late_and_the_ticks_it_covered_are_dropped():
    world = World(costs_ms=[1, 35, 1, 1], ticks=4)
    counters = await world.run()
    # Tick 1 takes from 10 to 45 ms: 2 and 3 are past, 4 is 5 ms past and still of this interval.
    assert world.shown == [0, 1, 4, 5]
    assert counters.as_dict() == {"due": 6, "late": 1, "dropped": 2, "repeated": 0}
    assert [r.motion_t for r in world.requests] == [0.0, 0.01, 0.04, 0.05]


async def test_overload_keeps_the_motions_pace_and_never_builds_a_queue():
    world = World(costs_ms=[25] * 200, ticks=200)
    begin = world.now
    counters = await world.run()
    elapsed_s = (world.now - begin) / 1e9
    assert world.requests[-1].motion_t == pytest.approx(elapsed_s, abs=0.036)
    ages = [r.tick.deadline_ns for r in world.requests]
    assert counters.shown == 200 and counters.dropped == pytest.approx(300, abs=5)
    assert all(b > a for a, b in zip(ages, ages[1:], strict=False))


async def test_without_a_slot_the_frame_is_dropped_and_with_a_broken_one_the_last_repeated():
    world = World(costs_ms=[1, NoFreeSlot("x"), FrameBroken("nan"), 1], ticks=4)
    counters = await world.run()
    assert world.shown == [0, 3]
    assert counters.as_dict() == {"due": 4, "late": 0, "dropped": 1, "repeated": 1}
    assert counters.shown == 2


async def test_a_sink_that_keeps_frames_costs_drops_and_not_memory():
    world = World(ticks=20)
    world.keep = True
    counters = await world.run()
    assert len(world.held) == 2 and counters.dropped == 18
    for frame in world.held:
        frame.release()
    assert world.pool.free == 2


async def test_a_hopeless_model_ends_the_loop_with_a_sentence():
    world = World(costs_ms=[FrameBroken("NaN")] * 1000, ticks=-1)
    with pytest.raises(RealtimeError, match="in a row"):
        await frame_loop(
            world.clock,
            world.live,
            world,
            world,
            session="s",
            now_ns=lambda: world.now,
            sleep_until=world.sleep,
        )
    assert world.clock.counters.repeated == BROKEN_IN_A_ROW


async def test_other_errors_reach_the_owner():
    world = World(costs_ms=[1, ZeroDivisionError()], ticks=5)
    with pytest.raises(ZeroDivisionError):
        await frame_loop(
            world.clock,
            world.live,
            world,
            world,
            session="s",
            now_ns=lambda: world.now,
            sleep_until=world.sleep,
        )


async def test_a_new_frame_rate_is_taken_over_between_two_frames():
    world = World(ticks=10)
    offer = world.offer

    def change(frame):
        offer(frame)
        if frame.tick.index == 4:
            world.live.apply(change_of({"fps": 50.0}), frame.tick.t)

    world.offer = change
    await world.run()
    times = [r.tick.t for r in world.requests]
    assert times[:5] == [0.0, 0.01, 0.02, 0.03, 0.04]
    assert times[5:] == [0.06, 0.08, 0.1, 0.12, 0.14]
    assert [r.tick.index for r in world.requests] == list(range(10))


async def test_nothing_is_drawn_or_due_while_nobody_watches():
    world, watched = World(ticks=10, fps=100), asyncio.Event()
    watched.set()
    offer = world.offer

    def go_away(frame):
        offer(frame)
        if frame.tick.index == 4:
            watched.clear()

    async def come_back():
        while watched.is_set():  # noqa: ASYNC110 - the fake world has no other clock
            await asyncio.sleep(0)
        drawn = len(world.requests)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(world.requests) == drawn
        world.now += 3_000 * MS
        watched.set()

    world.offer = go_away
    async with asyncio.TaskGroup() as group:
        group.create_task(come_back())
        await world.run(watched=watched)
    assert world.shown == [0, 1, 2, 3, 4, *range(305, 310)]  # 3 s later, and 1 ms into its frame
    counters = world.clock.counters
    assert counters.as_dict() == {"due": 10, "late": 0, "dropped": 0, "repeated": 0}
    times = [r.tick.t for r in world.requests]
    assert times[5] - times[4] == pytest.approx(3.01) and times == sorted(set(times))


async def cancelled_at(stage):
    """Run the loop until it waits in `stage`, cancel it there; the world afterwards."""
    world, reached = World(ticks=-1), asyncio.Event()
    sleep, render = world.sleep, world.render

    async def hang_in_sleep(deadline_ns):
        if len(world.requests) == 3:
            reached.set()
            await asyncio.Event().wait()
        await sleep(deadline_ns)

    async def hang_in_render(request, deliver):
        if len(world.requests) == 3:
            frame = world.pool.acquire(request.tick)
            reached.set()
            try:
                await asyncio.Event().wait()
            finally:
                frame.release()  # as the engine does
        return await render(request, deliver)

    world.sleep = hang_in_sleep if stage == "sleep" else sleep
    world.render = hang_in_render if stage == "render" else render
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        task = group.create_task(
            frame_loop(
                world.clock,
                world.live,
                world,
                world,
                session="s",
                now_ns=lambda: world.now,
                sleep_until=world.sleep,
            )
        )
        await reached.wait()
        task.cancel()
    assert task.cancelled()
    return world


@pytest.mark.parametrize("stage", ["sleep", "render"])
async def test_cancelling_at_each_await_ends_it_and_leaves_every_slot_free(stage):
    world = await cancelled_at(stage)
    assert world.shown == [0, 1, 2] and world.pool.free == 2


async def test_a_sink_that_fails_still_gives_the_slot_back():
    world = World(ticks=5)

    def fail(frame):
        raise OSError("no space left")

    world.offer = fail
    with pytest.raises(OSError, match="space"):
        await frame_loop(
            world.clock,
            world.live,
            world,
            world,
            session="s",
            now_ns=lambda: world.now,
            sleep_until=world.sleep,
        )
    assert world.pool.free == 2


async def test_sleep_until_is_never_early_and_mostly_within_a_millisecond():
    errors = []
    for k in range(40):
        deadline = time.monotonic_ns() + 3 * MS + k * 37_000
        await sleep_until(deadline)
        errors.append(time.monotonic_ns() - deadline)
    assert min(errors) >= 0
    assert np.median(errors) < MS  # a busy machine may disturb some, not most


async def test_sleep_until_can_be_cancelled_in_both_of_its_stages():
    for ahead_ms in (500, 1):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(sleep_until(time.monotonic_ns() + ahead_ms * MS))
            await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()


async def test_sleep_until_lets_other_tasks_run():
    ran = []

    async def other():
        for _ in range(3):
            await asyncio.sleep(0)
            ran.append(1)

    async with asyncio.TaskGroup() as group:
        group.create_task(other())
        await sleep_until(time.monotonic_ns() + 900_000)  # shorter than the timer's step
    assert len(ran) == 3


def test_frames_of_the_fake_engine_are_real():
    assert isinstance(World().pool.acquire(), Frame)
