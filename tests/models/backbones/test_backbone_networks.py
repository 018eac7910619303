"""Layers, mapping and networks: published arguments and names, noise, averages, precision, and the
paper's properties."""

from __future__ import annotations

import math

import pytest
import torch

import kernels_triton as ops
from models.backbones import stylegan2, stylegan3
from models.backbones.discriminator import Discriminator, MinibatchStdLayer
from models.backbones.layers import Conv2dLayer, FullyConnectedLayer
from models.backbones.mapping import MappingNetwork
from models.errors import BadConfig

# What the published pickles were built with (their `init_kwargs`), at tiny widths.
PUBLISHED_SG3 = {
    "z_dim": 16,
    "c_dim": 0,
    "w_dim": 16,
    "img_resolution": 32,
    "img_channels": 3,
    "mapping_kwargs": {"num_layers": 2},
    "channel_base": 256,
    "channel_max": 16,
    "magnitude_ema_beta": 0.9988915792636801,
    "conv_kernel": 1,
    "use_radial_filters": True,
    "num_fp16_res": 4,
    "conv_clamp": 256,
}
PUBLISHED_SG2 = {
    "z_dim": 16,
    "c_dim": 0,
    "w_dim": 16,
    "img_resolution": 32,
    "img_channels": 3,
    "mapping_kwargs": {"num_layers": 8},
    "channel_base": 256,
    "channel_max": 16,
    "num_fp16_res": 4,
    "conv_clamp": 256,
    "fused_modconv_default": "inference_only",
    "architecture": "skip",
    "fp16_channels_last": True,
    "resample_filter": [1, 3, 3, 1],
    "use_noise": True,
    "activation": "lrelu",
}


def _sg2(**changes):
    torch.manual_seed(1)
    return stylegan2.Generator(**{**PUBLISHED_SG2, **changes}).eval().requires_grad_(False)


def _sg3(**changes):
    torch.manual_seed(1)
    return stylegan3.Generator(**{**PUBLISHED_SG3, **changes}).eval().requires_grad_(False)


@pytest.mark.parametrize("net", [_sg2(), _sg3()], ids=["stylegan2", "stylegan3"])
def test_published_arguments_build_a_generator(net) -> None:
    assert (net.z_dim, net.c_dim, net.w_dim) == (16, 0, 16)
    assert (net.img_resolution, net.img_channels) == (32, 3)
    assert net.num_ws == (8 if isinstance(net, stylegan2.Generator) else 16)
    ws = net.mapping(torch.randn(2, 16), None, truncation_psi=0.5, truncation_cutoff=3)
    img = net.synthesis(ws)
    assert img.shape == (2, 3, 32, 32) and img.is_contiguous() and img.dtype == torch.float32


def test_the_generators_differ_in_synthesis_and_mapping_depth_only() -> None:
    nets = {
        stylegan2: stylegan2.Generator(8, 0, 8, 16, 3, channel_base=64, channel_max=4),
        stylegan3: stylegan3.Generator(8, 0, 8, 16, 3, channel_base=64, channel_max=4),
    }
    assert stylegan2.Generator.forward is stylegan3.Generator.forward
    for family, layers in ((stylegan2, 8), (stylegan3, 2)):
        net = nets[family]
        assert type(net.synthesis) is family.SynthesisNetwork
        assert net.mapping.num_layers == layers
        assert [name for name, _ in net.named_children()] == ["synthesis", "mapping"]
        shallow = family.Generator(8, 0, 8, 16, 3, {"num_layers": 1}, channel_base=64)
        assert shallow.mapping.num_layers == 1


@pytest.mark.parametrize("net", [_sg2(), _sg3()], ids=["stylegan2", "stylegan3"])
def test_picture_does_not_depend_on_its_batch_mates(net) -> None:
    ws = net.mapping(torch.randn(3, 16))
    together = net.synthesis(ws)
    alone = torch.cat([net.synthesis(row) for row in ws.split(1)])
    # one sample goes into the weights, several into the picture: other roundings
    assert (together - alone).abs().max() < 2e-5 * together.abs().max()


def test_published_sizes_have_the_published_number_of_parameters() -> None:
    """Synthesis networks of configurations T and R at 1024 pixels: 21.79 and 14.57 million."""
    with torch.device("meta"):
        t = stylegan3.SynthesisNetwork(512, 1024, 3)
        r = stylegan3.SynthesisNetwork(
            512, 1024, 3, 65536, 1024, conv_kernel=1, use_radial_filters=True
        )
        sg2 = stylegan2.Generator(512, 0, 512, 1024, 3)
    count = lambda net: sum(p.numel() for p in net.parameters()) / 1e6  # noqa: E731
    assert count(t) == pytest.approx(21.79, abs=0.005)
    assert count(r) == pytest.approx(14.57, abs=0.005)
    assert sg2.num_ws == 18
    assert count(sg2) == pytest.approx(30.37, abs=0.005)  # StyleGAN2 at 1024, CVPR 2020


