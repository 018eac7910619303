"""StyleGAN-V as a system: seconds, labels, and where its weights may go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.checkpoint import Checkpoint
from models.contracts import System as SystemContract
from models.errors import BadConfig
from models.latents import latent_of_seed
from models.stylegan_v import System, build
from models.stylegan_v.motion import SegmentEncoder, StreamedMotion

from .goldens import TINY, tiny


def code(system: System, t: float, seed: int = 4) -> torch.Tensor:
    return system.motion(seed=seed).sample(t).tensors["v"]


def test_it_keeps_the_contract():
    system = System("a name", tiny(), trained=True)
    assert isinstance(system, SystemContract)
    assert (system.name, system.resolution, system.trained) == ("a name", 16, True)


def test_a_picture_is_the_generators_own():
    generator = tiny()
    system = System("s", generator, trained=False)
    source = system.motion(seed=4)
    noise = torch.from_numpy(source._keyed(0, 16))[None]
    z, c = latent_of_seed(3, 12, 0)
    with torch.no_grad():
        t = torch.tensor([[1.37 * 30]], dtype=torch.float64)
        expected = generator(z, c, t, truncation_psi=0.7, motion_z=noise)
        found = system.synthesizer(system.identity(seed=3, psi=0.7), source.sample(1.37))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


def test_seconds_become_frames_by_meta_then_by_the_configuration():
    generator = tiny()
    by_frame = StreamedMotion(SegmentEncoder(generator.synthesis.motion_encoder), fps=1.0, seed=4)
    for fps, system in (
        (30, System("s", generator, trained=True)),
        (12.5, System("s", generator, trained=True, fps=12.5)),
        (30, build(Checkpoint("stylegan_v", TINY, generator.state_dict(), {}))),
        (10, build(Checkpoint("stylegan_v", TINY, generator.state_dict(), {"fps": 10}))),
    ):
        expected = by_frame.sample(1.5 * fps).tensors["v"]
        torch.testing.assert_close(code(system, 1.5), expected, rtol=0, atol=0)
    for fps in (0, -1.0, "25", True, float("nan"), float("inf"), 10**400):
        with pytest.raises(BadConfig, match="fps"):
            System("s", generator, trained=True, fps=fps)


def test_a_network_without_an_average_of_w_is_refused():
    generator = tiny()
    del generator.mapping.w_avg
    with pytest.raises(BadConfig, match="average"):
        System("s", generator, trained=True)


def test_motion_has_the_class_of_its_seed():
    generator = tiny(c_dim=3)
    system = System("s", generator, trained=True)
    classes, sources = set(), []
    for seed in range(8):
        _, label = latent_of_seed(seed, 12, 3)
        classes.add(int(label.argmax()))
        own = SegmentEncoder(generator.synthesis.motion_encoder)
        expected = StreamedMotion(own, fps=30, seed=seed, label=label).sample(2.0).tensors["v"]
        sources.append(system.motion(seed=seed))
        torch.testing.assert_close(sources[-1].sample(2.0).tensors["v"], expected, rtol=0, atol=0)
    assert len(classes) > 1
    assert len({id(source._encoder) for source in sources}) == 1  # no weights of a class's own


def test_the_weights_of_motion_do_not_grow_with_the_classes_seen():
    system = System("s", tiny(c_dim=77), trained=True)
    first, *others = [system.motion(seed=seed) for seed in range(12)]
    held = {id(array): array.nbytes for array in arrays(first)}
    assert sum(held.values()) > 10_000
    for source in others:  # each brings its label, and nothing else
        assert sum(a.nbytes for a in arrays(source) if id(a) not in held) == 77 * 8


def arrays(thing: object) -> list[np.ndarray]:
    """Every array that an object holds on to, at any depth."""
    found, seen, left = [], set(), [thing]
    while left:
        item = left.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            found.append(item)
        elif isinstance(item, list | tuple):
            left += item
        elif isinstance(item, dict):
            left += item.values()
        elif hasattr(item, "__dict__"):
            left += vars(item).values()
    return found


def test_moving_the_synthesizer_leaves_codes_where_they_are():
    system = System("s", tiny(), trained=True)
    here = code(system, 0.5)
    system.synthesizer.to("meta")
    assert torch.equal(code(system, 0.5), here)
    assert system.identity(seed=1).tensors["w"].device.type == "cpu"
