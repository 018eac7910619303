"""Packed networks against the stored pictures: every backend that runs here draws with these.

Under Triton's interpreter those of StyleGAN3 take minutes; `test_executor` has smaller ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stylegan_v.goldens import generator_of, read
from torch import Tensor

from kernels_triton import implementation
from models.backbones import stylegan2, stylegan3
from models.contracts import Identity, MotionCode
from models.fused import CannotFuse, Packed
from models.pickle_import import convert
from models.registry import load_model
from models.stylegan.system import WalkSynthesizer
from models.stylegan_v.system import FrameSynthesizer

GOLDENS = "stylegan[23]/net_*.npz"
FAMILIES = {"stylegan2": stylegan2.Generator, "stylegan3": stylegan3.Generator}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = 1e-4  # of the goldens' pictures, absolute
OTHER_ARCHITECTURES = ("net_sg2_16_orig", "net_sg2_32_resnet_gray")


def drawn(packed: Packed, identity: dict[str, Tensor], motion: dict[str, Tensor]) -> Tensor:
    """[1, 3, R, R]."""
    executor = packed.executor()
    executor.put(0, Identity(identity), MotionCode(motion, 0.0))
    side = packed.resolution
    out = torch.full((1, side, side, 3), float("nan"), device=DEVICE)
    executor.draw(out)
    return out.permute(0, 3, 1, 2).cpu()


def network(golden: Any) -> Any:
    meta = golden.meta
    net = FAMILIES[meta["family"]](**meta["init"])
    net.load_state_dict(golden.tensors("sd/"), strict=True)
    return net.eval().requires_grad_(False)


def assert_near(found: Tensor, expected: Tensor) -> None:
    limit = TOLERANCE + 1e-5 * float(expected.abs().max())
    assert float((found - expected).abs().max()) <= limit


def noisy_layers(net: Any) -> list[Any]:
    """StyleGAN2's, in the order in which noise is given to them."""
    return [module for module in net.synthesis.modules() if hasattr(module, "noise_const")]


def latents(net: Any, run: dict[str, Any], stored: dict[str, Tensor]) -> Tensor:
    """[N, rows, w_dim] of the run, which may move the averages that the network keeps: they are
    what the picture was drawn with.
    """
    emas, ws = bool(run.get("update_emas")), stored.get("ws_in")
    if ws is None:
        psi, cutoff = run.get("truncation_psi", 1), run.get("truncation_cutoff")
        ws = net.mapping(stored["z"], stored.get("c"), psi, cutoff, update_emas=emas)
    if emas:
        net.synthesis(ws, update_emas=True)
    return ws


@pytest.mark.parametrize("way", ["auto", "reference"])
@torch.no_grad()
def test_image_generators(golden_run, way) -> None:
    run, stored = golden_run.case, golden_run.tensors(f"{golden_run.case['id']}/")
    net = network(golden_run)
    if "transform" in stored:
        net.synthesis.input.transform.copy_(stored["transform"])
    if run.get("noise_mode") == "none":
        for layer in noisy_layers(net):
            layer.noise_strength.zero_()
    synthesizer = WalkSynthesizer(net)
    if golden_run.path.stem in OTHER_ARCHITECTURES:
        with pytest.raises(CannotFuse, match="architecture"):
            synthesizer.pack(DEVICE, torch.float32)
        return
    ws = latents(net, run, stored)
    # Noise that was drawn at random differs from sample to sample: each is a network of its own.
    noises = [value for key, value in sorted(stored.items()) if key.startswith("noise/")]
    assert bool(noises) == (run.get("noise_mode") == "random")
    packed = None
    with implementation(way):
        for sample, (w, expected) in enumerate(zip(ws, stored["img"], strict=True)):
            for layer, noise in zip(noisy_layers(net), noises, strict=True) if noises else ():
                layer.noise_const.copy_(noise[sample, 0])
            if packed is None or noises:
                packed = synthesizer.pack(DEVICE, torch.float32)
            # The walk adds to every row: half of it here, so that both ways into a style are used.
            dw = 0.5 * w[0]
            found = drawn(packed, {"w": (w - dw)[None]}, {"dw": dw[None]})[0]
            assert_near(found[: expected.shape[0]], expected)


@pytest.mark.parametrize("way", ["auto", "reference"])
def test_video_generators(way, pytestconfig) -> None:
    paths = sorted((Path(pytestconfig.getoption("goldens")) / "stylegan_v").glob("gen_*.npz"))
    assert len(paths) >= 3
    for path in paths:
        golden = read(path)
        synthesizer = FrameSynthesizer(generator_of(golden).requires_grad_(False))
        with implementation(way):
            packed = synthesizer.pack(DEVICE, torch.float32)
            frames = len(golden["motion_v"]) // len(golden["ws"])
            for index, v in enumerate(golden["motion_v"][:4]):
                w = golden["ws"][index // frames]
                found = drawn(packed, {"w": w[None]}, {"v": v[None]})[0]
                assert_near(found, golden["img"][index])


INTERPRETED = not torch.cuda.is_available()
SLOW = pytest.mark.skipif(INTERPRETED, reason="fourteen layers take the interpreter ten minutes")


@pytest.mark.parametrize(
    "name",
    [
        "pickle_sg2",
        pytest.param("pickle_t", marks=[pytest.mark.gpu, SLOW]),
        pytest.param("pickle_r", marks=[pytest.mark.gpu, SLOW]),
    ],
)
def test_triton_kernels_draw_the_stored_picture(name, pytestconfig, tmp_path) -> None:
    """The smallest published-form networks, kernel by kernel."""
    folder = Path(pytestconfig.getoption("goldens"))
    source = next(folder.rglob(f"{name}.pkl"))
    system = load_model(str(convert(source, tmp_path / name)))
    with np.load(source.with_suffix(".npz"), allow_pickle=False) as stored:
        ws, expected = torch.from_numpy(stored["ws"][:1]), torch.from_numpy(stored["img"][:1])
    with implementation("triton"):
        packed = system.synthesizer.pack(DEVICE, torch.float32)
        found = drawn(packed, {"w": ws}, {"dw": torch.zeros(1, ws.shape[2])})
    assert_near(found, expected)


def test_triton_kernels_draw_the_stored_frame(pytestconfig) -> None:
    golden = read(Path(pytestconfig.getoption("goldens")) / "stylegan_v" / "gen_d16_sumw.npz")
    synthesizer = FrameSynthesizer(generator_of(golden).requires_grad_(False))
    with implementation("triton"):
        packed = synthesizer.pack(DEVICE, torch.float32)
        found = drawn(packed, {"w": golden["ws"][:1]}, {"v": golden["motion_v"][:1]})
    assert_near(found, golden["img"][:1])
