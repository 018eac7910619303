"""Videos as video files: any frame at once, decoded when it is asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from models.training.data.stored import Picture, fitted

_KEPT = 64  # frames of a file, resized: clips of one video overlap


class FilmFile:
    """A `StoredVideo` in a video file.

    Frames are kept at the training resolution for a while, since decoding begins at a keyframe and
    passes others on its way.

    Args:
        path: Of the file.
        name: Of the video.
        resolution: To keep frames at.
    Raises:
        BadData: It holds no video, or cannot be read.
    """

    def __init__(self, path: Path, name: str, resolution: int) -> None:
        from models.training.video_file import index  # on demand: PyAV

        self._path = path
        self._index = index(path)
        self._resolution = resolution
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Picture] = OrderedDict()
        self.name = name
        self.length = len(self._index.times)
        self.fps = self._index.fps

    def read(self, indices: Sequence[int]) -> list[Picture]:
        """See `StoredVideo.read`; of the training resolution if they are larger."""
        from models.training.video_file import read_frames

        with self._lock:
            found = {i: self._kept[i] for i in indices if i in self._kept}
            missing = [i for i in indices if i not in found]
            if missing:
                for i, picture in read_frames(self._path, self._index, missing):
                    enough = min(picture.shape[:2]) > self._resolution
                    found[i] = fitted(picture, self._resolution) if enough else picture
            for i in indices:
                self._kept[i] = found[i]
                self._kept.move_to_end(i)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return [found[i] for i in indices]
