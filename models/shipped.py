"""The models that come with the project, the default first.

Trained ones before those with weights from a seed. Knowing them reads no file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from models import seeded
from models.contracts import System

TRAINED: tuple[str, ...] = ()  # stems in models/weights, the best first

MODELS: Mapping[str, Callable[[], System]] = {
    **{name: functools.partial(seeded.load, name) for name in TRAINED},
    **seeded.MODELS,
}
DEFAULT = next(iter(MODELS))
