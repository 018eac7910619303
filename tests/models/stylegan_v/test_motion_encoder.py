"""The batch motion encoder against golden vectors and against the paper's construction."""

from __future__ import annotations

import pytest
import torch

from models.stylegan_v.config import MotionConfig
from models.stylegan_v.motion_encoder import MotionEncoder, frequency_tables

from .goldens import error, motion_encoder_of, relative_l2


@pytest.fixture
def case(motion_golden):
    return motion_golden, motion_encoder_of(motion_golden)


@pytest.mark.parametrize(
    ("frequencies", "shortest", "longest"),
    [(256, 16, 1024), (256, 32, 1024), (256, 256, 1024), (7, 12, 300), (1, 16, 1024), (5, 24, 24)],
)
def test_tables_equal_the_golden_to_one_unit(golden, frequencies, shortest, longest):
    tables = golden("tables")
    freqs, scales = frequency_tables(frequencies, shortest, longest)
    for ours, name in ((freqs, "freqs"), (scales, "phase_scales")):
        expected = tables[f"{name}_{frequencies}_{shortest}_{longest}"]
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, expected, rtol=1.2e-7, atol=0)


@torch.no_grad()
def test_smoothed_codes_equal_the_golden(case):
    found, encoder = case
    assert error(encoder.codes(found["motion_z"], found["c"]), found["u_all"]) <= 5e-6


@torch.no_grad()
@pytest.mark.parametrize("kind", ["f32", "f64", "i64"])
def test_motion_codes_equal_the_golden_for_every_type_of_time(case, kind):
    found, encoder = case
    codes = encoder(found[f"t_{kind}"], found["c"], found["motion_z"])
    expected = found[f"motion_v_{kind}"]
    assert error(codes, expected) <= 1.5e-3
    assert relative_l2(codes, expected) <= 2e-4


@torch.no_grad()
def test_time_embedding_of_given_codes_is_tight(case):
    # Without the smoothing in between, only the authors' float32 phase is left.
    found, encoder = case
    left, right = found["u_left"].flatten(0, 1), found["u_right"].flatten(0, 1)
    start = found["t_left"].flatten().double()
    tau = found["t_f32"].flatten().double() - start
    codes = encoder.time_encoder(left, right, start, tau)
    assert relative_l2(codes, found["motion_v_f32"]) <= 2e-5
    assert relative_l2(codes, found["motion_v_exact64"].float()) <= 1e-4


def test_a_frame_reads_exactly_the_published_codes(case):
    found, encoder = case
    expected = found["dep_codes_row0"]
    for i, t in enumerate(found["t_f32"][0]):
        noise = found["motion_z"][:1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            encoder(t[None, None], found["c"][:1], noise).square().sum(), noise
        )
        used = gradient[0].abs().sum(1).nonzero()[:, 0]
        assert [int(used[0]), int(used[-1])] == expected[i].tolist()


@torch.no_grad()
def test_at_a_code_the_waves_vanish_and_the_aligner_remains(case):
    found, encoder = case
    count = found["u_all"].shape[1] - 1
    t = torch.arange(count, dtype=torch.float64)[None] * encoder.config.distance
    codes = encoder(t, found["c"][:1], found["motion_z"][:1])
    aligned = encoder.time_encoder.aligners_predictor(encoder.codes(found["motion_z"], found["c"]))
    assert error(codes, aligned[0, :count]) < 2e-6


def test_how_much_noise_a_training_clip_draws():
    t = torch.tensor([[0.0]])
    assert MotionEncoder(0, MotionConfig(z_dim=8, v_dim=8)).draw(2, t).shape == (2, 86, 8)
    sky = MotionConfig(z_dim=8, v_dim=8, distance=256, min_period=256)
    assert MotionEncoder(0, sky).draw(1, t).shape == (1, 26, 8)
    assert MotionEncoder(0, sky).draw(1, t + 2000).shape == (1, 30, 8)


@pytest.mark.parametrize("shortest", [16, 256])
def test_statistics_at_random_initialisation(shortest):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        config = MotionConfig(z_dim=128, v_dim=128, distance=shortest, min_period=shortest)
        encoder = MotionEncoder(0, config)
        u = encoder.codes(torch.randn(4, 200, 128), torch.zeros(4, 0)).flatten(0, 1)
        time = encoder.time_encoder
        q = 1 + torch.tanh(time.periods_predictor(u))
        phase = time.phase_scales * time.phase_predictor(u)
    # Where the published initialisation starts with 512 entries; here are fewer, hence the room.
    assert u.std() == pytest.approx(0.48, rel=0.25)
    assert q.mean() == pytest.approx(1.0, abs=0.1)
    assert q.std() == pytest.approx(0.42, rel=0.25)
    assert phase[:, -1].std() == pytest.approx(26 if shortest == 16 else 1.7, rel=0.5)
