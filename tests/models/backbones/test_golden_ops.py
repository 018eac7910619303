"""Operators and small modules against stored numbers, in every implementation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import kernels_triton as ops
from models.backbones.discriminator import MinibatchStdLayer
from models.backbones.filters import design_lowpass_filter
from models.backbones.layers import FullyConnectedLayer
from models.backbones.mapping import MappingNetwork
from models.backbones.stylegan3 import SynthesisInput, SynthesisNetwork

GOLDENS = "stylegan[23]/ops_*.npz"
WIDTHS = {"T": {}, "R": {"conv_kernel": 1, "use_radial_filters": True}}

Tensors = dict[str, Tensor]


def _loaded(module: torch.nn.Module, x: Tensors) -> torch.nn.Module:
    module.load_state_dict(
        {k.removeprefix("sd."): v for k, v in x.items() if k.startswith("sd.")}, strict=True
    )
    return module


def _mapping(x: Tensors, args: dict[str, Any], num_layers: int) -> Tensors:
    args = dict(args)
    net = _loaded(MappingNetwork(**{"num_layers": num_layers, **args.pop("init")}), x)
    result = {"ws": net(x.get("z"), x.get("c"), **args)}
    return result | ({"w_avg": net.w_avg} if args["update_emas"] else {})


def _fully_connected(x: Tensors, args: dict[str, Any]) -> Tensors:
    return {"y": _loaded(FullyConnectedLayer(**args), x)(x["x"])}


def _layer_filters(x: Tensors, args: dict[str, Any]) -> Tensors:
    with torch.device("meta"):  # only weights are large; filters come from numpy
        net = SynthesisNetwork(8, args["img_resolution"], 3, 512, 4, **WIDTHS[args["config"]])
    pairs = [(f"L{k}", layer) for k, layer in enumerate(net.layers())]
    found = {f"{k}.up": layer.up_filter for k, layer in pairs}
    found |= {f"{k}.down": layer.down_filter for k, layer in pairs}
    return {k: v for k, v in found.items() if v is not None}


def _modulated_sg2(x: Tensors, args: dict[str, Any]) -> Tensors:
    args = {k: v for k, v in args.items() if k != "fused_modconv"}  # both forms are one here
    y = ops.modulated_conv2d_resample(
        x["x"],
        x["weight"],
        x["styles"],
        x.get("noise"),
        resample_filter=x.get("resample_filter"),
        **args,
    )
    return {"y": y}


def _resampling(op):
    return lambda x, args: {"y": op(x["x"], x.get("f"), **args)}


OPS = {
    "upfirdn2d": _resampling(ops.upfirdn2d),
    "filter2d": _resampling(ops.filter2d),
    "upsample2d": _resampling(ops.upsample2d),
    "downsample2d": _resampling(ops.downsample2d),
    "setup_filter": lambda x, args: {"f": ops.setup_filter(x["f"], **args)},
    "bias_act": lambda x, args: {"y": ops.bias_act(x["x"], x.get("b"), **args)},
    "conv2d_resample": lambda x, args: {
        "y": ops.conv2d_resample(x["x"], x["w"], x.get("f"), **args)
    },
    "modulated_conv2d_sg2": _modulated_sg2,
    "modulated_conv2d_sg3": lambda x, args: {
        "y": ops.modulated_conv2d(x["x"], x["w"], x["s"], input_gain=x.get("input_gain"), **args)
    },
    "filtered_lrelu": lambda x, args: {
        "y": ops.filtered_lrelu(x["x"], x.get("fu"), x.get("fd"), x.get("b"), **args)
    },
    "minibatch_std": lambda x, args: {"y": MinibatchStdLayer(**args)(x["x"])},
    "design_lowpass_filter": lambda x, args: {"f": design_lowpass_filter(**args)},
    "layer_filters": _layer_filters,
    "synthesis_input": lambda x, args: {"y": _loaded(SynthesisInput(**args), x)(x["w"])},
    "mapping_sg3": lambda x, args: _mapping(x, args, num_layers=2),
    "mapping_sg2": lambda x, args: _mapping(x, args, num_layers=8),
    "fully_connected": _fully_connected,
}
# Names of an operator's inputs behind the gradients d<name>.
GRADIENTS = {"dx": ("x",), "db": ("b",), "dw": ("w", "weight"), "ds": ("s", "styles")}


def _tolerance(op: str, output: str) -> tuple[float, float]:
    """From the table that came with the files."""
    if op in ("setup_filter", "design_lowpass_filter", "layer_filters"):
        return 1e-6, 1e-6
    if op == "synthesis_input":
        return 1e-4, 2e-5
    if output in ("dw", "ds"):
        return 2e-4, 1e-4
    return (5e-5, 5e-5) if output in GRADIENTS else (2e-5, 2e-5)


@pytest.mark.parametrize("implementation", ops.IMPLEMENTATIONS)
def test_operator_gives_the_stored_result_and_gradients(
    golden_case, implementation, assert_close
) -> None:
    case = golden_case.case
    inputs = golden_case.tensors(f"{case['id']}/in/")
    expected = golden_case.tensors(f"{case['id']}/out/")
    gradients = sorted(expected.keys() & GRADIENTS.keys())

    with ops.implementation(implementation), torch.no_grad():
        result = OPS[case["op"]](inputs, case["args"])
    assert result.keys() == expected.keys() - GRADIENTS.keys()
    for name, value in result.items():
        assert_close(value, expected[name], *_tolerance(case["op"], name), name)

    # Where a gradient is due another implementation may run: it must give the same result.
    if gradients:
        sources = [next(n for n in GRADIENTS[g] if n in inputs) for g in gradients]
        for name in sources:
            inputs[name].requires_grad_(True)
        with ops.implementation(implementation):
            y = OPS[case["op"]](inputs, case["args"])["y"]
            found = torch.autograd.grad((y * inputs["dy"]).sum(), [inputs[n] for n in sources])
        assert_close(y, expected["y"], *_tolerance(case["op"], "y"), "y with gradient")
        for name, gradient in zip(gradients, found, strict=True):
            assert_close(gradient, expected[name], *_tolerance(case["op"], name), name)
