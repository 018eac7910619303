"""What only a GPU can show: kernels, captures, streams, and that a replay waits for nothing."""

import numpy as np
import pytest
import torch

from realtime.backends import BATCHES, Drawing, choose
from realtime.backends.cpu import Cpu
from realtime.backends.cuda_graph import CudaGraph
from realtime.backends.triton import Triton
from tests.realtime.tiny_stylegan import BROKEN_SEED, SIDE, TinyStyleGan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")
REPLAYS = 10_000


def drawing(system, seed, t=0.5, size=SIDE):
    out = np.full((size * 3 // 2, size), 7, np.uint8)
    return Drawing(system.identity(seed=seed), system.motion(seed=0).sample(t), out)


def wanted(system, item):
    out = np.empty_like(item.out)
    Cpu(torch.device("cpu"), "").prepare(system.synthesizer).render(item.identity, item.motion, out)
    return out


def off(a, b):
    return np.abs(a.astype(int) - b.astype(int))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [SIDE, SIDE // 2, 2 * SIDE])
@pytest.mark.parametrize("backend", [Triton, CudaGraph])
def test_it_draws_what_the_cpu_does(backend, size, dtype):
    system = TinyStyleGan()
    renderer = backend(CUDA, "", dtype).prepare(system.synthesizer)
    renderer.warm(size)
    assert renderer.backend == backend.name, renderer.why
    assert renderer.batches(size) == BATCHES
    for count in BATCHES:
        items = [drawing(system, seed, seed / 7, size) for seed in range(count)]
        assert renderer.submit(items).wait() == [None] * count
        for item in items:
            error = off(item.out, wanted(system, item))[: size - 4]
            assert error.mean() < (0.3 if dtype == torch.float32 else 1.5)


def test_one_broken_picture_of_a_batch_is_broken_alone():
    system = TinyStyleGan()
    renderer = CudaGraph(CUDA, "").prepare(system.synthesizer)
    renderer.warm(SIDE)
    items = [drawing(system, seed) for seed in (1, BROKEN_SEED, 2, 3)]
    outcome = renderer.submit(items).wait()
    assert [error is None for error in outcome] == [True, False, True, True]
    assert renderer.submit([items[2]]).wait() == [None]


def test_pictures_under_way_together_are_each_their_own():
    system = TinyStyleGan()
    renderer = CudaGraph(CUDA, "").prepare(system.synthesizer)
    renderer.warm(SIDE)
    alone = [drawing(system, seed) for seed in range(9)]
    for item in alone:
        renderer.render(item.identity, item.motion, item.out)
    for begin in range(0, 9, 3):
        items = [drawing(system, seed) for seed in range(begin, begin + 3)]
        pendings = [renderer.submit([item]) for item in items]
        for pending in pendings:
            assert pending.wait() == [None]
        for item, one in zip(items, alone[begin:], strict=False):
            assert np.array_equal(item.out, one.out)


@pytest.mark.parametrize("count", [1, 4])
def test_ten_thousand_replays_neither_drift_nor_leak_nor_wait(count):
    """Nothing is captured anew, no byte more is allocated, and torch sees no hidden wait."""
    system = TinyStyleGan()
    renderer = CudaGraph(CUDA, "").prepare(system.synthesizer)
    renderer.warm(SIDE)
    people = [system.identity(seed=seed) for seed in range(5)]
    source = system.motion(seed=0)
    codes = [source.sample(k / 30) for k in range(60)]
    outs = [np.empty((SIDE * 3 // 2, SIDE), np.uint8) for _ in range(count)]

    def frame(k):
        who, how = people[k // 60 % 5], codes[k % 60]
        return renderer.submit([Drawing(who, how, out) for out in outs])

    first = {}
    replays = dict(renderer._replays)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for k in range(REPLAYS):
            assert frame(k).wait() == [None] * count
            if k < 300:
                first[k] = outs[-1].tobytes()
            elif k == 600:
                before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
            if k % 300 in (0, 17, 299):
                assert outs[-1].tobytes() == first[k % 300], k
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before
    assert renderer._replays == replays and renderer.backend == "cuda-graph"


def test_a_size_is_captured_while_pictures_of_another_are_drawn():
    import threading

    system = TinyStyleGan()
    renderer = CudaGraph(CUDA, "").prepare(system.synthesizer)
    renderer.warm(SIDE)
    item = drawing(system, 1)
    renderer.render(item.identity, item.motion, item.out)
    loader = threading.Thread(target=renderer.warm, args=(64,))
    loader.start()
    frames = 0
    while loader.is_alive() or frames < 20:
        again = drawing(system, 1)
        renderer.render(again.identity, again.motion, again.out)
        assert np.array_equal(again.out, item.out)
        frames += 1
    loader.join()
    assert renderer.ready(64) and renderer.backend == "cuda-graph", renderer.why


def test_the_best_backend_is_the_graph():
    assert choose().name == "cuda-graph"


def test_thumbnails_are_the_picture():
    system = TinyStyleGan()
    who, how = system.identity(seed=4), system.motion(seed=0).sample(0.0)
    plain = Cpu(torch.device("cpu"), "").prepare(system.synthesizer)
    got = CudaGraph(CUDA, "").prepare(system.synthesizer).picture(who, how, 16)
    assert off(got, plain.picture(who, how, 16)).mean() < 1.5
