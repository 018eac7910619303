"""From what a configuration names to a source of clips."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import BadConfig
from models.training.config import DataConfig
from models.training.contracts import ClipSource
from models.training.data.archive import Archive, ZippedFrames
from models.training.data.errors import BadData
from models.training.data.folder import FrameFolder, files_below
from models.training.data.listing import FILMS, grouped, labels_of, long_enough
from models.training.data.stored import LEAST_FRAMES, StoredClips, StoredVideo
from models.training.data.video import FilmFile, FrameCache

HEADS = "heads:"
_SHOWN = 10  # files that are left out, by name
_ADVICE = (
    "; `stylewire prepare` makes frames from videos of any size and says what is wrong with them"
)


def open_source(
    data: DataConfig, *, seed: int = 0, slots: int = 1, say: Callable[[str], None] = print
) -> ClipSource:
    """A source of clips.

    Args:
        data: What and how.
        seed: Of the run, for heads that are rendered.
        slots: Clips of a step.
        say: Told what is left out and why.
    Raises:
        BadConfig: The source makes no sense.
        BadData: Nothing in it can be used, or its labels are wrong.
    """
    parts = data.parts
    heads = [name.startswith(HEADS) for name, _ in parts]
    if all(heads):
        return _heads(data, seed, slots)
    if len(parts) > 1:
        raise BadConfig("data.source: only rendered heads can be mixed by shares; join the folders")
    source = _stored(Path(parts[0][0]).expanduser(), data, say)
    if source.enlarged:
        say(
            f"warning: frames of {source.enlarged} px are enlarged to {data.resolution}; the model"
            f" will learn the blur. --set data.resolution={1 << source.enlarged.bit_length() - 1}"
        )
    return source


def _stored(path: Path, data: DataConfig, say: Callable[[str], None]) -> StoredClips:
    if path.is_dir():
        return _folder(path, data, say)
    if path.is_file() and path.suffix.lower() == ".zip":
        return _archive(path, data, say)
    if path.is_file():
        film = FilmFile(path, path.name, data.resolution, FrameCache())
        return StoredClips(path.name, [film], data.resolution, film.fps, workers=data.workers)
    raise BadConfig(
        f"data.source {str(path)!r} is no folder, zip or video file here; name one, or heads:open,"
        " heads:narrow or heads:cast"
    )


def _heads(data: DataConfig, seed: int, slots: int) -> ClipSource:
    if data.mirror:
        raise BadConfig("rendered heads cannot be mirrored; set data.mirror = false")
    from models.training.heads.stream import open_heads  # on demand: numba

    facekit = Path(data.facekit).expanduser() if data.facekit else None
    # A person is made once for each slot of a batch; a few more bridge the change.
    settings: dict[str, Any] = {"samples": data.samples, "people": max(24, slots + slots // 4)}
    return open_heads(
        data.parts,
        resolution=data.resolution,
        facekit=facekit,
        workers=data.workers,
        seed=seed,
        fps=data.fps,
        **{**settings, **data.heads},
    )


def _folder(path: Path, data: DataConfig, say: Callable[[str], None]) -> StoredClips:
    frames, others = grouped(files_below(path))
    left_out: list[str] = []
    kept = long_enough(frames, left_out)
    videos: list[StoredVideo] = [FrameFolder(path, name, of) for name, of in kept.items()]
    films: list[FilmFile] = []
    cache = FrameCache()
    with ThreadPoolExecutor(max(data.workers, 1), "index") as pool:
        for found in pool.map(lambda name: _film(path, name, data.resolution, cache), others):
            if isinstance(found, FilmFile):
                films.append(found)
            else:
                left_out.append(found)
    _tell(path, len(videos) + len(films), left_out, say)
    notes = path / "dataset.json"
    labels = labels_of(notes.read_bytes(), kept) if notes.is_file() and kept else None
    if labels is not None and films:
        raise BadData(f"{notes} labels frames, and {films[0].name} is a video file; use one kind")
    fps = _rate(films, say) if films else _prepared_rate(path, data.fps)
    return StoredClips(path.name, [*videos, *films], data.resolution, fps, labels, data.workers)


def _film(path: Path, name: str, resolution: int, cache: FrameCache) -> FilmFile | str:
    """A video file, or why it is left out."""
    if Path(name).suffix.lower() not in FILMS:
        return f"{name}: neither a picture nor a video"
    try:
        film = FilmFile(path / name, name, resolution, cache)
    except BadData as error:
        return str(error)
    if film.length < LEAST_FRAMES:
        return f"{name}: {film.length} frames; {LEAST_FRAMES} are needed"
    return film


def _archive(path: Path, data: DataConfig, say: Callable[[str], None]) -> StoredClips:
    archive = Archive(path)
    frames, others = grouped(archive.names())
    left_out = [f"{name}: not a picture" for name in others]
    kept = long_enough(frames, left_out)
    _tell(path, len(kept), left_out, say)
    labels = None
    if "dataset.json" in archive.names():
        labels = labels_of(archive.read("dataset.json"), kept)
    videos = [ZippedFrames(archive, name, of) for name, of in kept.items()]
    return StoredClips(path.name, videos, data.resolution, data.fps, labels, data.workers)


def _tell(path: Path, used: int, left_out: list[str], say: Callable[[str], None]) -> None:
    """Says what is used and what is not, or refuses where nothing is."""
    lines = left_out[:_SHOWN]
    if len(left_out) > _SHOWN:
        lines.append(f"and {len(left_out) - _SHOWN} more")
    if not used:
        found = "; ".join(lines) or "it is empty"
        raise BadData(f"{path} holds no video to train on: {found}{_ADVICE}")
    say(f"data: {path}: {used} videos, {len(left_out)} files left out")
    for line in lines:
        say(f"  left out: {line}")


def _rate(films: list[FilmFile], say: Callable[[str], None]) -> float:
    rates = np.array([film.fps for film in films])
    fps = float(np.median(rates))
    odd = int((np.abs(rates - fps) > 0.02 * fps).sum())
    if odd:
        say(
            f"warning: {odd} of {len(films)} videos do not have {fps:.2f} frames per second; they"
            " will look faster or slower. `stylewire prepare --fps` brings all to one rate"
        )
    return fps


def _prepared_rate(path: Path, otherwise: float) -> float:
    """The rate that `stylewire prepare` noted."""
    try:
        fps = json.loads((path / "prepare.json").read_bytes())["fps"]
        return float(fps) if 1 <= fps <= 1000 else otherwise
    except (OSError, ValueError, KeyError, TypeError):
        return otherwise
