"""Frame slots: counted, fixed in number, never shared."""

import numpy as np
import pytest

from realtime.errors import SessionClosed
from realtime.frame import FramePool
from realtime.messages import Tick

TICK = Tick(index=3, t=0.1, pts=9000, deadline_ns=100)


def test_planes_are_views_of_the_slot_in_i420_order():
    frame = FramePool(32, 16, 1).acquire(TICK)
    y, u, v = frame.planes
    assert (y.shape, u.shape, v.shape) == ((16, 32), (8, 16), (8, 16))
    y[:], u[:], v[:] = 1, 2, 3
    flat = frame.i420.reshape(-1)
    assert np.array_equal(flat, [1] * 512 + [2] * 128 + [3] * 128)
    assert frame.tick is TICK


def test_a_slot_comes_back_after_the_last_release_only():
    pool = FramePool(16, 16, 1)
    frame = pool.acquire(TICK)
    assert frame.retain() is frame
    frame.release()
    assert pool.free == 0 and not frame.released
    frame.release()
    assert pool.free == 1 and frame.released


def test_releasing_again_does_not_give_the_slot_back_twice():
    pool = FramePool(16, 16, 2)
    first = pool.acquire()
    first.release()
    second = pool.acquire()
    first.release()
    assert pool.free == 1 and first.released and not second.released


def test_no_free_slot_is_none_and_nothing_is_allocated():
    pool = FramePool(16, 16, 2)
    memory = set()
    for _ in range(50):
        frames = [pool.acquire(), pool.acquire()]
        assert pool.acquire() is None
        memory |= {frame.i420.ctypes.data for frame in frames}
        for frame in frames:
            frame.release()
    assert len(memory) == 2


def test_a_released_frame_shows_no_pixels():
    frame = FramePool(16, 16, 1).acquire()
    frame.release()
    with pytest.raises(SessionClosed):
        frame.planes  # noqa: B018
    with pytest.raises(SessionClosed):
        frame.retain()


def test_a_closed_pool_gives_nothing_and_takes_nothing_back():
    pool = FramePool(16, 16, 2)
    frame = pool.acquire()
    pool.close()
    assert frame.planes[0].shape == (16, 16)  # still the holder's
    frame.release()
    assert pool.free == 0
    with pytest.raises(SessionClosed):
        pool.acquire()


@pytest.mark.parametrize(("width", "height", "slots"), [(15, 16, 1), (16, 0, 1), (16, 16, 0)])
def test_impossible_pools_are_refused(width, height, slots):
    with pytest.raises(ValueError, match="not"):
        FramePool(width, height, slots)