def test_default_noise_is_the_stored_one() -> None:
    net = _sg2()
    for name, parameter in net.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.5)
    ws = net.mapping(torch.randn(1, 16))
    assert torch.equal(net.synthesis(ws), net.synthesis(ws, noise_mode="const"))
    assert not torch.equal(net.synthesis(ws), net.synthesis(ws, noise_mode="none"))


def test_random_noise_comes_from_the_caller_only() -> None:
    net = _sg2()
    for name, parameter in net.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.5)
    ws = net.mapping(torch.randn(2, 16))
    draw = lambda: torch.Generator().manual_seed(7)  # noqa: E731
    noise = net.synthesis.draw_noise(2, draw())
    assert [n.shape[-1] for n in noise] == [4, 8, 8, 16, 16, 32, 32]
    given = net.synthesis(ws, noise_mode="random", noise=noise)
    assert torch.equal(given, net.synthesis(ws, noise_mode="random", generator=draw()))
    with pytest.raises(ValueError, match="generator"):
        net.synthesis(ws, noise_mode="random")
    with pytest.raises(ValueError, match="unknown"):
        net.synthesis(ws, noise_mode="Const")


def test_half_precision_starts_at_the_published_resolution() -> None:
    with torch.device("meta"):
        net = stylegan2.SynthesisNetwork(16, 256, 3, channel_base=256, channel_max=8)
        none = stylegan2.SynthesisNetwork(16, 64, 3, 256, 8, num_fp16_res=0)
        every = stylegan2.SynthesisNetwork(16, 16, 3, 256, 8)
    assert [b.resolution for b in net.blocks() if b.use_fp16] == [32, 64, 128, 256]
    assert not any(b.use_fp16 for b in none.blocks())
    assert [b.resolution for b in every.blocks() if b.use_fp16] == [8, 16]


def test_cpu_never_runs_in_half_precision() -> None:
    net = _sg3()
    assert any(layer.use_fp16 for layer in net.synthesis.layers())
    seen = []
    for layer in net.synthesis.layers():
        layer.register_forward_hook(lambda module, args, y: seen.append(y.dtype))
    net(torch.randn(1, 16))
    assert set(seen) == {torch.float32}


def test_convolution_makes_only_what_is_read() -> None:
    """T: two rings of the full convolution in the layers that double, all it can in the cropping
    one.
    """
    with torch.device("meta"):
        t = stylegan3.SynthesisNetwork(8, 256, 3, 512, 8)
        r = stylegan3.SynthesisNetwork(8, 256, 3, 512, 8, conv_kernel=1, use_radial_filters=True)
    assert [layer.conv_padding for layer in t.layers()] == [
        2,
        2,
        2,
        0,
        2,
        0,
        2,
        0,
        2,
        2,
        0,
        2,
        2,
        0,
        0,
    ]
    assert all(layer.conv_padding == 0 for layer in r.layers())


def test_translation_of_the_input_translates_the_picture() -> None:
    """Configuration T is equivariant to translation (NeurIPS 2021, Sec. 2 and Table 1)."""
    net = _sg3(conv_kernel=3, use_radial_filters=False, img_resolution=64).double()
    # Content must be band-limited for this: no energy in the last, critically sampled octave.
    ws = net.mapping(torch.randn(1, 16)) * 0.3
    still = net.synthesis(ws)
    pixels = 6
    shift = torch.eye(3, dtype=torch.float64)
    shift[0, 2] = -pixels / 64  # the buffer holds the inverse of the motion
    net.synthesis.input.transform.copy_(shift)
    moved = net.synthesis(ws)
    inner = slice(12, 52)
    expected = still[:, :, inner, slice(12 - pixels, 52 - pixels)]
    error = (moved[:, :, inner, inner] - expected).square().mean()
    span = still.amax() - still.amin()
    assert 10 * math.log10(span**2 / error) > 35  # dB; unshifted pictures give about 10
    wrong = (still[:, :, inner, inner] - expected).square().mean()
    assert error < wrong / 100


def test_emas_move_before_they_are_used_and_only_when_told() -> None:
    net = _sg3()
    z = torch.randn(4, 16) + 1
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net(z)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    net(z, update_emas=True)
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if k.endswith(("w_avg", "magnitude_ema"))}


def test_truncation_pulls_towards_the_average_and_spares_the_rest() -> None:
    net = MappingNetwork(8, 0, 8, num_ws=5, num_layers=2)
    net.w_avg.normal_()
    z = torch.randn(3, 8)
    with torch.no_grad():
        full, none = net(z), net(z, truncation_psi=0.0)
        some = net(z, truncation_psi=0.0, truncation_cutoff=2)
        untouched = net(z, truncation_psi=0.0, truncation_cutoff=0)
    assert torch.equal(none, net.w_avg.expand(3, 5, 8))
    assert torch.equal(some[:, :2], none[:, :2]) and torch.equal(some[:, 2:], full[:, 2:])
    assert torch.equal(untouched, full)


