"""The generator against golden vectors, the published sizes, and what an inference pass may do."""

from __future__ import annotations

import pytest
import torch

from models.errors import BadConfig
from models.stylegan_v.networks import Generator

from .goldens import TINY, error, generator_of, relative_l2, tiny


@pytest.fixture
def case(generator_golden):
    return generator_golden, generator_of(generator_golden)


@torch.no_grad()
def test_ws_equal_the_golden(case):
    found, generator = case
    assert error(generator.mapping(found["z"], found["c"]), found["ws"]) <= 1e-5
    cut = generator.mapping(found["z"], found["c"], truncation_psi=0.5, truncation_cutoff=3)
    assert error(cut, found["ws_psi05_cut3"]) <= 1e-5


@torch.no_grad()
def test_motion_codes_equal_the_golden(case):
    found, generator = case
    codes = generator.synthesis.motion_encoder(found["t"], found["c"], found["motion_z"])
    assert error(codes, found["motion_v"]) <= 1.5e-3
    assert relative_l2(codes, found["motion_v"]) <= 2e-4


@torch.no_grad()
def test_images_of_given_styles_and_motion_equal_the_golden(case):
    found, generator = case
    image = generator.synthesis(found["ws"], motion_v=found["motion_v"])
    assert error(image, found["img"]) <= 1e-4


@torch.no_grad()
def test_every_block_equals_the_golden(case):
    found, generator = case
    outputs = {}
    for block in generator.synthesis.blocks():
        block.register_forward_hook(
            lambda module, _, output: outputs.update({module.resolution: output})
        )
    generator.synthesis(found["ws"], motion_v=found["motion_v"])
    for resolution, (x, image) in outputs.items():
        expected = found[f"x_b{resolution}"]  # of large ones only the first frame is kept
        assert error(x[: len(expected)], expected) <= 1e-4
        if f"img_b{resolution}" in found:
            assert error(image, found[f"img_b{resolution}"]) <= 1e-4
    assert len(outputs) == len(generator.synthesis.block_resolutions)


@torch.no_grad()
def test_images_from_latent_noise_and_time_equal_the_golden(case):
    found, generator = case
    z, c, t, motion_z = (found[key] for key in ("z", "c", "t", "motion_z"))
    image = generator(z, c, t, motion_z=motion_z)
    # Motion codes carry the authors' float32 phase, hence more than for given codes.
    assert error(image, found["img"]) <= 1.5e-3
    assert relative_l2(image, found["img"]) <= 2e-4
    first = t[:, :1]
    for key, settings in {
        "img_psi07": {"truncation_psi": 0.7},
        "img_psi05_cut3": {"truncation_psi": 0.5, "truncation_cutoff": 3},
    }.items():
        image = generator(z, c, first, motion_z=motion_z, **settings)
        assert error(image, found[key]) <= 1.5e-3


def test_published_sizes():
    with torch.device("meta"):
        small = Generator(0, 512, 256, 3, synthesis_kwargs={"channel_base": 16384})
        large = Generator(77, 512, 1024, 3)
    assert sum(p.numel() for p in small.parameters()) == 32_105_941
    assert len(small.state_dict()) == 115
    assert small.num_ws == 14
    assert sum(p.numel() for p in large.parameters()) == 38_444_283
    assert large.num_ws == 18
    encoder = small.synthesis.motion_encoder
    assert sum(p.numel() for p in encoder.parameters()) == 6_291_456 + 2 * 512


@torch.no_grad()
def test_a_frame_does_not_depend_on_its_company():
    generator = tiny()
    random = torch.Generator().manual_seed(1)
    z = torch.randn(3, 12, generator=random)
    motion_z = torch.randn(3, 20, 6, generator=random)
    t = torch.tensor([[0.0, 3.25], [17.0, 60.5], [31.9, 32.0]])
    together = generator(z, torch.zeros(3, 0), t, motion_z=motion_z).view(3, 2, 3, 16, 16)
    for b in range(3):
        for f in range(2):
            alone = generator(
                z[b : b + 1],
                torch.zeros(1, 0),
                t[b : b + 1, f : f + 1],
                motion_z=motion_z[b : b + 1],
            )
            # float32 codes differ by 1e-7 with the batch, and phases are 64 times as sensitive.
            assert error(alone[0], together[b, f]) < 2e-4
    # And not on further noise, which reaches later times only.
    longer = torch.cat([motion_z, torch.randn(3, 9, 6, generator=random)], dim=1)
    further = generator(z, torch.zeros(3, 0), t, motion_z=longer).view(3, 2, 3, 16, 16)
    assert error(further, together) < 2e-4


