"""What is around the capture: once per size and batch, never again, and aloud when it fails."""

import logging

import numpy as np
import pytest
import torch

from realtime.backends import Drawing
from realtime.backends.cuda_graph import CudaGraph
from realtime.backends.triton import WARM_UP
from tests.realtime.tiny_stylegan import SIDE, TinyStyleGan

CPU = torch.device("cpu")


class Captures:
    """Keeps the calls that a graph would hold. The replay of one makes them again."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.made = self.replayed = 0
        self.fail_at = fail_at

    def __call__(self):
        return self.capture

    def capture(self, draw, device):
        if self.made == self.fail_at:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.made += 1

        def replay():
            self.replayed += 1
            draw()

        return replay


def renderer_of(system, captures, batches=(1, 2)):
    backend = CudaGraph(CPU, "as asked", torch.float32, batches, captures)
    return backend.prepare(system.synthesizer)


def drawing(system, seed, t=0.5, size=SIDE):
    out = np.full((size * 3 // 2, size), 7, np.uint8)
    return Drawing(system.identity(seed=seed), system.motion(seed=0).sample(t), out)


def test_one_graph_for_each_size_and_batch_and_none_for_a_change_of_codes():
    system, captures = TinyStyleGan(), Captures()
    renderer = renderer_of(system, captures)
    for size in (SIDE, 16, SIDE):
        renderer.warm(size)
    assert captures.made == 4 and renderer.backend == "cuda-graph"
    pictures = []
    for seed in range(5):
        items = [drawing(system, seed, seed / 9), drawing(system, seed + 10, seed / 9)]
        assert renderer.submit(items).wait() == [None, None]
        renderer.render(items[0].identity, items[0].motion, out := np.empty_like(items[0].out))
        assert np.abs(out.astype(int) - items[0].out).max() <= 1
        pictures += [item.out.tobytes() for item in items]
    assert captures.made == 4 and captures.replayed == 10
    assert len(set(pictures)) == 10


def test_everything_was_launched_before_it_is_captured(monkeypatch):
    system, order = TinyStyleGan(), []

    def capture(draw, device):
        order.append("capture")
        return draw

    renderer = renderer_of(system, lambda: capture, (1,))
    executor = renderer._executor(1)
    real = executor.draw_i420
    monkeypatch.setattr(executor, "draw_i420", lambda *a: (order.append("launch"), real(*a)))
    renderer.warm(SIDE)
    assert order == ["launch"] * WARM_UP + ["capture"]


@pytest.mark.parametrize("fail_at", [0, 1, 3])
def test_a_failed_capture_is_said_and_the_kernels_are_launched_one_by_one(caplog, fail_at):
    system, captures = TinyStyleGan(), Captures(fail_at)
    renderer = renderer_of(system, captures)
    with caplog.at_level(logging.WARNING):
        renderer.warm(SIDE)
        renderer.warm(16)
    assert captures.made == fail_at  # and never tried again
    assert renderer.backend == "triton" and "cannot capture" in renderer.why
    assert "stream is capturing" in caplog.text
    assert caplog.text.count("backend: triton, as cuda-graph cannot capture") == 1
    item, again = drawing(system, 1), drawing(system, 1)
    renderer.render(item.identity, item.motion, item.out)
    assert captures.replayed == 0
    whole = renderer_of(system, Captures())
    whole.render(again.identity, again.motion, again.out)
    assert np.array_equal(item.out, again.out)


def test_memory_that_runs_out_in_a_capture_costs_that_batch_only():
    system, captures = TinyStyleGan(), Captures()
    real = captures.capture

    def capture(draw, device):
        if captures.made == 2:
            raise torch.OutOfMemoryError("no memory left")
        return real(draw, device)

    captures.capture = capture
    renderer = renderer_of(system, captures, (1, 2, 4))
    renderer.warm(SIDE)
    assert renderer.batches(SIDE) == (1, 2) and renderer.backend == "cuda-graph"
