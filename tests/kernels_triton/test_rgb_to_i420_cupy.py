"""The CUDA source that cupy compiles: its arithmetic by a C compiler, all of it by nvcc, and on a
GPU.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kernels_triton import implementation
from kernels_triton.rgb_to_i420 import cupy_cuda, image_to_i420, reference, rgb_to_i420

# What the last function of the source does, one square after the other.
DRIVER = """
#define FUNCTION static inline
%s
void convert(const float *rgb, unsigned char *out, int *broken, int pictures, int height, int width,
             long long n, long long c, long long h, long long w)
{
    for (int k = 0; k < pictures; k++)
        for (int row = 0; row < height / 2; row++)
            for (int column = 0; column < width / 2; column++)
                if (!square(rgb + k * n, out + (long long)k * (height / 2 * 3) * width, column, row,
                            height, width, c, h, w))
                    broken[k] = 1;
}
"""
SHAPES = [(1, 2, 2), (2, 4, 6), (3, 6, 2), (1, 34, 50)]
LAYOUTS = {
    "planes": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "a window": lambda x: torch.nn.functional.pad(x, [3, 2, 1, 1])[:, :, 1:-1, 3:-2],
}


@pytest.fixture(scope="module")
def convert(tmp_path_factory):
    """The conversion as the C compiler makes it."""
    compiler = next(filter(shutil.which, ("gcc", "cc", "clang")), None)
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("c")
    source, library = folder / "convert.c", folder / "convert.so"
    source.write_text(DRIVER % cupy_cuda.ARITHMETIC)
    # Without contraction every product is rounded, as in the reference.
    flags = ["-O1", "-std=c99", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]
    subprocess.run(
        [compiler, *flags, "-shared", "-fPIC", "-o", str(library), str(source)], check=True
    )
    function = ctypes.CDLL(str(library)).convert

    def call(rgb: Tensor, broken: Tensor | None = None) -> Tensor:
        n, _, height, width = rgb.shape
        out = torch.full((n, height * 3 // 2, width), 77, dtype=torch.uint8)
        flags = torch.zeros(n, dtype=torch.int32) if broken is None else broken
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (rgb, out, flags)]
        strides = [ctypes.c_longlong(stride) for stride in rgb.stride()]
        function(*pointers, n, height, width, *strides)
        return out

    return call


def pictures(shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Some colours beyond [-1, 1]."""
    n, height, width = shape
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, height, width, generator=random) * 0.8


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_arithmetic_is_the_reference_s(convert, shape, layout):
    rgb = LAYOUTS[layout](pictures(shape))
    off = (convert(rgb).int() - reference.rgb_to_i420(rgb).int()).abs()
    assert off.max() <= 1
    assert (off > 0).float().mean() < 2e-3  # where another order of sums rounds the other way


def test_black_white_and_grey_are_exact(convert):
    for level, (y, u, v) in {
        -1.0: (16, 128, 128),
        1.0: (235, 128, 128),
        0.0: (126, 128, 128),
    }.items():
        out = convert(torch.full((1, 3, 4, 4), level))[0].flatten()
        assert (out[:16] == y).all() and (out[16:20] == u).all() and (out[20:] == v).all()
    red = torch.tensor([1.0, -1.0, -1.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert convert(red)[0].flatten().tolist() == [81, 81, 81, 81, 90, 240]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_marks_its_picture_alone(convert, value):
    for at in ((0, 0, 0), (1, 5, 3), (2, 3, 4)):
        rgb = pictures((3, 6, 6))
        rgb[1][at] = value
        broken = torch.tensor([0, 0, 7], dtype=torch.int32)
        out = convert(rgb, broken)
        assert broken.tolist() == [0, 1, 7]
        assert torch.equal(out[[0, 2]], convert(rgb[[0, 2]]))


def test_every_byte_is_written_and_none_beyond(convert):
    low = convert(torch.full((2, 3, 6, 10), -1.0))
    assert set(low.flatten().tolist()) == {16, 128}


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_nvcc_takes_all_of_it_without_a_spill(tmp_path: Path, architecture):
    source = tmp_path / "kernel.cu"
    source.write_text(cupy_cuda.SOURCE)
    command = [
        "nvcc",
        f"-arch={architecture}",
        "-Xptxas",
        "-v",
        "-Werror",
        "all-warnings",
        "-cubin",
    ]
    told = subprocess.run(
        [*command, "-o", str(tmp_path / "kernel.cubin"), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "0 bytes spill stores, 0 bytes spill loads" in told.stderr
    assert f"Compiling entry function '{cupy_cuda.NAME}'" in told.stderr


def test_it_is_asked_on_cuda_only_and_for_inference_only(monkeypatch):
    monkeypatch.setattr(cupy_cuda, "installed", lambda: True)
    assert not cupy_cuda.takes(pictures((1, 2, 2)))
    if torch.cuda.is_available():
        there = pictures((1, 2, 2)).cuda()
        assert cupy_cuda.takes(there)
        assert not cupy_cuda.takes(there.half())
        assert not cupy_cuda.takes(there.requires_grad_())
        for name in ("reference", "torch"):
            with implementation(name):
                assert not cupy_cuda.takes(there.detach())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 1024, 1024)])
def test_cupy_converts_as_the_reference_does(monkeypatch, shape, layout):
    pytest.importorskip("cupy")
    rgb = LAYOUTS[layout](pictures(shape))
    there = LAYOUTS[layout](pictures(shape).cuda())
    n, _, height, width = rgb.shape
    out = torch.full((n, height * 3 // 2, width), 77, dtype=torch.uint8, device="cuda")
    broken = torch.zeros(n, dtype=torch.int32, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        assert cupy_cuda.rgb_to_i420(there, out, broken) is out
    side.synchronize()
    off = (out.cpu().int() - reference.rgb_to_i420(rgb).int()).abs()
    assert off.max() <= 1 and (off > 0).float().mean() < 2e-3
    assert broken.tolist() == [0] * n
    there[n - 1, 1, 0, 1] = float("nan")
    cupy_cuda.rgb_to_i420(there, out, broken)
    assert broken.tolist() == [0] * (n - 1) + [1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_ops_take_cupy_where_triton_is_missing_and_a_graph_may_hold_it(monkeypatch):
    pytest.importorskip("cupy")
    from kernels_triton import choice

    monkeypatch.setattr(choice, "triton_installed", lambda: False)
    asked = []
    real = cupy_cuda.rgb_to_i420
    monkeypatch.setattr(cupy_cuda, "rgb_to_i420", lambda *given: (asked.append(1), real(*given))[1])
    rgb = pictures((2, 8, 10)).cuda()
    image = rgb.permute(0, 2, 3, 1).contiguous()
    assert torch.equal(rgb_to_i420(rgb), image_to_i420(image, out=torch.empty_like(real_out(rgb))))
    assert len(asked) == 2
    out, broken = real_out(rgb), torch.zeros(2, dtype=torch.int32, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        image_to_i420(image, out=out, broken=broken)
    image.fill_(1)
    graph.replay()
    assert set(out.flatten().tolist()) == {235, 128}


def real_out(rgb: Tensor) -> Tensor:
    n, _, height, width = rgb.shape
    return torch.zeros(n, height * 3 // 2, width, dtype=torch.uint8, device=rgb.device)