@pytest.mark.parametrize("condition", ["concat_const", "concat_w", "sum_w"])
def test_an_inference_pass_can_be_captured(condition, capturable):
    kind = "temporal" if condition == "concat_const" else "const"
    time = TINY["cfg"]["time_enc"] | {"cond_type": condition, "dim": 8}
    cfg = TINY["cfg"] | {"time_enc": time, "input": {"type": kind}, "use_noise": True}
    generator = tiny(cfg=cfg)
    z, v, motion_z = torch.randn(1, 12), torch.randn(1, 16), torch.randn(1, 20, 6)
    t, label = torch.tensor([[3.5]]), torch.zeros(1, 0)
    with torch.inference_mode(), capturable():
        ws = generator.mapping(z, label, truncation_psi=0.7)
        generator.synthesis(ws, motion_v=v)
        generator.synthesis(ws, t=t, c=label, motion_z=motion_z)
        with pytest.raises(AssertionError, match="cannot be captured"):
            generator.synthesis(ws, t=t, c=label)  # draws its own noise


def test_an_inference_pass_reads_no_value():
    # On the meta device there are no values: any host read or branch on data fails.
    generator = tiny().to("meta")
    z, t = torch.empty(2, 12, device="meta"), torch.empty(2, 3, device="meta")
    noise, label = torch.empty(2, 20, 6, device="meta"), torch.empty(2, 0, device="meta")
    with torch.inference_mode():
        assert generator(z, label, t, motion_z=noise).shape == (6, 3, 16, 16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_graph_replays_new_inputs():
    generator = tiny().cuda()
    ws = generator.mapping(torch.randn(1, 12, device="cuda"), None)
    motion_v = torch.randn(1, 10, device="cuda")
    stream = torch.cuda.Stream()
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):
            generator.synthesis(ws, motion_v=motion_v)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph, stream=stream):
        image = generator.synthesis(ws, motion_v=motion_v)
    for _ in range(2):
        motion_v.copy_(torch.randn_like(motion_v))
        graph.replay()
        torch.cuda.synchronize()
        with torch.inference_mode():
            assert error(image, generator.synthesis(ws, motion_v=motion_v)) < 1e-3


def test_content_and_motion_are_separate():
    generator = tiny()
    with torch.no_grad():
        ws = generator.mapping(torch.randn(2, 12), None)
        v = torch.randn(2, 10)
        images = generator.synthesis(ws.repeat_interleave(2, 0), motion_v=v.repeat(2, 1))
    assert error(images[0], images[1]) > 1e-3  # same w, other motion
    assert error(images[0], images[2]) > 1e-3  # other w, same motion


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_resolution": 48}, "power of two"),
        ({"z_dim": 99}, "z_dim is 99"),
        ({"cfg": TINY["cfg"] | {"input": {"type": "const"}}}, "does not fit input.type"),
        (
            {
                "cfg": TINY["cfg"]
                | {"input": {"type": "const"}, "time_enc": {"cond_type": "sum_w", "dim": 5}}
            },
            "sum_w",
        ),
    ],
)
def test_impossible_settings_are_named(changes, message):
    with pytest.raises(BadConfig, match=message):
        Generator(**(TINY | changes))


def test_misshapen_inputs_are_named():
    synthesis = tiny().synthesis
    ws = torch.zeros(2, synthesis.num_ws, 16)
    with pytest.raises(ValueError, match="ws must be"):
        synthesis(ws[:, :3], motion_v=torch.zeros(2, 10))
    with pytest.raises(ValueError, match=r"motion_v must be \[2 \* F, 10\]"):
        synthesis(ws, motion_v=torch.zeros(3, 10))
    with pytest.raises(ValueError, match="give motion_v"):
        synthesis(ws)
