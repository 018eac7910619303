"""Whole generators against stored pictures, layer outputs, gradients and averages."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kernels_triton as ops
from models.backbones import stylegan2, stylegan3

GOLDENS = "stylegan[23]/net_*.npz"
FAMILIES = {"stylegan2": stylegan2.Generator, "stylegan3": stylegan3.Generator}
IMAGES = {"stylegan2": (1e-4, 1e-5), "stylegan3": (1e-4, 0.0)}
LAYERS = (1e-4, 2e-5)
# Triton's interpreter takes minutes for a whole network; tests/models/fused draws tiny ones.
WAYS = [name for name in ops.IMPLEMENTATIONS if name != "triton"]
GRADIENTS = (2e-4, 2e-4)


def _generator(golden) -> nn.Module:
    meta = golden.meta
    net = FAMILIES[meta["family"]](**meta["init"])
    net.load_state_dict(golden.tensors("sd/"), strict=True)
    assert net.num_ws == meta["num_ws"]
    return net.eval()


def _watch(net: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """Fills with the outputs of the named modules when the network runs; `b8:img` is a block's
    picture.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, tuple):
                features, picture = output
                seen[name] = features.clone()
                if picture is not None:
                    seen[f"{name}:img"] = picture.clone()
            else:
                seen[name] = output.clone()

        return hook

    for name in names:
        net.synthesis.get_submodule(name).register_forward_hook(keep(name))
    return seen


def _sampled(output: Tensor, name: str, sample: dict[str, int]) -> Tensor:
    channels = 1 if output.shape[1] <= 4 or name.endswith(":img") else sample["channel_stride"]
    step = sample["spatial_stride"]
    return output[sample["sample"], ::channels, ::step, ::step]


def _statistics(output: Tensor) -> Tensor:
    x = output[0].flatten(1)
    return torch.stack([x.mean(1), x.square().mean(1).sqrt(), x.abs().amax(1)])


def _check_gradients(net: nn.Module, stored: dict[str, Tensor], assert_close) -> None:
    ws = stored["ws_in"].requires_grad_(True)
    img = net.synthesis(ws, noise_mode="const")
    (img * stored["dimg"]).sum().backward()

    assert_close(ws.grad, stored["dws"], *GRADIENTS, "dws")
    expected = {k.partition("/")[2]: v for k, v in stored.items() if k.startswith("dparam/")}
    assert expected
    for name, parameter in net.named_parameters():
        if name in expected:
            found = parameter.grad.flatten()[:: max(1, parameter.numel() // 64)]
            assert_close(found, expected.pop(name), *GRADIENTS, name)
    assert not expected


@pytest.mark.parametrize("implementation", WAYS)
def test_run_gives_the_stored_picture_layers_and_gradients(
    golden_run, implementation, assert_close
) -> None:
    run, meta = golden_run.case, golden_run.meta
    stored = golden_run.tensors(f"{run['id']}/")
    net = _generator(golden_run)
    if "transform" in stored:
        net.synthesis.input.transform.copy_(stored["transform"])
    seen = _watch(net, meta["layers"])
    options: dict[str, Any] = {"update_emas": run.get("update_emas", False)}
    if "noise_mode" in run:
        options["noise_mode"] = run["noise_mode"]
        options["noise"] = [v for k, v in sorted(stored.items()) if k.startswith("noise/")] or None

    ws = stored.get("ws_in")
    with ops.implementation(implementation), torch.no_grad():
        if ws is None:
            psi, cutoff = run.get("truncation_psi", 1), run.get("truncation_cutoff")
            emas = options["update_emas"]
            ws = net.mapping(stored["z"], stored.get("c"), psi, cutoff, update_emas=emas)
        img = net.synthesis(ws, **options)

    if "ws" in stored:
        assert_close(ws, stored["ws"], 2e-5, 2e-5, "ws")
    assert_close(img, stored["img"], *IMAGES[meta["family"]], "img")
    for key, expected in stored.items():
        kind, _, name = key.partition("/")
        if kind == "layer":
            assert_close(_sampled(seen[name], name, meta["layer_sample"]), expected, *LAYERS, key)
        if kind == "stat":
            assert_close(_statistics(seen[name]), expected, *LAYERS, key)
        if kind == "ema":
            assert_close(net.state_dict()[name], expected, 2e-5, 2e-5, key)
    if run.get("grad"):
        with ops.implementation(implementation):
            _check_gradients(net, stored, assert_close)


@pytest.mark.parametrize("implementation", WAYS)
def test_whole_call_is_mapping_then_synthesis(golden_file, implementation) -> None:
    net = _generator(golden_file)
    stored = golden_file.tensors("run0/")
    with ops.implementation(implementation), torch.no_grad():
        whole = net(stored["z"], stored.get("c"), truncation_psi=0.7, truncation_cutoff=3)
        parts = net.synthesis(net.mapping(stored["z"], stored.get("c"), 0.7, 3))
    assert torch.equal(whole, parts)


def test_schedule_is_the_published_one(pytestconfig) -> None:
    path = f"{pytestconfig.getoption('goldens')}/stylegan3/schedules.json"
    with open(path) as file:
        schedules = json.load(file)
    for name, schedule in schedules.items():
        kind, resolution = name.split("-")[1:]
        radial = kind == "r"
        width = 2 if radial else 1
        with torch.device("meta"):
            net = stylegan3.SynthesisNetwork(
                512,
                int(resolution),
                3,
                channel_base=32768 * width,
                channel_max=512 * width,
                conv_kernel=1 if radial else 3,
                use_radial_filters=radial,
            )
        assert len(schedule["layers"]) == len(net.layers())
        for row, layer, layer_name in zip(
            schedule["layers"], net.layers(), net.layer_names, strict=True
        ):
            plan, before = net.plan[row["idx"]], net.plan[max(row["idx"] - 1, 0)]
            assert layer_name == row["name"]
            assert layer.is_torgb == row["torgb"]
            assert layer.use_fp16 == row["fp16"]
            assert (layer.in_channels, layer.out_channels) == (row["cin"], row["cout"])
            assert (layer.in_size[0], layer.out_size[0]) == (row["in_size"], row["out_size"])
            assert (before.sampling_rate, plan.sampling_rate) == (row["in_rate"], row["out_rate"])
            assert before.sampling_rate * layer.up_factor == row["tmp_rate"]
            found = (before.cutoff, plan.cutoff, before.half_width, plan.half_width, plan.stopband)
            wanted = ("in_cutoff", "out_cutoff", "in_half_width", "out_half_width", "stopband")
            assert found == pytest.approx([row[key] for key in wanted], rel=1e-12)
            assert (layer.conv_kernel, layer.up_factor, layer.down_factor) == (
                row["k"],
                row["up"],
                row["down"],
            )
            up, down = layer.up_filter, layer.down_filter
            assert (1 if up is None else up.shape[0]) == row["up_taps"]
            assert (1 if down is None else down.shape[0]) == row["down_taps"]
            assert (down is not None and down.ndim == 2) == row["radial"]
            assert layer.padding == [row["pad_lo"], row["pad_hi"]] * 2
