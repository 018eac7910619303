"""Streamed motion: exact at any time, the same in any order, in bounded memory and even time."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from models.errors import BadConfig
from models.stylegan_v.config import MotionConfig
from models.stylegan_v.motion import SegmentEncoder, StreamedMotion, given_codes
from models.stylegan_v.motion_encoder import MotionEncoder
from models.stylegan_v.segments import _Product, _turns

from .goldens import error, motion_encoder_of

EXACT = 2e-5  # the largest error of a code that is let pass; 1e-7 is seen
TWO_PI = Fraction(31415926535897932384626433832795028841971, 5 * 10**39)


def encoder_of(**settings) -> MotionEncoder:
    small = {"z_dim": 8, "v_dim": 8, "frequencies": 6, "kernel_size": 5, "distance": 16.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return MotionEncoder(0, MotionConfig(**(small | settings)))


@pytest.fixture(scope="module")
def segments() -> SegmentEncoder:
    return SegmentEncoder(encoder_of())


def stream(segments: SegmentEncoder, **settings) -> StreamedMotion:
    return StreamedMotion(segments, **({"fps": 25.0, "seed": 7} | settings))


def code(source: StreamedMotion, t: float) -> np.ndarray:
    return source.sample(t).tensors["v"].numpy()


def test_given_noise_gives_the_exact_golden(motion_golden):
    found = motion_golden
    encoder = motion_encoder_of(found)
    clips, times = found["t_f32"].shape
    expected = found["motion_v_exact64"].view(clips, times, -1)
    segments = SegmentEncoder(encoder)  # of every clip, whatever its label
    for b in range(clips):
        source = StreamedMotion(
            segments,
            fps=1.0,
            label=found["c"][b : b + 1],
            noise=given_codes(found["motion_z"][b]),
        )
        for i, t in enumerate(found["t_f32"][b].double().tolist()):
            assert error(source.sample(t).tensors["v"], expected[b, i][None]) <= EXACT


def test_late_times_give_the_exact_golden(golden):
    found = golden("motion_big")
    segments = SegmentEncoder(motion_encoder_of(found))
    for i, t in enumerate(found["t"].tolist()):
        window = found["codes_window"][i].numpy()

        def noise(first: int, count: int, i: int = i, window: np.ndarray = window) -> np.ndarray:
            assert (first, count) == (int(found["L"][i]), len(window))
            return window

        source = StreamedMotion(segments, fps=1.0, noise=noise)
        v = source.sample(t).tensors["v"]
        assert error(v, found["motion_v_exact64"][i][None]) <= EXACT
    # The measure must be able to fail: the authors' float32 path does, but for times at a code.
    late = (found["t"] > 1e4) & (found["t"] % 16 != 0)
    authors = found["motion_v_authors_t32"] - found["motion_v_exact64"]
    assert (authors[late].abs().amax(1) > 5 * EXACT).all()


def test_stream_equals_the_batch_encoder_on_the_same_noise(segments):
    encoder = encoder_of()
    source = stream(segments, fps=1.0)
    noise = torch.from_numpy(source._keyed(0, 24))[None]
    t = torch.linspace(0, 200, 81)[None]
    with torch.no_grad():
        batch = encoder(t, torch.zeros(1, 0), noise)
    played = torch.cat([source.sample(float(x)).tensors["v"] for x in t[0]])
    assert error(played, batch) < 1e-3  # the batch encoder's codes are float32


def test_code_has_one_row_and_float32(segments):
    found = stream(segments).sample(0.5)
    assert found.t == 0.5
    assert found.tensors["v"].shape == (1, 12)
    assert found.tensors["v"].dtype == torch.float32


def test_any_order_gives_the_bits_of_play(segments):
    times = [i / 30 - 5 for i in range(400)]
    source = stream(segments)
    played = {t: code(source, t) for t in times}
    for t, source in [(t, source) for source in [stream(segments)] for t in reversed(times)]:
        np.testing.assert_array_equal(code(source, t), played[t])
    jumping = stream(segments)
    for t in np.random.default_rng(0).permutation(times).tolist():
        np.testing.assert_array_equal(code(jumping, t), played[t])
    for t in times[::40]:  # nothing but this time was ever asked of it
        np.testing.assert_array_equal(code(stream(segments), t), played[t])


@pytest.mark.parametrize("strategy", ["conv", "autoregressive"])
def test_random_access_at_published_sizes_gives_the_bits_of_play(strategy):
    # Blocks of rows and the matrix library's own choices matter only at real sizes.
    size = 160 if strategy == "conv" else 48
    segments = SegmentEncoder(
        encoder_of(strategy=strategy, z_dim=size, v_dim=size, kernel_size=11, frequencies=64)
    )
    assert segments.stages >= 6
    source = stream(segments)
    times = [i * 0.11 - 1 for i in range(60)]
    played = [code(source, t) for t in times]
    for i in range(0, 60, 7):
        np.testing.assert_array_equal(code(stream(segments), times[i]), played[i])


def test_a_faster_output_rate_contains_the_slower_one(segments):
    fast, slow = stream(segments), stream(segments)
    at_60 = [code(fast, i / 60) for i in range(240)]
    for i in range(120):
        np.testing.assert_array_equal(code(slow, i / 30), at_60[2 * i])


@pytest.mark.parametrize("fps", [12.5, 50.0])
def test_seconds_become_frames_by_the_training_rate(segments, fps):
    for t in (-3.5, 0.25, 8.0):
        np.testing.assert_array_equal(
            code(stream(segments, fps=fps), t), code(stream(segments, fps=1.0), t * fps)
        )


@pytest.mark.parametrize("distance", [16.0, 10.0])
def test_motion_is_continuous_at_codes_and_negative_times(distance):
    segments = SegmentEncoder(encoder_of(distance=distance))
    source = stream(segments, fps=1.0)
    for index in (-7, -1, 0, 1, 12):
        t = index * distance
        before, at = code(source, np.nextafter(t, -math.inf)), code(source, t)
        assert np.abs(at - before).max() < 1e-5
        assert np.abs(code(source, t + distance / 2) - at).max() > 1e-2  # and it moves


def test_times_just_below_zero_are_zero(segments):
    source = stream(segments)
    np.testing.assert_allclose(code(source, -1e-300), code(source, 0.0), atol=1e-6)
    np.testing.assert_array_equal(code(source, -0.0), code(source, 0.0))


def test_at_a_code_only_the_aligner_remains(segments):
    # v(jd) = A u_j, u from an independent evaluation in float64.
    encoder = encoder_of().double()
    source = stream(segments, fps=1.0)
    noise = torch.from_numpy(source._keyed(-3, 20))[None].double()
    with torch.no_grad():
        x = noise.transpose(1, 2)
        for layer in encoder.conv:
            x = torch.nn.functional.conv1d(
                x, layer.weight * layer.weight_gain, layer.bias * layer.bias_gain
            )
            x = torch.nn.functional.leaky_relu(x, 0.2)
        aligner = encoder.time_encoder.aligners_predictor.weight / math.sqrt(8)
        expected = x[0].T @ aligner.T
    for j in range(-3, 9):
        assert error(source.sample(j * 16.0).tensors["v"][0], expected[j + 3]) < 1e-6


@pytest.mark.parametrize("t", [1e9, -1e9, 1e9 + 0.02, 12345678.9])
def test_a_billion_seconds_are_as_exact_as_one(segments, t):
    """Against rational arithmetic, given the segment's own frequencies."""
    source = stream(segments)
    found = code(source, t)[0].astype(float)
    frames = t * 25.0
    index, tau = divmod(Fraction(frames), 16)
    segment = source._segments[int(index)]
    # Its base phase, from u in float64, multiplied out without rounding.
    encoder = encoder_of().double()
    left = _smoothed(encoder, source, int(index))
    q = 1 + np.tanh(encoder.time_encoder.periods_predictor.weight.detach().numpy() @ left / 8**0.5)
    freqs = encoder_of().time_encoder.freqs[0].double().numpy()
    scales = encoder_of().time_encoder.phase_scales[0].double().numpy()
    phi = scales * (encoder.time_encoder.phase_predictor.weight.detach().numpy() @ left / 8**0.5)
    np.testing.assert_allclose(segment.omega, freqs * q, rtol=1e-14)
    for i, omega in enumerate(segment.omega.tolist()):
        exact = (Fraction(omega) * 16 * int(index) + Fraction(float(phi[i]))) % TWO_PI
        # omega / (2 pi) is rounded once; over 2.5e10 frames this is 3e-6 rad. The product, had it
        # been formed in float64, would have an error of 2e-6 more and float32 none of its digits.
        difference = abs(float(exact) - segment.base[i])
        assert min(difference, 2 * math.pi - difference) < 1e-5
    theta = segment.base + segment.omega * float(tau)
    wave = np.concatenate([np.sin(theta), np.cos(theta)])
    np.testing.assert_allclose(
        found, wave + segment.offset + float(tau) / 16 * segment.slope, atol=1e-6
    )


