"""Videos as folders of frames, one picture file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.training.data.errors import BadData
from models.training.data.stored import Picture, decoded


class FrameFolder:
    """A `StoredVideo` of picture files.

    Args:
        root: What the names are relative to.
        name: Of the video.
        names: Of its frames, in order.
    """

    def __init__(self, root: Path, name: str, names: Sequence[str]) -> None:
        self._root = root
        self._names = list(names)
        self.name = name
        self.length = len(names)

    def read(self, indices: Sequence[int]) -> list[Picture]:
        """See `StoredVideo.read`."""
        found = []
        for index in indices:
            path = self._root / self._names[index]
            try:
                content = path.read_bytes()
            except OSError as error:
                raise BadData(f"{path} cannot be read: {error.strerror or error}") from error
            found.append(decoded(content, str(path)))
        return found


def files_below(root: Path) -> list[str]:
    """Every file below a folder, relative, with `/`; hidden ones are left out."""
    return [
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if not any(part.startswith(".") for part in path.relative_to(root).parts) and path.is_file()
    ]
