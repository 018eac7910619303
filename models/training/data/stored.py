"""Clips from videos that are stored somewhere, whatever the storage is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch

from models.training.contracts import ClipBatch, ClipRequest, DataInfo
from models.training.data.errors import BadData

Picture = npt.NDArray[np.uint8]  # [H, W, 3] RGB
LEAST_FRAMES = 3  # clips of three distinct frames are the published ones


class StoredVideo(Protocol):
    """One video; `read` may be called by several threads at once."""

    name: str
    length: int  # frames

    def read(self, indices: Sequence[int]) -> list[Picture]:
        """The frames of rising indices.

        Raises:
            BadData: One cannot be read.
        """
        ...


class StoredClips:
    """A `ClipSource` of stored videos: centre-cropped, resized by area, mirrored if asked to.

    Args:
        name: For people.
        videos: In an order that does not depend on the machine.
        resolution: Side of the frames.
        fps: Frames per second.
        labels: float32 [V, c_dim].
        workers: Threads that decode; 0: the caller's.
    Raises:
        BadData: No video is left, or the first frame cannot be read.
    """

    def __init__(
        self,
        name: str,
        videos: Sequence[StoredVideo],
        resolution: int,
        fps: float,
        labels: npt.NDArray[np.float32] | None = None,
        workers: int = 0,
    ) -> None:
        if not videos:
            raise BadData(f"{name} holds no video to train on")
        self._videos = list(videos)
        if labels is None:
            labels = np.zeros((len(videos), 0), np.float32)
        lengths = np.array([video.length for video in videos], np.int64)
        self.info = DataInfo(name, resolution, fps, labels.shape[1], lengths, labels)
        self._native = min(videos[0].read([0])[0].shape[:2])
        self._pool = ThreadPoolExecutor(workers, "decode") if workers else None

    @property
    def enlarged(self) -> int | None:
        """Side of the first video's frames as they are stored, where they are smaller."""
        return self._native if self._native < self.info.resolution else None

    def clips(self, requests: Sequence[ClipRequest]) -> ClipBatch:
        """See `ClipSource.clips`.

        Raises:
            BadData: A frame cannot be read.
            ValueError: A time is no whole number, or beyond the video's end.
        """
        each = self._pool.map if self._pool else map
        frames = np.stack(list(each(self._clip, requests)))
        times = torch.tensor([r.times for r in requests], dtype=torch.float64)
        labels = torch.from_numpy(self.info.labels[[r.video for r in requests]])
        return ClipBatch(torch.from_numpy(frames), times, labels)

    def _clip(self, request: ClipRequest) -> Picture:
        """[k, 3, R, R]."""
        video = self._videos[request.video]
        indices = [int(t) for t in request.times]
        whole = all(t == int(t) for t in request.times)
        if not whole or indices[0] < 0 or indices[-1] >= video.length:
            raise ValueError(f"times {request.times} of {video.name}, which has {video.length}")
        try:
            clip = np.stack([fitted(p, self.info.resolution) for p in video.read(indices)])
        except BadData as error:
            raise BadData(
                f"{error}. Remove {video.name}, or make clips with `stylewire prepare`, which tells"
                " damaged files beforehand; then go on with --resume"
            ) from error
        if request.mirror:
            clip = clip[:, :, ::-1]
        return np.ascontiguousarray(clip.transpose(0, 3, 1, 2))

    def close(self) -> None:
        """See `ClipSource.close`."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def fitted(picture: Picture, side: int) -> Picture:
    """The square in the middle, at this side."""
    height, width = picture.shape[:2]
    if (height, width) == (side, side):
        return picture
    least = min(height, width)
    top, left = (height - least) // 2, (width - least) // 2
    square = picture[top : top + least, left : left + least]
    if least == side:
        return square
    # Area averaging has no overshoot and no aliasing; it only shrinks.
    way = cv2.INTER_AREA if least > side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(square, (side, side), interpolation=way), np.uint8)


def decoded(content: bytes, name: str) -> Picture:
    """A picture file's pixels.

    Raises:
        BadData: It is no picture, or a damaged one.
    """
    try:
        found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # of an empty file
        raise BadData(f"{name} cannot be read as a picture: {error.err}") from error
    if found is None:
        raise BadData(f"{name} cannot be read as a picture; remove it or replace it")
    return np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8)
