"""`heads.render`: one call for one frame."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.errors import BadConfig
from models.faces.prior import person
from models.faces.tracks import Track
from models.training import heads
from models.training.heads.camera import Camera
from models.training.heads.person import make_person
from models.training.heads.renderer import HeadRenderer


def test_one_call_draws_what_a_renderer_draws(small):
    from models.training.heads.anatomy import Anatomy

    traits, state, camera = person(5), Track(5).state(2.2), Camera(40.0)
    one = heads.render(traits, state, size=64, samples=1, camera=camera)
    anatomy = Anatomy(small)
    other = HeadRenderer(anatomy, 64, 1).render(make_person(anatomy, traits), state, camera)
    assert one.rgb.shape == (64, 64, 3) and one.mask.shape == (64, 64)
    assert np.array_equal(one.rgb, other.rgb) and np.array_equal(one.mask, other.mask)
    assert np.array_equal(one.labels.landmarks, other.labels.landmarks)
    again = heads.render(traits, state, size=64, samples=1, camera=camera)
    assert np.array_equal(one.rgb, again.rgb)


def test_what_is_out_of_range_is_refused():
    with pytest.raises(BadConfig, match="pixels"):
        heads.render(person(5), Track(5).state(0.0), size=7)


def test_importing_the_package_brings_no_compiler():
    """Whoever imports it pays for numba when it draws."""
    code = "import sys, models.training.heads; assert 'numba' not in sys.modules"
    root = Path(__file__).parents[4]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)
