"""Rendered heads as files for anybody's experiments: videos with labels.

    clip-00000.mp4    the frames
    clip-00000.npz    labels of each frame; masks as PNG files in it, `masks` reads them
    labels.json       what is what, and of which recipe

A clip is there when its .npz is, which is written last; a second call writes those that are not.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from models.errors import BadConfig
from models.faces.state import EXPRESSIONS, SCALE, part
from models.faces.traits import TRAITS
from models.training.heads.clip_painter import Clip, ClipPainter, Recipe
from models.training.video_file import write_clips

MOST_FRAMES = 5000  # of a clip, which is in memory as a whole
NOTES = "labels.json"
_VERSION = 1
REGIONS = (
    "background",
    "skin",
    "lips",
    "eyes",
    "inner mouth",
    "hair",
    "cloth",
    "glasses",
    "in front",
)
_ARRAYS = {
    "t": "[T] seconds",
    "pose": "[T, 3] yaw, pitch, roll, degrees; yaw > 0 to the person's left, pitch > 0 up, roll > 0"
    " to the person's right",
    "gaze": "[T, 2] yaw and pitch of the eyes against the head, degrees, signs as the pose's",
    "expression": "[T, 53] weights as drawn, by `expressions`",
    "code": "[T, 67] everything that moves, as models are given it",
    "landmarks": "[T, 68, 2] pixels, x to the right and y down, pixel centres at .5; Multi-PIE",
    "visible": "[T, 68] 1 where a landmark is in the picture and nothing is before it",
    "mask_png": "[bytes] PNG files of uint8 regions, one after the other, by `regions`",
    "mask_end": "[T] where each of them ends",
    "traits": "[107] everything about the person, light and backdrop, by `traits`",
    "light": "[39] harmonics [9, 3], key and rim direction and colour",
    "camera": "[2] field of view in degrees, zoom",
}
Report = Callable[[int, int], None]  # clips done, clips in all


def export(
    out: Path, recipe: Recipe, clips: int, seconds: float, report: Report | None = None
) -> int:
    """Writes clips that are not there yet.

    Args:
        out: Folder; made if it is not there.
        recipe: Of the clips.
        clips: How many there shall be.
        seconds: Of each.
    Returns:
        How many were written.
    Raises:
        BadConfig: The folder holds clips of another recipe, or a clip would be too long.
        OSError: The disk is full, or the like. No clip is half there.
    """
    frames = round(seconds * recipe.fps)
    if not 2 <= frames <= MOST_FRAMES or clips < 1:
        raise BadConfig(
            f"{clips} clips of {seconds:g} s, {frames} frames each; need one clip at least, of 2 to"
            f" {MOST_FRAMES} frames"
        )
    out.mkdir(parents=True, exist_ok=True)
    _note(out, recipe, seconds)
    painter: ClipPainter | None = None  # seconds of work, for nothing where all is there
    times = tuple(float(t) for t in range(frames))
    written = 0
    for number in range(clips):
        stem = out / f"clip-{number:05d}"
        if not stem.with_suffix(".npz").exists():
            painter = painter or ClipPainter(recipe, keep=2)
            clip = painter.paint(number, times)
            write_clips(stem.with_suffix(".mp4"), torch.from_numpy(clip.frames)[None], recipe.fps)
            _write(stem.with_suffix(".npz"), _packed(clip, recipe.fps))
            written += 1
        if report:
            report(number + 1, clips)
    return written


def masks(path: Path) -> npt.NDArray[np.uint8]:
    """uint8 [T, R, R] regions of a clip's .npz, by `REGIONS`."""
    with np.load(path, allow_pickle=False) as labels:
        ends, data = labels["mask_end"], labels["mask_png"]
    pieces = np.split(data, ends[:-1])
    return np.stack([_decoded(piece) for piece in pieces])


def _decoded(png: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    mask = cv2.imdecode(png, cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise BadConfig("a mask of these labels is no PNG; render the clip again")
    return mask.astype(np.uint8, copy=False)


def _packed(clip: Clip, fps: float) -> bytes:
    """The labels as a .npz file."""
    pngs = []
    for mask in clip.mask:
        done, png = cv2.imencode(".png", mask)
        assert done
        pngs.append(png.reshape(-1))
    file = io.BytesIO()
    np.savez(
        file,
        t=clip.t / fps,
        pose=(clip.code * SCALE)[:, part("pose")],
        gaze=(clip.code * SCALE)[:, part("gaze")],
        expression=clip.expression,
        code=clip.code,
        landmarks=clip.landmarks,
        visible=clip.visible,
        mask_png=np.concatenate(pngs),
        mask_end=np.cumsum([len(png) for png in pngs]),
        traits=clip.traits,
        light=clip.light,
        camera=clip.camera,
    )
    return file.getvalue()


def _note(out: Path, recipe: Recipe, seconds: float) -> None:
    """Writes what the labels mean, or compares the recipe with the one that is there."""
    about = dataclasses.asdict(recipe)
    about["facekit"] = recipe.facekit.name if recipe.facekit else None
    content: dict[str, Any] = {
        "format": "stylewire-heads",
        "version": _VERSION,
        "recipe": {**about, "seconds": seconds},
        "arrays": _ARRAYS,
        "regions": REGIONS,
        "expressions": EXPRESSIONS,
        "traits": [{"name": t.name, "low": t.low, "high": t.high} for t in TRAITS],
    }
    text = json.dumps(content, indent=1)
    path = out / NOTES
    if path.exists():
        try:
            before = json.loads(path.read_text()).get("recipe")
        except (ValueError, AttributeError):
            before = None
        if before != json.loads(text)["recipe"]:
            raise BadConfig(f"{out} holds clips of another recipe ({NOTES}); give another folder")
        return
    _write(path, text.encode())


def _write(path: Path, content: bytes) -> None:
    part_ = path.with_name(f".{path.name}.part")
    try:
        part_.write_bytes(content)
        part_.replace(path)
    except BaseException:
        part_.unlink(missing_ok=True)
        raise