def _smoothed(encoder: MotionEncoder, source: StreamedMotion, index: int) -> np.ndarray:
    noise = torch.from_numpy(source._keyed(index, 2 * 5)).double()
    with torch.no_grad():
        x = noise.T[None]
        for layer in encoder.conv:
            x = torch.nn.functional.conv1d(
                x, layer.weight * layer.weight_gain, layer.bias * layer.bias_gain
            )
            x = torch.nn.functional.leaky_relu(x, 0.2)
    return x[0, :, 0].numpy()


def test_turns_keep_their_fraction_at_great_times():
    rng = np.random.default_rng(2)
    rates = rng.uniform(0, 0.25, 200)
    for time in (16.0, -48.0, 2.5e10, -(2.0**45) - 16, 1e6 + 0.5):
        found = _turns(rates, time)
        for rate, turns in zip(rates.tolist(), found.tolist(), strict=True):
            exact = Fraction(rate) * Fraction(time) % 1
            difference = abs(float(exact - Fraction(turns) % 1))
            assert min(difference, 1 - difference) < 1e-9


@pytest.mark.parametrize(("fan_out", "fan_in", "rows"), [(300, 900, 12), (5, 7, 2), (1, 1, 1)])
def test_pieces_make_up_the_product_and_stay_serial(fan_out, fan_in, rows):
    rng = np.random.default_rng(1)
    weight, x = rng.standard_normal((fan_out, fan_in)), rng.standard_normal((rows, fan_in))
    product = _Product(weight, rows)
    np.testing.assert_allclose(product(x), x @ weight.T, rtol=1e-12, atol=1e-12)
    assert product.stages == math.ceil(fan_out / 128)
    pieces = [piece for block in product._blocks for piece in block]
    assert max(piece.size for piece in pieces) * rows <= 2**18
    assert sum(piece.size for piece in pieces) == weight.size


