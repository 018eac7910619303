"""From names of files to videos: which are frames of what, and which labels they have."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from models.training.data.errors import BadData
from models.training.data.stored import LEAST_FRAMES

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
FILMS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts"})
NOTES = frozenset({"dataset.json", "prepare.json", "source.json"})  # about the others
MAX_LABELS = 10_000  # classes


def grouped(names: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Frames by the folder they are in, and whatever is none.

    Args:
        names: With `/` between folders.
    Returns:
        Folder -> its pictures, both sorted by name; and names of other files, hidden ones and
        notes left out.
    """
    frames: dict[str, list[str]] = defaultdict(list)
    others = []
    for name in sorted(names):
        path = PurePosixPath(name)
        if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            continue
        if path.suffix.lower() in PICTURES:
            frames[str(path.parent)].append(name)
        elif path.name not in NOTES:
            others.append(name)
    return dict(sorted(frames.items())), others


def long_enough(
    frames: Mapping[str, Sequence[str]], left_out: list[str]
) -> dict[str, Sequence[str]]:
    """Those with enough frames; a line for each of the others goes to `left_out`."""
    kept = {}
    for folder, names in frames.items():
        if len(names) < LEAST_FRAMES:
            left_out.append(f"{folder}: {len(names)} frames; {LEAST_FRAMES} are needed")
        else:
            kept[folder] = names
    return kept


def labels_of(text: bytes, videos: Mapping[str, Sequence[str]]) -> npt.NDArray[np.float32] | None:
    """Labels from a dataset.json: {"labels": [[FILE, CLASS or LIST], ...]}.

    Args:
        text: The file's.
        videos: Their frames, by the names that the file uses.
    Returns:
        float32 [V, c_dim], classes as one-hot rows; None where it has no labels.
    Raises:
        BadData: It cannot be read, a frame has no label, or the frames of a video disagree.
    """
    try:
        found = json.loads(text)
        pairs = found.get("labels")
        table = None if pairs is None else {str(name): label for name, label in pairs}
    except (ValueError, TypeError, AttributeError) as error:
        raise BadData(f'dataset.json is not {{"labels": [[FILE, LABEL], ...]}}: {error}') from error
    if table is None:
        return None
    rows: list[Any] = []
    for video, names in videos.items():
        missing = [name for name in names if name not in table]
        if missing:
            raise BadData(f"dataset.json has no label for {missing[0]}")
        first = table[names[0]]
        other = next((name for name in names if table[name] != first), None)
        if other is not None:
            raise BadData(f"dataset.json: {names[0]} and {other} of {video} have different labels")
        rows.append(first)
    return _matrix(rows)


def _matrix(rows: list[Any]) -> npt.NDArray[np.float32]:
    if all(isinstance(row, int) and not isinstance(row, bool) for row in rows):
        if not 0 <= min(rows) <= max(rows) < MAX_LABELS:
            raise BadData(f"dataset.json has classes {min(rows)} to {max(rows)}; 0 to 9999 can be")
        return np.eye(max(rows) + 1, dtype=np.float32)[rows]
    try:
        made = np.array(rows, np.float32)
    except (ValueError, TypeError) as error:
        raise BadData("dataset.json: labels must be classes, or lists of one length") from error
    if made.ndim != 2 or not np.isfinite(made).all():
        raise BadData("dataset.json: labels must be classes, or lists of finite numbers")
    return made
