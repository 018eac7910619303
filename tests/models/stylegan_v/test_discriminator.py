"""The video discriminator against golden vectors and published sizes."""

from __future__ import annotations

import pytest
import torch

from models.errors import BadConfig
from models.stylegan_v.discriminator import FixedTimeEncoder
from models.stylegan_v.networks import Discriminator

from .goldens import discriminator_of, error


@pytest.fixture
def case(discriminator_golden):
    return discriminator_golden, discriminator_of(discriminator_golden)


@torch.no_grad()
def test_logits_and_conditions_equal_the_golden(case):
    found, discriminator = case
    assert error(discriminator.time_encoder(found["t"]), found["t_emb"]) <= 2e-6
    assert error(discriminator.condition(found["c"], found["t"]), found["cmap"]) <= 2e-5
    logits = discriminator(found["img"], found["c"], found["t"])
    assert error(logits[:, 0], found["logits"]) <= 2e-5


@torch.no_grad()
def test_every_block_equals_the_golden(case):
    found, discriminator = case
    outputs = {}
    for block in discriminator.blocks():
        block.register_forward_hook(
            lambda module, _, output: outputs.update({module.resolution: output[0]})
        )
    discriminator(found["img"], found["c"], found["t"])
    for resolution, x in outputs.items():
        expected = found[f"x_after_b{resolution}"]
        assert error(x[: len(expected)], expected) <= 2e-5


@pytest.mark.parametrize("frames", [1024, 1000, 32, 16, 2])
def test_fourier_table_equals_the_golden(golden, frames):
    expected = golden("tables")[f"disc_fourier_{frames}_0"]
    torch.testing.assert_close(FixedTimeEncoder(frames).fourier_coefs, expected, rtol=2e-7, atol=0)


def test_published_sizes():
    three = {"sampling": {"num_frames_per_video": 3}, "concat_res": 16}
    two = {"sampling": {"num_frames_per_video": 2}, "concat_res": 16}
    with torch.device("meta"):
        small = Discriminator(0, 256, 3, channel_base=16384, cfg=three)
        large = Discriminator(77, 1024, 3, cfg=two)
    assert sum(p.numel() for p in small.parameters()) == 25_333_568
    assert len(small.state_dict()) == 72
    assert sum(p.numel() for p in large.parameters()) == 28_932_384


def tiny(**cfg) -> Discriminator:
    sampling = {"num_frames_per_video": cfg.pop("k", 3), "max_num_frames": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return Discriminator(
            0, 32, 3, channel_base=256, channel_max=8, cfg={"sampling": sampling, **cfg}
        )


@torch.no_grad()
def test_only_differences_of_time_count():
    discriminator = tiny()
    img = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(2, 0)
    t = torch.tensor([[0.0, 4.0, 8.0], [3.0, 4.0, 19.0]])
    logits = discriminator(img, label, t)
    assert error(discriminator(img, label, t + 20.5), logits) == 0
    t[0, 1] += 1
    assert error(discriminator(img, label, t)[0], logits[0]) > 0
    assert error(discriminator(img, label, t)[1], logits[1]) == 0


@torch.no_grad()
def test_the_table_is_read_at_the_nearest_number_halves_to_even():
    encoder = tiny(k=2).time_encoder
    for delta, row in ((3.4, 3), (3.6, 4), (2.5, 2), (3.5, 4)):
        code = encoder(torch.tensor([[10.0, 10.0 + delta]]))
        assert error(code[0, :256], encoder.const_embed.weight[row]) == 0
        angle = torch.tensor(delta) * encoder.time_encoder.fourier_coefs[0]
        assert error(code[0, 256:262], angle.sin()) < 1e-6


@torch.no_grad()
def test_order_of_frames_counts():
    discriminator = tiny()
    img = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([[0.0, 4.0, 8.0]])
    logit = discriminator(img, torch.zeros(1, 0), t)
    assert error(discriminator(img.flip(0), torch.zeros(1, 0), t), logit) > 1e-5


@torch.no_grad()
def test_single_frames_have_no_condition_and_dummy_c_hides_it():
    single = tiny(k=1)
    assert not hasattr(single, "time_encoder") and not hasattr(single, "mapping")
    assert single(torch.randn(2, 3, 32, 32), torch.zeros(2, 0), torch.zeros(2, 1)).shape == (2, 1)
    blind = tiny(dummy_c=True)
    img, label = torch.randn(3, 3, 32, 32), torch.zeros(1, 0)
    a = blind(img, label, torch.tensor([[0.0, 1.0, 2.0]]))
    assert error(blind(img, label, torch.tensor([[0.0, 9.0, 30.0]])), a) == 0


def test_impossible_settings_and_inputs_are_named():
    for concat_res in (4, 32, 24):
        with pytest.raises(BadConfig, match="concat_res"):
            tiny(concat_res=concat_res)
    with pytest.raises(BadConfig, match="architecture"):
        Discriminator(0, 32, 3, architecture="skip")
    with pytest.raises(BadConfig, match="sampling.type"):
        Discriminator(0, 32, 3, cfg={"sampling": {"type": "other"}})
    with pytest.raises(ValueError, match="clips of 3"):
        tiny()(torch.randn(4, 3, 32, 32), torch.zeros(2, 0), torch.zeros(2, 2))