def test_memory_is_bounded(segments):
    source = stream(segments)
    for i in range(2000):
        code(source, i * 0.37)
        assert len(source._segments) <= 3


@pytest.mark.parametrize(("rate", "speed"), [(30, 1.0), (60, 1.0), (30, -1.0), (30, 2.0)])
def test_no_frame_pays_for_a_whole_segment(segments, rate, speed):
    """In steady play each frame works off a share of the next segment's stages."""
    steps = 0

    class Counting(SegmentEncoder):
        def run(self, index, noise, label):
            nonlocal steps
            stages = super().run(index, noise, label)
            while True:
                steps += 1
                try:
                    next(stages)
                except StopIteration as done:
                    return done.value
                yield

    # Eight blocks per convolution, so that there is something to share out.
    counting = Counting(encoder_of(z_dim=1024, v_dim=1024, kernel_size=1))
    assert counting.stages == 18
    source = stream(counting)
    costs = []
    for i in range(int(8 * rate / abs(speed))):
        steps = 0
        code(source, 0.3 + speed * i / rate)
        costs.append(steps)
    assert costs[0] == 18  # the first frame has nobody before it
    assert sum(costs[1:]) >= 18 * 11  # about twelve segments were entered ...
    frames_per_segment = 16 / 25 * rate / abs(speed)
    entered_in_full = costs[math.ceil(frames_per_segment) :]
    assert max(entered_in_full) <= math.ceil(18 / math.floor(frames_per_segment)) + 1  # ... evenly


