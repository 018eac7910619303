"""Twenty thousand frames of simulated streaming, and that what goes wrong there is seen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import endless


def test_twenty_thousand_frames_neither_drift_nor_grow_nor_remember(tmp_path, capsys):
    path = tmp_path / "found.json"
    status = endless.main(["--frames", "20000", "--json", str(path)])
    found = json.loads(path.read_text())
    assert (status, found["faults"]) == (0, []), capsys.readouterr().err
    assert found["compared"] == {"tracks": 4, "published": 4}
    assert found["motion_s"][1] - found["motion_s"][0] > 200


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"wrong_ticks": 1}, "ticks"),
        ({"differing": {"tracks": [5000]}}, "tracks: 1 frames differ"),
        ({"growth_mb": 4.5}, "grew"),
        ({"growth_mb": float("nan")}, "grew"),
        ({"errors": 9.0}, "pose"),
    ],
)
def test_faults_are_named(change, word):
    fine = {"wrong_ticks": 0, "differing": {"tracks": []}, "growth_mb": 0.1, "errors": 1.0}
    assert endless.faults(fine) == []
    assert [word in sentence for sentence in endless.faults({**fine, **change})] == [True]


def test_a_drifting_pose_is_seen():
    random = np.random.default_rng(0)
    times = np.arange(20_000) / 3
    still = random.standard_normal((20_000, 3))
    assert endless.apart(still, times) < endless.MOST_ERRORS
    drifting = still + np.linspace(0, 3, 20_000)[:, None]
    assert endless.apart(drifting, times) > endless.MOST_ERRORS
    assert endless.apart(still * np.linspace(1, 4, 20_000)[:, None], times) > endless.MOST_ERRORS


def test_a_code_that_depends_on_the_way_is_seen():
    stream = endless.streams(3)[0]
    code = stream.source.sample(1.0)
    stream.compare(0, code)
    assert stream.differing == []
    other = stream.source.sample(1.001)
    stream.compare(7, type(code)(other.tensors, 1.0))
    assert stream.differing == [7]
