"""The gate: what is wrong, unwritten or too rough is refused before it is timed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from bench import fidelity, launches, resampled, subjects, systems
from bench.fidelity import Truth, Unfaithful
from kernels_triton.choice import reference_wanted

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def system():
    return systems.load("stylegan2-128")


@pytest.fixture(scope="module")
def truth(system) -> Truth:
    return Truth(system, CPU)


def test_psnr_is_of_the_pictures_own_spread() -> None:
    exact = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    noisy = exact + 0.01 * torch.ones(64, 64)
    expected = 20 * math.log10(6 * exact.std().item() / 0.01)
    assert fidelity.psnr(noisy, exact) == pytest.approx(expected, abs=0.01)
    assert fidelity.psnr(noisy * 100, exact * 100) == pytest.approx(expected, abs=0.01)
    assert fidelity.psnr(exact * torch.nan, exact) == -math.inf
    assert fidelity.psnr(exact, exact) > 200


def test_byte_psnr_knows_equal_pictures() -> None:
    levels = np.arange(256, dtype=np.uint8)
    assert fidelity.byte_psnr(levels, levels) == 100.0
    assert fidelity.byte_psnr(levels[1:], levels[:-1]) == pytest.approx(48.13, abs=0.01)


@pytest.mark.parametrize("found", [[70.0, 54.9], [float("-inf")], [float("nan")]])
def test_the_worst_picture_decides(found: list[float]) -> None:
    assert fidelity.gate("fine", [56.0, 80.0], torch.float16) == 56.0
    with pytest.raises(Unfaithful, match="rough: .* float16 must reach 55. It is not timed"):
        fidelity.gate("rough", found, torch.float16)


def test_seeded_weights_draw_pictures_that_use_the_range(truth: Truth) -> None:
    assert all(0.2 < image.std() < 0.8 for image in truth.images)
    spread = systems.load("stylegan3-r-128")
    image = Truth(spread, CPU).images[0]
    assert 0.2 < image.std() < 0.8


def test_the_official_order_is_the_definition(system, truth: Truth) -> None:
    baseline = subjects.official_order(system, truth, CPU)
    assert baseline.psnr is not None and baseline.psnr > 100
    first, second = baseline.frame(), baseline.frame()
    assert first.shape == (1, 3, 128, 128) and not torch.equal(first, second)
    assert not reference_wanted()


def test_a_subject_is_checked_in_floats_and_in_bytes(system, truth: Truth) -> None:
    eager = subjects.subject("eager", system, truth, "cpu", [128, 64])
    assert eager.psnr is None and eager.i420_psnr is not None and eager.i420_psnr >= 60
    assert set(eager.frames) == {128, 64} and eager.name == "eager"
    eager.frames[64]()


@pytest.mark.parametrize("size", [64, 96, 128, 100, 256])
def test_every_sent_size_is_checked(system, truth: Truth, size: int) -> None:
    drawn = subjects.subject("cpu:fp32", system, truth, "cpu", [size])
    assert set(drawn.sent_psnr) == {size} and drawn.sent_psnr[size] >= 60


def test_a_wrong_picture_at_a_sent_size_is_refused(
    system, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other pixel: right at its own size, full of aliases at half of it."""
    import cv2

    resize = cv2.resize

    def nearest(image: np.ndarray, size: tuple[int, int], **more: Any) -> np.ndarray:
        return resize(image, size, **{**more, "interpolation": cv2.INTER_NEAREST})

    monkeypatch.setattr(cv2, "resize", nearest)
    with pytest.raises(Unfaithful, match="cpu:fp32, I420 at 64: .* float32 must reach 60"):
        subjects.subject("cpu:fp32", system, truth, "cpu", [128, 64])


def test_resampling_keeps_a_plane_and_takes_the_mean_of_areas() -> None:
    ramp = torch.arange(12.0)[:, None, None].expand(12, 12, 3)
    (half,) = resampled.pictures(ramp, 6)
    assert torch.allclose(half[:, 0, 0], torch.arange(0.5, 12, 2).double())
    mean, cubic = resampled.pictures(ramp, 8)
    expected = torch.tensor([1 / 3, 5 / 3], dtype=torch.float64)  # (0 + 1/2) / 1.5, (1/2 + 2) / 1.5
    assert torch.allclose(mean[:2, 3, 1], expected)
    assert torch.allclose(mean[2:6], cubic[2:6], atol=0.1)
    for size in (5, 8, 12, 30):
        for found in resampled.pictures(torch.full((12, 12, 3), 0.3), size):
            assert found.shape == (size, size, 3)
            assert torch.allclose(found, torch.full_like(found, 0.3), atol=1e-6)


def test_a_packed_subject_says_its_precision_and_may_err_by_it(system, truth: Truth) -> None:
    half = subjects.subject("cpu:bf16", system, truth, "cpu", [128])
    assert half.name == "cpu bf16" and half.psnr is not None and 45 <= half.psnr < 80
    chosen = subjects.subject("cpu", system, truth, "cpu", [128])
    assert chosen.precision in ("bf16", "fp32")


def test_a_subject_that_draws_another_picture_is_refused(system, truth: Truth) -> None:
    other = Truth(system, CPU)
    other.i420 = [np.roll(levels, 1, axis=1) for levels in truth.i420]
    with pytest.raises(Unfaithful, match="eager, I420"):
        subjects.subject("eager", system, other, "cpu", [128])
    rough = Truth(system, CPU)
    rough.images = [image + 0.01 * torch.randn_like(image) for image in truth.images]
    with pytest.raises(Unfaithful, match="cpu:fp32: .* float32 must reach 90"):
        subjects.subject("cpu:fp32", system, rough, "cpu", [128])


def test_what_does_not_run_here_says_why(system, truth: Truth) -> None:
    with pytest.raises(subjects.Absent, match="not|no"):
        subjects.subject("warp-drive", system, truth, "cpu", [128])
    if not torch.cuda.is_available():
        with pytest.raises(subjects.Absent, match="CUDA"):
            subjects.subject("cuda-graph:fp16", system, truth, "cpu", [128])


def test_launches_count_what_computes_and_not_views() -> None:
    x = torch.ones(4, 6)

    def frame() -> None:
        y = x.t().reshape(4, 6).view(24)  # a copy, since the view is not contiguous
        (y + 1).mul_(2)

    assert launches.count(frame, "cpu") == launches.Launches(3, 3)


def test_launches_count_compiled_kernels_too() -> None:
    from kernels_triton.rgb_to_i420 import image_to_i420

    image = torch.zeros(1, 16, 16, 3)
    out = torch.empty(1, 24, 16, dtype=torch.uint8)
    image_to_i420(image, out=out)
    assert launches.count(lambda: image_to_i420(image, out=out), "cpu").host == 1


def test_fewer_launches_than_the_official_order(system, truth: Truth) -> None:
    fused = subjects.subject("cpu:fp32", system, truth, "cpu", [128])
    official = subjects.official_order(system, truth, CPU)
    ours = launches.count(fused.frames[128], "cpu").host
    assert 0 < ours < launches.count(official.frame, "cpu").host
