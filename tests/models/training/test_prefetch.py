"""Reading ahead: in order, bounded, and with the errors where they belong."""

from __future__ import annotations

import threading

import pytest

from models.training.data.prefetch import Prefetch

from .tiny import Blobs, Painting, config


def test_batches_are_those_of_the_draws_in_order():
    trainer, source = Painting(config()), Blobs()
    with Prefetch(source, trainer.requests, 3, range(4, 7), [1, 3]) as fetch:
        from models.training.draws import Draws

        for step in range(4, 7):
            for micro in (1, 3):
                wanted = source.clips(trainer.requests(Draws(3, step, micro)))
                assert fetch(step, micro).frames.equal(wanted.frames)


def test_no_more_is_read_than_allowed():
    trainer = Painting(config())
    read = threading.Semaphore(0)

    class Counting(Blobs):
        count = 0

        def clips(self, requests):
            Counting.count += 1
            read.release()
            return super().clips(requests)

    with Prefetch(Counting(), trainer.requests, 3, range(100), [0], ahead=2) as fetch:
        read.acquire()
        read.acquire()
        fetch(0, 0)
        read.acquire()
        assert Counting.count == 3


def test_an_error_comes_with_its_batch():
    class Third(Blobs):
        count = 0

        def clips(self, requests):
            self.count += 1
            if self.count == 3:
                raise ValueError("broken")
            return super().clips(requests)

    trainer = Painting(config())
    with Prefetch(Third(), trainer.requests, 3, range(9), [0]) as fetch:
        fetch(0, 0), fetch(1, 0)
        with pytest.raises(ValueError, match="broken"):
            fetch(2, 0)


def test_out_of_turn_is_a_bug():
    trainer = Painting(config())
    with Prefetch(Blobs(), trainer.requests, 3, range(9), [0]) as fetch:
        with pytest.raises(AssertionError, match="in turn is"):
            fetch(5, 0)