def test_mapping_names_what_is_missing() -> None:
    conditional = MappingNetwork(8, 3, 8, num_ws=2)
    with pytest.raises(ValueError, match=r"z must be \[N, 8\]"):
        conditional(torch.randn(2, 7), torch.randn(2, 3))
    with pytest.raises(ValueError, match=r"c must be \[N, 3\]"):
        conditional(torch.randn(2, 8), None)
    averageless = MappingNetwork(0, 3, 8, num_ws=None, w_avg_beta=None)
    with pytest.raises(ValueError, match="keeps no average"):
        averageless(None, torch.randn(2, 3), truncation_psi=0.5)


@torch.no_grad()
def test_equalised_layers_start_with_unit_gain() -> None:
    torch.manual_seed(0)
    x = torch.randn(512, 256)
    dense = FullyConnectedLayer(256, 512, lr_multiplier=0.01)
    assert dense.weight.std() == pytest.approx(100, rel=0.02)
    assert dense(x).std() == pytest.approx(1, rel=0.02)
    conv = Conv2dLayer(64, 64, 3)
    assert conv(torch.randn(1, 64, 32, 32)).std() == pytest.approx(1, rel=0.05)
    assert FullyConnectedLayer(4, 2, bias_init=[1, 0], lr_multiplier=0.5).bias.tolist() == [2, 0]


def test_block_fed_from_outside_has_no_constant() -> None:
    block = stylegan2.SynthesisBlock(
        0, 8, 16, 4, 3, is_last=False, fed_channels=12, use_noise=False
    )
    assert "const" not in dict(block.named_parameters())
    assert block.conv1.weight.shape == (8, 12, 3, 3) and block.conv1.affine.weight.shape == (12, 16)
    x, img = block(torch.randn(2, 12, 4, 4), None, torch.randn(2, 2, 16))
    assert x.shape == (2, 8, 4, 4) and img.shape == (2, 3, 4, 4)
    with pytest.raises(ValueError, match="give it features"):
        block(None, None, torch.randn(2, 2, 16))


def test_frozen_layers_keep_their_names_and_do_not_learn() -> None:
    plain = Discriminator(0, 16, 3, channel_base=64, channel_max=8)
    frozen = Discriminator(
        0, 16, 3, channel_base=64, channel_max=8, block_kwargs={"freeze_layers": 3}
    )
    assert frozen.state_dict().keys() == plain.state_dict().keys()
    missing = dict(plain.named_parameters()).keys() - dict(frozen.named_parameters()).keys()
    assert missing == {
        f"b16.{k}.{p}" for k in ("fromrgb", "conv0", "conv1") for p in ("weight", "bias")
    }


def test_minibatch_statistic_groups_by_stride() -> None:
    """Members of a group are N/G apart: equal samples there make the statistic vanish."""
    x = torch.randn(2, 3, 4, 4).repeat(2, 1, 1, 1)  # samples 0 and 2 equal, 1 and 3 equal
    y = MinibatchStdLayer(group_size=2)(x)
    assert y.shape == (4, 4, 4, 4) and y[:, 3].max() < 1.1e-4  # sqrt(1e-8)
    assert MinibatchStdLayer(group_size=2)(x.roll(1, 0)[[0, 1, 1, 0]])[:, 3].max() > 0.1
    with pytest.raises(ValueError, match="multiple of the group"):
        MinibatchStdLayer(group_size=2)(x[:3])


@pytest.mark.parametrize(
    "make",
    [
        lambda: _sg2(img_resolution=48),
        lambda: _sg2(architecture="progressive"),
        lambda: _sg3(num_critical=14),
        lambda: Discriminator(0, 4, 3),
        lambda: Discriminator(0, 16, 3, architecture="progressive"),
    ],
)
def test_impossible_configurations_are_refused(make) -> None:
    with pytest.raises(BadConfig):
        make()


@pytest.mark.parametrize("net", [_sg2(), _sg3()], ids=["stylegan2", "stylegan3"])
def test_misshapen_latents_are_named(net) -> None:
    with pytest.raises(ValueError, match=f"{net.num_ws}, 16"):
        net.synthesis(torch.randn(1, net.num_ws - 1, 16))


def test_reference_ops_give_the_same_picture() -> None:
    for net in (_sg2(architecture="resnet"), _sg3()):
        ws = net.mapping(torch.randn(2, 16))
        with ops.implementation("reference"):
            slow = net.synthesis(ws)
        assert (net.synthesis(ws) - slow).abs().max() < 2e-5 * slow.abs().max()
