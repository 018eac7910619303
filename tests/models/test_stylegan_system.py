"""StyleGAN2 and StyleGAN3 as systems: the official picture of a seed, and a walk around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.backbones import stylegan2, stylegan3
from models.contracts import System as SystemContract
from models.errors import BadConfig
from models.latents import latent_of_seed
from models.stylegan import System

SMALL = {"z_dim": 16, "w_dim": 16, "img_channels": 3, "channel_base": 128, "channel_max": 8}


def generator(family: str, c_dim: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if family == "stylegan2":
            made = stylegan2.Generator(c_dim=c_dim, img_resolution=16, **SMALL)
        else:
            made = stylegan3.Generator(c_dim=c_dim, img_resolution=16, num_layers=4, **SMALL)
        made.mapping.w_avg.normal_(std=0.3)
    return made


@pytest.fixture(params=["stylegan2", "stylegan3"])
def network(request):
    return generator(request.param)


def test_it_keeps_the_contract(network):
    system = System("a name", network, trained=False)
    assert isinstance(system, SystemContract)
    assert (system.name, system.resolution, system.trained) == ("a name", 16, False)
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_a_seed_is_the_latent_of_the_published_tools():
    z, c = latent_of_seed(5, 16, 0)
    expected = np.random.RandomState(5).randn(1, 16).astype(np.float32)
    np.testing.assert_array_equal(z.numpy(), expected)
    assert c.shape == (1, 0)
    stream = np.random.RandomState(5)
    stream.randn(1, 16)
    _, label = latent_of_seed(5, 16, 7)
    assert int(label.argmax()) == stream.randint(7) and label.sum() == 1
    for seed in (-1, 2**32):
        with pytest.raises(BadConfig, match=str(seed)):
            latent_of_seed(seed, 16, 0)


@pytest.mark.parametrize("psi", [1.0, 0.7, 0.0, -0.5])
def test_a_picture_at_a_standstill_is_the_generators_own(network, psi):
    system = System("s", network, trained=True, walk_radius=0.0)
    image = system.synthesizer(system.identity(seed=3, psi=psi), system.motion(seed=9).sample(4.5))
    z, c = latent_of_seed(3, 16, 0)
    with torch.no_grad():
        expected = network(z, c, truncation_psi=psi)
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-6)


def test_a_walk_moves_every_row_of_w_alike(network):
    system = System("s", network, trained=True, walk_radius=0.7)
    identity, code = system.identity(seed=3), system.motion(seed=9).sample(4.5)
    assert code.tensors["dw"].shape == (1, 16) and code.tensors["dw"].abs().max() > 0.01
    with torch.no_grad():
        moved = network.synthesis(identity.tensors["w"] + code.tensors["dw"])
    torch.testing.assert_close(system.synthesizer(identity, code), moved, rtol=0, atol=0)


def test_settings_of_the_walk_arrive(network):
    slow = System("s", network, trained=True, walk_speed=0.5).motion(seed=2)
    fast = System("s", network, trained=True, walk_speed=2.0).motion(seed=2)
    near = System("s", network, trained=True, walk_speed=0.5, walk_radius=0.05).motion(seed=2)
    loop = System("s", network, trained=True, walk_speed=0.5, walk_loop=4).motion(seed=2)
    here = slow.sample(3.0).tensors["dw"]
    torch.testing.assert_close(fast.sample(0.75).tensors["dw"], here, rtol=0, atol=0)
    torch.testing.assert_close(near.sample(3.0).tensors["dw"] * 10, here, rtol=1e-5, atol=1e-7)
    assert torch.equal(loop.sample(3.0).tensors["dw"], loop.sample(11.0).tensors["dw"])
    for setting, value in (("walk_speed", "fast"), ("walk_radius", -1), ("walk_loop", 4.5)):
        with pytest.raises(BadConfig, match=setting.removeprefix("walk_")):
            System("s", network, trained=True, **{setting: value})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *[
            ("walk_speed", bad)
            for bad in (1e300, -1e300, float("inf"), float("nan"), 10**400, True)
        ],
        *[("walk_radius", bad) for bad in (1e300, float("inf"), float("nan"), 10**400, None)],
        *[("walk_loop", bad) for bad in (10**400, 1e300, True, "x")],
    ],
)
def test_settings_out_of_range_are_refused(network, setting, value):
    with pytest.raises(BadConfig, match=setting):
        System("s", network, trained=True, **{setting: value})


def test_a_network_without_an_average_of_w_is_refused():
    with torch.random.fork_rng(devices=[]):
        made = stylegan2.Generator(
            c_dim=0, img_resolution=16, mapping_kwargs={"w_avg_beta": None}, **SMALL
        )
    with pytest.raises(BadConfig, match="w_avg_beta is null"):
        System("s", made, trained=True)


def test_a_conditional_walk_stays_in_the_class_of_its_seed():
    network = generator("stylegan2", c_dim=3)
    system = System("s", network, trained=True)
    walk = system.motion(seed=4)
    seen = []
    original = network.mapping.forward

    def spying(z, c, *args, **kwargs):
        seen.append(c.clone())
        return original(z, c, *args, **kwargs)

    network.mapping.forward = spying
    walk.sample(0.0)
    _, label = latent_of_seed(4, 16, 3)
    assert len(seen) == 4 and all(torch.equal(c, label) for c in seen)


def test_moving_the_synthesizer_leaves_identities_where_they_are(network):
    # The engine moves what draws to its device; codes and identities stay small and on the CPU.
    system = System("s", network, trained=True)
    system.synthesizer.to("meta")
    assert system.identity(seed=1).tensors["w"].device.type == "cpu"
    assert system.motion(seed=1).sample(0.5).tensors["dw"].isfinite().all()


def test_motion_stays_in_the_class_of_who_is_seen():
    system = System("s", generator("stylegan2", c_dim=3), trained=True)

    def code(**seeds):
        return system.motion(**seeds).sample(1.5).tensors["dw"]

    classes = {seed: int(latent_of_seed(seed, 16, 3)[1].argmax()) for seed in range(8)}
    assert len(set(classes.values())) > 1
    for seed, own in classes.items():
        same = torch.equal(code(seed=0, who=seed), code(seed=0))
        assert same == (own == classes[0])
