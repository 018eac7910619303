"""Whatever happens to a frame on its way, whoever waits for it is told."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from realtime import flight
from realtime.backends import Done, FrameBroken
from realtime.flight import Flight, FrameJob
from realtime.frame import FramePool
from realtime.messages import Look, RenderRequest, Tick
from realtime.painter import Viewpoint
from realtime.render_thread import RenderThread


def job(size: int = 64, *, barcode: bool = False) -> FrameJob:
    tick = Tick(index=3, t=0.1, pts=9000, deadline_ns=0)
    request = RenderRequest("s", tick, Look("m", size), 0.1, barcode)
    frame = FramePool(size, size, 1).acquire(tick)
    assert frame is not None
    return FrameJob(request, frame, Viewpoint())


def outcome(of: FrameJob) -> BaseException | None:
    return of.future.exception(timeout=10)


def test_a_frame_that_cannot_be_stamped_fails_alone() -> None:
    small, sound = job(16, barcode=True), job(64, barcode=True)  # 16 pixels hold no barcode
    Flight([small, sound], Done([None, None])).finish()
    assert isinstance(outcome(small), FrameBroken)
    assert outcome(sound) is None and np.any(sound.frame.i420)


@pytest.mark.parametrize("answers", [[], [None], [None, None, None]])
def test_a_renderer_that_answers_for_too_few_or_too_many_leaves_nobody_waiting(answers) -> None:
    jobs = [job(), job()]
    Flight(jobs, Done(answers)).finish()
    found = [outcome(one) for one in jobs]
    assert all(error is None or isinstance(error, FrameBroken) for error in found)
    assert len(answers) > 1 or any(found)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_threads_survive_it(asynchronous) -> None:
    def paint(jobs):
        yield Flight(jobs, Done([None] * len(jobs)), asynchronous)

    thread = RenderThread(paint, lambda job: 1, lambda: None)
    try:
        for one, broken in ((job(16, barcode=True), True), (job(), False)):
            thread.draw(one)
            assert isinstance(outcome(one), FrameBroken) is broken
    finally:
        thread.close(lambda: None).result(10)
        thread.join()


def test_frames_that_were_all_cancelled_are_not_painted() -> None:
    painted, hold, begun = [], threading.Event(), threading.Event()

    def paint(jobs):
        painted.append(len(jobs))
        yield Flight(jobs, Done([None] * len(jobs)))

    thread = RenderThread(paint, lambda job: 1, lambda: None)
    try:
        thread.call(lambda: begun.set() or hold.wait(10))
        begun.wait(10)
        gone, wanted = job(), job()
        for one in (gone, wanted):
            thread.draw(one)
        assert gone.future.cancel()
        hold.set()
        assert outcome(wanted) is None
        assert painted == [1]
    finally:
        thread.close(lambda: None).result(10)
        thread.join()


def test_a_finished_frame_is_delivered_in_the_thread_that_finished_it() -> None:
    one, seen = job(64, barcode=True), []
    one.deliver = lambda frame: (
        seen.append((frame, "rendered" in frame.stamps, one.future.done())) is None
    )
    Flight([one], Done([None])).finish()
    assert outcome(one) is None
    assert seen == [(one.frame, True, False)]


def test_what_a_receiver_raises_reaches_whoever_asked_and_no_other_frame() -> None:
    def fail(frame):
        raise OSError("no space left")

    bad, good = job(), job()
    bad.deliver = fail
    Flight([bad, good], Done([None, None])).finish()
    assert isinstance(outcome(bad), OSError) and outcome(good) is None


def test_a_broken_picture_is_not_delivered() -> None:
    one, seen = job(), []
    one.deliver = seen.append
    Flight([one], Done([FrameBroken("NaN")])).finish()
    assert isinstance(outcome(one), FrameBroken) and seen == []


def test_every_frame_is_delivered_before_anybody_is_told() -> None:
    """Whoever gets a frame begins while the event loop still sleeps."""
    jobs, told = [job(), job()], []
    for one in jobs:
        one.deliver = lambda frame: told.append([other.future.done() for other in jobs]) is None
    Flight(jobs, Done([None, None])).finish()
    assert told == [[False, False], [False, False]]
    assert [outcome(one) for one in jobs] == [None, None]


@pytest.mark.parametrize(
    ("takes", "more", "pauses"), [(True, False, 1), (False, False, 0), (True, True, 0)]
)
def test_the_thread_pauses_only_for_somebody_and_where_nothing_waits(
    takes, more, pauses, monkeypatch
) -> None:
    slept = []
    monkeypatch.setattr(flight.time, "sleep", slept.append)
    jobs = [job(), job()]
    for one in jobs:
        one.deliver = lambda frame: takes
    Flight(jobs, Done([None, None])).finish(lambda: more)
    assert len(slept) == pauses and all(one.future.done() for one in jobs)
