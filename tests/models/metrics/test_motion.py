"""Figures of movement on clips whose movement is known."""

from __future__ import annotations

import pytest
import torch

from models.errors import BadConfig
from models.metrics.motion import loop_score, motion_figures, roughness, speed

from .clips import disc


def ramp(frames: int, step: float) -> torch.Tensor:
    """Every pixel grows by `step` a frame."""
    level = (torch.arange(frames) * step)[:, None, None, None]
    return level.expand(-1, 3, 16, 16).to(torch.uint8)


def noise(frames: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (frames, 3, 16, 16), generator=torch.Generator().manual_seed(0)
    ).to(torch.uint8)


def test_speed_is_the_change_of_a_pixel_per_frame() -> None:
    assert speed(ramp(8, 4)) == pytest.approx(4)
    assert speed(ramp(8, 0)) == 0


def test_even_movement_is_smooth_and_flicker_is_not() -> None:
    assert roughness(ramp(8, 4)) == pytest.approx(0, abs=1e-6)
    assert roughness(ramp(8, 0)) == 0
    # For independent frames of variance s^2 the differences have 2 s^2 and 6 s^2.
    assert roughness(noise(60)) == pytest.approx(3**0.5 / 2, rel=0.02)
    assert roughness(disc(range(40), 0, speed=0.1)) < 0.5 * roughness(noise(40))


def test_a_walk_without_memory_lies_between() -> None:
    steps = torch.randn(80, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 3
    walk = (128 + steps.cumsum(0)).clamp(0, 255).to(torch.uint8)
    assert roughness(walk) == pytest.approx(0.5 * 2**0.5, rel=0.08)


def test_what_comes_round_is_found_and_what_does_not_is_not() -> None:
    period = disc([t * 10 * 3.14159265 / 20 for t in range(60)], 0)  # sin(0.2 t): 20 frames
    assert loop_score(period, least=10) > 0.95
    assert loop_score(noise(60), least=10) < 0.1
    assert loop_score(ramp(60, 4), least=10) < 0.6
    assert loop_score(ramp(60, 0), least=10) == 1.0


def test_a_loop_shorter_than_asked_for_does_not_count_by_itself() -> None:
    with pytest.raises(BadConfig, match="19 frames are too few to find loops of 10"):
        loop_score(noise(19), least=10)


def test_figures_are_means_over_clips() -> None:
    figures = motion_figures([ramp(60, 4), ramp(60, 2)], fps=25)
    assert (figures.speed, figures.clips) == (pytest.approx(3), 2)
    assert figures.loop is not None
    short = motion_figures([ramp(20, 4)], fps=25)
    assert short.loop is None
    assert "clips too short" in str(short)
    with pytest.raises(BadConfig, match="2 frames"):
        motion_figures([ramp(2, 1)], fps=25)
    with pytest.raises(BadConfig, match="no clip"):
        motion_figures([], fps=25)
