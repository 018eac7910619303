"""The two streams and the ring, with real executors where torch's streams do nothing: on the CPU.

What launches on CUDA runs in test_backends_gpu.py.
"""

import logging
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.errors import CannotFuse
from realtime.backends import Drawing, FrameBroken
from realtime.backends import triton as module
from realtime.backends.cpu import Cpu
from realtime.backends.triton import SLOTS, Triton, fitted
from tests.realtime.backends.slow_device import PATIENCE_S, SlowDevice
from tests.realtime.tiny_stylegan import BROKEN_SEED, SIDE, TinyStyleGan
from tests.realtime.tiny_system import TinySystem

CPU = torch.device("cpu")


def renderer_of(system, batches=(1, 2, 4)):
    return Triton(CPU, "as asked", torch.float32, batches).prepare(system.synthesizer)


def drawing(system, seed, t=0.5, size=SIDE):
    out = np.full((size * 3 // 2, size), 7, np.uint8)
    return Drawing(system.identity(seed=seed), system.motion(seed=0).sample(t), out)


def wanted(system, item):
    """By the CPU backend, which shares nothing of the ring."""
    out = np.empty_like(item.out)
    Cpu(CPU, "").prepare(system.synthesizer).render(item.identity, item.motion, out)
    return out


def close(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max() <= 1


@pytest.fixture
def device(monkeypatch):
    device = SlowDevice()
    monkeypatch.setattr(torch, "get_device_module", lambda _: device)
    return device


@pytest.mark.parametrize("size", [SIDE, SIDE // 2, 2 * SIDE])
def test_it_draws_the_picture_at_every_size(size):
    system = TinyStyleGan()
    renderer = renderer_of(system)
    assert renderer.batches(size) == (1,) and not renderer.ready(size)
    renderer.warm(size)
    assert renderer.batches(size) == (1, 2, 4) and renderer.ready(size)
    for seed in range(2 * SLOTS):
        item = drawing(system, seed, size=size)
        renderer.render(item.identity, item.motion, item.out)
        if size <= SIDE:
            assert close(item.out, wanted(system, item))
        else:  # cubic by two libraries: they differ at the rim
            inner = (slice(4, size - 4),) * 2
            assert close(item.out[inner], wanted(system, item)[inner])


def test_a_size_that_nobody_warmed_is_drawn_too():
    system = TinyStyleGan()
    item = drawing(system, 1, size=16)
    renderer = renderer_of(system)
    renderer.render(item.identity, item.motion, item.out)
    assert close(item.out, wanted(system, item)) and renderer.batches(16) == (1,)


@pytest.mark.parametrize("size", [SIDE, SIDE // 2])
def test_a_batch_is_its_single_pictures_and_one_broken_is_broken_alone(size):
    system = TinyStyleGan()
    renderer = renderer_of(system)
    renderer.warm(size)
    items = [drawing(system, seed, seed / 7, size) for seed in (1, BROKEN_SEED, 3, 4)]
    outcome = renderer.submit(items).wait()
    assert [type(error) for error in outcome] == [type(None), FrameBroken, *[type(None)] * 2]
    for k in (0, 2, 3):
        assert close(items[k].out, wanted(system, items[k]))
    again = drawing(system, 1, 1 / 7, size)
    assert renderer.submit([again, items[2]]).wait() == [None, None]  # the flag does not stay
    assert close(again.out, items[0].out)


def test_the_copy_waits_for_the_drawing_and_nobody_else_waits(device):
    system = TinyStyleGan()
    renderer = renderer_of(system)
    renderer.warm(SIDE)
    device.log.clear()
    pendings = [renderer.submit([drawing(system, seed)]) for seed in range(2)]
    canvas = renderer._canvases[SIDE, 1]
    for begin, pending in zip((0, 3), pendings, strict=True):
        slot = pending._slot
        assert device.log[begin : begin + 3] == [
            ("record", renderer._compute, canvas.computed[slot]),
            ("wait", renderer._copy, canvas.computed[slot]),
            ("record", renderer._copy, canvas.copied[slot]),
        ]
    assert len(device.log) == 6 and pendings[0]._slot != pendings[1]._slot
    for pending in pendings:
        pending.wait()
    waits = [event for what, _, event in device.log[6:] if what == "synchronize"]
    assert waits == [canvas.copied[pending._slot] for pending in pendings]


def test_three_pictures_are_under_way_and_the_fourth_waits_for_a_slot(device):
    system = TinyStyleGan()
    renderer = renderer_of(system)
    renderer.warm(SIDE)
    items = [drawing(system, seed) for seed in range(SLOTS + 1)]
    pendings = [renderer.submit([item]) for item in items[:SLOTS]]
    fourth = threading.Thread(target=lambda: pendings.append(renderer.submit([items[SLOTS]])))
    fourth.start()
    fourth.join(0.1)
    assert fourth.is_alive() and len(pendings) == SLOTS
    assert pendings[1].wait() == [None]  # any of them: they need not be finished in order
    fourth.join(PATIENCE_S)
    assert len(pendings) == SLOTS + 1
    for k in (0, 2, 3):
        assert pendings[k].wait() == [None]
    for item in items:
        assert close(item.out, wanted(system, item))


def test_a_failure_gives_its_slot_back(device):
    system = TinyStyleGan()
    renderer = renderer_of(system)
    renderer.warm(SIDE)
    good = drawing(system, 1)
    bad = Drawing(system.identity(seed=1), TinySystem().motion(seed=0).sample(0.0), good.out)

    def lost(self):
        raise torch.AcceleratorError("the device is lost")

    for _ in range(2 * SLOTS):
        with pytest.raises(ValueError, match="dw must be"):
            renderer.submit([bad])
    pending = renderer.submit([good])
    device.Event.synchronize = lost
    with pytest.raises(torch.AcceleratorError):
        pending.wait()
    assert renderer._free.qsize() == SLOTS


def test_batches_too_large_for_the_memory_are_left_out_aloud(caplog, monkeypatch):
    system = TinyStyleGan()
    renderer = renderer_of(system)
    real = renderer._packed.make

    def make(packed, batch):
        if batch > 2:
            raise torch.OutOfMemoryError("no memory left")
        return real(packed, batch)

    object.__setattr__(renderer._packed, "make", make)
    with caplog.at_level(logging.WARNING):
        renderer.warm(SIDE)
    assert renderer.batches(SIDE) == (1, 2) and renderer.ready(SIDE)
    assert "no batches of 4" in caplog.text


def test_what_cannot_be_fused_is_drawn_eagerly_and_aloud(caplog):
    with caplog.at_level(logging.WARNING):
        renderer = renderer_of(TinySystem())
    assert renderer.backend == "eager" and not renderer.asynchronous
    assert "triton cannot draw this model: TinySynthesizer" in renderer.why
    assert renderer.why in caplog.text


def test_kernels_that_do_not_run_are_said_and_the_plain_forward_draws(caplog, monkeypatch):
    system = TinyStyleGan()

    def fails(packed):
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(module, "prove", fails)
    with caplog.at_level(logging.WARNING):
        renderer = renderer_of(system)
    assert renderer.backend == "eager" and "do not run here (RuntimeError" in renderer.why
    assert "shared memory" in caplog.text and "shared memory" not in renderer.why
    item = drawing(system, 1)
    renderer.render(item.identity, item.motion, item.out)
    assert close(item.out, wanted(system, item))


def test_the_reason_of_a_refusal_is_passed_on():
    system = TinyStyleGan()

    def pack(device, dtype):
        raise CannotFuse("layer 3 is odd")

    system.synthesizer.pack = pack
    assert renderer_of(system).why == "triton cannot draw this model: layer 3 is odd"


def test_thumbnails_are_the_picture_while_frames_are_under_way(device):
    system = TinyStyleGan()
    renderer = renderer_of(system)
    renderer.warm(SIDE)
    item = drawing(system, 1)
    pending = renderer.submit([item])
    plain = Cpu(CPU, "").prepare(system.synthesizer)
    who, how = system.identity(seed=9), system.motion(seed=0).sample(0.0)
    got = renderer.picture(who, how, 16)
    assert close(got, plain.picture(who, how, 16))
    pending.wait()
    assert close(item.out, wanted(system, item))
    with pytest.raises(FrameBroken):
        renderer.picture(system.identity(seed=BROKEN_SEED), how, 16)


@pytest.mark.parametrize(("side", "size"), [(32, 8), (32, 64), (48, 32), (32, 32)])
def test_resampling_is_the_mean_of_whole_blocks_or_cubic_without_aliases(side, size):
    image = torch.rand(2, side, side, 3)
    planes = image.permute(0, 3, 1, 2)
    got = fitted(image, size)
    assert got.shape == (2, size, size, 3) and got.is_contiguous()
    if side % size == 0:
        blocks = image.reshape(2, size, side // size, size, side // size, 3)
        torch.testing.assert_close(got, blocks.mean((2, 4)))
    else:
        cubic = F.interpolate(planes, (size, size), mode="bicubic", antialias=size < side)
        torch.testing.assert_close(got, cubic.permute(0, 2, 3, 1))
    stripes = torch.tensor([-1.0, 1.0]).repeat(side // 2)[None, None, :, None]
    if size < side:
        striped = fitted(stripes.expand(1, side, side, 3).contiguous(), size)
        assert striped[:, :, 2:-2].abs().max() < 0.5  # nearest neighbours would give 1
