"""From a folder of videos of all kinds to a folder of training clips.

Every file that is found ends as written, skipped or failed, with a reason; sources are only read.
A clip appears whole: it is made as `.NAME.part` and renamed. Called again, it goes on with what is
not there yet.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.errors import BadConfig, Unavailable
from models.training.data.errors import BadData
from models.training.prepare_checks import (
    Cut,
    Unfit,
    check_kind,
    check_length,
    check_size,
    taken,
)
from models.training.run_dir import FULL
from models.training.video_file import FilmIndex, Picture, every_frame, index

REPORT, NOTE = "prepare.json", "source.json"
WRITTEN, SKIPPED, FAILED = "written", "skipped", "failed"


@dataclass(frozen=True)
class Entry:
    """What became of one file.

    Args:
        source: Relative to the folder of videos.
        status: WRITTEN, SKIPPED or FAILED.
        reason: Of the latter two; "done before" of a clip that was there already.
        detail: The value that decided.
        clip: Name of the folder of frames.
        frames: In it.
    """

    source: str
    status: str
    reason: str = ""
    detail: str = ""
    clip: str = ""
    frames: int = 0


@dataclass
class Report:
    """What became of all of them, in the order of their names."""

    found: int
    fps: float = 0.0
    entries: list[Entry] = field(default_factory=list)

    def count(self, status: str) -> int:
        """How many ended so."""
        return sum(entry.status == status for entry in self.entries)

    def reasons(self, status: str) -> Counter[str]:
        """How many of these for which reason."""
        return Counter(e.reason for e in self.entries if e.status == status)


def prepare(
    folder: Path,
    out: Path,
    cut: Cut,
    *,
    jobs: int = 1,
    advance: Callable[[Entry], None] = lambda entry: None,
) -> Report:
    """Makes clips of all videos below a folder.

    Args:
        folder: Only read.
        out: Where the clips go, a folder of frames each, with a report in `prepare.json`.
        cut: What is made of each.
        jobs: Threads that decode.
        advance: Told of each file, when it is done.
    Raises:
        BadConfig: `folder` is none, or `out` was made with other settings.
        Unavailable: The disk is full; what is whole stays.
    """
    if not folder.is_dir():
        raise BadConfig(f"{folder} is no folder")
    sources = _files(folder, out)
    indexed = {name: _indexed(folder / name) for name in sources}
    fps = cut.fps or _commonest(indexed.values())
    report = Report(len(sources), fps)
    out.mkdir(parents=True, exist_ok=True)
    settings = {**asdict(cut), "fps": fps}
    _agree(out, settings)
    names = _clip_names(sources)

    def one(name: str) -> Entry:
        entry = _prepared(folder / name, name, indexed[name], out / names[name], cut, settings)
        advance(entry)
        return entry

    try:
        with ThreadPoolExecutor(max(jobs, 1), "prepare") as pool:
            for entry in pool.map(one, sources):
                report.entries.append(entry)
        _put(out / REPORT, {**settings, **_summary(report)})
    except OSError as error:
        if error.errno in FULL:
            raise Unavailable(
                f"{out}: {error.strerror}; free space and run the same command again: what is"
                " written stays, the rest follows"
            ) from error
        raise
    ended = sum(report.count(status) for status in (WRITTEN, SKIPPED, FAILED))
    assert ended == len(report.entries) == report.found, (ended, report.found)
    return report


def _files(folder: Path, out: Path) -> list[str]:
    """Every file below, hidden ones and our own results left out."""
    ours = out.resolve()
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and ours not in path.resolve().parents
    )


def _indexed(path: Path) -> FilmIndex | Unfit:
    try:
        check_kind(path)
        return index(path)
    except Unfit as unfit:
        return unfit
    except BadData as error:
        nothing = "holds no video" in str(error)
        reason = "no video" if nothing else "unreadable"
        return Unfit(reason, str(error).removeprefix(f"{path} "), failed=not nothing)


def _commonest(found: Any) -> float:
    """The rate of most videos, rounded to thousandths; 25 where there is none."""
    rates = Counter(round(i.fps, 3) for i in found if isinstance(i, FilmIndex))
    return max(rates, key=lambda rate: (rates[rate], rate), default=25.0)


def _clip_names(sources: Sequence[str]) -> dict[str, str]:
    """A folder name for each: the stem, and as much of the path as it takes to tell them apart."""
    names: dict[str, str] = {}
    for depth in range(1, max((len(Path(s).parts) for s in sources), default=1) + 1):
        left = [source for source in sources if source not in names]
        tails = {s: "-".join(Path(s).with_suffix("").parts[-depth:]) for s in left}
        often = Counter(tails.values())
        taken_already = set(names.values())
        for source, tail in tails.items():
            if often[tail] == 1 and tail not in taken_already:
                names[source] = tail
    for source in sources:  # equal but for the suffix: clip.mp4 and clip.mov
        names.setdefault(source, "-".join(Path(source).parts).replace(".", "-"))
    assert len(set(names.values())) == len(names), "two files would go to one clip"
    return names


def _agree(out: Path, settings: dict[str, Any]) -> None:
    """Raises BadConfig where `out` holds clips of other settings."""
    for note in sorted(out.glob(f"*/{NOTE}"))[:1]:
        before = json.loads(note.read_text())["settings"]
        now = json.loads(json.dumps(settings))
        keys = [key for key in now if key != "least_frames" and now[key] != before.get(key)]
        if keys:
            raise BadConfig(
                f"{out} holds clips with {keys[0]} {before.get(keys[0])}, not {now[keys[0]]}; give"
                " another --out, or the same settings"
            )


def _prepared(
    path: Path,
    name: str,
    found: FilmIndex | Unfit,
    clip: Path,
    cut: Cut,
    settings: dict[str, Any],
) -> Entry:
    """One file, whatever it is."""
    try:
        if isinstance(found, Unfit):
            raise found
        about = path.stat()
        note = {"source": name, "bytes": about.st_size, "mtime_ns": about.st_mtime_ns}
        wanted = taken(found, settings["fps"])
        if found.lost:
            missing = f"cut off: about {found.lost} more frames were announced than are there"
            raise Unfit("corrupt", missing, failed=True)
        check_length(len(wanted), cut)
        if clip.exists():
            return _there_already(clip, note, name)
        _write(path, found, wanted, clip, cut, {**note, "settings": settings})
        return Entry(name, WRITTEN, clip=clip.name, frames=len(wanted))
    except Unfit as unfit:
        status = FAILED if unfit.failed else SKIPPED
        return Entry(name, status, unfit.reason, unfit.detail)
    except BadData as error:
        detail = str(error).removeprefix(f"{path}: ")
        return Entry(name, FAILED, "corrupt", detail)


def _there_already(clip: Path, note: dict[str, Any], name: str) -> Entry:
    try:
        before = json.loads((clip / NOTE).read_text())
    except (OSError, ValueError):
        before = {}
    if any(before.get(key) != value for key, value in note.items()):
        return Entry(name, FAILED, "in the way", f"{clip} is of another file; remove it")
    frames = sum(1 for _ in clip.glob("*.png"))
    return Entry(name, WRITTEN, "done before", clip=clip.name, frames=frames)


def _write(
    path: Path, found: FilmIndex, wanted: Sequence[int], clip: Path, cut: Cut, note: dict[str, Any]
) -> None:
    """The frames of a video into a folder that appears whole."""
    part = clip.with_name(f".{clip.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of an interrupted call
    part.mkdir()
    try:
        left = list(reversed(wanted))
        count = 0
        for number, (_, picture) in enumerate(every_frame(path)):
            count += 1
            if left and number == left[-1]:
                left.pop()
                written = len(wanted) - len(left) - 1
                _put_frame(part / f"{written:06d}.png", picture, cut)
        if count < len(found.times):
            raise BadData(f"{path}: ends after {count} of {len(found.times)} frames")
        _put(part / NOTE, note)
        part.rename(clip)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _put_frame(path: Path, picture: Picture, cut: Cut) -> None:
    left, top, side = check_size(picture.shape[1], picture.shape[0], cut)
    square = picture[top : top + side, left : left + side]
    if side != cut.resolution:
        shape = (cut.resolution, cut.resolution)
        square = np.asarray(cv2.resize(square, shape, interpolation=cv2.INTER_AREA), np.uint8)
    made, content = cv2.imencode(".png", cv2.cvtColor(square, cv2.COLOR_RGB2BGR))
    assert made, f"OpenCV makes no PNG of {square.shape}"
    path.write_bytes(content.tobytes())


def _put(path: Path, content: dict[str, Any]) -> None:
    """A JSON file, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _summary(report: Report) -> dict[str, Any]:
    return {
        "found": report.found,
        **{status: report.count(status) for status in (WRITTEN, SKIPPED, FAILED)},
        "files": [asdict(entry) for entry in report.entries],
    }
