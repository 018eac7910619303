"""Videos as folders of frames inside a zip. Nothing is unpacked to the disk."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from models.training.data.errors import BadData
from models.training.data.stored import Picture, decoded

MAX_MEMBER_BYTES = 64 << 20  # of one picture, unpacked


class Archive:
    """An open zip. Threads may read from it at the same time: `zipfile` locks the file for each
    read.

    Args:
        path: Of the zip.
    Raises:
        BadData: It is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise BadData(f"{path} cannot be opened as a zip: {error}") from error
        # Names are used inside the archive only, so that one with `..` reaches nothing.
        self._sizes = {i.filename: i.file_size for i in self._zip.infolist() if not i.is_dir()}

    def names(self) -> list[str]:
        """Every file in it whose name is a plain relative path."""
        plain = (PurePosixPath(name) for name in self._sizes)
        return [str(p) for p in plain if not p.is_absolute() and ".." not in p.parts]

    def read(self, name: str) -> bytes:
        """A member's bytes.

        Raises:
            BadData: It is too large or damaged.
        """
        if self._sizes[name] > MAX_MEMBER_BYTES:
            raise BadData(f"{self.path}: {name} has {self._sizes[name]} bytes; a frame has fewer")
        try:
            with self._zip.open(name) as member:
                # The size in the directory may lie: no more than the limit is ever unpacked.
                content = member.read(MAX_MEMBER_BYTES + 1)
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise BadData(f"{self.path}: {name} cannot be read: {error}") from error
        if len(content) > MAX_MEMBER_BYTES:
            raise BadData(f"{self.path}: {name} unpacks to more than a frame has")
        return content

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()


class ZippedFrames:
    """A `StoredVideo` inside an archive.

    Args:
        archive: Open.
        name: Of the video.
        names: Of its frames, in order.
    """

    def __init__(self, archive: Archive, name: str, names: Sequence[str]) -> None:
        self._archive = archive
        self._names = list(names)
        self.name = name
        self.length = len(names)

    def read(self, indices: Sequence[int]) -> list[Picture]:
        """See `StoredVideo.read`."""
        names = [self._names[index] for index in indices]
        return [
            decoded(self._archive.read(name), f"{self._archive.path}: {name}") for name in names
        ]
