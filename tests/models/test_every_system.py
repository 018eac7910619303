"""Every registered family through the contract, from a checkpoint file, with a tiny network."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models import checkpoint, registry
from models.backbones import stylegan2, stylegan3
from models.contracts import System
from models.stylegan_v import networks as stylegan_v

SIZES = {"z_dim": 16, "w_dim": 16, "img_resolution": 16, "img_channels": 3}
CHANNELS = {"channel_base": 128, "channel_max": 8}
TINY: dict[str, dict[str, Any]] = {
    "stylegan2": {**SIZES, **CHANNELS, "mapping_kwargs": {"num_layers": 2}},
    "stylegan3": {**SIZES, **CHANNELS, "num_layers": 4},
    "stylegan_v": {
        **SIZES,
        "synthesis_kwargs": CHANNELS,
        "cfg": {
            "z_dim": 16,
            "motion": {"z_dim": 8, "v_dim": 8, "kernel_size": 5, "motion_z_distance": 16},
            "time_enc": {"dim": 6, "min_period_len": 16, "max_period_len": 256},
        },
    },
}
GENERATORS: dict[str, Any] = {
    "stylegan2": stylegan2.Generator,
    "stylegan3": stylegan3.Generator,
    "stylegan_v": stylegan_v.Generator,
}
CASES = [(family, c_dim) for family in registry.SYSTEMS for c_dim in (0, 3)]


@pytest.fixture(
    scope="module", params=CASES, ids=[f"{family}-{c_dim}-labels" for family, c_dim in CASES]
)
def system(request, tmp_path_factory) -> System:
    family, c_dim = request.param
    config = {**TINY[family], "c_dim": c_dim}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        generator = GENERATORS[family](**config)
        generator.mapping.w_avg.normal_(std=0.2)
    path = checkpoint.save(
        tmp_path_factory.mktemp(family) / "tiny",
        family=family,
        config=config,
        state=generator.state_dict(),
        meta={"trained": False},
    )
    return registry.load_model(str(path))


@torch.inference_mode()
def draw(system: System, t: float = 0.3, *, seed: int = 1, psi: float = 1.0, motion: int = 5):
    code = system.motion(seed=motion).sample(t)
    return system.synthesizer(system.identity(seed=seed, psi=psi), code)


def codes(source, t: float) -> dict[str, torch.Tensor]:
    return dict(source.sample(t).tensors)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def far(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def test_every_family_has_a_tiny_configuration():
    assert set(TINY) == set(GENERATORS) == set(registry.SYSTEMS)


def test_its_example_has_the_shapes_of_a_session(system):
    identity, motion = system.synthesizer.example()
    for example, real in (
        (identity, system.identity(seed=4)),
        (motion, system.motion(seed=5).sample(0.5)),
    ):
        assert {k: (v.shape, v.dtype) for k, v in example.tensors.items()} == {
            k: (v.shape, v.dtype) for k, v in real.tensors.items()
        }


def test_it_is_a_system_and_draws_one_finite_picture(system):
    assert isinstance(system, System)
    assert system.name == "tiny" and system.trained is False and system.resolution == 16
    image = draw(system)
    assert image.shape == (1, 3, 16, 16) and image.dtype == torch.float32
    assert image.isfinite().all() and image.std() > 1e-3


def test_the_same_seeds_and_time_give_the_same_bits(system):
    assert torch.equal(draw(system), draw(system))


def test_seed_psi_motion_seed_and_time_each_matter(system):
    here = draw(system)
    for change in ({"seed": 2}, {"psi": 0.3}, {"motion": 6}, {"t": 0.6}):
        assert far(draw(system, **change), here) > 1e-3, change


def test_identities_have_one_shape_and_psi_contracts_them(system):
    centre = system.identity(seed=1, psi=0.0).tensors["w"]
    assert torch.allclose(centre, system.identity(seed=2, psi=0.0).tensors["w"], atol=1e-6)
    whole = system.identity(seed=1).tensors["w"]
    for psi in (0.5, -1.0):
        part = system.identity(seed=1, psi=psi).tensors["w"]
        assert part.shape == whole.shape and whole.shape[0] == 1
        torch.testing.assert_close(part - centre, psi * (whole - centre), rtol=1e-4, atol=1e-5)


def test_a_blend_starts_and_ends_where_it_says_and_moves_between(system):
    a, b = system.identity(seed=1), system.identity(seed=2)
    assert same(dict(system.blend(a, b, 0.0).tensors), dict(a.tensors))
    assert same(dict(system.blend(a, b, 1.0).tensors), dict(b.tensors))
    previous = draw_of(system, a)
    steps = []
    for i in range(1, 17):
        image = draw_of(system, system.blend(a, b, i / 16))
        steps.append(far(image, previous))
        previous = image
    assert max(steps) < far(draw_of(system, a), draw_of(system, b))  # no step is a cut
    assert min(steps) > 0


@torch.inference_mode()
def draw_of(system: System, identity) -> torch.Tensor:
    return system.synthesizer(identity, system.motion(seed=5).sample(0.3))


def test_motion_is_continuous(system):
    a_moment, a_second = 1e-4, 1.0
    for t in (-0.64, 0.0, 0.64, 1.28, 7.0):  # 0.64 s is where one segment of 16 frames ends
        here = draw(system, t)
        assert far(draw(system, t - a_moment), here) < 0.02 * far(draw(system, t + a_second), here)


def test_motion_at_any_time_is_that_of_play(system):
    times = [i / 24 - 1 for i in range(60)]
    source = system.motion(seed=5)
    played = [codes(source, t) for t in times]
    for i in (0, 17, 30, 59):
        assert same(codes(system.motion(seed=5), times[i]), played[i])
    for i in reversed(range(60)):
        assert same(codes(source, times[i]), played[i])


def test_codes_keep_their_shape_at_any_time(system):
    source = system.motion(seed=5)
    shapes = {key: value.shape for key, value in codes(source, 0.0).items()}
    for t in (-1e9, -0.1, 1e5, 1e9):
        found = codes(source, t)
        assert {key: value.shape for key, value in found.items()} == shapes
        assert all(value.isfinite().all() for value in found.values())
        assert not same(found, codes(source, t + 0.1))


def test_two_sessions_do_not_disturb_each_other(system):
    alone = [codes(system.motion(seed=5), t) for t in (0.0, 0.7, 1.4)]
    one, other = system.motion(seed=5), system.motion(seed=6)
    for expected, t in zip(alone, (0.0, 0.7, 1.4), strict=True):
        mixed = codes(one, t)
        assert not same(codes(other, t), mixed)
        assert same(mixed, expected)


def test_drawing_reads_nothing_back_and_draws_no_random_number(system, capturable):
    identity, code = system.identity(seed=1), system.motion(seed=5).sample(0.3)
    with torch.inference_mode(), capturable():
        system.synthesizer(identity, code)
    before = torch.random.get_rng_state()
    draw(system, 0.9, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
