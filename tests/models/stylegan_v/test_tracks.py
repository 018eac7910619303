"""Motion of tracks: the numbers of a face inside v, played bit for bit, and checked sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models import checkpoint, registry
from models.contracts import System as SystemContract
from models.errors import BadCheckpoint, BadConfig
from models.faces.prior import Prior, person
from models.faces.state import CODE_SIZE
from models.faces.tracks import Track, TrackStyle
from models.faces.traits import shrink, standardised
from models.fused import pack
from models.stylegan_v.config import GeneratorConfig, MotionConfig
from models.stylegan_v.networks import Generator
from models.stylegan_v.tracks import TrackEncoder, TrackMotion, TrackWeights, track_style

CONFIG: dict[str, Any] = {
    "c_dim": 0,
    "w_dim": 16,
    "img_resolution": 16,
    "img_channels": 3,
    "mapping_kwargs": {"num_layers": 2},
    "synthesis_kwargs": {"channel_base": 128, "channel_max": 16},
    "cfg": {
        "z_dim": 112,
        "content": {"type": "traits", "version": 1, "prior": "narrow"},
        "motion": {"gen_strategy": "tracks", "hidden": 12, "tracks": {"yaw": 20, "speech": 0.5}},
        "time_enc": {"cond_type": "concat_w", "dim": 36},
        "input": {"type": "const"},
    },
}


def generator() -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        made = Generator(**CONFIG)
        encoder = made.synthesis.motion_encoder
        assert isinstance(encoder, TrackEncoder)
        encoder.calibrate(Track(0, TrackStyle()).codes(np.arange(200) * 0.3))
        torch.nn.init.normal_(encoder.hidden.bias, std=0.3)
        torch.nn.init.normal_(encoder.features.bias, std=0.3)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network() -> Generator:
    return generator()


@pytest.fixture(scope="module")
def system(network, tmp_path_factory) -> SystemContract:
    path = tmp_path_factory.mktemp("tracks") / "face"
    checkpoint.save(path, family="stylegan_v", config=CONFIG, state=network.state_dict(), meta={})
    return registry.load_model(str(path))


def code(system: SystemContract, t: float, seed: int = 5) -> torch.Tensor:
    return system.motion(seed=seed).sample(t).tensors["v"]


def test_the_first_entries_are_the_numbers_of_the_face(system, network):
    numbers = Track(5, TrackStyle(yaw=20, speech=0.5)).codes(np.array([3.3]))[0]
    gain = network.synthesis.motion_encoder.gain.numpy()
    found = code(system, 3.3)
    assert found.shape == (1, 72)
    np.testing.assert_allclose(found[0, :CODE_SIZE].numpy(), numbers * gain, rtol=1e-6, atol=1e-7)


def test_a_stream_agrees_with_the_network_that_was_trained(system, network):
    times = np.array([-7.0, 0.0, 2.5, 1e5])
    numbers = Track(5, track_style(network.synthesis.motion_encoder.config)).codes(times)
    expected = network.synthesis.motion_encoder(torch.from_numpy(numbers))
    found = torch.cat([code(system, t) for t in times])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_any_order_of_times_gives_the_same_bits(system):
    times = [i / 24 - 1 for i in range(80)]
    source = system.motion(seed=5)
    played = [source.sample(t).tensors["v"] for t in times]
    for i in (79, 3, 40, 0):
        assert torch.equal(code(system, times[i]), played[i])
    for i in reversed(range(80)):
        assert torch.equal(source.sample(times[i]).tensors["v"], played[i])


def test_motion_seeds_differ_and_the_identity_s_seed_does_not_matter(system):
    assert not torch.equal(code(system, 1.0, seed=5), code(system, 1.0, seed=6))
    for who in (None, 3):
        v = system.motion(seed=5, who=who).sample(1.0).tensors["v"]
        assert torch.equal(v, code(system, 1.0))


def test_times_that_are_not_finite_are_refused(system):
    for t in (float("nan"), float("inf")):
        with pytest.raises(BadConfig, match="finite"):
            system.motion(seed=5).sample(t)


def test_an_identity_is_a_person_and_psi_acts_on_the_numbers(system, network):
    for psi in (1.0, 0.7):
        numbers = standardised(shrink(person(9, Prior.NARROW), psi))
        expected = network.mapping(torch.from_numpy(numbers)[None])
        assert torch.equal(system.identity(seed=9, psi=psi).tensors["w"], expected)
    assert not torch.equal(
        system.identity(seed=9).tensors["w"], system.identity(seed=10).tensors["w"]
    )
    for seed in (-1, 1 << 32):
        with pytest.raises(BadConfig, match="seed"):
            system.identity(seed=seed)


@torch.inference_mode()
def test_the_packed_network_draws_the_same_picture(system):
    who, motion = system.identity(seed=1), system.motion(seed=5).sample(0.4)
    executor = pack(system.synthesizer, torch.device("cpu"), torch.float32).executor()
    executor.put(0, who, motion)
    out = torch.empty(1, 16, 16, 3)
    executor.draw(out)
    expected = system.synthesizer(who, motion).permute(0, 2, 3, 1)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 1e-3


def test_calibration_gives_unit_spread_and_leaves_what_rests():
    encoder = TrackEncoder(MotionConfig(strategy="tracks", frequencies=40))
    codes = np.zeros((500, CODE_SIZE), np.float32)
    codes[:, 0] = np.linspace(-0.5, 0.5, 500)
    codes[:, 1] = np.linspace(-0.01, 0.01, 500)
    encoder.calibrate(codes)
    spread = (torch.from_numpy(codes) * encoder.gain).std(0, correction=0)
    assert spread[0] == pytest.approx(1.0, abs=1e-4)
    assert encoder.gain[1] == 8  # not blown up
    assert (encoder.gain[2:] == 1).all()


def test_forward_wants_motion_codes(network):
    ws = network.mapping(torch.ones(1, 112))
    with pytest.raises(ValueError, match="motion_v"):
        network.synthesis(ws, t=torch.zeros(1, 1))


def test_a_smaller_picture_is_the_one_after_its_block(network):
    ws, v = network.mapping(torch.ones(1, 112)), torch.ones(1, 72)
    small = network.synthesis(ws, motion_v=v, upto=8)
    assert small.shape == (1, 3, 8, 8)
    silent = generator()
    torch.nn.init.zeros_(silent.synthesis.b16.torgb.weight)
    whole = silent.synthesis(ws, motion_v=v)
    from kernels_triton.upfirdn2d import upsample2d

    torch.testing.assert_close(whole, upsample2d(small, silent.synthesis.b16.resample_filter))
    with pytest.raises(ValueError, match="upto is 12"):
        network.synthesis(ws, motion_v=v, upto=12)


def changed(**cfg: Any) -> dict[str, Any]:
    return {**CONFIG["cfg"], **cfg}


@pytest.mark.parametrize(
    ("cfg", "word"),
    [
        (changed(z_dim=64), "112"),
        (changed(time_enc={"cond_type": "concat_w", "dim": 33}), "67"),
        (changed(content={"type": "traits", "version": 2}), "version"),
        (changed(content={"type": "traits", "prior": "wide"}), "prior"),
        (changed(content={"type": "people"}), "people"),
        (changed(motion={"gen_strategy": "track"}), "strategy"),
    ],
)
def test_impossible_settings_are_refused(cfg, word):
    with pytest.raises(BadConfig, match=word):
        GeneratorConfig.from_published(cfg)


def test_a_track_s_style_is_checked_by_name():
    with pytest.raises(BadConfig, match=r"'jaw'.*yaw"):
        track_style(MotionConfig(strategy="tracks", tracks={"jaw": 1.0}))


def test_labels_beside_traits_are_refused():
    with pytest.raises(BadConfig, match="labels"):
        Generator(**{**CONFIG, "c_dim": 2})


def test_a_file_without_the_encoder_is_refused(network):
    state = {k: v for k, v in network.state_dict().items() if "features" not in k}
    made = checkpoint.Checkpoint("stylegan_v", CONFIG, state, {})
    with pytest.raises(BadCheckpoint, match="features"):
        registry.build(made)


def test_motion_works_with_any_source_of_numbers(network):
    class Still:
        def codes(self, times):
            return np.full((len(times), CODE_SIZE), 0.25, np.float32)

    weights = TrackWeights(network.synthesis.motion_encoder)
    motion = TrackMotion(weights, Still())
    assert torch.equal(motion.sample(0.0).tensors["v"], motion.sample(9.0).tensors["v"])
