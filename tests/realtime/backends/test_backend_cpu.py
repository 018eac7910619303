"""The fused CPU backend against the plain forward."""

import logging

import numpy as np
import pytest
import torch

from models.contracts import Identity
from realtime.backends import Drawing, FrameBroken
from realtime.backends.cpu import Cpu
from realtime.backends.eager import Eager
from realtime.i420 import planes_of
from tests.realtime.tiny_stylegan import BROKEN_SEED, SIDE, TinyStyleGan
from tests.realtime.tiny_system import TinySystem

CPU = torch.device("cpu")


def slot(size=SIDE):
    return np.full((size * 3 // 2, size), 7, np.uint8)


def drawing(system, seed, t=0.5, size=SIDE):
    return Drawing(system.identity(seed=seed), system.motion(seed=0).sample(t), slot(size))


def renderers(system, dtype=torch.float32, batches=(1,)):
    return Eager(CPU, "").prepare(system.synthesizer), Cpu(CPU, "", dtype, batches).prepare(
        system.synthesizer
    )


def off(a, b):
    return np.abs(a.astype(int) - b.astype(int))


@pytest.mark.parametrize("size", [SIDE, SIDE // 2, 2 * SIDE])
def test_it_draws_what_the_plain_forward_does_at_every_size(size):
    system = TinyStyleGan()
    plain, fused = renderers(system)
    for seed in (1, 2):
        wanted, got = drawing(system, seed, size=size), drawing(system, seed, size=size)
        plain.render(wanted.identity, wanted.motion, wanted.out)
        fused.render(got.identity, got.motion, got.out)
        assert off(wanted.out, got.out).max() <= 1
        assert np.ptp(planes_of(got.out)[0]) > 20  # a picture, not a flat colour


def test_bf16_is_close():
    system = TinyStyleGan()
    plain, fused = renderers(system, torch.bfloat16)
    wanted, got = drawing(system, 1), drawing(system, 1)
    plain.render(wanted.identity, wanted.motion, wanted.out)
    fused.render(got.identity, got.motion, got.out)
    assert off(wanted.out, got.out).mean() < 1.5


@pytest.mark.parametrize("size", [SIDE, 2 * SIDE])
def test_a_batch_is_its_single_pictures(size):
    system = TinyStyleGan()
    _, fused = renderers(system, batches=(1, 2, 4))
    singles = [drawing(system, seed, seed / 3, size) for seed in range(4)]
    for one in singles:
        fused.render(one.identity, one.motion, one.out)
    for count in (2, 4, 1):
        items = [Drawing(s.identity, s.motion, slot(size)) for s in singles[:count]]
        assert fused.submit(items).wait() == [None] * count
        for one, item in zip(singles, items, strict=False):
            assert off(one.out, item.out).max() <= 1
    assert len({one.out.tobytes() for one in singles}) == 4


@pytest.mark.parametrize("size", [SIDE, SIDE // 2])
def test_one_broken_picture_of_a_batch_is_broken_alone(size):
    system = TinyStyleGan()
    _, fused = renderers(system, batches=(1, 2, 4))
    items = [drawing(system, seed, size=size) for seed in (1, BROKEN_SEED, 2, 3)]
    outcome = fused.submit(items).wait()
    assert [error is None for error in outcome] == [True, False, True, True]
    alone = drawing(system, 2, size=size)
    fused.render(alone.identity, alone.motion, alone.out)
    assert off(alone.out, items[2].out).max() <= 1
    with pytest.raises(FrameBroken, match="NaN"):
        fused.render(items[1].identity, items[1].motion, items[1].out)
    assert fused.submit(items[2:3]).wait() == [None]  # the flag does not stay


def test_thumbnails_are_the_picture():
    system = TinyStyleGan()
    plain, fused = renderers(system)
    who, how = system.identity(seed=4), system.motion(seed=0).sample(0.0)
    for size in (SIDE, 16, 48):
        wanted, got = plain.picture(who, how, size), fused.picture(who, how, size)
        assert got.shape == (size, size, 3) and off(wanted, got).max() <= 1
    with pytest.raises(FrameBroken):
        fused.picture(system.identity(seed=BROKEN_SEED), how, 16)


def test_what_cannot_be_fused_is_drawn_eagerly_and_aloud(caplog):
    system = TinySystem()
    with caplog.at_level(logging.WARNING):
        renderer = Cpu(CPU, "").prepare(system.synthesizer)
    assert renderer.backend == "eager" and "cpu cannot draw this model" in renderer.why
    assert "TinySynthesizer" in renderer.why and renderer.why in caplog.text
    one = drawing(system, 1)
    renderer.render(one.identity, one.motion, one.out)
    assert one.out.min() > 7


def test_nothing_of_one_identity_stays_for_the_next():
    system = TinyStyleGan()
    _, fused = renderers(system)
    first, second, again = drawing(system, 1), drawing(system, 2), drawing(system, 1)
    for item in (first, second, again):
        fused.render(item.identity, item.motion, item.out)
    assert np.array_equal(first.out, again.out) and not np.array_equal(first.out, second.out)


def test_a_code_of_another_shape_is_refused():
    system = TinyStyleGan()
    _, fused = renderers(system)
    one = drawing(system, 1)
    with pytest.raises(ValueError, match="w must be"):
        fused.render(Identity({"w": torch.zeros(1, 2, 3)}), one.motion, one.out)


def test_kernels_that_do_not_run_are_replaced_aloud(monkeypatch, caplog):
    from realtime.backends import cpu as module

    def fails(packed):
        raise RuntimeError("LLVM fell over in /some/place")

    monkeypatch.setattr(module, "prove", fails)
    renderer = Cpu(torch.device("cpu"), "asked").prepare(TinyStyleGan().synthesizer)
    assert renderer.backend == "eager"
    assert "kernels do not run here (RuntimeError" in renderer.why
    assert "/some/place" not in renderer.why and "/some/place" in caplog.text


def test_eager_on_a_device_of_its_own_converts_there():
    """The branch that a GPU takes, on the CPU: the same bytes, give or take a rounding."""
    system = TinyStyleGan()
    identity, motion = system.identity(seed=1), system.motion(seed=0).sample(0.5)
    renderer = Eager(torch.device("cpu"), "asked").prepare(system.synthesizer)
    here, there = (np.zeros((SIDE * 3 // 2, SIDE), np.uint8) for _ in range(2))
    renderer.render(identity, motion, here)
    renderer._converts_there = True
    renderer.render(identity, motion, there)
    assert here.any() and np.abs(here.astype(int) - there).max() <= 1
