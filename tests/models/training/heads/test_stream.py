"""Rendered heads as a source: what a frame depends on, and worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import BadConfig
from models.faces.prior import CAST, Prior, person
from models.faces.state import EXPRESSION, part
from models.faces.traits import Traits
from models.training.contracts import ClipRequest
from models.training.heads.clip_painter import (
    HELD_OUT,
    KINDS,
    UNSEEN_MOTION,
    Recipe,
    video_of,
)
from models.training.heads.stream import HeadClips, open_heads
from models.training.heads.workers import WorkerFailed

SIDE = 32
REQUESTS = [ClipRequest(5, (0.0, 3.5)), ClipRequest(1 << 40, (-7.0, 90.0)), ClipRequest(6, (2, 4))]


def equal(a: object, b: object) -> bool:
    x, y = vars(a), vars(b)
    extra = x["extra"].keys() == y["extra"].keys() and all(
        torch.equal(x["extra"][k], y["extra"][k]) for k in x["extra"]
    )
    return extra and all(torch.equal(x[k], y[k]) for k in ("frames", "t", "c"))


@pytest.fixture(scope="module")
def wild(facekit: Path | None) -> Iterator[HeadClips]:
    source = open_heads("heads:wild", resolution=SIDE, samples=1, seed=3, facekit=facekit)
    yield source
    source.close()


def test_a_batch_is_what_the_contract_says(wild: HeadClips) -> None:
    batch = wild.clips(REQUESTS)
    assert batch.frames.shape == (3, 2, 3, SIDE, SIDE) and batch.frames.dtype == torch.uint8
    assert batch.t.shape == (3, 2) and batch.t.dtype == torch.float64
    assert batch.c.shape == (3, 0)
    shapes = {name: tuple(x.shape) for name, x in batch.extra.items()}
    assert shapes == {
        "traits": (3, 107),
        "light": (3, 39),
        "camera": (3, 2),
        "expression": (3, 2, 53),
        "code": (3, 2, 67),
        "mask": (3, 2, SIDE, SIDE),
        "landmarks": (3, 2, 68, 2),
        "visible": (3, 2, 68),
    }
    for row in batch.extra["traits"]:
        Traits(row.numpy())  # in range
    assert len(wild.info.lengths) == 0 and wild.info.fps == 25
    assert batch.frames.float().std() > 20


def test_frames_depend_on_the_video_and_the_times_only(wild: HeadClips) -> None:
    whole = wild.clips(REQUESTS)
    for k in (2, 0, 1):
        alone = wild.clips([REQUESTS[k]])
        assert torch.equal(alone.frames[0], whole.frames[k])
        assert torch.equal(alone.extra["code"][0], whole.extra["code"][k])


def test_workers_give_the_same_bits_and_end(wild: HeadClips) -> None:
    source = HeadClips(wild.recipe, workers=2)
    try:
        here, there = wild.clips(REQUESTS), source.clips(REQUESTS)
        assert equal(here, there)
        assert source._workers is not None
        processes = list(source._workers._processes)
        assert len(processes) == 2
        for process in processes:  # as Ctrl-C does: whoever trains still finishes its step
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
        assert equal(here, source.clips(REQUESTS))
    finally:
        source.close()
    source.close()
    with pytest.raises(BadConfig, match="closed"):
        source.clips(REQUESTS)


def test_a_worker_that_is_killed_is_an_error_that_says_so(wild: HeadClips) -> None:
    source = HeadClips(wild.recipe, workers=1)
    try:
        assert source._workers is not None
        source._workers._processes[0].kill()
        with pytest.raises(WorkerFailed, match="ended with status -9"):
            source.clips(REQUESTS)
    finally:
        source.close()


def test_workers_need_no_torch() -> None:
    """It would cost each of them seconds and hundreds of megabytes."""
    program = (
        "import sys, models.training.heads.workers, models.training.heads.clip_painter;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_a_worker_raises_arrives_with_its_traceback(tmp_path) -> None:
    recipe = Recipe(facekit=tmp_path / "missing.npz", resolution=SIDE)
    with pytest.raises(WorkerFailed, match=r"(?s)Traceback.*missing\.npz"):
        HeadClips(recipe, workers=1)


def test_another_seed_gives_other_people() -> None:
    a, b = (Recipe(seed=seed) for seed in (0, 1))
    assert video_of(a, 4) == video_of(a, 4)
    assert video_of(a, 4) != video_of(b, 4) and video_of(a, 4) != video_of(a, 5)


def test_the_cast_is_64_people_and_nobody_held_out_is_ever_seen() -> None:
    mix = (("heads:cast", 0.7), ("heads:narrow", 0.3))
    videos = [video_of(Recipe(mix=mix), k) for k in range(3000)]
    cast = {v.cast.seed for v in videos if v.cast.kind == "heads:cast"}
    fresh = {v.cast.seed for v in videos if v.cast.kind == "heads:narrow"}
    assert cast == set(range(CAST))
    assert 0.65 < sum(v.cast.kind == "heads:cast" for v in videos) / 3000 < 0.75
    assert not fresh & {*range(CAST), *HELD_OUT} and len(fresh) > 800
    assert all(0 <= v.track < UNSEEN_MOTION for v in videos)
    unseen = [video_of(Recipe(unseen=True), k).track for k in range(50)]
    assert all(UNSEEN_MOTION <= track for track in unseen)


def test_people_shrink_towards_the_mean_and_plain_ones_do_not() -> None:
    psi = np.array([video_of(Recipe(), k).cast.psi for k in range(500)])
    assert 0.5 <= psi.min() < 0.53 and 1.07 < psi.max() <= 1.1
    cast = video_of(Recipe(plain=True), 7).cast
    assert (cast.traits().vector == person(cast.seed, Prior.NARROW).vector).all()
    shrunk = cast._replace(psi=0.5).traits()
    assert abs(shrunk["soft"] - 0.3) < abs(cast.traits()["soft"] - 0.3)


def test_blinks_and_open_mouths_are_met_more_often_and_t_says_where() -> None:
    """15 % each beside what happens anyway; plain recipes take times as they are."""
    from models.faces.tracks import Track
    from models.training.heads.clip_painter import _towards_events

    shut, wide, moved = {0.0: 0, 0.15: 0}, {0.0: 0, 0.15: 0}, 0
    for share in shut:
        for k in range(200):
            track = Track(k)
            t = 17.0 + k
            to = t + _towards_events(track, t, share, np.random.default_rng(k))
            moved += to != t
            code = track.codes(np.array([to]))[0, part("expression")]
            shut[share] += code[EXPRESSION["eyeBlink_L"]] > 0.3
            wide[share] += code[EXPRESSION["jawOpen"]] > 0.2
    assert shut[0.15] > shut[0.0] + 12
    assert wide[0.15] > wide[0.0] + 12
    assert 40 < moved < 80


def test_t_is_what_was_asked_for_where_nothing_is_moved(facekit: Path | None) -> None:
    source = open_heads("heads:cast", resolution=SIDE, samples=1, plain=True, facekit=facekit)
    assert source.clips(REQUESTS).t.tolist() == [list(r.times) for r in REQUESTS]
    source.close()


def test_impossible_requests_and_names_are_refused(wild: HeadClips) -> None:
    with pytest.raises(BadConfig, match="cannot be mirrored"):
        wild.clips([ClipRequest(0, (0.0,), mirror=True)])
    with pytest.raises(BadConfig, match="need one length"):
        wild.clips([ClipRequest(0, (0.0,)), ClipRequest(0, (0.0, 1.0))])
    with pytest.raises(BadConfig, match="heads are heads:open"):
        open_heads("heads:everybody", resolution=SIDE)
    with pytest.raises(BadConfig, match="heads have no colour"):
        open_heads("heads:open", resolution=SIDE, colour=1)
    assert set(KINDS) == {"heads:open", "heads:wild", "heads:narrow", "heads:cast"}
