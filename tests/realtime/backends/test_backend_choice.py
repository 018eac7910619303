"""Which backend is taken on which machine, and what is said about it."""

import builtins
import importlib.util
import io

import pytest
import torch

from realtime import backends
from realtime.backends import NAMES, choose, native_bf16, report
from realtime.config import ConfigError, RenderConfig
from realtime.errors import BackendUnavailable


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def gpu(monkeypatch):
    """What torch says on a machine with a GPU; nothing is launched on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA Test")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))


def without(monkeypatch, *packages):
    """These are not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        backends, "find_spec", lambda name: None if name in packages else real(name)
    )


def test_without_a_gpu_auto_is_the_fused_cpu(no_cuda):
    backend = choose()
    assert (backend.name, backend.device) == ("cpu", torch.device("cpu"))
    assert "not cuda-graph or triton: torch finds no CUDA device" in backend.why


def test_on_a_gpu_auto_is_the_graph_in_fp16(gpu):
    backend = choose()
    assert (backend.name, backend.device.type) == ("cuda-graph", "cuda")
    assert "NVIDIA Test in fp16" in backend.why and "not" not in backend.why


def test_without_triton_a_gpu_draws_eagerly_and_says_how_to_change_that(gpu, monkeypatch):
    without(monkeypatch, "triton")
    backend = choose()
    assert backend.name == "eager"
    assert "not cuda-graph or triton: triton is not installed" in backend.why
    with pytest.raises(BackendUnavailable, match=r"pip install 'stylewire\[gpu\]'"):
        choose("cuda-graph")


def test_an_old_gpu_draws_eagerly(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert choose().name == "eager" and "this GPU has 7.5" in choose().why


def test_the_cpu_can_be_asked_for_beside_a_gpu(gpu):
    assert choose("cpu").device == choose("auto", "cpu").device == torch.device("cpu")
    assert "the CPU was asked for" in choose("auto", "cpu").why


@pytest.mark.parametrize(
    ("name", "device", "precision", "says"),
    [
        ("nonsense", "auto", "auto", "does not exist"),
        ("auto", "toaster", "auto", "no torch device"),
        ("auto", "meta", "auto", "not supported"),
        ("auto", "cuda:0", "auto", "no CUDA device"),
        ("cuda-graph", "auto", "auto", "no CUDA device"),
        ("tensorrt", "auto", "auto", "no CUDA device"),
        ("triton", "cpu", "auto", "no CUDA device"),
        ("auto", "auto", "fp64", "precision 'fp64'"),
        ("cpu", "auto", "fp16", "in fp16"),
        ("eager", "auto", "bf16", "in bf16"),
        ("auto", "auto", "fp16", "not cpu or eager: it does not store"),
    ],
)
def test_what_cannot_run_is_refused_with_a_reason_and_a_remedy(
    no_cuda, name, device, precision, says
):
    with pytest.raises(BackendUnavailable, match=says) as caught:
        choose(name, device, precision)
    assert caught.value.why and caught.value.how


def test_the_report_has_a_line_for_each(no_cuda):
    options = {option.name: option for option in report()}
    assert list(options) == list(NAMES) and all(option.why for option in options.values())
    able = {name for name, option in options.items() if option.available}
    assert {"auto", "eager", "cpu"} <= able and not able & {"cuda-graph", "triton", "tensorrt"}


def test_packages_are_named_in_the_report(gpu, monkeypatch):
    without(monkeypatch, "triton", "torch_tensorrt")
    options = {option.name: option for option in report()}
    assert "triton is not installed. pip install" in options["cuda-graph"].why
    assert not options["tensorrt"].available


def test_precision_is_bf16_only_where_the_cpu_computes_in_it(no_cuda, monkeypatch):
    monkeypatch.setattr(backends, "native_bf16", lambda: True)
    assert "in bf16" in choose("cpu").why
    monkeypatch.setattr(backends, "native_bf16", lambda: False)
    assert "in fp32, as this CPU does not" in choose("cpu").why
    assert "in bf16" in choose("cpu", precision="bf16").why


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ("fpu avx512f avx512_bf16 sha", True),
        ("fpu amx_tile amx_bf16", True),
        ("fpu avx2 avx512f", False),
    ],
)
def test_bf16_is_found_where_torch_does_not_say(monkeypatch, flags, native):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    monkeypatch.setattr(
        builtins, "open", lambda *_: io.StringIO(f"processor\t: 0\nflags\t\t: {flags}\n")
    )
    assert native_bf16() is native


def test_where_nothing_says_anything_bf16_is_not_native(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")

    def no_file(*_):
        raise FileNotFoundError

    monkeypatch.setattr(builtins, "open", no_file)
    assert not native_bf16()


def test_the_configuration_knows_the_precisions():
    assert RenderConfig(precision="bf16").precision == "bf16"
    with pytest.raises(ConfigError, match="fp64"):
        RenderConfig(precision="fp64")
