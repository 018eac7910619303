"""FVD and FID: which clips are taken, and that worse systems score worse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.metrics.features import image_features, video_features
from models.metrics.fid import fid, real_frames
from models.metrics.frechet import BadFeatures
from models.metrics.fvd import PROTOCOLS, Protocol, fvd, real_moments

from .clips import Discs, DiscSystem

SHORT = Protocol("short", 24, 6, 2)


def test_published_protocols() -> None:
    sizes = {key: (p.name, p.clips, p.frames, p.step) for key, p in PROTOCOLS.items()}
    assert sizes == {
        "fvd16": ("fvd2048_16f", 2048, 16, 1),
        "fvd128": ("fvd2048_128f", 2048, 128, 1),
        "fvd128s8": ("fvd2048_128f_subsample8f", 2048, 16, 8),
    }


def test_each_video_gives_one_clip_that_fits_and_short_ones_none() -> None:
    source = Discs([40, 11, 10, 12, 300])
    real_moments(source, SHORT, video_features(None))
    assert sorted(r.video for r in source.asked) == [0, 1, 3, 4]
    for request in source.asked:
        assert np.diff(request.times).tolist() == [2.0] * 5
        assert 0 <= request.times[0] and request.times[-1] < source.info.lengths[request.video]
    again = Discs([40, 11, 10, 12, 300])
    real_moments(again, SHORT, video_features(None))
    assert again.asked == source.asked


def test_no_more_clips_than_the_protocol_has() -> None:
    source = Discs([40] * 9)
    assert real_moments(source, replace(SHORT, clips=5), video_features(None)).count == 5


def test_sources_without_end_give_as_many_videos_as_are_wanted() -> None:
    source = Discs([])
    real_moments(source, replace(SHORT, clips=5), video_features(None))
    assert [r.video for r in source.asked] == list(range(5))
    frames = Discs([])
    assert real_frames(frames, image_features(None), limit=6).count == 6
    assert [r.video for r in frames.asked] == list(range(6))


def test_fewer_clips_are_fewer_of_both_and_said() -> None:
    few = fvd(DiscSystem(), Discs([80] * 9), SHORT, video_features(None), clips=5)
    assert (few.real, few.generated) == (5, 5)


def test_data_without_long_enough_videos_is_named() -> None:
    with pytest.raises(BadFeatures, match="1 of 2 videos of discs have the 11 frames of short"):
        real_moments(Discs([11, 10]), SHORT, video_features(None))


def test_the_right_speed_is_nearer_than_a_wrong_one_and_the_line_says_everything() -> None:
    source, features = Discs([80] * 24), video_features(None)
    right = fvd(DiscSystem(), source, SHORT, features)
    wrong = fvd(DiscSystem(speed=4.0), source, SHORT, features)
    assert 0 <= right.distance < 0.5 * wrong.distance
    for part in ("short", "24 generated against 24 real", "6 frames, step 2, 32 px", "(relative"):
        assert part in str(right)


def test_pictures_of_another_size_are_refused() -> None:
    system = DiscSystem()
    system.resolution = 64
    with pytest.raises(BadFeatures, match="discs draws 64 px, discs is read at 32 px"):
        fvd(system, Discs([80] * 4), SHORT, video_features(None))
    with pytest.raises(BadFeatures, match="64 px"):
        fid(system, Discs([80] * 4), image_features(None), count=4)


def test_fid_reads_every_frame_once_or_an_even_choice() -> None:
    source = Discs([5, 40, 3])
    assert real_frames(source, image_features(None)).count == 48
    seen = [(r.video, t) for r in source.asked for t in r.times]
    assert seen == [(v, float(t)) for v, n in ((0, 5), (1, 40), (2, 3)) for t in range(n)]
    some = Discs([5, 40, 3])
    assert real_frames(some, image_features(None), limit=12).count == 12
    assert {r.video for r in some.asked} == {0, 1, 2}


def test_fid_tells_other_pictures_and_not_other_motion() -> None:
    class Negative(DiscSystem):
        def __init__(self) -> None:
            super().__init__()
            paint = self.synthesizer.forward
            self.synthesizer.forward = lambda who, motion: -paint(who, motion)  # type: ignore[method-assign]

    source, features = Discs([80] * 20), image_features(None)
    same = fid(DiscSystem(), source, features, count=40)
    fast = fid(DiscSystem(speed=3.0), source, features, count=40)
    other = fid(Negative(), source, features, count=40)
    assert same.protocol == "fid40"
    assert fast.distance < 0.2 * other.distance
    assert same.distance < 0.2 * other.distance


def test_random_numbers_of_torch_do_not_matter() -> None:
    torch.manual_seed(0)
    a = fvd(DiscSystem(), Discs([40] * 4), SHORT, video_features(None), clips=4)
    torch.manual_seed(1)
    assert fvd(DiscSystem(), Discs([40] * 4), SHORT, video_features(None), clips=4) == a
