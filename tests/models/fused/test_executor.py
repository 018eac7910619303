"""Executors against the networks they were packed from: batches, changes of codes, precisions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stylegan_v.goldens import tiny
from torch import Tensor

from kernels_triton import implementation
from models.backbones import stylegan2, stylegan3
from models.contracts import Identity, MotionCode, Synthesizer
from models.errors import CannotFuse
from models.fused import Executor, pack
from models.stylegan.system import WalkSynthesizer
from models.stylegan_v.system import FrameSynthesizer

CPU = torch.device("cpu")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES: dict[str, Any] = {"z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 32}
# 20 and 10 channels: neither fills whole vectors.
STYLEGAN3: dict[str, Any] = {"num_layers": 4, "channel_base": 320, "channel_max": 20}
RADIAL: dict[str, Any] = {"conv_kernel": 1, "use_radial_filters": True}


def randomised(net: Any) -> Any:
    """Nothing stays at zero: biases, noise and the affine of the input speak too."""
    for name, parameter in net.named_parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.3)
        if name.endswith("bias"):
            parameter.add_(torch.randn_like(parameter) * 0.2)
    for name, buffer in net.named_buffers():
        if name.endswith("magnitude_ema"):
            buffer.fill_(1.7)
    return net


def synthesizer(name: str) -> Synthesizer:
    torch.manual_seed(1)
    with torch.no_grad():
        if name == "stylegan3-t":
            return WalkSynthesizer(
                randomised(stylegan3.Generator(**SIZES, img_channels=3, **STYLEGAN3)).eval()
            )
        if name == "stylegan3-r":
            net = stylegan3.Generator(**SIZES, img_channels=1, **STYLEGAN3, **RADIAL)
            return WalkSynthesizer(randomised(net).eval())
        if name == "stylegan2":
            net = stylegan2.Generator(
                **SIZES, img_channels=3, channel_base=640, channel_max=20, conv_clamp=2.0
            )
            return WalkSynthesizer(randomised(net).eval())
        settings = {"stylegan-v": {}, "stylegan-v, concat_w": {"cond_type": "concat_w"}}[name]
        cfg = tiny().config  # for its defaults only
        assert cfg.condition == "concat_const"
        from stylegan_v.goldens import TINY

        changed = {**TINY["cfg"], "time_enc": {**TINY["cfg"]["time_enc"], **settings}}
        if settings:
            changed["input"] = {"type": "const"}
        changed["use_noise"] = True
        return FrameSynthesizer(randomised(tiny(cfg=changed)))


NAMES = ["stylegan3-t", "stylegan3-r", "stylegan2", "stylegan-v", "stylegan-v, concat_w"]


def codes(executor: Executor, seed: int) -> tuple[Identity, MotionCode]:
    """Any identity and motion of the right shapes."""
    random = torch.Generator().manual_seed(seed)
    packed = executor.packed
    w = torch.randn(1, packed.rows, packed.w_dim, generator=random)
    code = torch.randn(1, packed.motion_dim, generator=random)
    return Identity({"w": w}), MotionCode({packed.motion: code}, 0.0)


def plain(of: Synthesizer, identity: Identity, motion: MotionCode) -> Tensor:
    """[R, R, 3] by the network itself."""
    with implementation("reference"), torch.no_grad():
        picture = of(identity, motion)[0]
    return picture.expand(3, -1, -1).permute(1, 2, 0)


def canvas(executor: Executor) -> Tensor:
    return torch.full((executor.batch, executor.resolution, executor.resolution, 3), float("nan"))


def assert_same(found: Tensor, expected: Tensor, limit: float = 2e-5) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= limit * float(expected.abs().max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("way", ["auto", "reference"])
def test_every_sample_of_a_batch_is_the_network_s_picture(name, batch, way) -> None:
    of = synthesizer(name)
    with implementation(way):
        executor = pack(of, CPU, torch.float32).executor(batch)
        out = canvas(executor)
        given = [codes(executor, seed) for seed in range(batch)]
        for slot, (identity, motion) in enumerate(given):
            executor.put(slot, identity, motion)
        executor.draw(out)
    for slot, (identity, motion) in enumerate(given):
        assert_same(out[slot], plain(of, identity, motion))


@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_either_code_reaches_the_next_picture(name) -> None:
    of = synthesizer(name)
    executor = pack(of, CPU, torch.float32).executor()
    (one, here), (other, there) = codes(executor, 1), codes(executor, 2)
    out = canvas(executor)
    for identity, motion in (
        (one, here),
        (one, there),
        (other, there),
        (other, there),
        (one, here),
    ):
        executor.put(0, identity, motion)
        executor.draw(out)
        assert_same(out[0], plain(of, identity, motion))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 55.0), (torch.bfloat16, 36.0)])
def test_stored_in_half_precision_it_stays_near(name, dtype, least) -> None:
    """PSNR over the range of the picture, in dB; bfloat16 keeps eight bits."""
    of = synthesizer(name)
    executor = pack(of, CPU, dtype).executor()
    identity, motion = codes(executor, 5)
    executor.put(0, identity, motion)
    out = canvas(executor)
    executor.draw(out)
    expected = plain(of, identity, motion)
    span = expected.max() - expected.min()
    psnr = -10 * torch.log10((out[0] - expected).square().mean() / span**2)
    assert float(psnr) >= least


@pytest.mark.parametrize("name", NAMES)
def test_i420_is_that_of_the_picture(name) -> None:
    from kernels_triton import rgb_to_i420

    of = synthesizer(name)
    executor = pack(of, CPU, torch.float32).executor(2)
    picture, i420 = (
        canvas(executor),
        torch.zeros(2, executor.resolution * 3 // 2, executor.resolution, dtype=torch.uint8),
    )
    for slot in range(2):
        executor.put(slot, *codes(executor, slot))
    broken = torch.ones(2, dtype=torch.int32)
    executor.draw(picture)
    executor.draw_i420(i420, broken)
    expected = rgb_to_i420(picture.permute(0, 3, 1, 2))
    assert int((i420.int() - expected.int()).abs().max()) <= 1
    assert broken.tolist() == [0, 0]


def test_a_broken_sample_is_named_and_leaves_its_neighbour_alone() -> None:
    of = synthesizer("stylegan3-t")
    executor = pack(of, CPU, torch.float32).executor(2)
    identity, motion = codes(executor, 0)
    bad = MotionCode({"dw": torch.full_like(motion.tensors["dw"], float("nan"))}, 0.0)
    i420 = torch.zeros(2, executor.resolution * 3 // 2, executor.resolution, dtype=torch.uint8)
    broken = torch.zeros(2, dtype=torch.int32)
    executor.put(0, identity, motion)
    executor.put(1, identity, bad)
    executor.draw_i420(i420, broken)
    assert broken.tolist() == [0, 1]
    sound = i420[0].clone()
    executor.put(1, identity, motion)
    executor.draw_i420(i420, broken)
    assert broken.tolist() == [0, 0]
    assert torch.equal(i420[0], sound) and torch.equal(i420[1], sound)


def test_executors_of_one_network_share_weights_and_nothing_else() -> None:
    of = synthesizer("stylegan3-t")
    packed = pack(of, CPU, torch.float32)
    first, second = packed.executor(), packed.executor()
    a, b = codes(first, 1), codes(first, 2)
    first.put(0, *a)
    second.put(0, *b)
    out = canvas(first)
    second.draw(out)
    first.draw(out)
    assert_same(out[0], plain(of, *a))


def test_an_executor_that_cannot_draw_is_not_made() -> None:
    packed = pack(synthesizer("stylegan2"), CPU, torch.float32)
    with pytest.raises(TypeError, match="abstract method '?draw"):
        Executor(packed, 1)  # type: ignore[abstract]


def test_misshapen_codes_are_refused_by_name() -> None:
    executor = pack(synthesizer("stylegan2"), CPU, torch.float32).executor()
    identity, motion = codes(executor, 0)
    with pytest.raises(ValueError, match=r"w must be a tensor \[1, 8, 8\], not \[1, 3, 8\]"):
        executor.put(0, Identity({"w": torch.zeros(1, 3, 8)}), motion)
    with pytest.raises(ValueError, match=r"dw must be a tensor \[1, 8\], not None"):
        executor.put(0, identity, MotionCode({}, 0.0))
    with pytest.raises(ValueError, match="batch is 0"):
        executor.packed.executor(0)


def test_what_the_fused_ops_do_not_know_is_refused_with_a_reason() -> None:
    def packs(**options: Any) -> None:
        net = stylegan3.Generator(**SIZES, img_channels=3, **{**STYLEGAN3, **options})
        pack(WalkSynthesizer(net.requires_grad_(False)), CPU, torch.float32)

    packs()
    with pytest.raises(CannotFuse, match="resamples by 4, then 4"):
        packs(lrelu_upsampling=4)
    net = stylegan2.Generator(**SIZES, img_channels=3, architecture="resnet")
    with pytest.raises(CannotFuse, match="'resnet'"):
        pack(WalkSynthesizer(net), CPU, torch.float32)
    with pytest.raises(CannotFuse, match="no packed form"):
        pack(Synthesizer(), CPU, torch.float32)


def test_a_frame_that_fails_does_not_leave_the_identity_before(monkeypatch) -> None:
    """Styles that no motion changes are computed once per identity; one failure must not count."""
    from models.fused import executor as module

    of = synthesizer("stylegan-v")
    executor = pack(of, CPU, torch.float32).executor()
    (one, motion), (other, _) = codes(executor, 1), codes(executor, 2)
    out = canvas(executor)
    executor.put(0, one, motion)
    executor.draw(out)
    executor.put(0, other, motion)
    with monkeypatch.context() as patch:
        patch.setattr(module, "style_scales", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            executor.draw(out)
    executor.put(0, other, motion)
    executor.draw(out)
    assert_same(out[0], plain(of, other, motion))


@pytest.mark.parametrize("radial", [False, True])
def test_triton_kernels_draw_a_whole_stylegan3(radial) -> None:
    """Two layers and a last one: up 4, a critical one, ragged channels."""
    torch.manual_seed(2)
    with torch.no_grad():
        net = stylegan3.Generator(
            **{**SIZES, "img_resolution": 16},
            img_channels=3,
            num_layers=2,
            num_critical=1,
            margin_size=2,
            channel_base=160,
            channel_max=10,
            **(RADIAL if radial else {}),
        )
        of = WalkSynthesizer(randomised(net).eval())
    with implementation("triton"):
        executor = pack(of, DEVICE, torch.float32).executor()
        identity, motion = codes(executor, 1)
        out = canvas(executor).to(DEVICE)
        executor.put(0, identity, motion)
        executor.draw(out)
    assert_same(out[0].cpu(), plain(of, identity, motion))
