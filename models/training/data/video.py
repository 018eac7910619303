"""Videos as video files: any frame at once, decoded when it is asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from models.training.data.stored import Picture, fitted

KEPT_BYTES = 256 << 20  # of decoded frames, over all files


class FrameCache:
    """The frames that were read last, of all files together; for several threads.

    Args:
        most_bytes: Older ones go beyond that.
    """

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], Picture] = OrderedDict()
        self.bytes = 0

    def get(self, name: str, index: int) -> Picture | None:
        """A frame, if it is still here."""
        with self._lock:
            found = self._kept.get((name, index))
            if found is not None:
                self._kept.move_to_end((name, index))
            return found

    def put(self, name: str, index: int, picture: Picture) -> None:
        """Keeps a frame for a while."""
        with self._lock:
            before = self._kept.pop((name, index), None)
            self._kept[name, index] = picture
            self.bytes += picture.nbytes - (0 if before is None else before.nbytes)
            while self.bytes > self._most:
                self.bytes -= self._kept.popitem(last=False)[1].nbytes


class FilmFile:
    """A `StoredVideo` in a video file.

    Args:
        path: Of the file.
        name: Of the video.
        resolution: Larger frames are kept at this side.
        cache: Shared with other files.
    Raises:
        BadData: It holds no video, or cannot be read.
    """

    def __init__(self, path: Path, name: str, resolution: int, cache: FrameCache) -> None:
        from models.training.video_file import index  # on demand: PyAV

        self._path = path
        self._index = index(path)
        self._resolution = resolution
        self._cache = cache
        self.name = name
        self.length = len(self._index.times)
        self.fps = self._index.fps

    def read(self, indices: Sequence[int]) -> list[Picture]:
        """See `StoredVideo.read`; of the training resolution if they are larger."""
        from models.training.video_file import read_frames

        cached = {i: self._cache.get(self.name, i) for i in indices}
        found = {i: picture for i, picture in cached.items() if picture is not None}
        missing = [i for i in sorted(set(indices)) if i not in found]
        for i, picture in read_frames(self._path, self._index, missing):
            enough = min(picture.shape[:2]) > self._resolution
            found[i] = fitted(picture, self._resolution) if enough else picture
            self._cache.put(self.name, i, found[i])
        return [found[i] for i in indices]
