"""Rendered heads as a source of clips for training: endless, exactly labelled, nothing stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.errors import BadConfig
from models.training.contracts import ClipBatch, ClipRequest, DataInfo
from models.training.heads.clip_painter import ClipPainter, Recipe, fields
from models.training.heads.workers import Workers


class HeadClips:
    """A `ClipSource` of rendered heads.

    A request's `video` is any number: a person who moves without end. Frames depend on it, the
    recipe and the times only, not on the batch they are in nor on the number of workers. Times may
    be any numbers; unless the recipe is plain, some clips are moved to rare events, and the
    batch's `t` says to where. `extra` holds `traits` [B, 107], `light` [B, 39], `camera` [B, 2],
    `code` [B, k, 67], `expression` [B, k, 53] as drawn, `mask` uint8 [B, k, R, R], `landmarks`
    [B, k, 68, 2] in pixels and `visible` uint8 [B, k, 68].

    Resource handling: `close` ends the worker processes. The module that starts a program with
    workers must be guarded by `if __name__ == "__main__"`.

    Args:
        recipe: What is drawn.
        workers: Processes; 0 draws in the caller's thread.
    Raises:
        WorkerFailed: A worker could not start.
    """

    def __init__(self, recipe: Recipe, workers: int = 0) -> None:
        self.recipe = recipe
        name = "+".join(name for name, _ in recipe.mix)
        self.info = DataInfo(name=name, resolution=recipe.resolution, fps=recipe.fps)
        keep = -(-recipe.people // max(workers, 1))
        self._count = workers
        self._workers = Workers(recipe, workers, keep) if workers else None
        self._painter = None if workers else ClipPainter(recipe, keep)

    def clips(self, requests: Sequence[ClipRequest]) -> ClipBatch:
        """See `ClipSource.clips`.

        Raises:
            BadConfig: Clips of different lengths, or mirrored ones: a mirrored head would
                contradict its own numbers.
            WorkerFailed: A worker ended.
        """
        count = len(requests[0].times) if requests else 0
        if not count or any(len(r.times) != count for r in requests):
            raise BadConfig(f"{len(requests)} clips of {count} frames: need one length above 0")
        if any(r.mirror for r in requests):
            raise BadConfig("rendered heads cannot be mirrored; set mirror = false")
        shapes = fields(count, self.recipe.resolution)
        out: dict[str, np.ndarray] = {
            name: np.empty((len(requests), *shape), kind) for name, (shape, kind) in shapes.items()
        }
        if self._workers is not None:
            self._draw_elsewhere(self._workers, requests, out)
        elif self._painter is not None:
            for k, request in enumerate(requests):
                clip = self._painter.paint(request.video, request.times)
                for name, array in out.items():
                    array[k] = getattr(clip, name)
        else:
            raise BadConfig("this source of heads is closed")
        tensors = {name: torch.from_numpy(array) for name, array in out.items()}
        frames, times = tensors.pop("frames"), tensors.pop("t")
        return ClipBatch(frames, times, torch.zeros(len(requests), 0), tensors)

    def close(self) -> None:
        """See `ClipSource.close`."""
        if self._workers is not None:
            self._workers.close()
        self._workers = self._painter = None

    def _draw_elsewhere(
        self, workers: Workers, requests: Sequence[ClipRequest], out: dict[str, np.ndarray]
    ) -> None:
        shares: list[list[tuple[int, int, tuple[float, ...]]]] = [[] for _ in range(self._count)]
        for k, request in enumerate(requests):
            # Always the same worker for a video: it is the one that has the person.
            shares[request.video % self._count].append((k, request.video, request.times))
        workers.draw(shares, lambda number, name: out[name][number].data.cast("B"))


def open_heads(
    mix: Sequence[tuple[str, float]] | str,
    *,
    resolution: int,
    facekit: Path | None = None,
    workers: int = 0,
    **settings: Any,
) -> HeadClips:
    """A source from names.

    Args:
        mix: A name of `clip_painter.KINDS` ("heads:open", "heads:wild", "heads:narrow",
            "heads:cast"), or several with their shares.
        resolution: Side of the frames, pixels.
        facekit: The packed head model; None is the small head.
        workers: Processes; 0 draws in the caller's thread.
        settings: Of `Recipe`.
    Raises:
        BadConfig: An unknown name or setting.
    """
    known = Recipe.__dataclass_fields__
    if unknown := sorted(settings.keys() - known.keys()):
        raise BadConfig(f"heads have no {', '.join(unknown)}; known are {', '.join(known)}")
    names = ((mix, 1.0),) if isinstance(mix, str) else tuple((n, float(s)) for n, s in mix)
    recipe = Recipe(mix=names, resolution=resolution, facekit=facekit, **settings)
    return HeadClips(recipe, workers)