def test_play_of_any_slowness_prepares(segments):
    source = stream(segments)
    for t in (0.1, np.nextafter(0.1, 1), 0.1 + 1e-9, 0.1 + 1e-4, 5e-324, 0.0):
        assert np.isfinite(code(source, float(t))).all()


def test_pausing_and_jumping_prepare_nothing(segments):
    source = stream(segments)
    for t in (0.1, 0.1, 50.0, 7.0, 7.0):
        code(source, t)
    assert source._ahead is None


def test_lstm_stream_is_the_lstm_with_a_bounded_past():
    encoder = encoder_of(strategy="autoregressive").double()
    segments = SegmentEncoder(encoder)
    source = stream(segments, fps=1.0)
    noise = torch.from_numpy(source._keyed(-200, 230))[None].double()
    with torch.no_grad():
        u = encoder.rnn(noise)[0][0]
    aligner = encoder.time_encoder.aligners_predictor.weight.detach() / math.sqrt(8)
    for j in (-20, 0, 1, 25):  # 180 codes and more of history against 64
        found = source.sample(j * 16.0).tensors["v"][0]
        assert error(found, aligner @ u[j + 200]) < 1e-5
        before = code(source, np.nextafter(j * 16.0, -math.inf))
        assert np.abs(found.numpy() - before).max() < 1e-5


def test_seeds_move_differently_and_labels_matter(golden, segments):
    assert (
        np.abs(code(stream(segments, seed=1), 3.0) - code(stream(segments, seed=2), 3.0)).max()
        > 0.1
    )
    found = golden("motion_b_cond_slow")
    conditional = SegmentEncoder(motion_encoder_of(found))
    one, other = (stream(conditional, seed=1, label=torch.eye(5)[i : i + 1]) for i in (0, 1))
    assert np.abs(code(one, 3.0) - code(other, 3.0)).max() > 1e-3
    for label in (None, torch.eye(5)[:2], torch.zeros(1, 4)):
        with pytest.raises(BadConfig, match=r"label \[1, 5\]; given is"):
            stream(conditional, label=label)


@pytest.mark.parametrize("strategy", ["conv", "autoregressive"])
def test_streams_of_all_labels_share_the_weights_and_keep_their_bits(strategy):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        config = MotionConfig(z_dim=8, v_dim=8, frequencies=6, kernel_size=5, strategy=strategy)
        encoder = MotionEncoder(3, config)
    labels = torch.eye(3).split(1)
    shared = SegmentEncoder(encoder)
    together = [stream(shared, label=label) for label in labels]
    alone = [stream(SegmentEncoder(encoder), label=label) for label in labels]
    for t in (0.1, 0.2, 0.9, 7.0, -3.0):  # in turns, segments being prepared meanwhile
        for one, own in zip(together, alone, strict=True):
            np.testing.assert_array_equal(code(one, t), code(own, t))


def test_what_cannot_be_sampled_is_named(segments):
    with pytest.raises(BadConfig, match="seed is -1"):
        stream(segments, seed=-1)
    with pytest.raises(BadConfig, match="finite"):
        stream(segments).sample(math.inf)
    short = StreamedMotion(segments, fps=1.0, noise=given_codes(torch.randn(12, 8)))
    short.sample(16.0 * 2)
    with pytest.raises(BadConfig, match="codes 3 .. 12 are needed, 12 were given"):
        short.sample(16.0 * 3)
    with pytest.raises(BadConfig, match="codes -1"):
        short.sample(-0.5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("distance", 0.0),
        ("min_period", 2000.0),
        ("kernel_size", 0),
        ("strategy", "magic"),
    ],
)
def test_impossible_settings_are_named(setting, value):
    with pytest.raises(BadConfig, match="periods" if setting == "min_period" else setting):
        MotionConfig(**{setting: value})
